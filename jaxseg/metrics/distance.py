"""Distances between surfaces in mm, surface Dice, and volumes in mm3."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage
from scipy.spatial import KDTree

from jaxseg.metrics.maps import Labels, checked_map, checked_pair, checked_spacing, region_mask

HAUSDORFF_NOTE = (
    "Hausdorff distances do not compare with those published for the EMIDEC challenge, whose "
    "script passes voxel sizes in the order (x, y, z) to arrays in (z, y, x)."
)
"""Note to print beside Hausdorff distances."""


def hausdorff_distance(
    prediction: ArrayLike,
    reference: ArrayLike,
    labels: Labels,
    spacing: Sequence[float],
    *,
    percentile: float = 100,
) -> float:
    """Hausdorff distance between the surfaces of two regions, in mm.

    A surface voxel has a face neighbor outside the region; the outside of the array counts as
    outside. Each surface voxel has a distance from its center to the nearest voxel center of the
    other surface. Each direction gives the `percentile` of its distances (interpolated linearly),
    and the result is the larger of the two. At 100 this equals MedPy's `hd`. At 95 it follows
    MONAI's definition, whereas MedPy's `hd95` pools both directions.

    The EMIDEC challenge also uses MedPy's `hd`, but its script passes voxel sizes in the order
    (x, y, z) to arrays in (z, y, x). Its published distances therefore do not compare with these.

    Args:
      prediction: integer label map of any rank.
      reference: integer label map of the same shape.
      labels: the scored label, or a tuple that stands for the union.
      spacing: voxel size in mm, one value for each axis, in the order of the array's axes.
      percentile: in (0, 100].

    Returns:
      The distance, or NaN if either region is empty, since no distance is defined then.

    Raises:
      ValueError: maps or labels are invalid as in `dice`, or `spacing` or `percentile` is out of
        range.
    """
    predicted, actual, scale = _cropped(prediction, reference, labels, spacing)
    if not 0 < percentile <= 100:
        raise ValueError(f"percentile: expected a number in (0, 100], got {percentile}")
    if not (predicted.any() and actual.any()):
        return float("nan")
    ours, theirs = _surface(predicted) * scale, _surface(actual) * scale
    there, back = KDTree(theirs).query(ours)[0], KDTree(ours).query(theirs)[0]
    return float(max(np.percentile(there, percentile), np.percentile(back, percentile)))


def surface_dice(
    prediction: ArrayLike,
    reference: ArrayLike,
    labels: Labels,
    spacing: Sequence[float],
    tolerance: float,
) -> float:
    """Surface Dice of two regions: the share of both surfaces within a tolerance of the other.

    This is the normalized surface Dice of Nikolov et al. (arXiv:1809.04430, 2018; J Med Internet
    Res 23:e26151, 2021): (|S_p near S_r| + |S_r near S_p|) / (|S_p| + |S_r|), where |.| is an area.
    The surface of a region of voxels consists of the faces between voxels inside and outside. Each
    face divides its area equally between its corners, so that thick slices count by their size.
    Distances are those of corners to the other surface, and exact: the nearest point of a face on
    the same grid is a corner, too. DeepMind's implementation takes the same points, but the area of
    a triangulation.

    Args:
      prediction: integer label map of any rank; in 2D, areas are lengths.
      reference: integer label map of the same shape.
      labels: the scored label, or a tuple that stands for the union.
      spacing: voxel size in mm, one value for each axis, in the order of the array's axes.
      tolerance: distance in mm up to which surfaces agree, not negative.

    Returns:
      The share in 0..1: 0 if one of the regions is empty, NaN if both are.

    Raises:
      ValueError: as in `hausdorff_distance`, or if the tolerance is negative or not finite.
    """
    predicted, actual, scale = _cropped(prediction, reference, labels, spacing)
    if not 0 <= tolerance < np.inf:
        raise ValueError(f"tolerance: expected a number of mm, not negative, got {tolerance}")
    if not (predicted.any() and actual.any()):
        return 0.0 if predicted.any() or actual.any() else float("nan")
    (ours, our_areas), (theirs, their_areas) = _corners(predicted, scale), _corners(actual, scale)
    # Corners beyond the bound have the distance inf; rounding must not put one at the tolerance
    # beyond it.
    bound = tolerance + 1e-6 * float(scale.min())
    near = np.isfinite(KDTree(theirs).query(ours, distance_upper_bound=bound)[0])
    back = np.isfinite(KDTree(ours).query(theirs, distance_upper_bound=bound)[0])
    within = our_areas[near].sum() + their_areas[back].sum()
    return float(within / (our_areas.sum() + their_areas.sum()))


def volume(label_map: ArrayLike, labels: Labels, spacing: Sequence[float]) -> float:
    """Volume of a region in mm3 (mm2 for a 2D map): voxel count times voxel size.

    Raises:
      ValueError: as `hausdorff_distance`.
    """
    label_map = checked_map("label_map", label_map)
    scale = checked_spacing(spacing, label_map.ndim)
    return float(np.count_nonzero(region_mask(label_map, labels)) * np.prod(scale))


def volume_difference(
    prediction: ArrayLike, reference: ArrayLike, labels: Labels, spacing: Sequence[float]
) -> float:
    """Absolute volume difference |V(prediction) - V(reference)| of a region, in mm3.

    Raises:
      ValueError: as `hausdorff_distance`.
    """
    prediction, reference = checked_pair(prediction, reference)
    return abs(volume(prediction, labels, spacing) - volume(reference, labels, spacing))


def _surface(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Indices (points, rank) of the voxels with a face neighbor outside the mask or the array."""
    interior = np.asarray(ndimage.binary_erosion(mask, border_value=0), bool)
    return np.argwhere(mask & ~interior)


def _cropped(
    prediction: ArrayLike, reference: ArrayLike, labels: Labels, spacing: Sequence[float]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.float64]]:
    """Check the maps, and return both regions within their joint bounding box and the spacing.

    Cropping changes no surface: voxels beyond the box are outside both regions, and so is the
    outside of an array.
    """
    predicted, actual = (region_mask(m, labels) for m in checked_pair(prediction, reference))
    scale = checked_spacing(spacing, predicted.ndim)
    boxes = ndimage.find_objects((predicted | actual).astype(np.int8))
    box = boxes[0] if boxes else ...
    return predicted[box], actual[box], scale


def _corners(
    mask: NDArray[np.bool_], scale: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Corners of a mask's surface in mm (n, rank), and the area in mm2 (n,) of each."""
    padded = np.pad(mask, 1)
    areas = np.zeros(np.array(padded.shape) - 1)
    for axis in range(mask.ndim):
        share = np.diff(padded, axis=axis).astype(np.float64)
        for other in set(range(mask.ndim)) - {axis}:  # a corner has a face on either side
            front, back = (np.delete(share, end, axis=other) for end in (0, -1))
            share = (front + back) / 2
        areas += share * np.prod(np.delete(scale, axis))
    points = np.argwhere(areas)
    return points * scale, areas[tuple(points.T)]
