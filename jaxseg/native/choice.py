"""Which convolution a machine is to take."""

import jax

from jaxseg.models.convolution import Convolve, convolve_xla
from jaxseg.native import library
from jaxseg.native.convolution import convolve_native

CHOICES = ("auto", "native", "xla")


def choose(wanted: str, precision: str) -> Convolve:
    """What computes the network's 3x3 convolutions here.

    Args:
      wanted: of `CHOICES`; "auto" is "native" where that can be had, and "xla" elsewhere.
      precision: compute dtype, "float32" or "bfloat16".

    Raises:
      NativeError: "native" is wanted and cannot be had.
    """
    if wanted == "xla":
        return convolve_xla
    missing = why_not(precision)
    if missing is None:
        return convolve_native
    if wanted == "native":
        raise library.NativeError(missing)
    return convolve_xla


def why_not(precision: str) -> str | None:
    """Why the native convolution cannot be had here, in a line; None if it can."""
    if jax.default_backend() != "cpu":
        return f"native is for CPUs, and JAX uses the {jax.default_backend()}"
    if precision != "float32":
        return f"native is for float32, and model.precision is {precision}"
    try:
        library.load()
    except library.NativeError as error:
        return str(error)
    return None
