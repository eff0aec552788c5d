"""Is a case like those that a run was trained on?"""

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jaxseg.data import Case, DataError
from jaxseg.runs.trained import Trained

# A voxel edge may lie outside the training cases' range by this factor.
_SPACING_TOLERANCE = 2.0
# More slices than this factor of the training cases' largest number are no short-axis stack.
_SLICES_TOLERANCE = 2
# Slices this much closer together or further apart than any in training are worth a word.
_DISTANCE_TOLERANCE = 1.25
# An epicardium is some 60 mm across.
_HEART_MM = 60


def check_case(runs: Sequence[Trained], case: Case, path: Path) -> None:
    """Make sure that a case is stored as those that the runs were trained on.

    Raises:
      DataError: as `check_spacing`.

    Warns:
      UserWarning: its slices are turned, as `other_orientation` says.
    """
    for run in runs:
        check_spacing(run, case, path)
    if turned := other_orientation(runs, case):
        warnings.warn(f"{path}: {turned}", stacklevel=3)


def other_orientation(runs: Sequence[Trained], case: Case) -> str | None:
    """How a case's slices are stored turned, beside those that runs learned from.

    Nothing turns a stack by its affine, which many a file leaves at a default; so this is no error.

    Returns:
      A line without the case's name; None where a case or the runs state no orientation, or one
      that every run was trained on, by its cases or by flips and turns.
    """
    if case.orientation is None:
        return None
    for run in runs:
        known = run.data.get("orientations")
        augment = run.settings["augment"]
        every_way = augment["probability"] and augment["flip"] and augment["turn"]
        if known and case.orientation not in known and not every_way:
            return (
                f"rows and columns lead to {case.orientation} by its header, in training they led "
                f"to {' or '.join(known)}; expected stacks stored as in training"
            )
    return None


def check_spacing(run: Trained, case: Case, path: Path) -> None:
    """Make sure that a case's voxels are about as large as those that the run was trained on.

    What it stops: a unit that is not mm, a stack whose slices lie along another axis, another kind
    of scan. A run older than the note of its spacing cannot tell, and lets everything pass.

    Raises:
      DataError: a voxel edge is outside the training cases' range by more than a factor of 2.
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
    """How a stack's shape differs from those of training, where it can still be segmented.

    Returns:
      A phrase for each of: a field of view smaller than a heart, many more slices, slices at
      another distance. Runs that are older than the notes of their training cases say nothing.
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
