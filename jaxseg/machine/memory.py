"""Report that memory ran out, with the fields of the config to change."""

from collections.abc import Iterator
from contextlib import contextmanager

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


def training_advice(
    *, batch_size: int, size: tuple[int, int], width: int, depth: int, context: bool
) -> str:
    """Advice on how to reduce the memory of a training run, with the current values.

    Args:
      batch_size: slices in a batch.
      size: network grid (H, W) in pixels.
      width: channels of the network's finest level.
      depth: number of poolings.
      context: whether the network sees neighboring slices.
    """
    changes = "model.context=False or " if context else ""
    return (
        f"to need less, reduce train.batch_size (now {batch_size}), grid.size "
        f"({size[0]}x{size[1]}), model.width ({width}) or model.depth ({depth}), set "
        f"{changes}model.precision=bfloat16, or use more devices; a changed config needs another "
        "--workdir"
    )


def inference_advice(slices: int, *, size: tuple[int, int], width: int) -> str:
    """Advice on how to run a trained network, whose size its config determines.

    Args:
      slices: slices that are segmented at a time.
      size: network grid (H, W) in pixels.
      width: channels of the network's finest level.
    """
    return (
        f"this network processes {slices} slices of {size[0]}x{size[1]} pixels (grid.size) at a "
        f"time, with model.width {width}: end other work on the device, or set JAX_PLATFORMS=cpu; "
        "a network trained with a smaller grid.size or model.width, or with "
        "model.precision=bfloat16, needs less"
    )
