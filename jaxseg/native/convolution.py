"""The native convolution and its gradients as a differentiable JAX function."""

import jax
import jax.numpy as jnp
from jax import Array

from jaxseg.models.convolution import convolve_xla
from jaxseg.native import library

_LANES = 8  # output channels must be a multiple of this


def convolve_native(images: Array, kernel: Array, stride: int) -> Array:
    """Compute a 3x3 convolution like `convolve_xla`, on a CPU, natively where supported.

    Native code supports stride 1, float32 and a multiple of 8 output channels; XLA computes the
    rest. The result is

        y[i, j] = sum_ab images[i + a - 1, j + b - 1] kernel[a, b].

    Shapes that suit are computed by Winograd's algorithm in tiles of 4x4 pixels (arXiv:1509.09308).
    An infinity or NaN among the images then reaches other pixels of its neighbors' tiles as well.
    The order of summation depends on the shapes alone, not on the number of threads. Forward-mode
    differentiation is not supported.

    Args:
      images: (B, H, W, I) floating point.
      kernel: (3, 3, I, O) of the same dtype.
      stride: 1 or more.

    Returns:
      (B, H / stride, W / stride, O).

    Raises:
      ValueError: the shapes do not match.
      NativeError: the library cannot be built or loaded.
    """
    if images.ndim != 4 or kernel.shape[:3] != (3, 3, images.shape[-1]) or kernel.ndim != 4:
        raise ValueError(
            f"expected images (B, H, W, I) and a kernel (3, 3, I, O), got {images.shape} and "
            f"{kernel.shape}"
        )
    fits = images.dtype == kernel.dtype == jnp.float32 and not kernel.shape[-1] % _LANES
    if stride != 1 or not fits or not images.size or not kernel.size:
        return convolve_xla(images, kernel, stride)
    library.load()
    return _convolve(images, kernel)


@jax.custom_vjp
def _convolve(images: Array, kernel: Array) -> Array:
    return _call(
        "jaxseg_convolve", (*images.shape[:3], kernel.shape[3]), images, kernel, turned=False
    )


def _forward(images: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return _convolve(images, kernel), (images, kernel)


def _backward(kept: tuple[Array, Array], cotangents: Array) -> tuple[Array, Array]:
    images, kernel = kept
    channels = images.shape[-1]
    filled = channels + -channels % _LANES
    wide = jnp.pad(kernel, ((0, 0), (0, 0), (0, filled - channels), (0, 0)))
    by_images = _call(
        "jaxseg_convolve", (*images.shape[:3], filled), cotangents, wide, turned=True
    )[..., :channels]
    return by_images, _call("jaxseg_kernel_gradient", kernel.shape, images, cotangents)


_convolve.defvjp(_forward, _backward)


def _call(target: str, shape: tuple[int, ...], *arrays: Array, **attributes: bool) -> Array:
    result = jax.ShapeDtypeStruct(shape, jnp.float32)
    return jax.ffi.ffi_call(target, result, vmap_method="sequential")(*arrays, **attributes)
