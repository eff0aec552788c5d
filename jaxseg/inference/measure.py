"""Measures of label maps, with their tables, polar maps and report written to disk."""

import logging
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from jaxseg.anatomy import EMIDEC, Anatomy
from jaxseg.config.setup import build
from jaxseg.data import DataError, read_volume, voxel_spacing
from jaxseg.data.folders import volumes
from jaxseg.data.label_values import LabelValues
from jaxseg.data.nifti import without_suffix
from jaxseg.inference import measure_files
from jaxseg.inference.measurer import Measurer
from jaxseg.measures.aha import Septum
from jaxseg.measures.heart import HeartLabels, MeasureError
from jaxseg.reports import pictures
from jaxseg.runs.data_file import read_data
from jaxseg.runs.files import check_outputs, writing
from jaxseg.runs.trained import read_config

_LOG = logging.getLogger(__name__)


def measure(
    sources: Sequence[Path],
    output: Path,
    *,
    run: Path | None = None,
    septum: Septum | None = None,
    base_first: bool = False,
    overwrite: bool = False,
) -> None:
    """Measure label maps.

    Args:
      sources: NIfTI label maps, or folders of them, which are not searched deeper.
      output: folder for measures/NAME.json, bullseyes/NAME.png and overviews/NAME.png, with NAME
        of the input file; for measures.csv, measures_slices.csv, measures_segments.csv (if a septum
        is known) and report.html. The last four hold all cases ever measured into the folder.
      run: run folder or bundle whose labels, label values and slice order hold; by default those
        of EMIDEC hold.
      septum: where the septum lies in the pictures of all label maps. By default it is estimated
        where a header states the orientation of a short-axis stack.
      base_first: whether slice 0 is the base, for label maps without a run; in EMIDEC it is the
        apex.
      overwrite: whether to replace existing files.

    Raises:
      DataError: if there is nothing to measure, two files have one name, or a single file is not a
        label map of this anatomy.
      MeasureError: if the anatomy or a single label map cannot be measured, or some of several
        files; the others are finished.
      WorkdirError: if outputs exist or cannot be written, or there is no such run.
      SettingsError: if the config of the run does not describe a run.
    """
    anatomy, values, apex_first = _label_set(run)
    labels = HeartLabels.of(anatomy)
    measurer = Measurer(labels, apex_first and not base_first, septum, output, overwrite)
    inputs = _find(sources)
    overviews = [measure_files.overview_path(output, name) for name in inputs]
    measures = [path for name in inputs for path in measurer.files(name)]
    check_outputs(output, overviews + measures, overwrite=overwrite)
    failures: list[DataError | MeasureError] = []
    with writing(output):
        for name, path in tqdm(inputs.items(), desc="measuring", unit="case", disable=None):
            try:
                _measure_file(measurer, anatomy, values, name, path)
            except (DataError, MeasureError) as error:
                failures.append(error)
    done = len(inputs) - len(failures)
    if done:
        measure_files.write_study(output)
        _LOG.info(f"{output}: {done} label maps measured; open {measure_files.REPORT}")
    if len(inputs) == 1 and failures:
        raise failures[0]
    if failures:
        lines = "\n".join(f"  {failure}" for failure in failures)
        raise MeasureError(f"{len(failures)} of {len(inputs)} files not measured:\n{lines}")


def _label_set(run: Path | None) -> tuple[Anatomy, LabelValues, bool]:
    """Return the anatomy, its values in files, and whether slice 0 is the apex."""
    if run is None:
        return EMIDEC, LabelValues.plain(EMIDEC.num_labels), True
    setup, written = build(read_config(run)), read_data(run).get("label_values")
    values = LabelValues.plain(setup.anatomy.num_labels)
    if written:
        values = LabelValues(tuple((float(value),) for value in written))
    return setup.anatomy, values, setup.source.apex_first


def _find(sources: Sequence[Path]) -> dict[str, Path]:
    """Find the label maps by case name."""
    found: dict[str, Path] = {}
    for source in sources:
        paths = volumes(source) if source.is_dir() else [source]
        if not paths:
            raise DataError(f"{source}: no NIfTI file; expected files ending in .nii or .nii.gz")
        for path in paths:
            name = without_suffix(path.name)
            if name in found:
                raise DataError(f"{path}: a second case named {name}; the first is {found[name]}")
            found[name] = path
    return found


def _measure_file(
    measurer: Measurer, anatomy: Anatomy, values: LabelValues, name: str, path: Path
) -> None:
    stored, header = read_volume(path)
    remedy = "Is it a label map? --run=RUN reads the label values of a run"
    label_map, spacing = values.to_labels(stored, path, remedy=remedy), voxel_spacing(header)
    try:
        measurer.write(name, label_map, spacing, header)
    except MeasureError as error:
        raise MeasureError(f"{path}: {error}") from None
    figure = pictures.label_picture(label_map, spacing, anatomy.labels)
    overview = measure_files.overview_path(measurer.output, name)
    pictures.save(figure, overview, overwrite=measurer.overwrite)
