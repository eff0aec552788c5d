"""The segmentation generator: a 2D U-net with an attention branch in each block (paper, Fig. 2)."""

import flax.linen as nn
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from jaxseg.models.context import EXCHANGE, Exchange, neighbors
from jaxseg.models.convolution import Convolve, convolve_xla
from jaxseg.models.layers import Conv3x3, ConvNormRelu, Upsample, by_pixel, max_pool

_FIRST_EXCHANGE = 2  # first level at which slices exchange features, of pixels of about 6 mm


class Block(nn.Module):
    """U-net block: two convolution layers, gated by an attention branch on the block's input.

        y = f(x) * sigmoid(conv(conv(x)))

    Attributes:
      features: output channels.
      groups: groups of the normalization; see `GroupNorm`.
      attention: whether to apply the attention branch; without it, y = f(x).
      dense: whether the second layer also sees the block's input (densely connected).
      dtype: compute dtype.
      convolve: implementation of the convolutions.
    """

    features: int
    groups: int
    attention: bool
    dense: bool = False
    dtype: DTypeLike = jnp.float32
    convolve: Convolve = convolve_xla

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Map (B, H, W, C) to (B, H, W, features)."""
        how = {"dtype": self.dtype, "convolve": self.convolve}
        y = ConvNormRelu(self.features, self.groups, name="conv1", **how)(x)
        if self.dense:
            y = jnp.concatenate([x.astype(y.dtype), y], axis=-1)
        y = ConvNormRelu(self.features, self.groups, name="conv2", **how)(y)
        if not self.attention:
            return y
        gate = ConvNormRelu(self.features, self.groups, name="attention1", **how)(x)
        gate = Conv3x3(self.features, use_bias=True, name="attention2", **how)(gate)
        return y * nn.sigmoid(gate)


class UNet(nn.Module):
    """Classical 2D U-net with attention blocks.

    Level k of `depth` + 1 levels has `width` * 2^k channels. Each step down is a 2x2 maximum, each
    step up a 2x2 transposed convolution.

    Attributes:
      num_labels: L, background included.
      width: channels of the finest level.
      depth: number of pooling layers.
      attention: whether to multiply the output of each block by its attention map (the ablation's
        second stage).
      dense: whether blocks are densely connected (the ablation text's "dense U-net").
      context: whether the encoder's features of the third and coarser levels, or else of the
        bottleneck, are updated by those of the neighboring slices before the decoder uses them (not
        part of the paper).
      groups: groups of the normalization; see `GroupNorm`.
      dtype: compute dtype, float32 or bfloat16; parameters and logits are float32.
      convolve: implementation of 3x3 convolutions: XLA, or on a CPU `jaxseg.native`.
    """

    num_labels: int
    width: int = 32
    depth: int = 4
    attention: bool = True
    dense: bool = False
    context: bool = False
    groups: int = 8
    dtype: DTypeLike = jnp.float32
    convolve: Convolve = convolve_xla

    @nn.compact
    def __call__(self, images: Array) -> Array:
        """Segment images.

        Args:
          images: (B, H, W, C) floating point, H and W divisible by 2^depth. C is 1 for slices. With
            context, these are the slices of one stack in order; or C is 3 for slices, each followed
            by its two neighbors.

        Returns:
          Logits (B, H, W, L) float32.

        Raises:
          ValueError: the images are not of rank 4, H or W is not divisible by 2^depth, or C is
            neither 1 nor 3 with context.
        """
        if images.ndim != 4:
            raise ValueError(f"images must be (B, H, W, C), got shape {images.shape}")
        multiple = 2**self.depth
        if images.shape[1] % multiple or images.shape[2] % multiple:
            raise ValueError(
                f"H and W must be divisible by 2^depth = {multiple}, got {images.shape[1:3]}"
            )

        channels = images.shape[-1]
        if self.context and channels not in (1, 3):
            raise ValueError(
                f"expected a slice, or one with two neighbors, got {channels} channels"
            )

        def block(level: int, name: str) -> Block:
            features = self.width * 2**level
            return Block(
                features,
                self.groups,
                self.attention,
                self.dense,
                self.dtype,
                self.convolve,
                name=name,
            )

        def exchanged(level: int, x: Array) -> Array:
            if not self.context:
                return x
            x, *others = jnp.split(x, channels)
            if level < min(_FIRST_EXCHANGE, self.depth):
                return x
            exchange = Exchange(self.groups, self.dtype, name=f"{EXCHANGE}{level}")
            return exchange(x, *(others or neighbors(x)))

        x = images.astype(self.dtype)
        if self.context:  # the encoder takes neighbors as further slices
            x = jnp.concatenate(jnp.split(x, channels, axis=-1))
        skips = []
        for level in range(self.depth):
            x = block(level, f"encoder{level}")(x)
            skips.append(exchanged(level, x))
            x = max_pool(x)
        x = exchanged(self.depth, block(self.depth, "bottleneck")(x))
        for level in reversed(range(self.depth)):
            x = Upsample(self.width * 2**level, self.dtype, name=f"up{level}")(x)
            x = jnp.concatenate([skips[level], x], axis=-1)
            x = block(level, f"decoder{level}")(x)
        logits = nn.Dense(
            self.num_labels,
            dtype=jnp.float32,
            name="logits",
            kernel_init=nn.initializers.he_normal(),
        )
        return by_pixel(logits, x)
