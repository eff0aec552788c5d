"""How a 3x3 convolution is computed: by XLA, which runs everywhere."""

from collections.abc import Callable

import jax
from jax import Array

Convolve = Callable[[Array, Array, int], Array]
"""(B, H, W, I) images, a (3, 3, I, O) kernel and a stride to (B, H / stride, W / stride, O)."""


def convolve_xla(images: Array, kernel: Array, stride: int) -> Array:
    """A convolution over images with zeros around them, padded as TensorFlow's "SAME"."""
    return jax.lax.conv_general_dilated(
        images, kernel, (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
