"""Hausdorff distance in mm and volumes in mm3."""

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
    predicted, actual = (region_mask(m, labels) for m in checked_pair(prediction, reference))
    scale = checked_spacing(spacing, predicted.ndim)
    if not 0 < percentile <= 100:
        raise ValueError(f"percentile: expected a number in (0, 100], got {percentile}")
    if not (predicted.any() and actual.any()):
        return float("nan")
    # Cropping to the bounding box of both regions changes no surface: voxels beyond the box are
    # outside both regions, and so is the outside of an array.
    box = ndimage.find_objects((predicted | actual).astype(np.int8))[0]
    ours, theirs = _surface(predicted[box]) * scale, _surface(actual[box]) * scale
    there, back = KDTree(theirs).query(ours)[0], KDTree(ours).query(theirs)[0]
    return float(max(np.percentile(there, percentile), np.percentile(back, percentile)))


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
