"""Scores of a label map against a reference: overlap, distance, volume, inclusion.

Everything takes integer label maps; `labels` is one label value or a tuple read as their union. A
score that is not defined is nan, never 0 or 1: `summarize` leaves it out and says how many it had.
"""

from collections.abc import Sequence
from functools import reduce
from operator import or_
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage
from scipy.spatial import KDTree

Labels = int | tuple[int, ...]
# (name, labels) in column order, as `Anatomy.slice_regions`.
Regions = Sequence[tuple[str, tuple[int, ...]]]


class OverlapCounts(NamedTuple):
    """Pixel counts that a DSC is formed of; arrays of one shape, or numbers."""

    intersection: Any
    predicted: Any
    reference: Any


class Summary(NamedTuple):
    """Statistics of the defined (not nan) scores of each region, each of shape (R,)."""

    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    n: NDArray[np.int64]


class InclusionViolation(NamedTuple):
    """Pixel counts per slice; sum numerator and denominator over slices before dividing."""

    inner: NDArray[np.int64]
    detached: NDArray[np.int64]
    gap: NDArray[np.int64]


def dice(
    prediction: ArrayLike, reference: ArrayLike, labels: Labels, *, empty: float = float("nan")
) -> float:
    """Dice similarity coefficient (DSC), 2 |P and R| / (|P| + |R|), in 0..1.

    Args:
      prediction: integer label map of any rank.
      reference: integer label map of the same shape.
      labels: the scored label, or a tuple read as their union.
      empty: the score of two empty masks. The EMIDEC challenge's rule is 1.0.

    Raises:
      ValueError: shapes differ, a map is not of integers, or `labels` is not of integers.
    """
    predicted, actual = (_region(m, labels) for m in _pair(prediction, reference))
    return float(dice_from_counts(*_counts(predicted, actual, axes=None), empty=empty))


def dice_from_counts(
    intersection: ArrayLike,
    predicted: ArrayLike,
    reference: ArrayLike,
    *,
    empty: float = float("nan"),
) -> NDArray[np.float64]:
    """DSC from pixel counts of any one shape; `empty` where both sizes are 0.

    Counts may be summed first: over the slices of a case they give the case's 3D DSC.
    """
    twice = 2.0 * np.asarray(intersection, np.float64)
    sizes = np.asarray(predicted, np.float64) + np.asarray(reference, np.float64)
    return np.where(sizes > 0, twice / np.maximum(sizes, 1.0), empty)


def hausdorff_distance(
    prediction: ArrayLike,
    reference: ArrayLike,
    labels: Labels,
    spacing: Sequence[float],
    *,
    percentile: float = 100,
) -> float:
    """Hausdorff distance between the surfaces of two regions, in mm.

    A surface voxel is one of the region with a face neighbor outside it; beyond the array's edge is
    outside. The distance of a voxel is that between its center and the nearest center of the other
    surface. The result is the larger of the two directed values, each the `percentile`
    (interpolated linearly) of its own distances. At 100 that is MedPy's `hd`, which the EMIDEC
    challenge uses; at 95 it is MONAI's definition, whereas MedPy's `hd95` pools both directions.

    Args:
      prediction: integer label map of any rank.
      reference: integer label map of the same shape.
      labels: the scored label, or a tuple read as their union.
      spacing: voxel size in mm, one per axis in the order of the arrays' own axes.
      percentile: in (0, 100].

    Returns:
      The distance; nan if either region is empty, since no distance is defined then.

    Raises:
      ValueError: maps or labels as in `dice`; `spacing` or `percentile` out of range.
    """
    predicted, actual = (_region(m, labels) for m in _pair(prediction, reference))
    scale = _spacing(spacing, predicted.ndim)
    if not 0 < percentile <= 100:
        raise ValueError(f"percentile: expected a number in (0, 100], got {percentile}")
    if not (predicted.any() and actual.any()):
        return float("nan")
    # Nothing outside the box of both regions can be a surface voxel, and a crop moves no border:
    # what lies beyond it is outside the regions already.
    box = ndimage.find_objects((predicted | actual).astype(np.int8))[0]
    ours, theirs = _surface(predicted[box]) * scale, _surface(actual[box]) * scale
    there, back = KDTree(theirs).query(ours)[0], KDTree(ours).query(theirs)[0]
    return float(max(np.percentile(there, percentile), np.percentile(back, percentile)))


def volume(label_map: ArrayLike, labels: Labels, spacing: Sequence[float]) -> float:
    """Volume of a region in mm3 (mm2 for a 2D map): voxel count times voxel size.

    Raises:
      ValueError: as `hausdorff_distance`.
    """
    label_map = _label_map("label_map", label_map)
    scale = _spacing(spacing, label_map.ndim)
    return float(np.count_nonzero(_region(label_map, labels)) * np.prod(scale))


def volume_difference(
    prediction: ArrayLike, reference: ArrayLike, labels: Labels, spacing: Sequence[float]
) -> float:
    """Absolute difference |V(prediction) - V(reference)| of a region's volumes, in mm3.

    Raises:
      ValueError: as `hausdorff_distance`.
    """
    prediction, reference = _pair(prediction, reference)
    return abs(volume(prediction, labels, spacing) - volume(reference, labels, spacing))


def overlap_counts(
    prediction: jax.Array, reference: jax.Array, regions: Sequence[Labels]
) -> OverlapCounts:
    """Counts per slice and region on the device, so that no label map leaves it.

    Args:
      prediction: (N, H, W) integer label maps.
      reference: (N, H, W) integer label maps.
      regions: R regions, each a label or a tuple read as their union; static under `jit`.

    Returns:
      Counts (N, R) int32: `slice_dice(*counts)` is the DSC per slice.

    Raises:
      ValueError: shapes differ or are not (N, H, W), a map is not of integers, no region given.
    """
    for name, array in (("prediction", prediction), ("reference", reference)):
        if not jnp.issubdtype(array.dtype, jnp.integer):
            raise ValueError(f"{name}: expected an integer label map, got {array.dtype}")
    _check_stacks(prediction.shape, reference.shape)
    sets = _region_sets(regions)

    def masks(label_map: jax.Array) -> jax.Array:
        unions = [reduce(or_, [label_map == value for value in values]) for values in sets]
        return jnp.stack(unions, axis=1)

    predicted, actual = masks(prediction), masks(reference)
    sizes = [m.sum(axis=(2, 3), dtype=jnp.int32) for m in (predicted & actual, predicted, actual)]
    return OverlapCounts(*sizes)


def slice_dice(
    intersection: ArrayLike, predicted: ArrayLike, reference: ArrayLike
) -> NDArray[np.float64]:
    """DSC per slice by the rule of the paper's Table 1: nan where the reference lacks the region.

    A region predicted on a slice that does not hold it is not counted here; scores per case see it.
    """
    scores = dice_from_counts(intersection, predicted, reference)
    return np.where(np.asarray(reference) > 0, scores, np.nan)


def slice_scores(
    prediction: ArrayLike, reference: ArrayLike, regions: Regions
) -> NDArray[np.float64]:
    """DSC of every slice and region, by the rule of `slice_dice`.

    Args:
      prediction: (N, H, W) integer label maps.
      reference: (N, H, W) integer label maps.
      regions: R pairs (name, labels), as `Anatomy.slice_regions`.

    Returns:
      (N, R), nan where the reference slice does not hold the region.

    Raises:
      ValueError: shapes differ or are not (N, H, W), a map is not of integers, no region given.
    """
    prediction, reference = _pair(prediction, reference)
    _check_stacks(prediction.shape, reference.shape)
    columns = []
    for values in _region_sets([labels for _, labels in regions]):
        predicted, actual = _region(prediction, values), _region(reference, values)
        columns.append(slice_dice(*_counts(predicted, actual, axes=(1, 2))))
    return np.stack(columns, axis=1)


def summarize(scores: ArrayLike) -> Summary:
    """Mean, standard deviation and number of the scores of each region, nan left out.

    Args:
      scores: (N, R); nan marks a score that is not defined.

    Returns:
      Mean, sample standard deviation (divisor n - 1) and n; mean is nan at n = 0, std below 2.

    Raises:
      ValueError: `scores` is not of rank 2.
    """
    scores = np.asarray(scores, np.float64)
    if scores.ndim != 2:
        raise ValueError(f"scores: expected shape (N, R), got {scores.shape}")
    defined = np.logical_not(np.isnan(scores))
    n = defined.sum(axis=0, dtype=np.int64)
    # Written out because np.nanmean and np.nanstd warn about a column without a score.
    mean = np.where(n > 0, np.where(defined, scores, 0.0).sum(axis=0) / np.maximum(n, 1), np.nan)
    squares = (np.where(defined, scores - mean, 0.0) ** 2).sum(axis=0)
    std = np.where(n > 1, np.sqrt(squares / np.maximum(n - 1, 1)), np.nan)
    return Summary(mean, std, n)


def confusion_matrix(
    prediction: ArrayLike, reference: ArrayLike, num_labels: int
) -> NDArray[np.int64]:
    """Voxel counts (L, L): row = reference label, column = predicted label.

    Matrices of parts of a set add up to the matrix of the set.

    Raises:
      ValueError: maps as in `dice`, or a label outside 0..num_labels - 1.
    """
    prediction, reference = _pair(prediction, reference)
    for name, array in (("prediction", prediction), ("reference", reference)):
        if array.size and not (array.min() >= 0 and array.max() < num_labels):
            raise ValueError(
                f"{name}: expected labels 0..{num_labels - 1}, got {array.min()}..{array.max()}"
            )
    cells = reference.astype(np.int64).ravel() * num_labels + prediction.astype(np.int64).ravel()
    counts = np.bincount(cells, minlength=num_labels**2).astype(np.int64)
    return counts.reshape(num_labels, num_labels)


def inclusion_violation(
    label_map: ArrayLike, inner: Labels, outer: Labels, *, max_width: int = 3
) -> InclusionViolation:
    """How far hard label maps miss the prior of Eq. 4, "inner lies in outer, without cracks".

    With rest = outer without inner, counted slice by slice:
      inner: pixels of the inner region.
      detached: inner pixels in 8-connected components without an 8-neighbor in the rest, such as
        no-reflow that touches no infarct. detached / inner is their share.
      gap: pixels outside outer in a run of at most `max_width` along a row or a column that has
        inner at one end and the rest at the other. Diagonals do not count: every staircase corner
        where the two meet would.

    Sound maps are not quite free of either: a slice may hold infarct only, and the cavity may lie
    in a narrow notch. Put the reference's counts beside the prediction's.

    Args:
      label_map: (..., H, W) integer label map of slices; move a slice axis to the front first.
      inner: label or labels of the inner region.
      outer: labels of the outer region, a strict superset of `inner`.
      max_width: widest gap, in pixels.

    Returns:
      Counts int64 of shape (...).

    Raises:
      ValueError: map of fewer than two axes or not of integers, inner not strictly inside outer,
        `max_width` below 1.
    """
    label_map = _label_map("label_map", label_map)
    if label_map.ndim < 2:
        raise ValueError(f"label_map: expected shape (..., H, W), got {label_map.shape}")
    if not set(_label_set(inner)) < set(_label_set(outer)):
        raise ValueError(f"inner: expected a strict subset of outer {outer}, got {inner}")
    if max_width < 1:
        raise ValueError(f"max_width: expected at least 1 pixel, got {max_width}")
    stack = label_map.reshape((-1, *label_map.shape[-2:]))
    inside, whole = _region(stack, inner), _region(stack, outer)
    rest = whole & ~inside
    turned = _gaps(inside.swapaxes(1, 2), rest.swapaxes(1, 2), max_width)
    gaps = _gaps(inside, rest, max_width) | turned.swapaxes(1, 2)
    masks = (inside, _detached(inside, rest), gaps)
    counts = [m.sum(axis=(1, 2), dtype=np.int64).reshape(label_map.shape[:-2]) for m in masks]
    return InclusionViolation(*counts)


def _detached(inside: NDArray[np.bool_], rest: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pixels of components of `inside` (N, H, W) that touch `rest` nowhere, slice by slice."""
    around = np.zeros((3, 3, 3), bool)
    around[1] = True  # the eight neighbors in the slice, none in the next one
    components = np.empty(inside.shape, np.int32)
    ndimage.label(inside, around, output=components)
    beside = np.asarray(ndimage.binary_dilation(rest, structure=around), bool)
    touching = np.unique(components[inside & beside])
    return inside & ~np.isin(components, touching)


def _gaps(inside: NDArray[np.bool_], rest: NDArray[np.bool_], max_width: int) -> NDArray[np.bool_]:
    """Runs along the last axis outside both, at most `max_width` long, between one and the other"""
    outside = ~(inside | rest)
    gap = np.zeros_like(outside)
    for width in range(1, min(max_width, outside.shape[-1] - 2) + 1):
        starts = outside.shape[-1] - width - 1
        hit = inside[..., :starts] & rest[..., width + 1 :]
        hit |= rest[..., :starts] & inside[..., width + 1 :]
        for k in range(1, width + 1):
            hit &= outside[..., k : k + starts]
        for k in range(1, width + 1):
            gap[..., k : k + starts] |= hit
    return gap


def _surface(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Indices (points, rank) of the voxels with a face neighbor outside the mask or the array."""
    interior = np.asarray(ndimage.binary_erosion(mask, border_value=0), bool)
    return np.argwhere(mask & ~interior)


def _counts(
    predicted: NDArray[np.bool_], actual: NDArray[np.bool_], axes: tuple[int, ...] | None
) -> OverlapCounts:
    sizes = [m.sum(axis=axes, dtype=np.int64) for m in (predicted & actual, predicted, actual)]
    return OverlapCounts(*sizes)


def _label_set(labels: Labels) -> tuple[int, ...]:
    values = labels if isinstance(labels, tuple | list) else (labels,)
    if not values or not all(
        isinstance(v, int | np.integer) and not isinstance(v, bool) for v in values
    ):
        raise ValueError(f"labels: expected an int or a non-empty tuple of ints, got {labels!r}")
    return tuple(int(value) for value in values)


def _region_sets(regions: Sequence[Labels]) -> list[tuple[int, ...]]:
    if not regions:
        raise ValueError("regions: expected at least one region, got none")
    return [_label_set(labels) for labels in regions]


def _region(label_map: NDArray[np.integer], labels: Labels) -> NDArray[np.bool_]:
    return np.isin(label_map, _label_set(labels))


def _label_map(name: str, array: ArrayLike) -> NDArray[np.integer]:
    label_map = np.asarray(array)
    if not np.issubdtype(label_map.dtype, np.integer):
        raise ValueError(f"{name}: expected an integer label map, got {label_map.dtype}")
    if label_map.ndim == 0:
        raise ValueError(f"{name}: expected a label map with at least one axis, got a number")
    return label_map


def _pair(
    prediction: ArrayLike, reference: ArrayLike
) -> tuple[NDArray[np.integer], NDArray[np.integer]]:
    ours, theirs = _label_map("prediction", prediction), _label_map("reference", reference)
    if ours.shape != theirs.shape:
        raise ValueError(f"prediction has shape {ours.shape}, but reference has {theirs.shape}")
    return ours, theirs


def _check_stacks(prediction: tuple[int, ...], reference: tuple[int, ...]) -> None:
    if prediction != reference or len(prediction) != 3:
        raise ValueError(
            "prediction and reference: expected one shape (N, H, W), "
            f"got {prediction} and {reference}"
        )


def _spacing(spacing: Sequence[float], rank: int) -> NDArray[np.float64]:
    sizes = np.asarray(spacing, np.float64)
    if sizes.shape != (rank,):
        raise ValueError(f"spacing: expected {rank} numbers, one per axis, got {spacing}")
    if not (np.isfinite(sizes).all() and (sizes > 0).all()):
        raise ValueError(f"spacing: expected positive numbers in mm, got {spacing}")
    return sizes
