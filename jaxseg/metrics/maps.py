"""Label maps as every metric takes them: checks, and the masks of regions."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Labels = int | tuple[int, ...]
# (name, labels) in column order, as `Anatomy.slice_regions`.
Regions = Sequence[tuple[str, tuple[int, ...]]]


# Interpolated labels are rounded here before argmax, so that a tie is a tie on every machine.
_TIE_DIGITS = 5


def label_set(labels: Labels) -> tuple[int, ...]:
    """Labels as a tuple.

    Raises:
      ValueError: they are no whole numbers.
    """
    values = labels if isinstance(labels, tuple | list) else (labels,)
    if not values or not all(
        isinstance(v, int | np.integer) and not isinstance(v, bool) for v in values
    ):
        raise ValueError(f"labels: expected an int or a non-empty tuple of ints, got {labels!r}")
    return tuple(int(value) for value in values)


def region_mask(label_map: NDArray[np.integer], labels: Labels) -> NDArray[np.bool_]:
    """Where a label map holds one of the labels, bool of its shape."""
    return np.isin(label_map, label_set(labels))


def checked_map(name: str, array: ArrayLike) -> NDArray[np.integer]:
    """The array, once it is sure to be an integer label map; `name` it has in messages.

    Raises:
      ValueError: it is not.
    """
    label_map = np.asarray(array)
    if not np.issubdtype(label_map.dtype, np.integer):
        raise ValueError(f"{name}: expected an integer label map, got {label_map.dtype}")
    if label_map.ndim == 0:
        raise ValueError(f"{name}: expected a label map with at least one axis, got a number")
    return label_map


def checked_pair(
    prediction: ArrayLike, reference: ArrayLike
) -> tuple[NDArray[np.integer], NDArray[np.integer]]:
    """Two integer label maps of one shape.

    Raises:
      ValueError: they are not.
    """
    ours, theirs = checked_map("prediction", prediction), checked_map("reference", reference)
    if ours.shape != theirs.shape:
        raise ValueError(f"prediction has shape {ours.shape}, but reference has {theirs.shape}")
    return ours, theirs


def checked_spacing(spacing: Sequence[float], rank: int) -> NDArray[np.float64]:
    """Voxel sizes in mm, one for each of `rank` axes.

    Raises:
      ValueError: another number of them, or one that is not positive.
    """
    sizes = np.asarray(spacing, np.float64)
    if sizes.shape != (rank,):
        raise ValueError(f"spacing: expected {rank} numbers, one per axis, got {spacing}")
    if not (np.isfinite(sizes).all() and (sizes > 0).all()):
        raise ValueError(f"spacing: expected positive numbers in mm, got {spacing}")
    return sizes


def most_probable(probabilities: np.ndarray) -> np.ndarray:
    """Label map (...) uint8 of probabilities (..., L), ties to the lower label."""
    return np.argmax(np.round(probabilities, _TIE_DIGITS), axis=-1).astype(np.uint8)
