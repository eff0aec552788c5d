"""Trained networks and a case: label probabilities, and where its heart was found."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from jaxseg.config import recipe
from jaxseg.config.settings import SettingsError
from jaxseg.data import Case, Grid, probabilities_to_native
from jaxseg.data.preprocess import network_images
from jaxseg.inference.case_checks import unusual_shape
from jaxseg.inference.locate import (
    FLIPS,
    TURNS_AND_FLIPS,
    View,
    averaged,
    find_heart,
    off_center_mm,
    reaches_border,
)
from jaxseg.machine import memory
from jaxseg.models import UNet
from jaxseg.models.segment import Segmenter, make_probabilities
from jaxseg.presence import PresenceRule
from jaxseg.runs import workdir
from jaxseg.runs.trained import Trained
from jaxseg.runs.workdir import WorkdirError

# A stack has about seven slices, and one shape is compiled.
_BATCH_SIZE = 8
# EMIDEC's hearts lie within 3 mm of the middle; a network that learned this loses some 7 mm off it.
_OFF_CENTER_MM = 6.0


@dataclass(frozen=True, eq=False)
class Prediction:
    """What networks predict of a case.

    Attributes:
      probabilities: (X, Y, slices, L) float32, summing to 1 over L, on the case's own grid.
      center: the voxel (row, column) at the center of the crop; None where the run's settings give
        the center, or no heart was found.
      heart_found: whether there is a heart; without one everything is background.
      at_border: whether labels reach the border of the crop, so that some may be cut off.
      off_center_mm: how far off the crop's center the heart lies, where no heart is looked for.
      unusual: how the stack differs from those of training, as `unusual_shape`.
    """

    probabilities: np.ndarray
    center: tuple[int, int] | None = None
    heart_found: bool = True
    at_border: bool = False
    off_center_mm: float = 0.0
    unusual: tuple[str, ...] = ()

    def heart(self) -> "Prediction":
        """Where the heart was found, without the probabilities: a stack has megabytes of them."""
        return replace(self, probabilities=np.empty(0))

    def remarks(self) -> tuple[str, ...]:
        """What a reader of the label map ought to know, if anything."""
        if not self.heart_found:
            return ("no heart found", *self.unusual)
        remarks = list(self.unusual)
        if self.at_border:
            remarks.append("labels reach the border of the crop")
        if self.off_center_mm > _OFF_CENTER_MM:
            remarks.append(f"the heart lies {self.off_center_mm:.0f} mm off the crop's center")
        return tuple(remarks)


Predictor = Callable[[Case], Prediction]


def heart_notes(predictions: Mapping[str, Prediction]) -> tuple[str, ...]:
    """Sentences on hearts that were not found or may be cut off, for the reader of scores.

    Args:
      predictions: by the name of the case.
    """
    lost = [name for name, found in predictions.items() if not found.heart_found]
    notes = []
    if lost:
        notes.append(f"No heart was found in {', '.join(lost)}, scored as all background.")
    others = [
        f"{name} ({'; '.join(found.remarks())})"
        for name, found in predictions.items()
        if found.heart_found and found.remarks()
    ]
    if others:
        notes.append(f"Hearts that may not be segmented in full: {', '.join(others)}.")
    return tuple(notes)


def make_predictor(runs: Sequence[Trained], *, mirror: bool = False) -> Predictor:
    """Compile the prediction of a case.

    Args:
      runs: one or more, of one label set; the probabilities of those that find the heart are
        averaged on the native grid.
      mirror: average over the four mirror images of every slice, too, and over its quarter turns
        where the run was trained on those (`augment.turn`).

    Returns:
      A function of a case; it raises DataError as `preprocess_case`, and OutOfMemoryError.

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
    # Folds share one network, which is compiled once.
    segmenters = {
        network: make_probabilities(network, batch_size=_BATCH_SIZE)
        for run in runs
        for network in (run.network, run.localizer)
        if network is not None
    }

    def predict(case: Case) -> Prediction:
        found = []
        for run in runs:
            with memory.advised(memory.inference_advice(run.settings, _BATCH_SIZE)):
                found.append(_predict_one(run, case, segmenters, mirror))
        # A run that has found no heart has nothing to say of it.
        found = [one for one in found if one.heart_found] or found[:1]
        total = np.sum([one.probabilities for one in found], axis=0, dtype=np.float32)
        return replace(
            found[0],
            probabilities=total / np.float32(len(found)),
            at_border=any(one.at_border for one in found),
            off_center_mm=max(one.off_center_mm for one in found),
            unusual=unusual_shape(runs, case),
        )

    return predict


def _predict_one(
    run: Trained, case: Case, segmenters: Mapping[UNet, Segmenter], mirror: bool
) -> Prediction:
    """One run's prediction of a case."""
    views = _views(run) if mirror else (View(),)
    how, shape = recipe.preprocessing(run.settings), case.image.shape

    def segment(grid: Grid) -> np.ndarray:
        """(slices, H, W, L) probabilities on a grid; background in slices that show nothing."""
        images, _ = network_images(case, replace(how, grid=grid))
        probabilities = averaged(segmenters[run.network], run.params, images, views)
        probabilities[~case.tissue.any((0, 1))] = np.eye(run.anatomy.num_labels)[0]
        return probabilities

    grid, center = run.grid, None
    if run.localizer is None:
        probabilities = segment(grid)
    else:
        localize = partial(averaged, segmenters[run.localizer], run.localizer_params)
        found = find_heart(case, how, localize, segment)
        if found is None:
            background = np.zeros((*shape, run.anatomy.num_labels), np.float32)
            background[..., 0] = 1
            return Prediction(background, None, heart_found=False)
        center, grid, probabilities = found
    return Prediction(
        probabilities_to_native(probabilities, shape, case.spacing, grid),
        center,
        at_border=reaches_border(probabilities),
        off_center_mm=0.0 if center else off_center_mm(probabilities, grid, case.spacing),
    )


def _views(run: Trained) -> tuple[View, ...]:
    """The mirror images of a slice, with its quarter turns where training showed them as well."""
    return TURNS_AND_FLIPS if run.settings["augment"]["turn"] else FLIPS


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
