"""3x3 convolution by XLA, which is available on every platform."""

from collections.abc import Callable

import jax
from jax import Array

Convolve = Callable[[Array, Array, int], Array]
"""(B, H, W, I) images, a (3, 3, I, O) kernel and a stride to (B, H / stride, W / stride, O)."""


def convolve_xla(images: Array, kernel: Array, stride: int) -> Array:
    """Convolve zero-padded images, with the padding of TensorFlow's "SAME"."""
    return jax.lax.conv_general_dilated(
        images, kernel, (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
