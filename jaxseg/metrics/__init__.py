"""Scores of a label map against a reference: overlap, distance, volume, inclusion.

Everything takes integer label maps; `labels` is one label value or a tuple read as their union. A
score that is not defined is nan, never 0 or 1: `summarize` leaves it out and says how many it had.
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
