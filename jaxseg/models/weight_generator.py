"""The weight generator, a small network that predicts label weights for Eq. 3 (paper, Fig. 2)."""

import flax.linen as nn
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from jaxseg.models.layers import ConvNormRelu

ZERO_LAYER = "conv6"
"""Name of the layer whose kernel starts at zero."""
_FACTORS = (1, 2, 4, 4, 4)  # channels of the strided convolutions, relative to the first one
HALVINGS = len(_FACTORS)
"""Number of times that the generator halves an image."""


class WeightGenerator(nn.Module):
    """Six convolutions and a global average to one positive weight per label, for training only.

    The last convolution starts at zero, so that every weight is 1 and training starts from plain
    cross-entropy.

    Attributes:
      num_labels: L, background included.
      width: channels of the first convolution; later ones have up to four times as many.
      groups: groups of the normalization; see `GroupNorm`.
      dtype: compute dtype; parameters and weights are float32.
    """

    num_labels: int
    width: int = 16
    groups: int = 8
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, images: Array) -> Array:
        """Compute the label weights of images.

        Args:
          images: (B, H, W, C) floating point, the input of the segmentation generator.

        Returns:
          Weights L softmax(z) (B, L) float32, positive and with sum L.

        Raises:
          ValueError: the images are not of rank 4.
        """
        if images.ndim != 4:
            raise ValueError(f"images must be (B, H, W, C), got shape {images.shape}")
        x = images.astype(self.dtype)
        # All strides come first, because a weight depends on the whole image, not on fine detail.
        for layer, factor in enumerate(_FACTORS):
            x = ConvNormRelu(
                factor * self.width, self.groups, 2, self.dtype, name=f"conv{layer + 1}"
            )(x)
        # In float32, because bfloat16 would round the weights to three digits.
        x = nn.Conv(
            self.num_labels,
            (3, 3),
            dtype=jnp.float32,
            name=ZERO_LAYER,
            kernel_init=nn.initializers.zeros_init(),
        )(x)
        return self.num_labels * nn.softmax(x.mean((1, 2)))
