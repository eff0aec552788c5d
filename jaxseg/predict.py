"""Prediction of NIfTI stacks that need no labels: label maps, volumes and overviews on disk."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from jaxseg.anatomy import Anatomy
from jaxseg.case_scores import enclosing_region
from jaxseg.data import (
    Case,
    DataError,
    labels_to_network,
    read_case,
    to_network,
    write_like,
)
from jaxseg.data.emidec import CONTOURS
from jaxseg.data.folders import is_volume, walk
from jaxseg.data.nifti import SUFFIXES
from jaxseg.data.nnunet import LABELS
from jaxseg.loop import Say
from jaxseg.metrics import volume
from jaxseg.predictor import Predictor, check_case, make_predictor, presence_rule
from jaxseg.presence import PresenceRule, label_map
from jaxseg.report import pictures, tables
from jaxseg.trained import Trained
from jaxseg.workdir import WorkdirError, atomic, check_writable, locked

_VOLUMES = "volumes.csv"
# Folders of label maps in the layouts that cases are read from.
_REFERENCES = {CONTOURS, *LABELS.values()}
# A wider overview could not be read; a taller stack shows slices evenly spread.
_OVERVIEW_SLICES = 12


class PredictionError(RuntimeError):
    """Files that could not be predicted, a line each; all others were."""


@dataclass(frozen=True)
class _Outputs:
    """Files written of a case; `probabilities` is None where nobody asked for them."""

    labels: Path
    overview: Path
    probabilities: Path | None

    @classmethod
    def of(cls, name: str, folder: Path, probabilities: bool) -> "_Outputs":
        file = f"{name}.nii.gz"
        return cls(
            labels=folder / file,
            overview=folder / "overviews" / f"{name}.png",
            probabilities=folder / "probabilities" / file if probabilities else None,
        )

    def all(self) -> list[Path]:
        return [path for path in (self.labels, self.overview, self.probabilities) if path]


def predict(
    runs: Sequence[Trained],
    source: Path,
    output: Path,
    *,
    mirror: bool = False,
    drop_small: bool = False,
    min_confidence: Sequence[float] = (),
    probabilities: bool = False,
    overwrite: bool = False,
    say: Say = print,
) -> None:
    """Segment one stack, or every stack in a folder, each on its own grid.

    Args:
      runs: one or more of one label set, whose probabilities are averaged.
      source: a NIfTI file, or a folder of them at any depth, links followed; hidden files and
        folders named `Contours`, `labelsTr` or `labelsTs`, which hold references, are passed over.
      output: folder for NAME.nii.gz (uint8), overviews/NAME.png and volumes.csv; created if needed.
        Rows of other cases in a volumes.csv that is there already stay.
      mirror: average over the four mirror images of every slice.
      drop_small: as `presence_rule`; for whole stacks. Probabilities stay as they are.
      min_confidence: likewise.
      probabilities: write probabilities/NAME.nii.gz too, (X, Y, slices, labels) float32.
      overwrite: replace what is there already.
      say: takes each line for the user.

    Raises:
      DataError: nothing to predict, or a single file that cannot be predicted.
      PredictionError: some files of a folder cannot be predicted; the others are done.
      SettingsError: as `presence_rule`.
      WorkdirError: runs of different label sets; outputs that exist, or cannot be written; a
        label map that would take the place of an input.

    Warns:
      UserWarning: a case is stored in another orientation than those trained on.
    """
    predictor = make_predictor(runs, mirror=mirror)
    rule = presence_rule(runs, drop_small=drop_small, min_confidence=min_confidence)
    inputs, failures = _find_inputs(source, output)
    outputs = {name: _Outputs.of(name, output, probabilities) for name in inputs}
    _check_output(output, inputs, outputs, overwrite)
    header, done = _volumes_header(runs[0].anatomy), 0
    _known_rows(output / _VOLUMES, header, overwrite)
    for run in runs:
        say(run.describe())
    for name, path in tqdm(inputs.items(), desc="predicting", unit="case", disable=None):
        try:
            volumes = _predict_file(runs, predictor, rule, name, path, outputs[name])
            _add_row(output, header, _volumes_row(runs[0].anatomy, name, volumes), overwrite)
            done += 1
        except DataError as error:
            earlier = "; its earlier files stay" * any(p.exists() for p in outputs[name].all())
            failures.append(f"{error}{earlier}")
        except OSError as error:  # a full disk, say: the next case would fare no better
            raise WorkdirError(f"{output}: cannot write here ({error.strerror})") from error
    if done:
        say(f"{output}: {done} label maps, their volumes in {_VOLUMES}")
    if failures and source.is_file():
        raise DataError(failures[0])
    if failures:
        count = done + len(failures)
        lines = "\n".join(f"  {failure}" for failure in failures)
        raise PredictionError(f"{len(failures)} of {count} files not predicted:\n{lines}")


def _find_inputs(source: Path, output: Path) -> tuple[dict[str, Path], list[str]]:
    """Files by case name, and why others cannot be taken.

    Of two files of one name neither is: one of them may be a label map.
    """
    if source.is_file():
        if not source.name.endswith(SUFFIXES):
            raise DataError(f"{source}: expected a file ending in .nii or .nii.gz, or a folder")
        return {_case_name(source): source}, []
    if not source.is_dir():
        raise DataError(f"{source}: no such file or folder")
    named: dict[str, list[Path]] = {}
    for path in _stacks(source, output):
        named.setdefault(_case_name(path), []).append(path)
    if not named:
        raise DataError(f"{source}: no NIfTI file; expected files ending in .nii or .nii.gz")
    inputs = {name: paths[0] for name, paths in named.items() if len(paths) == 1}
    failures = [
        f"{paths[0]}: {len(paths)} files of this name, also {', '.join(map(str, paths[1:]))}; "
        "expected one"
        for paths in named.values()
        if len(paths) > 1
    ]
    return inputs, failures


def _stacks(source: Path, output: Path) -> list[Path]:
    """NIfTI files in a folder, also behind links, but for references and earlier predictions."""
    # Earlier predictions may lie within the folder, but not the folder within them.
    earlier = output.resolve() if source.resolve() in output.resolve().parents else None
    found = []
    for parent, names, files in walk(source):
        names[:] = [
            name
            for name in names
            if name not in _REFERENCES and (parent / name).resolve() != earlier
        ]
        found += [parent / name for name in files if is_volume(name)]
    return sorted(path for path in found if path.is_file())


def _case_name(path: Path) -> str:
    return path.name.removesuffix(".gz").removesuffix(".nii")


def _check_output(
    output: Path, inputs: dict[str, Path], outputs: dict[str, _Outputs], overwrite: bool
) -> None:
    """Refuse what would fail, or do harm, before any work is done."""
    check_writable(output)
    read = {path.resolve() for path in inputs.values()}
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
    predictor: Predictor,
    rule: PresenceRule,
    name: str,
    path: Path,
    outputs: _Outputs,
) -> list[float]:
    """Predict and write one case; the label map comes last, so that it tells of a whole case.

    Returns:
      Volumes in mm3 of the anatomy's case regions.
    """
    case = read_case(name, path)
    check_case(runs, case, path)
    probabilities = predictor(case)
    labels = label_map(probabilities, case.spacing, runs[0].anatomy.inclusions, rule)
    for file in outputs.all():
        file.parent.mkdir(parents=True, exist_ok=True)
    with atomic(outputs.overview) as temporary:
        _save_overview(runs[0], case, labels, temporary)
    if outputs.probabilities:
        with atomic(outputs.probabilities) as temporary:
            write_like(temporary, probabilities, path)
    with atomic(outputs.labels) as temporary:
        write_like(temporary, labels, path)
    return [volume(labels, values, case.spacing) for _, values in runs[0].anatomy.case_regions]


def _save_overview(run: Trained, case: Case, labels: np.ndarray, path: Path) -> None:
    """Slices on the network grid, whose pixels are square, above their label maps."""
    images = to_network(case.image, case.spacing, run.grid)
    maps = labels_to_network(labels, case.spacing, run.grid, run.anatomy.num_labels)
    count = min(len(images), _OVERVIEW_SLICES)
    shown = np.linspace(0, len(images) - 1, count).round().astype(int)
    titles = [f"slice {number}" for number in shown]
    figure = pictures.comparison(
        images[shown], {"prediction": maps[shown]}, titles, run.anatomy.labels
    )
    pictures.save(figure, path)


def _shares(anatomy: Anatomy) -> list[tuple[int, int]]:
    """Case regions that lie within another one, and that one."""
    around = [enclosing_region(values, anatomy.case_regions) for _, values in anatomy.case_regions]
    by_labels = [values for _, values in anatomy.case_regions]
    return [(k, by_labels.index(whole)) for k, whole in enumerate(around) if whole]


def _volumes_header(anatomy: Anatomy) -> list[str]:
    names = [name for name, _ in anatomy.case_regions]
    shares = [f"{names[k]}_share" for k, _ in _shares(anatomy)]
    return ["case", *(f"{name}_ml" for name in names), *shares]


def _volumes_row(anatomy: Anatomy, case: str, volumes: list[float]) -> list[object]:
    """Volumes in ml, and shares of the enclosing region, empty where there is none."""
    shares = [volumes[k] / volumes[w] if volumes[w] else "" for k, w in _shares(anatomy)]
    return [case, *(value / 1000 for value in volumes), *shares]


def _known_rows(path: Path, header: list[str], overwrite: bool) -> dict[str, Sequence[object]]:
    """Rows by case of a table of earlier predictions; none where there is no such table."""
    if not path.exists():
        return {}
    try:
        first, *rows = csv.reader(path.read_text(encoding="utf-8").splitlines())
    except (OSError, ValueError, csv.Error):
        first, rows = [], []
    if first == header and all(len(row) == len(header) for row in rows):
        return {row[0]: row for row in rows}
    if overwrite:
        return {}
    raise WorkdirError(f"{path}: not a table of {', '.join(header)}; pass --overwrite to replace")


def _add_row(output: Path, header: list[str], row: Sequence[object], overwrite: bool) -> None:
    """Add a case to the table of volumes, which other processes may write to meanwhile."""
    path = output / _VOLUMES
    with locked(output, wait=True):
        rows = _known_rows(path, header, overwrite) | {str(row[0]): row}
        with atomic(path) as temporary:
            temporary.write_text(tables.csv_text(header, rows.values()), encoding="utf-8")
