"""Report that memory ran out, with the fields of the config to change."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from jax.errors import JaxRuntimeError

from jaxseg.errors import UserError


class OutOfMemoryError(UserError, RuntimeError):
    """Raised if the device or the host is out of memory; the message suggests what to reduce."""


@contextmanager
def advised(advice: str) -> Iterator[None]:
    """Convert out-of-memory errors into one line with advice; other errors pass unchanged.

    Args:
      advice: suggestion for the user, as the end of a sentence.

    Raises:
      OutOfMemoryError: Python, NumPy or XLA reported that memory ran out.
    """
    try:
        yield
    except (MemoryError, JaxRuntimeError) as error:
        if not is_spent(error):
            raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise OutOfMemoryError(f"out of memory ({reason:.200}); {advice}") from error


def is_spent(error: BaseException) -> bool:
    """Whether an error means out of memory, for which XLA has no error class of its own."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or (
        isinstance(error, JaxRuntimeError)
        and ("resource_exhausted" in text or "out of memory" in text)
    )


def training_advice(settings: Mapping[str, Any]) -> str:
    """Advice on how to reduce the memory of a training run, with the current values."""
    size = "x".join(str(side) for side in settings["grid"]["size"])
    return (
        f"less take a smaller train.batch_size (now {settings['train']['batch_size']}), grid.size "
        f"({size}), model.width ({settings['model']['width']}) or model.depth "
        f"({settings['model']['depth']}), model.precision=bfloat16, or more devices; a changed "
        "setting needs a --workdir of its own"
    )


def inference_advice(settings: Mapping[str, Any], slices: int) -> str:
    """Advice on how to run a trained network, whose size its config determines."""
    size = "x".join(str(side) for side in settings["grid"]["size"])
    return (
        f"this network takes {slices} slices of {size} pixels at a time (grid.size, model.width "
        f"{settings['model']['width']}): free the device of other work, or set JAX_PLATFORMS=cpu; "
        "a network trained with a smaller grid.size, model.width or model.precision=bfloat16 "
        "takes less"
    )
