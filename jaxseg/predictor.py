"""Trained networks and a case: is it like those of training, and what is it made of?"""

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from jaxseg import memory, workdir
from jaxseg.data import (
    Case,
    DataError,
    preprocess_case,
    probabilities_to_native,
    with_neighbors,
)
from jaxseg.inference import Params, Segmenter, make_probabilities
from jaxseg.presence import PresenceRule
from jaxseg.settings import SettingsError
from jaxseg.trained import Trained
from jaxseg.workdir import WorkdirError

# A stack has about seven slices, and one shape is compiled.
_BATCH_SIZE = 8
# A voxel edge may lie outside the training cases' range by this factor.
_SPACING_TOLERANCE = 2.0
# Axes of (slices, H, W, ...) that are mirrored at test time.
_FLIPS = ((), (1,), (2,), (1, 2))

# A case to label probabilities (X, Y, slices, L) float32 on its own grid.
Predictor = Callable[[Case], np.ndarray]


def make_predictor(runs: Sequence[Trained], *, mirror: bool = False) -> Predictor:
    """Compile the prediction of a case.

    Args:
      runs: one or more, of one label set; their probabilities are averaged on the native grid.
      mirror: average over the four mirror images of every slice, too.

    Returns:
      A function of a case, giving (X, Y, slices, L) float32; it raises DataError as
      `preprocess_case`, and OutOfMemoryError.

    Raises:
      WorkdirError: runs of different label sets; one given twice.
    """
    networks = [(run.folder.resolve(), run.step) for run in runs]
    for run, network in zip(runs, networks, strict=True):
        if networks.count(network) > 1:
            raise WorkdirError(f"{run.folder}: would count twice; expected every run once")
    for run in runs[1:]:
        if run.anatomy.labels != runs[0].anatomy.labels:
            raise WorkdirError(
                f"{run.folder}: a run of the labels {', '.join(run.anatomy.labels)}; expected "
                f"those of {runs[0].folder}: {', '.join(runs[0].anatomy.labels)}"
            )
    flips = _FLIPS if mirror else _FLIPS[:1]
    # Folds share one network, which is compiled once.
    segmenters = {
        run.network: make_probabilities(run.network, batch_size=_BATCH_SIZE) for run in runs
    }

    def predict(case: Case) -> np.ndarray:
        total = np.zeros((*case.image.shape, runs[0].anatomy.num_labels), np.float32)
        for run in runs:
            intensity = run.settings["intensity"]
            images, _ = preprocess_case(
                case,
                run.grid,
                num_labels=run.anatomy.num_labels,
                normalization=intensity["method"],
                percentiles=(intensity["low"], intensity["high"]),
            )
            inputs = with_neighbors(images, np.zeros(len(images), int), slices=run.slices)
            with memory.advised(memory.inference_advice(run.settings, _BATCH_SIZE)):
                probabilities = _mirrored(segmenters[run.network], run.params, inputs, flips)
            total += probabilities_to_native(
                probabilities, case.image.shape, case.spacing, run.grid
            )
        return total / np.float32(len(runs))

    return predict


def _mirrored(
    segment: Segmenter, params: Params, images: np.ndarray, flips: Sequence[tuple[int, ...]]
) -> np.ndarray:
    views = [np.flip(segment(params, np.flip(images, axes)), axes) for axes in flips]
    return np.mean(views, axis=0)


def presence_rule(
    runs: Sequence[Trained], *, drop_small: bool = False, min_confidence: Sequence[float] = ()
) -> PresenceRule:
    """What pathology must show to be kept, over the training cases of all runs.

    Args:
      runs: one or more, of one label set.
      drop_small: whether what is smaller than in any training case goes.
      min_confidence: bounds of `jaxseg.presence.core_confidence`, one for every inclusion pair or
        one for all; empty for none.

    Raises:
      WorkdirError: a run that does not tell of the smallest pathology it was trained on, and must;
        runs of different inclusion pairs.
      SettingsError: another number of bounds, or a rule for a label set without inclusion pairs.
    """
    if not (drop_small or min_confidence):
        return PresenceRule()
    anatomy = runs[0].anatomy
    count, bounds = len(anatomy.inclusions), tuple(min_confidence)
    if not count:
        flag = "--min_confidence" if bounds else "--drop_small"
        raise SettingsError(f"{flag}: the label set has no inclusion pairs to decide on")
    for run in runs[1:]:
        if run.anatomy.inclusions != anatomy.inclusions:
            raise WorkdirError(
                f"{run.folder}: of other inclusion pairs than {runs[0].folder}; expected the same "
                "to decide on what is small or doubtful"
            )
    if len(bounds) not in (0, 1, count):
        raise SettingsError(
            f"--min_confidence: expected 1 or {count} numbers, as many as the label set has "
            f"inclusion pairs, got {len(bounds)}"
        )
    if len(bounds) == 1:
        bounds *= count
    return PresenceRule(_smallest_pathology(runs), drop_small, bounds)


def _smallest_pathology(runs: Sequence[Trained]) -> tuple[float | None, ...]:
    """In mm3, by inclusion pair."""
    by_run = []
    for run in runs:
        noted, pairs = run.data.get("smallest_mm3"), len(runs[0].anatomy.inclusions)
        if noted is None or len(noted) != pairs:
            raise WorkdirError(
                f"{run.folder}: its {workdir.DATA} does not tell the smallest pathology of the "
                f"training cases, one volume for each of its {pairs} inclusion pairs"
            )
        by_run.append(noted)
    known = [[v for v in volumes if v is not None] for volumes in zip(*by_run, strict=True)]
    return tuple(min(volumes, default=None) for volumes in known)


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
    """What to tell of a case whose slices are stored turned, beside those that runs learned from.

    Nothing turns a stack by its affine, which many a file leaves at a default; so this is no error.

    Returns:
      A line without the case's name; None where a case or the runs state no orientation, or one
      that every run was trained on.
    """
    if case.orientation is None:
        return None
    for run in runs:
        known = run.data.get("orientations")
        if known and case.orientation not in known:
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
