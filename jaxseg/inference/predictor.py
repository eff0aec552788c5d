"""Prediction of a case by trained networks: label probabilities and the position of the heart."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial

import numpy as np

from jaxseg.config.settings import SettingsError
from jaxseg.data import Case, Grid, most_probable, probabilities_to_native
from jaxseg.data.padding import field_of_view
from jaxseg.data.preprocess import Preprocessing, corrected, network_images
from jaxseg.inference.case_checks import orientation_remark, unusual_shape, unusual_size
from jaxseg.inference.locate import (
    FLIPS,
    TURNS_AND_FLIPS,
    View,
    averaged,
    find_heart,
    off_center_mm,
    reaches_border,
)
from jaxseg.inference.orientation import grid_back, turned_case, view_to_training, volume_back
from jaxseg.machine import memory
from jaxseg.models import UNet
from jaxseg.models.segment import Segmenter, make_probabilities
from jaxseg.presence import PresenceRule, corrected_labels
from jaxseg.runs.data_file import DATA
from jaxseg.runs.files import WorkdirError
from jaxseg.runs.trained import Trained

# A stack has about seven slices; a fixed batch size compiles only one shape.
_BATCH_SIZE = 8
# EMIDEC's hearts lie within 3 mm of the center; networks trained on them degrade at about 7 mm.
_OFF_CENTER_MM = 6.0


@dataclass(frozen=True, eq=False)
class Prediction:
    """The prediction of a case.

    Attributes:
      probabilities: (X, Y, slices, L) float32 on the native grid, summing to 1 over L.
      center: voxel (row, column) at the center of the crop of the first run that finds a heart.
        None if the config of the run states the center, or if no heart was found.
      grid: the network grid of that run, laid over the stack as it is stored.
      heart_found: whether a heart was found and anything was labeled; otherwise everything is
        background.
      at_border: whether labels reach the border of the crop or of the image within its padding, so
        that some of the heart may be cut off.
      off_center_mm: distance in mm of the heart from the center of the crop, if the config states
        the center; otherwise 0.
      unusual: how the stack or its heart differs from training, by `unusual_shape`,
        `orientation_remark` and `unusual_size`.
    """

    probabilities: np.ndarray
    center: tuple[int, int] | None = None
    grid: Grid = field(default_factory=Grid)
    heart_found: bool = True
    at_border: bool = False
    off_center_mm: float = 0.0
    unusual: tuple[str, ...] = ()

    def heart(self) -> "Prediction":
        """Return a copy without the probabilities, which take megabytes per stack."""
        return replace(self, probabilities=np.empty(0))

    def remarks(self) -> tuple[str, ...]:
        """Return remarks that a reader of the label map should know, if any."""
        if not self.heart_found:
            return ("no heart found", *self.unusual)
        remarks = list(self.unusual)
        if self.at_border:
            remarks.append("labels reach the border of the crop or of the image")
        if self.off_center_mm > _OFF_CENTER_MM:
            remarks.append(f"the heart lies {self.off_center_mm:.0f} mm off the crop's center")
        return tuple(remarks)


Predictor = Callable[[Case], Prediction]


def heart_notes(predictions: Mapping[str, Prediction]) -> tuple[str, ...]:
    """Return sentences on hearts that were not found and on other remarks, for readers of scores.

    Args:
      predictions: predictions by case name.
    """
    lost = [name for name, found in predictions.items() if not found.heart_found]
    notes = []
    if lost:
        notes.append(f"No heart was found in {', '.join(lost)}, scored as all background.")
    names: dict[str, list[str]] = {}  # by remark
    for name, found in predictions.items():
        for remark in found.remarks() if found.heart_found else ():
            names.setdefault(remark, []).append(name)
    if names:
        parts = (f"{remark} ({', '.join(cases)})" for remark, cases in names.items())
        notes.append(f"Cases that may be segmented worse: {'; '.join(parts)}.")
    return tuple(notes)


def make_predictor(
    runs: Sequence[Trained],
    *,
    mirror: bool = False,
    center: tuple[float, float] | None = None,
    orientation: str | None = None,
) -> Predictor:
    """Create a function that predicts a case.

    For each run, a case whose orientation is known is turned in plane to match the training data.
    Its prediction is turned back and describes the stack as it is stored.

    Args:
      runs: one or more runs of one label set. The probabilities of the runs that find a heart are
        averaged on the native grid.
      mirror: whether to average over the four mirror images of every slice, and over its quarter
        turns if the run was trained with them (`augment.turn`).
      center: (row, column) of the heart as fractions of the field of view of the stack as stored.
        By default the heart is located, or its position is taken from the config of the run.
      orientation: code of where rows and columns lead, as in `directions_of`. By default it is
        what the header of each case states.

    Returns:
      A function of a case, which raises DataError as `preprocess_case` does, and OutOfMemoryError.

    Raises:
      WorkdirError: if the runs have different label sets, or a run is given twice.
    """
    _check_runs(runs)
    # The runs of a study share one network architecture, which is compiled once.
    segmenters = {
        network: make_probabilities(network, batch_size=_BATCH_SIZE)
        for run in runs
        for network in (run.network, run.localizer)
        if network is not None
    }

    def predict(case: Case) -> Prediction:
        @cache  # correction takes a second, and the runs of a study agree on it
        def turned(view: View, how: Preprocessing) -> Case:
            return corrected(turned_case(case, view), how)

        found, remark = [], orientation_remark(runs, case, orientation)
        for run in runs:
            size, width = run.grid.size, run.network.width
            with memory.advised(memory.inference_advice(_BATCH_SIZE, size=size, width=width)):
                one = _predict_one(run, case, turned, segmenters, mirror, center, orientation)
                found.append(one)
        unusual = (*unusual_shape(runs, case), *([remark] if remark else []))
        return _mean(runs, found, case, unusual)

    return predict


def _mean(
    runs: Sequence[Trained], found: Sequence[Prediction], case: Case, unusual: tuple[str, ...]
) -> Prediction:
    """Average the predictions of a case by several runs, without runs that find no heart."""
    found = [one for one in found if one.heart_found] or found[:1]
    total = np.sum([one.probabilities for one in found], axis=0, dtype=np.float32)
    mean = np.asarray(total / np.float32(len(found)))
    labeled = bool((most_probable(mean) > 0).any())
    if labeled:
        unusual += unusual_size(runs, mean, case.spacing)
    return replace(
        found[0],
        probabilities=mean,
        center=found[0].center if labeled else None,
        heart_found=labeled,
        at_border=any(one.at_border for one in found),
        off_center_mm=max(one.off_center_mm for one in found),
        unusual=unusual,
    )


def _check_runs(runs: Sequence[Trained]) -> None:
    """Check that runs can be averaged."""
    networks = [(run.folder.resolve(), run.step) for run in runs]
    for run, network in zip(runs, networks, strict=True):
        if networks.count(network) > 1:
            raise WorkdirError(f"{run.folder}: would count twice; expected every run once")
        if run.anatomy.labels != runs[0].anatomy.labels:
            raise WorkdirError(
                f"{run.folder}: a run of the labels {', '.join(run.anatomy.labels)}; expected "
                f"those of {runs[0].folder}: {', '.join(runs[0].anatomy.labels)}"
            )


def _predict_one(
    run: Trained,
    case: Case,
    turned: Callable[[View, Preprocessing], Case],
    segmenters: Mapping[UNet, Segmenter],
    mirror: bool,
    center: tuple[float, float] | None,
    orientation: str | None,
) -> Prediction:
    """Predict a case with one run, in the orientation of its training data."""
    view, _ = view_to_training(run, case, orientation)
    if center is not None:
        run = run.centered(view.point(center, (1, 1)))
    image = turned(view, run.setup.preprocessing)
    found = _predict_turned(run, image, segmenters, mirror)
    rows, columns = image.image.shape[:2]
    return replace(
        found,
        probabilities=volume_back(found.probabilities, view),
        center=found.center and view.point_back(found.center, (rows - 1, columns - 1)),
        grid=grid_back(found.grid, view),
    )


def _predict_turned(
    run: Trained, case: Case, segmenters: Mapping[UNet, Segmenter], mirror: bool
) -> Prediction:
    """Predict a case that is stored as the training data."""
    views = _views(run) if mirror else (View(),)
    how, shape = run.setup.preprocessing, case.image.shape

    def background(shape: tuple[int, ...]) -> np.ndarray:
        probabilities = np.zeros((*shape, run.anatomy.num_labels), np.float32)
        probabilities[..., 0] = 1
        return probabilities

    def segment(grid: Grid) -> np.ndarray:
        """Compute probabilities (slices, H, W, L) on a grid; empty slices are background."""
        images, _ = network_images(case, replace(how, grid=grid))
        shown = case.tissue.any((0, 1))
        probabilities = background(images.shape)
        probabilities[shown] = averaged(segmenters[run.network], run.params, images[shown], views)
        return probabilities

    grid, center = run.grid, None
    if run.localizer is None:
        probabilities = segment(grid)
    else:
        localize = partial(averaged, segmenters[run.localizer], run.localizer_params)
        found = find_heart(case, how, localize, segment)
        if found is None:
            return Prediction(background(shape), None, heart_found=False)
        center, grid, probabilities = found
    native = probabilities_to_native(probabilities, shape, case.spacing, grid)
    picture = np.moveaxis(native[field_of_view(case.tissue)], 2, 0)
    return Prediction(
        native,
        center,
        grid,
        heart_found=bool((most_probable(probabilities) > 0).any()),
        at_border=reaches_border(probabilities) or reaches_border(picture),
        off_center_mm=0.0 if center else off_center_mm(probabilities, grid, case.spacing),
    )


def _views(run: Trained) -> tuple[View, ...]:
    """Return the mirror images, with quarter turns if the run was trained with them."""
    return TURNS_AND_FLIPS if run.setup.augmentation.turn else FLIPS


def presence_rule(
    runs: Sequence[Trained],
    *,
    drop_small: bool = False,
    min_dice: Sequence[float] = (),
    odds: float = 1.0,
) -> PresenceRule:
    """Build the rule on pathology, from arguments and the training cases of all runs.

    Args:
      runs: one or more runs of one label set.
      drop_small: whether to drop pathology that is smaller than in any training case.
      min_dice: bounds of `jaxseg.presence.expected_dice`, one for each inclusion pair or
        one for all; empty for no bounds.
      odds: factor of the odds of pathology, as in `jaxseg.presence.with_odds`.

    Raises:
      WorkdirError: if a rule is requested and the runs have different inclusion pairs, or if small
        pathology is to be dropped and a run does not record the smallest that it was trained on.
      SettingsError: if the number of bounds is wrong, or the label set has no inclusion pairs.
    """
    if not (drop_small or min_dice or odds != 1):
        return PresenceRule()
    anatomy = runs[0].anatomy
    count, bounds = len(anatomy.inclusions), tuple(min_dice)
    if not count:
        flag = "--min_dice" if bounds else "--drop_small" if drop_small else "--pathology_odds"
        raise SettingsError(f"{flag}: the label set has no inclusion pairs, so no pathology")
    if odds != 1 and not corrected_labels(anatomy.inclusions):
        raise SettingsError("--pathology_odds: expected a label in exactly one inner region")
    for run in runs[1:]:
        if run.anatomy.inclusions != anatomy.inclusions:
            raise WorkdirError(
                f"{run.folder}: of other inclusion pairs than {runs[0].folder}; expected the same, "
                "for one rule on pathology"
            )
    if len(bounds) not in (0, 1, count):
        raise SettingsError(
            f"--min_dice: expected 1 or {count} numbers, as many as the label set has "
            f"inclusion pairs, got {len(bounds)}"
        )
    if len(bounds) == 1:
        bounds *= count
    smallest = _smallest_pathology(runs) if drop_small else ()
    return PresenceRule(smallest, drop_small, bounds, odds)


def _smallest_pathology(runs: Sequence[Trained]) -> tuple[float | None, ...]:
    """Find the smallest training volume in mm3 by inclusion pair."""
    by_run = []
    for run in runs:
        noted, pairs = run.data.get("smallest_mm3"), len(runs[0].anatomy.inclusions)
        if noted is None or len(noted) != pairs:
            raise WorkdirError(
                f"{run.folder}: its {DATA} does not record the smallest pathology of the "
                f"training cases, one volume for each of its {pairs} inclusion pairs"
            )
        by_run.append(noted)
    known = [[v for v in volumes if v is not None] for volumes in zip(*by_run, strict=True)]
    return tuple(min(volumes, default=None) for volumes in known)
