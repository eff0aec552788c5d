"""Choose the implementation of convolutions for this machine."""

import jax

from jaxseg.models.convolution import Convolve, convolve_xla
from jaxseg.native import library
from jaxseg.native.convolution import convolve_native

CHOICES = ("auto", "native", "xla")


def choose(wanted: str, precision: str) -> Convolve:
    """Choose the implementation of the network's 3x3 convolutions.

    Args:
      wanted: one of `CHOICES`; "auto" means "native" if it is available, else "xla".
      precision: compute dtype, "float32" or "bfloat16".

    Raises:
      NativeError: "native" is wanted but not available.
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
    """Reason, in one line, why the native convolution is not available; None if it is."""
    if jax.default_backend() != "cpu":
        return f"native code needs JAX on a CPU, got {jax.default_backend()}"
    if precision != "float32":
        return f"native code needs model.precision=float32, got {precision}"
    try:
        library.load()
    except library.NativeError as error:
        return str(error)
    return None
