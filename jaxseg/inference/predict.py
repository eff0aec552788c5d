"""Prediction of unlabeled stacks, with label maps, volumes and overviews written to disk."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from jaxseg.data import Case, DataError, labels_to_network, to_network, write_like
from jaxseg.errors import UserError
from jaxseg.inference import measure_files, volumes_file
from jaxseg.inference.case_decision import choose_rule
from jaxseg.inference.inputs import Stack, find_inputs
from jaxseg.inference.measurer import Measurer
from jaxseg.inference.predictor import Prediction
from jaxseg.inference.segmenter import Segmenter, make_segmenter
from jaxseg.measures.aha import Septum
from jaxseg.measures.heart import HeartLabels, MeasureError
from jaxseg.metrics import volume
from jaxseg.reports import pictures
from jaxseg.runs.files import ExistsError, WorkdirError, atomic, check_writable
from jaxseg.runs.trained import Trained

_LOG = logging.getLogger(__name__)

# An image has more gray levels than this; label maps of whole hearts have about ten values.
_MOST_LABELS = 16
# In a CT, a tenth or more of the voxels are air, at -1000 HU.
_AIR_HU, _AIR_WIDTH_HU, _AIR_SHARE = 1000, 50, 0.1


class PredictionError(UserError, RuntimeError):
    """Files that could not be predicted, one line each; all others were."""


@dataclass(frozen=True)
class _Outputs:
    """Output files of a case; `probabilities` is None if they are not written."""

    labels: Path
    overview: Path
    probabilities: Path | None
    measures: list[Path]
    overwrite: bool

    @classmethod
    def of(
        cls, name: str, folder: Path, probabilities: bool, overwrite: bool = False
    ) -> "_Outputs":
        file = f"{name}.nii.gz"
        return cls(
            labels=folder / file,
            overview=measure_files.overview_path(folder, name),
            probabilities=folder / "probabilities" / file if probabilities else None,
            measures=measure_files.case_paths(folder, name),
            overwrite=overwrite,
        )

    def all(self) -> list[Path]:
        files = (self.labels, self.overview, self.probabilities, *self.measures)
        return [path for path in files if path]


def predict(
    runs: Sequence[Trained],
    source: Path,
    output: Path,
    *,
    mirror: bool = False,
    center: tuple[float, float] | None = None,
    drop_small: bool = False,
    min_confidence: Sequence[float] = (),
    case_decision: bool = False,
    probabilities: bool = False,
    orientation: str | None = None,
    series: str | None = None,
    septum: Septum | None = None,
    overwrite: bool = False,
) -> None:
    """Segment one stack, or every stack in a folder, on its native grid, and measure it.

    Args:
      runs: one or more runs of one label set, whose probabilities are averaged.
      source: a NIfTI file, or a folder that is searched recursively, following links. Hidden files
        and folders named `Contours`, `labelsTr` or `labelsTs`, which contain references, are
        skipped. Without NIfTI files, the folder holds DICOM files, of which one series is taken.
      output: folder for NAME.nii.gz, with the label values of the training data,
        overviews/NAME.png and volumes.csv; created if needed. NAME is that of the input file, for
        a run on nnU-Net data without the channel suffix `_0000`; of a DICOM series it is
        `dicom.Series.name`. Rows of other cases in an existing volumes.csv are kept. The files of
        `jaxseg.inference.measure.measure` are written as well, if the run's labels can be measured.
      mirror: as in `make_predictor`.
      center: as in `make_predictor`.
      drop_small: as in `presence_rule`, for whole stacks; probabilities are not affected.
      min_confidence: as in `presence_rule`, for whole stacks; probabilities are not affected.
      case_decision: as in `choose_rule`.
      probabilities: whether to write probabilities/NAME.nii.gz, (X, Y, slices, labels) float32.
      orientation: as in `make_predictor`.
      series: the DICOM series to take, as in `dicom.find_series`.
      septum: where the septum lies in all pictures, as in `jaxseg.inference.measure.measure`.
      overwrite: whether to replace existing files.

    Raises:
      DataError: if there is nothing to predict, or a single file cannot be predicted.
      PredictionError: if some files of a folder cannot be predicted; the others are finished.
      SettingsError: as in `choose_rule`.
      WorkdirError: as in `choose_rule`; if the runs have different label sets; if outputs exist or
        cannot be written; or if a label map would replace an input.
    """
    rule, sentences = choose_rule(
        runs,
        mirror=mirror,
        drop_small=drop_small,
        min_confidence=min_confidence,
        case_decision=case_decision,
    )
    segment = make_segmenter(runs, mirror=mirror, rule=rule, center=center, orientation=orientation)
    layout = runs[0].setup.source.layout
    inputs, failures = find_inputs(source, output, layout, series)
    outputs = {name: _Outputs.of(name, output, probabilities, overwrite) for name in inputs}
    _check_output(output, inputs, outputs, overwrite)
    if synthetic := [str(run.folder) for run in runs if run.data.get("synthetic")]:
        _LOG.warning(
            f"{', '.join(synthetic)}: trained on synthetic cases; of no use on real images"
        )
    header, done, remarks = volumes_file.header_of(runs[0].anatomy), 0, []
    volumes_file.read_rows(output / volumes_file.FILE, header, overwrite)
    for run in runs:
        _LOG.info(run.describe())
    measurer = _make_measurer(runs[0], output, septum, overwrite)
    for name, stack in tqdm(inputs.items(), desc="predicting", unit="case", disable=None):
        try:
            volumes, prediction, unmeasured = _predict_file(
                runs, segment, measurer, name, stack, outputs[name]
            )
            row = volumes_file.row_of(
                runs[0].anatomy, name, volumes, prediction.center, _remarks(runs, prediction)
            )
            volumes_file.add_row(output, header, row, overwrite)
            if phrases := [*prediction.remarks(), *unmeasured]:
                remarks.append(f"{stack.path}: {'; '.join(phrases)}")
            done += 1
        except DataError as error:
            earlier = "; its earlier files stay" * any(p.exists() for p in outputs[name].all())
            failures.append(f"{error}{earlier}")
        except ExistsError as error:  # written by another process
            failures.append(str(error))
        except OSError as error:  # such as a full disk, which affects all later cases
            raise WorkdirError(f"{output}: cannot write here ({error.strerror})") from error
    if done:
        _LOG.info(f"{output}: {done} label maps, their volumes in {volumes_file.FILE}")
        if measurer:
            measure_files.write_study(output)
            _LOG.info(f"{output}: measures and pictures of all cases in {measure_files.REPORT}")
        for remark in remarks:
            _LOG.warning(remark)
        if case_decision:
            _LOG.info(" ".join(sentences))
    if failures and (source.is_file() or any(stack.series for stack in inputs.values())):
        raise DataError(failures[0])
    if failures:
        count = done + len(failures)
        lines = "\n".join(f"  {failure}" for failure in failures)
        raise PredictionError(f"{len(failures)} of {count} files not predicted:\n{lines}")


def _check_output(
    output: Path, inputs: dict[str, Stack], outputs: dict[str, _Outputs], overwrite: bool
) -> None:
    """Reject, before any work is done, outputs that would fail or destroy other files."""
    check_writable(output)
    read = {stack.path.resolve() for stack in inputs.values()}
    files = [path for files in outputs.values() for path in files.all()]
    for path in files:
        if path.resolve() in read:
            raise WorkdirError(f"{path}: is an input itself; expected another output folder")
    present = [path for path in files if path.exists()]
    if present and not overwrite:
        others = f" and {len(present) - 1} more" if present[1:] else ""
        verb = "exist" if others else "exists"
        raise WorkdirError(f"{present[0]}{others} {verb} already; pass --overwrite to replace")


def _predict_file(
    runs: Sequence[Trained],
    segment: Segmenter,
    measurer: Measurer | None,
    name: str,
    stack: Stack,
    outputs: _Outputs,
) -> tuple[list[float], Prediction, list[str]]:
    """Predict one case and write its files.

    The label map is written last, so its presence marks a complete case.

    Returns:
      Volumes in mm3 of the anatomy's case regions, the prediction, and why it was not measured.
    """
    path, run = stack.path, runs[0]
    case = stack.read(str(path))  # errors name the path
    _check_is_image(case, path)
    labels, prediction = segment(case, path)
    if not prediction.heart_found:
        raise DataError(
            f"{path}: no heart found; expected a short-axis stack of the left ventricle. If it is "
            "one, say where its heart lies: --center=ROW,COLUMN, fractions of the field of view"
        )
    for file in outputs.all():
        file.parent.mkdir(parents=True, exist_ok=True)
    with atomic(outputs.overview, overwrite=outputs.overwrite) as temporary:
        _save_overview(run, case, prediction, labels, _remarks(runs, prediction), temporary)
    if outputs.probabilities:
        with atomic(outputs.probabilities, overwrite=outputs.overwrite) as temporary:
            write_like(temporary, prediction.probabilities, stack.geometry(case))
    unmeasured = []
    if measurer:
        try:
            measurer.write(name, labels, case.spacing, case.header)
        except MeasureError as error:
            unmeasured.append(str(error))
    with atomic(outputs.labels, overwrite=outputs.overwrite) as temporary:
        write_like(temporary, run.written(labels), stack.geometry(case))
    regions = run.anatomy.case_regions
    volumes = [volume(labels, values, case.spacing) for _, values in regions]
    return volumes, prediction, unmeasured


def _make_measurer(
    run: Trained, output: Path, septum: Septum | None, overwrite: bool
) -> Measurer | None:
    try:
        labels = HeartLabels.of(run.anatomy)
    except MeasureError as error:
        _LOG.info(f"{run.folder}: nothing is measured ({error})")
        return None
    return Measurer(labels, run.setup.source.apex_first, septum, output, overwrite)


def _remarks(runs: Sequence[Trained], prediction: Prediction) -> tuple[str, ...]:
    """Return the remarks on a case for its row in the table and its overview."""
    synthetic = any(run.data.get("synthetic") for run in runs)
    return (*(["network trained on synthetic cases"] * synthetic), *prediction.remarks())


def _check_is_image(case: Case, path: Path) -> None:
    """Reject a label map and a CT, which would otherwise be segmented as if they were LGE MR."""
    values = np.unique(case.image)
    if len(values) <= _MOST_LABELS and (values == np.rint(values)).all():
        shown = ", ".join(f"{value:g}" for value in values[:6])
        raise DataError(
            f"{path}: only {len(values)} values, all whole ({shown}{' ...' * (len(values) > 6)}),"
            " as in a label map; expected an image"
        )
    # Padding of a single value is left out: an MR minus 1000 has no other voxels of that value.
    air = np.mean(np.abs(case.image[case.tissue] + _AIR_HU) < _AIR_WIDTH_HU)
    if air > _AIR_SHARE:
        raise DataError(
            f"{path}: {air:.0%} of the voxels are near -1000, as of air in a CT; expected LGE MR"
        )


def _save_overview(
    run: Trained,
    case: Case,
    prediction: Prediction,
    labels: np.ndarray,
    remarks: Sequence[str],
    path: Path,
) -> None:
    """Draw the slices on the network grid, whose pixels are square, above their label maps."""
    grid = prediction.grid
    images, _ = to_network(case.image, case.spacing, grid, case.tissue)
    maps = labels_to_network(labels, case.spacing, grid, run.anatomy.num_labels)
    shown = pictures.shown_slices(len(images))
    titles = [f"slice {number}" for number in shown]
    if prediction.center is not None:
        row, column = prediction.center
        remarks = [f"heart found at row {row}, column {column}", *remarks]
    figure = pictures.comparison(
        images[shown],
        {"prediction": maps[shown]},
        titles,
        run.anatomy.labels,
        caption="; ".join(remarks),
    )
    pictures.save(figure, path)
