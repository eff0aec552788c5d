"""Scores of one case on its native grid."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from jaxseg import metrics
from jaxseg.anatomy import Anatomy, LabelSet, Region, enclosing_region

SURFACE_TOLERANCE = 2.0
"""Tolerance of the surface Dice in mm."""
# The last axis of `CaseScores.regions`.
MEASURES: tuple[str, ...] = (
    "dsc",
    "dsc_challenge",
    "volume_difference_mm3",
    "volume_difference_ratio",
    "hausdorff_mm",
    "hd95_mm",
    "surface_dice",
    "reference_mm3",
    "prediction_mm3",
)
# The first and the last axis of `CaseScores.inclusion`.
SIDES = ("reference", "prediction")
AREAS = ("inner_mm2", "detached_mm2", "gap_mm2")


@dataclass(frozen=True, eq=False)
class CaseScores:
    """The scores of one case; nan where a score is undefined.

    Attributes:
      name: name of the case.
      num_slices: number of slices of the stack, whether scored or not.
      slices: (n,) indices of the scored slices.
      slice_dsc: (n, slice regions), DSC by the rule of the paper's Table 1.
      regions: (case regions, MEASURES). For two empty regions `dsc` is nan and `dsc_challenge` is
        1. `volume_difference_ratio` is the volume difference divided by the reference volume of
        the enclosing region, the whole myocardium, as in the EMIDEC challenge's script.
      inclusion: (SIDES, inclusion pairs, AREAS) in mm2, summed over slices, as computed by
        `jaxseg.metrics.inclusion_violation`.
      slice_counts: (n, slice regions, 3), pixel counts of the scored slices, as computed by
        `jaxseg.metrics.slice_counts`.
    """

    name: str
    num_slices: int
    slices: NDArray[np.int64]
    slice_dsc: NDArray[np.float64]
    regions: NDArray[np.float64]
    inclusion: NDArray[np.float64]
    slice_counts: NDArray[np.int64]


def score_case(
    name: str,
    prediction: NDArray[np.integer],
    reference: NDArray[np.integer],
    spacing: tuple[float, float, float],
    anatomy: Anatomy,
    *,
    held_out: NDArray[np.bool_] | None = None,
) -> CaseScores:
    """Score a predicted label map against its reference.

    Args:
      name: name of the case.
      prediction: (X, Y, slices) label map.
      reference: (X, Y, slices) label map.
      spacing: voxel size in mm.
      anatomy: defines the regions and inclusion pairs that are scored.
      held_out: (slices,) mask of the slices to score; all by default. The other slices are set to
        background in both maps but stay in place, so that distances between slices are kept.
    """
    counted = np.ones(reference.shape[-1], bool) if held_out is None else held_out
    prediction, reference = (np.where(counted, m, 0) for m in (prediction, reference))
    slices = np.flatnonzero(counted)
    ours, theirs = (np.moveaxis(m, -1, 0)[slices] for m in (prediction, reference))
    counts = metrics.slice_counts(ours, theirs, anatomy.slice_regions)
    regions = [
        _region_scores(prediction, reference, labels, anatomy.case_regions, spacing)
        for _, labels in anatomy.case_regions
    ]
    return CaseScores(
        name=name,
        num_slices=len(counted),
        slices=slices,
        slice_dsc=metrics.slice_dice(*np.moveaxis(counts, -1, 0)),
        regions=np.array(regions),
        inclusion=_inclusion((theirs, ours), anatomy, spacing[0] * spacing[1]),
        slice_counts=counts,
    )


def _region_scores(
    prediction: NDArray[np.integer],
    reference: NDArray[np.integer],
    labels: LabelSet,
    regions: Sequence[Region],
    spacing: tuple[float, float, float],
) -> list[float]:
    """Compute one score for each entry of MEASURES."""
    difference = metrics.volume_difference(prediction, reference, labels, spacing)
    around = enclosing_region(labels, regions)
    whole = metrics.volume(reference, around, spacing) if around else 0.0
    return [
        metrics.dice(prediction, reference, labels),
        metrics.dice(prediction, reference, labels, empty=1.0),
        difference,
        difference / whole if whole else float("nan"),
        metrics.hausdorff_distance(prediction, reference, labels, spacing),
        metrics.hausdorff_distance(prediction, reference, labels, spacing, percentile=95),
        metrics.surface_dice(prediction, reference, labels, spacing, tolerance=SURFACE_TOLERANCE),
        metrics.volume(reference, labels, spacing),
        metrics.volume(prediction, labels, spacing),
    ]


def _inclusion(
    stacks: Sequence[NDArray[np.integer]], anatomy: Anatomy, pixel: float
) -> NDArray[np.float64]:
    counts = [
        [
            [field.sum() for field in metrics.inclusion_violation(stack, inner, outer)]
            for inner, outer in anatomy.inclusions
        ]
        for stack in stacks
    ]
    shape = (len(SIDES), len(anatomy.inclusions), len(AREAS))
    return np.array(counts, np.float64).reshape(shape) * pixel
