"""Checks of whether a case resembles the training cases of a run."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jaxseg.data import Case, DataError, most_probable
from jaxseg.inference.orientation import turned_spacing, view_to_training
from jaxseg.runs.trained import Trained

# Voxel edges may lie outside the range of the training cases by this factor.
_SPACING_TOLERANCE = 2.0
# A stack with more slices than this multiple of the largest training stack is unusual.
_SLICES_TOLERANCE = 2
# Slices of a usual short-axis stack, for runs that do not record those of their training stacks.
_USUAL_SLICES = 10
# Slice distances outside the training range by more than this factor are remarked on.
_DISTANCE_TOLERANCE = 1.25
# A long-axis view has one slice, or two.
_LEAST_SLICES = 3
# An epicardium is about 60 mm across.
_HEART_MM = 60


def check_case(
    runs: Sequence[Trained], case: Case, path: Path, orientation: str | None = None
) -> None:
    """Check that a case resembles the training cases of the runs.

    Args:
      runs: one or more runs.
      case: case on its native grid.
      path: file that the messages name.
      orientation: as in `view_to_training`.

    Raises:
      DataError: as in `check_slices` and `check_spacing`.
    """
    for run in runs:
        check_slices(run, case, path)
        view, _ = view_to_training(run, case, orientation)
        check_spacing(run, turned_spacing(case.spacing, view), path)


def orientation_remark(
    runs: Sequence[Trained], case: Case, orientation: str | None = None
) -> str | None:
    """Describe why a case may have been turned wrongly; arguments as in `check_case`.

    Returns:
      A phrase if the header has no affine, or if the stack fits the orientation of the training
      data in two ways and a run was not trained on all of them; otherwise None.
    """
    if not (orientation or case.has_affine):
        return "orientation unknown, as the header states none"
    for run in runs:
        _, ambiguous = view_to_training(run, case, orientation)
        augmentation = run.setup.augmentation
        every_way = augmentation.probability and augmentation.flip and augmentation.turn
        if ambiguous and not every_way:
            return (
                f"rows and columns lead to {orientation or case.orientation}, about midway between "
                "two ways of storing the training data, of which the nearer is taken; see "
                "--orientation"
            )
    return None


def check_slices(run: Trained, case: Case, path: Path) -> None:
    """Check that a case has enough slices for a short-axis stack.

    Raises:
      DataError: if there are fewer than 3 slices, and fewer than in any training case.
    """
    count = case.image.shape[2]
    least = min(_LEAST_SLICES, run.data.get("slices", [_LEAST_SLICES])[0])
    if count < least:
        raise DataError(
            f"{path}: {count} slice{'s' * (count > 1)}, as of a long-axis view; expected a "
            f"short-axis stack of at least {least} parallel slices"
        )


def check_spacing(run: Trained, spacing: tuple[float, float, float], path: Path) -> None:
    """Check that a case's voxels are about as large as those that the run was trained on.

    This rejects units other than mm, stacks whose slices lie along another axis, and other kinds of
    scans. Runs from before the spacing was recorded accept every case.

    Args:
      run: the run.
      spacing: voxel size in mm along (X, Y, slices), in the orientation of the training data.
      path: file that the message names.

    Raises:
      DataError: if a voxel edge lies outside the range of the training cases by more than a factor
        of 2.
    """
    if "spacing" not in run.data:
        return
    low, high = (np.asarray(edges) for edges in run.data["spacing"])
    edges = np.asarray(spacing)
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
      distance between slices. If no run records its training stacks, the number of slices is
      compared with a usual stack's, and the distance with none.
    """
    phrases = []
    rows, columns = (n * edge for n, edge in zip(case.image.shape, case.spacing[:2], strict=False))
    if min(rows, columns) < _HEART_MM:
        phrases.append(f"field of view {rows:.0f} x {columns:.0f} mm is smaller than a heart")
    count, distance = case.image.shape[2], case.spacing[2]
    most = max((run.data["slices"][1] for run in runs if "slices" in run.data), default=None)
    if count > _SLICES_TOLERANCE * (most or _USUAL_SLICES):
        usual = f"in training at most {most}" if most else f"usual are about {_USUAL_SLICES}"
        phrases.append(f"{count} slices, {usual}")
    edges = [run.data["spacing"] for run in runs if "spacing" in run.data]
    if edges and count > 1:
        low, high = min(low[2] for low, _ in edges), max(high[2] for _, high in edges)
        if not low / _DISTANCE_TOLERANCE <= distance <= high * _DISTANCE_TOLERANCE:
            phrases.append(
                f"slices {distance:.3g} mm apart, in training {low:.3g} to {high:.3g} mm"
            )
    return tuple(phrases)


def unusual_size(
    runs: Sequence[Trained], probabilities: np.ndarray, spacing: tuple[float, float, float]
) -> tuple[str, ...]:
    """Describe a labeled heart that is smaller than any in training, and may be something else.

    Args:
      runs: the runs; those that do not record the smallest heart are left out.
      probabilities: label probabilities (X, Y, slices, L).
      spacing: voxel size in mm.

    Returns:
      One phrase, or none.
    """
    known = [v for run in runs if (v := run.data.get("smallest_heart_mm3")) is not None]
    heart = float((most_probable(probabilities) > 0).sum() * np.prod(spacing))
    if not known or heart >= min(known):
        return ()
    return (
        f"a heart of {heart / 1000:.0f} ml, in training at least {min(known) / 1000:.0f} ml; it "
        "may be another structure",
    )
