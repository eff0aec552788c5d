"""Scores of a label map against a reference: overlap, distance, volume and inclusion.

All but `agreement` take integer label maps; `labels` is one label or a tuple that stands for their
union. An undefined score is NaN, never 0 or 1. `summarize` ignores NaN and returns the number of
scores.
"""

from jaxseg.metrics.agreement import Agreement, agreement
from jaxseg.metrics.distance import (
    HAUSDORFF_NOTE,
    hausdorff_distance,
    surface_dice,
    volume,
    volume_difference,
)
from jaxseg.metrics.inclusion import InclusionViolation, inclusion_violation
from jaxseg.metrics.overlap import (
    Summary,
    dice,
    dice_from_counts,
    slice_counts,
    slice_dice,
    slice_scores,
    summarize,
)

__all__ = [
    "HAUSDORFF_NOTE",
    "Agreement",
    "InclusionViolation",
    "Summary",
    "agreement",
    "dice",
    "dice_from_counts",
    "hausdorff_distance",
    "inclusion_violation",
    "slice_counts",
    "slice_dice",
    "slice_scores",
    "summarize",
    "surface_dice",
    "volume",
    "volume_difference",
]
