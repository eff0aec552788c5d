"""Checks of whether a case resembles the training cases of a run."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jaxseg.data import Case, DataError
from jaxseg.runs.trained import Trained

# Voxel edges may lie outside the range of the training cases by this factor.
_SPACING_TOLERANCE = 2.0
# A stack with more slices than this multiple of the largest training stack is not short-axis.
_SLICES_TOLERANCE = 2
# Slice distances outside the training range by more than this factor are remarked on.
_DISTANCE_TOLERANCE = 1.25
# An epicardium is about 60 mm across.
_HEART_MM = 60


def check_case(runs: Sequence[Trained], case: Case, path: Path) -> None:
    """Check that a case is stored like the training cases of the runs.

    Raises:
      DataError: as in `check_spacing`.

    Warns:
      UserWarning: if the slices are stored in another orientation, as in `other_orientation`.
    """
    for run in runs:
        check_spacing(run, case, path)
    if turned := other_orientation(runs, case):
        warnings.warn(f"{path}: {turned}", stacklevel=3)


def other_orientation(runs: Sequence[Trained], case: Case) -> str | None:
    """Describe how the orientation of a case's slices differs from that of the training cases.

    Many files leave the affine at a default, so stacks are never reoriented by it, and a different
    orientation is not an error.

    Returns:
      A description without the case's name. None if the case or the runs state no orientation, or
      if every run was trained on this one, through its cases or through flips and turns.
    """
    if case.orientation is None:
        return None
    for run in runs:
        known = run.data.get("orientations")
        augmentation = run.setup.augmentation
        every_way = augmentation.probability and augmentation.flip and augmentation.turn
        if known and case.orientation not in known and not every_way:
            return (
                f"rows and columns lead to {case.orientation} by its header, in training they led "
                f"to {' or '.join(known)}; expected stacks stored as in training"
            )
    return None


def check_spacing(run: Trained, case: Case, path: Path) -> None:
    """Check that a case's voxels are about as large as those that the run was trained on.

    This rejects units other than mm, stacks whose slices lie along another axis, and other kinds of
    scans. Runs from before the spacing was recorded accept every case.

    Raises:
      DataError: if a voxel edge lies outside the range of the training cases by more than a factor
        of 2.
    """
    if "spacing" not in run.data:
        return
    low, high = (np.asarray(edges) for edges in run.data["spacing"])
    edges = np.asarray(case.spacing)
    if ((edges < low / _SPACING_TOLERANCE) | (edges > high * _SPACING_TOLERANCE)).any():
        expected = " x ".join(f"{a:.3g}-{b:.3g}" for a, b in zip(low, high, strict=True))
        raise DataError(
            f"{path}: voxels of {' x '.join(f'{edge:.3g}' for edge in edges)} mm are far from "
            f"those trained on, {expected} mm"
        )


def unusual_shape(runs: Sequence[Trained], case: Case) -> tuple[str, ...]:
    """Describe how a stack's shape differs from training, where segmentation is still possible.

    Returns:
      Up to three phrases: a field of view smaller than a heart, many more slices, an unusual
      distance between slices. Runs that do not record their training shapes contribute none.
    """
    phrases = []
    rows, columns = (n * edge for n, edge in zip(case.image.shape, case.spacing[:2], strict=False))
    if min(rows, columns) < _HEART_MM:
        phrases.append(f"field of view {rows:.0f} x {columns:.0f} mm is smaller than a heart")
    count, distance = case.image.shape[2], case.spacing[2]
    most = max((run.data["slices"][1] for run in runs if "slices" in run.data), default=count)
    if count > _SLICES_TOLERANCE * most:
        phrases.append(f"{count} slices, in training at most {most}")
    edges = [run.data["spacing"] for run in runs if "spacing" in run.data]
    if edges and count > 1:
        low, high = min(low[2] for low, _ in edges), max(high[2] for _, high in edges)
        if not low / _DISTANCE_TOLERANCE <= distance <= high * _DISTANCE_TOLERANCE:
            phrases.append(
                f"slices {distance:.3g} mm apart, in training {low:.3g} to {high:.3g} mm"
            )
    return tuple(phrases)
