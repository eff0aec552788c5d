"""Checks of label maps and masks of regions, shared by all metrics."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Labels = int | tuple[int, ...]
# (name, labels) in the order of columns, as `Anatomy.slice_regions`.
Regions = Sequence[tuple[str, tuple[int, ...]]]


# Interpolated probabilities are rounded before the argmax, so that ties are the same everywhere.
_TIE_DIGITS = 5


def label_set(labels: Labels) -> tuple[int, ...]:
    """Convert labels to a tuple.

    Raises:
      ValueError: the labels are not ints, or there are none.
    """
    values = labels if isinstance(labels, tuple | list) else (labels,)
    if not values or not all(
        isinstance(v, int | np.integer) and not isinstance(v, bool) for v in values
    ):
        raise ValueError(f"labels: expected an int or a non-empty tuple of ints, got {labels!r}")
    return tuple(int(value) for value in values)


def region_mask(label_map: NDArray[np.integer], labels: Labels) -> NDArray[np.bool_]:
    """Mask of the pixels with one of the labels, bool with the shape of the map."""
    return np.isin(label_map, label_set(labels))


def checked_map(name: str, array: ArrayLike) -> NDArray[np.integer]:
    """Check that an array is an integer label map and return it; `name` is used in messages.

    Raises:
      ValueError: the array is not an integer array or has no axis.
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
    """Check that two arrays are integer label maps of one shape and return them.

    Raises:
      ValueError: an array is not a label map, or the shapes differ.
    """
    ours, theirs = checked_map("prediction", prediction), checked_map("reference", reference)
    if ours.shape != theirs.shape:
        raise ValueError(f"prediction has shape {ours.shape}, but reference has {theirs.shape}")
    return ours, theirs


def checked_spacing(spacing: Sequence[float], rank: int) -> NDArray[np.float64]:
    """Check voxel sizes in mm, one for each of `rank` axes, and return them.

    Raises:
      ValueError: the number of sizes is wrong, or a size is not positive and finite.
    """
    sizes = np.asarray(spacing, np.float64)
    if sizes.shape != (rank,):
        raise ValueError(f"spacing: expected {rank} numbers, one per axis, got {spacing}")
    if not (np.isfinite(sizes).all() and (sizes > 0).all()):
        raise ValueError(f"spacing: expected positive numbers in mm, got {spacing}")
    return sizes


def most_probable(probabilities: np.ndarray) -> np.ndarray:
    """Convert probabilities (..., L) to a label map (...) uint8; ties go to the lower label."""
    return np.argmax(np.round(probabilities, _TIE_DIGITS), axis=-1).astype(np.uint8)
