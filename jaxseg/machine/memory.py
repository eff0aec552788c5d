"""Running out of memory, told as the knobs to turn."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from jax.errors import JaxRuntimeError

from jaxseg.errors import UserError


class OutOfMemoryError(UserError, RuntimeError):
    """Memory of the device or the host is spent; the message says what takes less."""


@contextmanager
def advised(advice: str) -> Iterator[None]:
    """Tell of spent memory in one line; every other error passes as it is.

    Args:
      advice: what would take less, to end a sentence.

    Raises:
      OutOfMemoryError: in place of what Python, NumPy or XLA say.
    """
    try:
        yield
    except (MemoryError, JaxRuntimeError) as error:
        if not is_spent(error):
            raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise OutOfMemoryError(f"out of memory ({reason:.200}); {advice}") from error


def is_spent(error: BaseException) -> bool:
    """Whether an error tells of spent memory; XLA's has no class of its own."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or (
        isinstance(error, JaxRuntimeError)
        and ("resource_exhausted" in text or "out of memory" in text)
    )


def training_advice(settings: Mapping[str, Any]) -> str:
    """What makes a training run smaller, with the values that it has now."""
    size = "x".join(str(side) for side in settings["grid"]["size"])
    return (
        f"less take a smaller train.batch_size (now {settings['train']['batch_size']}), grid.size "
        f"({size}), model.width ({settings['model']['width']}) or model.depth "
        f"({settings['model']['depth']}), model.precision=bfloat16, or more devices; a changed "
        "setting needs a --workdir of its own"
    )


def inference_advice(settings: Mapping[str, Any], slices: int) -> str:
    """What lets a trained network run, which is as large as its settings say."""
    size = "x".join(str(side) for side in settings["grid"]["size"])
    return (
        f"this network takes {slices} slices of {size} pixels at a time (grid.size, model.width "
        f"{settings['model']['width']}): free the device of other work, or set JAX_PLATFORMS=cpu; "
        "a network trained with a smaller grid.size, model.width or model.precision=bfloat16 "
        "takes less"
    )
