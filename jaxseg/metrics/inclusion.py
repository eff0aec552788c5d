"""Violations of the paper's inclusion prior in a label map."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from jaxseg.metrics.maps import Labels, checked_map, label_set, region_mask


class InclusionViolation(NamedTuple):
    """Pixel counts of each slice. For a fraction over slices, sum the counts before dividing."""

    inner: NDArray[np.int64]
    detached: NDArray[np.int64]
    gap: NDArray[np.int64]


def inclusion_violation(
    label_map: ArrayLike, inner: Labels, outer: Labels, *, max_width: int = 3
) -> InclusionViolation:
    """Count violations of the prior of Eq. 4, "inner lies in outer, without cracks".

    With rest = outer without inner, three counts are made in each slice:
      inner: pixels of the inner region.
      detached: inner pixels in 8-connected components without an 8-neighbor in the rest, such as
        no-reflow that touches no infarct. detached / inner is their fraction.
      gap: pixels outside outer in a run of at most `max_width` along a row or a column, with inner
        at one end and the rest at the other. Diagonals are not counted, because every staircase
        corner between the two would be one.

    Correct label maps may have some of both: a slice may hold infarct only, and the cavity may lie
    in a narrow notch. Compare the counts of a prediction with those of its reference.

    Args:
      label_map: (..., H, W) integer label map of slices; move the slice axis to the front first.
      inner: label or labels of the inner region.
      outer: labels of the outer region, a strict superset of `inner`.
      max_width: largest width of a gap, in pixels.

    Returns:
      Counts int64 of shape (...).

    Raises:
      ValueError: the map has fewer than two axes or is not an integer array, inner is not a strict
        subset of outer, or `max_width` is below 1.
    """
    label_map = checked_map("label_map", label_map)
    if label_map.ndim < 2:
        raise ValueError(f"label_map: expected shape (..., H, W), got {label_map.shape}")
    if not set(label_set(inner)) < set(label_set(outer)):
        raise ValueError(f"inner: expected a strict subset of outer {outer}, got {inner}")
    if max_width < 1:
        raise ValueError(f"max_width: expected at least 1 pixel, got {max_width}")
    stack = label_map.reshape((-1, *label_map.shape[-2:]))
    inside, whole = region_mask(stack, inner), region_mask(stack, outer)
    rest = whole & ~inside
    turned = _gaps(inside.swapaxes(1, 2), rest.swapaxes(1, 2), max_width)
    gaps = _gaps(inside, rest, max_width) | turned.swapaxes(1, 2)
    masks = (inside, _detached(inside, rest), gaps)
    counts = [m.sum(axis=(1, 2), dtype=np.int64).reshape(label_map.shape[:-2]) for m in masks]
    return InclusionViolation(*counts)


def _detached(inside: NDArray[np.bool_], rest: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pixels of the components of `inside` (N, H, W) that do not touch `rest` in their slice."""
    around = np.zeros((3, 3, 3), bool)
    around[1] = True  # the eight neighbors in the slice, none in adjacent slices
    components = np.empty(inside.shape, np.int32)
    ndimage.label(inside, around, output=components)
    beside = np.asarray(ndimage.binary_dilation(rest, structure=around), bool)
    touching = np.unique(components[inside & beside])
    return inside & ~np.isin(components, touching)


def _gaps(inside: NDArray[np.bool_], rest: NDArray[np.bool_], max_width: int) -> NDArray[np.bool_]:
    """Runs outside both masks, of at most `max_width` along the last axis, that separate them."""
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
