"""Layers shared by both sub-networks, written in the form that runs fastest in XLA.

Tests check that each equals its textbook counterpart in value and gradient.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from jaxseg.models.convolution import Convolve, convolve_xla

EPSILON = 1e-5


class GroupNorm(nn.Module):
    """Group normalization of each sample, applied as one scale and shift for each channel.

    Statistics are computed per sample, so that the number of devices does not change a result. They
    are computed in float32, independent of the dtype of the input.

    Attributes:
      groups: number of channel groups, at most the number of channels. 0 makes each channel its own
        group (instance normalization).
    """

    groups: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Map (B, H, W, C) to the same shape and dtype."""
        batch, channels = x.shape[0], x.shape[-1]
        groups = min(self.groups, channels) or channels
        if channels % groups:
            raise ValueError(f"{channels} channels cannot be split into {groups} groups")
        scale = self.param("scale", nn.initializers.ones_init(), (channels,))
        shift = self.param("shift", nn.initializers.zeros_init(), (channels,))
        x32 = x.astype(jnp.float32)
        per_group = (batch, groups, channels // groups)
        mean = x32.mean((1, 2)).reshape(per_group).mean(-1, keepdims=True)
        square = jnp.square(x32).mean((1, 2)).reshape(per_group).mean(-1, keepdims=True)
        variance = jnp.maximum(square - jnp.square(mean), 0.0)
        inverse = jax.lax.rsqrt(variance + EPSILON)
        per_channel = (1, *per_group[1:])
        factor = inverse * scale.reshape(per_channel)
        offset = shift.reshape(per_channel) - mean * factor
        spread = (batch, 1, 1, channels)
        return (x32 * factor.reshape(spread) + offset.reshape(spread)).astype(x.dtype)


class Conv3x3(nn.Module):
    """3x3 convolution of a zero-padded image.

    Attributes:
      features: output channels.
      stride: 1 or more.
      use_bias: whether to add a bias to each channel.
      dtype: compute dtype; parameters stay float32.
      convolve: implementation of the convolution.
    """

    features: int
    stride: int = 1
    use_bias: bool = False
    dtype: DTypeLike = jnp.float32
    convolve: Convolve = convolve_xla

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Map (B, H, W, C) to (B, H / stride, W / stride, features)."""
        shape = (3, 3, x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.he_normal(), shape)
        x = self.convolve(x.astype(self.dtype), kernel.astype(self.dtype), self.stride)
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros_init(), (self.features,))
            x = x + bias.astype(self.dtype)[None, None, None]
        return x


class ConvNormRelu(nn.Module):
    """3x3 convolution, group normalization and ReLU: one "convolution layer" of the network.

    Attributes:
      features: output channels.
      groups: groups of the normalization; see `GroupNorm`.
      stride: stride of the convolution, 1 or more.
      dtype: compute dtype; parameters stay float32.
      convolve: implementation of the convolution.
    """

    features: int
    groups: int
    stride: int = 1
    dtype: DTypeLike = jnp.float32
    convolve: Convolve = convolve_xla

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Map (B, H, W, C) to (B, H / stride, W / stride, features)."""
        # The normalization's shift replaces a bias. The name is the one that Flax gives to its own
        # convolutions, so that parameters keep their paths.
        x = Conv3x3(
            self.features, self.stride, dtype=self.dtype, convolve=self.convolve, name="Conv_0"
        )(x)
        return nn.relu(GroupNorm(self.groups)(x))


def max_pool(x: Array) -> Array:
    """2x2 maximum with stride 2, (B, H, W, C) to (B, H/2, W/2, C); H and W must be even."""
    batch, height, width, channels = x.shape
    x = x.reshape(batch, height // 2, 2, width // 2, 2, channels)
    # `.max((2, 4))` is not used: its gradient compares x with the maximum for equality and divides
    # by the number of matches, which is 0 / 0 if the compiler recomputes x with another rounding.
    x = jnp.where(x[:, :, 0] >= x[:, :, 1], x[:, :, 0], x[:, :, 1])
    return jnp.where(x[:, :, :, 0] >= x[:, :, :, 1], x[:, :, :, 0], x[:, :, :, 1])


def by_pixel(layer: nn.Dense, x: Array) -> Array:
    """Apply a dense layer to the channels of each pixel, (B, H, W, C) to (B, H, W, features)."""
    # As a matrix with a row for each pixel. From a product over three axes, XLA would compute the
    # gradient of the kernel with a transposed copy of all pixels: up to 8 % of a step on a CPU.
    y = layer(x.reshape(-1, x.shape[-1]))
    return y.reshape(*x.shape[:-1], layer.features)


class Upsample(nn.Module):
    """2x2 transposed convolution of stride 2, computed as a dense layer and depth-to-space.

    Attributes:
      features: output channels.
      dtype: compute dtype; parameters stay float32.
    """

    features: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Map (B, H, W, C) to (B, 2H, 2W, features)."""
        batch, height, width, _ = x.shape
        dense = nn.Dense(
            4 * self.features, dtype=self.dtype, kernel_init=nn.initializers.he_normal()
        )
        x = by_pixel(dense, x)
        x = x.reshape(batch, height, width, 2, 2, self.features)
        return x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, 2 * height, 2 * width, self.features)
