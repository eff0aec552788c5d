"""Pathology too small to be believed: what the training cases' smallest says of a prediction.

A network calls a few voxels of many a healthy heart pathology, and a case without it then scores 0
by the challenge's rule. The prior says where such voxels belong: to what surrounds the pathology.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from jaxseg.anatomy import Anatomy, LabelSet
from jaxseg.metrics import volume

Inclusions = Sequence[tuple[LabelSet, LabelSet]]


def smallest_volumes(
    labels: NDArray[np.integer],
    case_index: NDArray[np.integer],
    voxel_mm3: Sequence[float],
    inclusions: Inclusions,
) -> list[float | None]:
    """The smallest volume of each pair's inner region over the cases that hold it.

    Args:
      labels: (N, H, W) integer, slices on the network grid.
      case_index: (N,) integer, the case of each slice. Of a case of which some slices are missing,
        the volume is that of the others.
      voxel_mm3: volume of a voxel of such a slice in mm3, by case.
      inclusions: the anatomy's pairs.

    Returns:
      mm3 by pair; None where no case holds the inner region.
    """
    smallest: list[float | None] = []
    for inner, _ in inclusions:
        counts = np.isin(labels, inner).sum((1, 2))
        volumes = np.bincount(case_index, counts, len(voxel_mm3)) * np.asarray(voxel_mm3)
        smallest.append(float(volumes[volumes > 0].min()) if volumes.any() else None)
    return smallest


def described(anatomy: Anatomy, smallest_mm3: Sequence[float | None]) -> str:
    """A sentence on what `without_small` does with an anatomy, for the reader of scores."""
    parts = [
        f"{' + '.join(anatomy.labels[label] for label in inner)} below {smallest / 1000:.2f} ml"
        for (inner, _), smallest in zip(anatomy.inclusions, smallest_mm3, strict=True)
        if smallest is not None
    ]
    dropped = ", ".join(parts) or "nothing, as no training case holds any"
    return (
        "Pathology of a case that is smaller than in any training case was given to what "
        f"surrounds it: {dropped}."
    )


def without_small(
    labels: NDArray[np.integer],
    spacing: Sequence[float],
    inclusions: Inclusions,
    smallest_mm3: Sequence[float | None],
) -> NDArray[np.integer]:
    """Give a pathology that is smaller than its smallest to the region around it.

    Args:
      labels: integer label map of one whole case.
      spacing: voxel size in mm, one edge an axis.
      inclusions: the anatomy's pairs. Voxels of an inner region that is too small take the first
        label of the outer region that the inner does not hold, pair by pair in this order: for
        EMIDEC no-reflow becomes infarct, then infarct becomes myocardium.
      smallest_mm3: by pair; None leaves that region as it is.

    Returns:
      A label map of the same shape and dtype.
    """
    for (inner, outer), smallest in zip(inclusions, smallest_mm3, strict=True):
        around = [label for label in outer if label not in inner]
        if around and smallest is not None and volume(labels, inner, spacing) < smallest:
            labels = np.where(np.isin(labels, inner), around[0], labels).astype(labels.dtype)
    return labels
