"""Prediction of unlabeled stacks, with label maps, volumes and overviews written to disk."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from tqdm import tqdm

from jaxseg.data import Case, DataError, labels_to_network, to_network, write_like
from jaxseg.errors import UserError
from jaxseg.inference import measure_files, volumes_file
from jaxseg.inference.case_decision import choose_rule
from jaxseg.inference.inputs import Stack, find_inputs
from jaxseg.inference.measurer import Measurer
from jaxseg.inference.predictor import Prediction
from jaxseg.inference.segmenter import CaseSegmenter, make_segmenter
from jaxseg.measures.aha import Septum
from jaxseg.measures.heart import HeartLabels, MeasureError
from jaxseg.metrics import volume
from jaxseg.reports import pictures
from jaxseg.runs.files import ExistsError, WorkdirError, atomic, check_outputs, writing
from jaxseg.runs.trained import Trained

_LOG = logging.getLogger(__name__)

# An image has more gray levels than this; label maps of whole hearts have about ten values.
_MOST_LABELS = 16
# In a CT, a tenth or more of the voxels are air, at -1000 HU.
_AIR_HU, _AIR_WIDTH_HU, _AIR_SHARE = 1000, 50, 0.1


class PredictionError(UserError, RuntimeError):
    """Raised for files that could not be predicted, one line each; all others were."""


@dataclass(frozen=True)
class _Outputs:
    """Output files of the cases in a folder, by the name of the case."""

    folder: Path
    with_probabilities: bool
    overwrite: bool

    def labels(self, name: str) -> Path:
        return self.folder / f"{name}.nii.gz"

    def probabilities(self, name: str) -> Path:
        return self.folder / "probabilities" / f"{name}.nii.gz"

    def overview(self, name: str) -> Path:
        return measure_files.overview_path(self.folder, name)

    def all(self, name: str) -> list[Path]:
        probabilities = [self.probabilities(name)] * self.with_probabilities
        measures = measure_files.case_paths(self.folder, name)
        return [self.labels(name), self.overview(name), *probabilities, *measures]

    def write(self, path: Path, volume: np.ndarray, geometry: "Path | nib.Nifti1Header") -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic(path, overwrite=self.overwrite) as temporary:
            write_like(temporary, volume, geometry)


@dataclass(frozen=True)
class _Pipeline:
    """What all cases have in common; `measurer` is None if the labels cannot be measured."""

    runs: Sequence[Trained]
    segment: CaseSegmenter
    measurer: Measurer | None
    outputs: _Outputs


def predict(
    runs: Sequence[Trained],
    source: Path,
    output: Path,
    *,
    mirror: bool = False,
    center: tuple[float, float] | None = None,
    drop_small: bool = False,
    min_dice: Sequence[float] = (),
    case_decision: bool = False,
    pathology_odds: float = 1.0,
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
      min_dice: as in `presence_rule`, for whole stacks; probabilities are not affected.
      case_decision: as in `choose_rule`.
      pathology_odds: as in `presence_rule`; probabilities are not affected.
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
        min_dice=min_dice,
        case_decision=case_decision,
        odds=pathology_odds,
    )
    segment = make_segmenter(runs, mirror=mirror, rule=rule, center=center, orientation=orientation)
    inputs, rejected = find_inputs(source, output, runs[0].setup.source.layout, series)
    outputs = _Outputs(output, probabilities, overwrite)
    _check_outputs(outputs, inputs)
    if synthetic := [str(run.folder) for run in runs if run.data.get("synthetic")]:
        _LOG.warning(
            f"{', '.join(synthetic)}: trained on synthetic cases; of no use on real images"
        )
    header = volumes_file.header_of(runs[0].anatomy)
    volumes_file.read_rows(output / volumes_file.FILE, header, overwrite)
    for run in runs:
        _LOG.info(run.describe())
    measurer = _make_measurer(runs[0], output, septum, overwrite)
    remarks, failures = _predict_files(_Pipeline(runs, segment, measurer, outputs), inputs)
    if done := len(inputs) - len(failures):
        _finish(output, done, measurer is not None, remarks)
        if sentences:
            _LOG.info(" ".join(sentences))
    single = source.is_file() or any(stack.series for stack in inputs.values())
    _raise_failures(rejected + failures, done, single)


def _finish(output: Path, done: int, measured: bool, remarks: Sequence[str]) -> None:
    """Write the report of all cases in the folder, and log what was done."""
    _LOG.info(f"{output}: {done} label maps, their volumes in {volumes_file.FILE}")
    if measured:
        measure_files.write_study(output)
        _LOG.info(f"{output}: measures and pictures of all cases in {measure_files.REPORT}")
    for remark in remarks:
        _LOG.warning(remark)


def _raise_failures(failures: Sequence[str], done: int, single: bool) -> None:
    """Raise for files that were not predicted; `single` if there is only one input."""
    if failures and single:
        raise DataError(failures[0])
    if failures:
        lines = "\n".join(f"  {failure}" for failure in failures)
        count = done + len(failures)
        raise PredictionError(f"{len(failures)} of {count} files not predicted:\n{lines}")


def _check_outputs(outputs: _Outputs, inputs: Mapping[str, Stack]) -> None:
    """Reject, before any work is done, outputs that would fail or destroy other files."""
    read = {stack.path.resolve() for stack in inputs.values()}
    files = [path for name in inputs for path in outputs.all(name)]
    for path in files:
        if path.resolve() in read:
            raise WorkdirError(f"{path}: is an input itself; expected another output folder")
    check_outputs(outputs.folder, files, overwrite=outputs.overwrite)


def _predict_files(pipeline: _Pipeline, inputs: Mapping[str, Stack]) -> tuple[list[str], list[str]]:
    """Predict all cases; return a line for each case with remarks, and one for each failure."""
    remarks, failures, outputs = [], [], pipeline.outputs
    with writing(outputs.folder):  # an error such as a full disk affects all later cases
        for name, stack in tqdm(inputs.items(), desc="predicting", unit="case", disable=None):
            try:
                if phrases := _predict_file(pipeline, name, stack):
                    remarks.append(f"{stack.path}: {'; '.join(phrases)}")
            except DataError as error:
                earlier = "; its earlier files stay" * any(p.exists() for p in outputs.all(name))
                failures.append(f"{error}{earlier}")
            except ExistsError as error:  # written by another process
                failures.append(str(error))
    return remarks, failures


def _predict_file(pipeline: _Pipeline, name: str, stack: Stack) -> list[str]:
    """Predict a case, and write its files and its row in the table of volumes.

    The label map is written after all other files, so its presence marks a complete case.

    Returns:
      Remarks on the prediction, and why the case was not measured.
    """
    outputs, run = pipeline.outputs, pipeline.runs[0]
    case = stack.read(str(stack.path))  # errors name the path
    _check_is_image(case, stack.path)
    labels, prediction = pipeline.segment(case, stack.path)
    if not prediction.heart_found:
        raise DataError(
            f"{stack.path}: no heart found; expected a short-axis stack of the left ventricle. If "
            "it is one, say where its heart lies: --center=ROW,COLUMN, fractions of the field of "
            "view"
        )
    synthetic = any(run.data.get("synthetic") for run in pipeline.runs)
    remarks = (*(["network trained on synthetic cases"] * synthetic), *prediction.remarks())
    figure = _overview(run, case, prediction, labels, remarks)
    pictures.save(figure, outputs.overview(name), overwrite=outputs.overwrite)
    geometry, unmeasured = stack.geometry(case), []
    if outputs.with_probabilities:
        outputs.write(outputs.probabilities(name), prediction.probabilities, geometry)
    if pipeline.measurer:
        try:
            pipeline.measurer.write(name, labels, case.spacing, case.header)
        except MeasureError as error:
            unmeasured.append(str(error))
    outputs.write(outputs.labels(name), run.written(labels), geometry)
    volumes = [volume(labels, values, case.spacing) for _, values in run.anatomy.case_regions]
    row = volumes_file.row_of(run.anatomy, name, volumes, prediction.center, remarks)
    header = volumes_file.header_of(run.anatomy)
    volumes_file.add_row(outputs.folder, header, row, outputs.overwrite)
    return [*prediction.remarks(), *unmeasured]


def _make_measurer(
    run: Trained, output: Path, septum: Septum | None, overwrite: bool
) -> Measurer | None:
    try:
        labels = HeartLabels.of(run.anatomy)
    except MeasureError as error:
        _LOG.info(f"{run.folder}: nothing is measured ({error})")
        return None
    return Measurer(labels, run.setup.source.apex_first, septum, output, overwrite)


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


def _overview(
    run: Trained,
    case: Case,
    prediction: Prediction,
    labels: NDArray[np.uint8],
    remarks: Sequence[str],
) -> Figure:
    """Draw the slices on the network grid, whose pixels are square, above their label maps."""
    grid = prediction.grid
    images, _ = to_network(case.image, case.spacing, grid, case.tissue)
    maps = labels_to_network(labels, case.spacing, grid, run.anatomy.num_labels)
    shown = pictures.shown_slices(len(images))
    titles = [f"slice {number}" for number in shown]
    if prediction.center is not None:
        row, column = prediction.center
        remarks = [f"heart found at row {row}, column {column}", *remarks]
    return pictures.comparison(
        images[shown],
        {"prediction": maps[shown]},
        titles,
        run.anatomy.labels,
        caption="; ".join(remarks),
    )
