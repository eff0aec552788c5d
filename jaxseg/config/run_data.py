"""Find, read and split the cases of a run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from jaxseg.config.reader import reader
from jaxseg.config.sections import DataSource, Split
from jaxseg.config.settings import SettingsError
from jaxseg.config.setup import Setup, build
from jaxseg.data import Cohort, DataError, build_cohort, split
from jaxseg.data.patients import read_held_out, read_patients
from jaxseg.data.phantom.write import MANIFEST, case_names, write_phantom
from jaxseg.data.split import check_count
from jaxseg.home import expanded
from jaxseg.presence import smallest_volumes
from jaxseg.pretrained import folder_of


def load_cohort(setup: Setup) -> Cohort:
    """Read all cases of the run on the network grid; write the phantom first if it is configured.

    Raises:
      DataError: a case is unusable, no case is labeled, or the phantom cannot be written. The
        message names the file or folder.
    """
    read, folder = reader(setup), root(setup.source)
    paths = tqdm(read.find(folder), desc="reading cases", unit="case", disable=None)
    cohort = build_cohort(
        (read.load(path) for path in paths),
        setup.preprocessing,
        margin=setup.margin,
        apex_first=setup.source.apex_first,
        allow_outside=setup.allow_outside,
        soft_labels=setup.soft_labels,
    )
    if not any(cohort.highest_labels):
        raise DataError(f"{folder}: no case has a labeled voxel; expected labeled hearts")
    return cohort


def split_cohort(how: Split, cohort: Cohort) -> tuple[np.ndarray, np.ndarray]:
    """Split the cohort of the run deterministically.

    Args:
      how: split of the run.
      cohort: cohort of all cases.

    Returns:
      Sorted indices of the training slices and of the validation slices.

    Raises:
      SettingsError: the config does not fit these cases, for example with more folds than cases.
      DataError: a file of patients or of a split cannot be read or names other cases, or the split
        puts cases of one patient on both sides.
    """
    names = cohort.case_names
    patients, held = _given(how, names)
    if held is not None:
        is_held = np.array([name in held for name in names])[cohort.case_index]
        return np.flatnonzero(~is_held), np.flatnonzero(is_held)
    try:
        return split(
            cohort,
            kind=how.kind,
            validation_fraction=how.validation_fraction,
            folds=how.folds,
            fold=how.fold,
            seed=how.seed,
            patients=patients,
        )
    except ValueError as error:
        raise SettingsError(f"data: {error}") from None


def check_phantom_split(setup: Setup) -> None:
    """Check the split of a phantom by the names of its cases, before the phantom is written.

    Raises:
      SettingsError, DataError: as in `split_cohort`.
    """
    source, how = setup.source, setup.split
    if not source.phantom_cases:
        return
    names = case_names(source.phantom_seed, source.phantom_cases, source.layout)
    patients, held = _given(how, names)
    if how.kind == "case" and held is None and (how.folds or how.validation_fraction):
        try:
            check_count(len(set(patients.values() if patients else names)), how.folds, how.kind)
        except ValueError as error:
            raise SettingsError(f"data: {error}") from None


def _given(how: Split, names: Sequence[str]) -> tuple[dict[str, str] | None, set[str] | None]:
    """Read what the config states: the patient of each case, and the cases that are held out."""
    patients = read_patients(how.patients, names) if how.patients else None
    if not how.file:
        return patients, None
    held = read_held_out(how.file, names, folds=how.folds, fold=how.fold)
    _check_patients(how.file, patients or {}, held)
    return patients, held


def _check_patients(source: str, patients: Mapping[str, str], held: set[str]) -> None:
    """Reject a patient on both sides of a split, which would make the scores optimistic."""
    first = {patient: name for name, patient in patients.items() if name in held}
    for name, patient in patients.items():
        if patient in first and name not in held:
            raise DataError(
                f"{source}: trains on {name} and holds out {first[patient]}, both of the patient "
                f"{patient}; expected all cases of a patient on one side"
            )


def split_facts(how: Split, cohort: Cohort, parts: tuple[np.ndarray, np.ndarray]) -> dict[str, Any]:
    """Summarize the split for the run's records: slices and cases of each side, JSON-like.

    For a split by slice, the summary also lists the native indices of the held-out slices by case.

    Args:
      how: split of the run.
      cohort: cohort of all cases.
      parts: result of `split_cohort`.
    """
    training, validation = ({"slices": len(part), "cases": cohort.cases_of(part)} for part in parts)
    if how.kind == "slice":
        held = cohort.take(parts[1])
        validation["held_out"] = {
            cohort.case_names[case]: held.slice_index[held.case_index == case].tolist()
            for case in np.unique(held.case_index)
        }
    return {"training": training, "validation": validation}


def smallest(setup: Setup, cohort: Cohort, training: np.ndarray) -> dict[str, Any]:
    """Smallest volumes in mm3 over the training cases.

    Args:
      setup: setup of the run.
      cohort: cohort of all cases.
      training: indices of the training slices.

    Returns:
      "smallest_mm3", the inner region of each inclusion pair, None if no training slice holds it;
      and "smallest_heart_mm3", all labels together.
    """
    side = setup.grid.spacing
    voxels = [(side * side if side else x * y) * z for x, y, z in cohort.spacings]
    labels, cases = cohort.labels[training], cohort.case_index[training]
    heart = tuple(range(1, setup.anatomy.num_labels))
    *pathologies, whole = smallest_volumes(
        labels, cases, voxels, (*setup.anatomy.inclusions, (heart, heart))
    )
    return {"smallest_mm3": pathologies, "smallest_heart_mm3": whole}


def written_values(setup: Setup) -> tuple[int, ...] | None:
    """Value of each label in label maps written for the run's data set; None for 0, 1, 2, ...

    Raises:
      DataError: nnU-Net's dataset.json is unusable.
    """
    return reader(setup).values(setup.source.folder).written()


def resolved(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Make the folders and files in a checked config absolute, so that it is valid everywhere.

    A phantom whose `data.root` is None gets its default folder below the current directory.

    Raises:
      HomeError: as in `expanded`.
    """
    data, train = settings["data"], settings["train"]
    files = {
        name: _absolute(data[name], f"data.{name}")
        for name in ("patients", "splits")
        if (data[name] or "").endswith((".csv", ".json"))
    }
    source = train["init_from"] and str(folder_of(train["init_from"], "train.init_from").absolute())
    return {
        **settings,
        "data": {**data, "root": str(build(settings).source.folder), **files},
        "train": {**train, "init_from": source},
    }


def _absolute(path: str, name: str) -> str:
    return str(expanded(path, name).absolute())


def is_synthetic(source: DataSource) -> bool:
    """Whether the cases of a run are a phantom, written for it or found in its folder."""
    return bool(source.phantom_cases) or (source.folder / MANIFEST).is_file()


def root(source: DataSource) -> Path:
    """Folder of a run's cases; write the phantom there first if it is configured.

    Raises:
      DataError: the phantom cannot be written.
    """
    folder = source.folder
    if source.phantom_cases:
        _write_phantom(folder, source)
    return folder


def _write_phantom(folder: Path, source: DataSource) -> None:
    count = source.phantom_cases
    with tqdm(total=count, desc="writing the phantom", unit="case", disable=None) as bar:
        try:
            write_phantom(
                folder,
                seed=source.phantom_seed,
                num_cases=count,
                layout=source.layout,
                progress=lambda *_: bar.update(),
            )
        except ValueError as error:
            raise DataError(
                f"data.root: expected a folder for the phantom: {error}; to use your own cases, "
                "set data.phantom_cases=0 or choose the config variant for them"
            ) from error
        except OSError as error:
            raise DataError(
                f"{folder}: cannot write the phantom here ({error.strerror})"
            ) from error
