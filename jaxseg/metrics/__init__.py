"""Scores of a label map against a reference: overlap, distance, volume and inclusion.

All functions take integer label maps; `labels` is one label or a tuple that stands for their union.
An undefined score is NaN, never 0 or 1. `summarize` ignores NaN and returns the number of scores.
"""

from jaxseg.metrics.distance import HAUSDORFF_NOTE, hausdorff_distance, volume, volume_difference
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
    "InclusionViolation",
    "Summary",
    "dice",
    "dice_from_counts",
    "hausdorff_distance",
    "inclusion_violation",
    "slice_counts",
    "slice_dice",
    "slice_scores",
    "summarize",
    "volume",
    "volume_difference",
]
