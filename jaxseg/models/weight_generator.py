"""The weight generator: label weights of Eq. 3 as the output of a small network (paper, Fig. 2)."""

import flax.linen as nn
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from jaxseg.models.layers import ConvNormRelu

ZERO_LAYER = "conv6"
"""The layer whose kernel starts at zero."""
_FACTORS = (1, 2, 4, 4, 4)  # channels of the strided convolutions, in units of the first one's
HALVINGS = len(_FACTORS)
"""How often the generator halves an image."""


class WeightGenerator(nn.Module):
    """Six convolutions, global average, one positive weight a label. Used in training only.

    The last convolution starts at zero, so training starts from plain cross-entropy: every weight
    is 1.

    Attributes:
      num_labels: L, background included.
      width: channels of the first convolution; the next ones have up to four times as many.
      groups: of the normalization, as `GroupNorm`.
      dtype: compute dtype; parameters and weights are float32.
    """

    num_labels: int
    width: int = 16
    groups: int = 8
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, images: Array) -> Array:
        """Weigh the labels of images.

        Args:
          images: (B, H, W, C) floating point, the input of the segmentation generator.

        Returns:
          Weights L softmax(z) (B, L) float32: positive, and summing to L.

        Raises:
          ValueError: if the images are not of rank 4.
        """
        if images.ndim != 4:
            raise ValueError(f"images must be (B, H, W, C), got shape {images.shape}")
        x = images.astype(self.dtype)
        # Strides first: a weight is a property of the whole image, not of its fine detail.
        for layer, factor in enumerate(_FACTORS):
            x = ConvNormRelu(
                factor * self.width, self.groups, 2, self.dtype, name=f"conv{layer + 1}"
            )(x)
        # In float32, since bfloat16 would quantize the weights to three digits.
        x = nn.Conv(
            self.num_labels, (3, 3), dtype=jnp.float32, name=ZERO_LAYER,
            kernel_init=nn.initializers.zeros_init(),
        )(x)  # fmt: skip
        return self.num_labels * nn.softmax(x.mean((1, 2)))
