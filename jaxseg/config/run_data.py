"""Find, read and split the cases of a run according to its config."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from jaxseg.config import recipe
from jaxseg.config.settings import SettingsError
from jaxseg.data import Case, Cohort, DataError, build_cohort, split
from jaxseg.data.label_values import LabelValues
from jaxseg.data.patients import read_held_out, read_patients
from jaxseg.data.phantom.write import MANIFEST, write_phantom
from jaxseg.data.readers import emidec, nnunet


@dataclass(frozen=True)
class Reader:
    """Functions that read one folder layout.

    Attributes:
      find: maps the folder of a data set to the paths of its cases, sorted by name. For nnU-Net
        these are the training cases, or the test cases of `DIR/imagesTs`. Raises DataError.
      load: maps such a path to its case, with labels in the anatomy's order. Raises DataError.
      name: maps such a path to the name of its case.
      values: maps the folder of a data set to the values by which it stores labels.
    """

    find: Callable[[Path], list[Path]]
    load: Callable[[Path], Case]
    name: Callable[[Path], str]
    values: Callable[[Path], LabelValues]

    def by_name(self, root: Path) -> dict[str, Path]:
        """Paths of a data set's cases by case name; raises DataError as `find`."""
        return {self.name(path): path for path in self.find(root)}

    def load_reference(self, path: Path) -> tuple[Case, NDArray[np.uint8]]:
        """Load a case together with its label map.

        Raises:
          DataError: `load` fails, or there is no label map.
        """
        case = self.load(path)
        if case.label is None:
            raise DataError(f"{path}: no label map; scores need one of every case")
        return case, case.label


def reader(settings: Mapping[str, Any]) -> Reader:
    """The reader for the folder layout of the run."""
    stated = recipe.label_values(settings)
    labels = recipe.anatomy(settings).labels
    if settings["data"]["layout"] == "nnunet":
        return Reader(
            nnunet.find_cases,
            partial(nnunet.load_case, labels=labels, values=stated),
            nnunet.case_name,
            lambda root: stated or nnunet.label_values(root, labels),
        )
    values = stated or LabelValues.plain(len(labels))
    return Reader(
        emidec.find_cases,
        partial(emidec.load_case, values=values),
        emidec.case_name,
        lambda _: values,
    )


def load_cohort(settings: Mapping[str, Any]) -> Cohort:
    """Read all cases of the run on the network grid; write the phantom first if it is configured.

    Raises:
      DataError: a case is unusable, or the phantom cannot be written. The message names the file or
        folder.
    """
    data, read = settings["data"], reader(settings)
    paths = tqdm(read.find(root(settings)), desc="reading cases", unit="case", disable=None)
    return build_cohort(
        (read.load(path) for path in paths),
        recipe.preprocessing(settings),
        margin=recipe.margin(settings),
        apex_first=data["apex_first"],
        allow_outside=settings["grid"]["allow_outside"],
        soft_labels=settings["grid"]["soft_labels"],
    )


def split_cohort(settings: Mapping[str, Any], cohort: Cohort) -> tuple[np.ndarray, np.ndarray]:
    """Split the cohort of the run deterministically.

    Args:
      settings: config of the run.
      cohort: cohort of all cases.

    Returns:
      Sorted indices of the training slices and of the validation slices.

    Raises:
      SettingsError: the config does not fit these cases, for example with more folds than cases.
      DataError: a file of patients or of a split cannot be read or names other cases, or the split
        puts cases of one patient on both sides.
    """
    data = settings["data"]
    names = cohort.case_names
    patients = read_patients(data["patients"], names) if data["patients"] else None
    if data["splits"]:
        held = read_held_out(data["splits"], names, folds=data["folds"], fold=data["fold"])
        _check_patients(data["splits"], patients or {}, held)
        is_held = np.array([name in held for name in names])[cohort.case_index]
        return np.flatnonzero(~is_held), np.flatnonzero(is_held)
    try:
        return split(
            cohort,
            kind=data["split"],
            validation_fraction=data["validation_fraction"],
            folds=data["folds"],
            fold=data["fold"],
            seed=data["split_seed"],
            patients=patients,
        )
    except ValueError as error:
        raise SettingsError(f"data: {error}") from None


def _check_patients(source: str, patients: Mapping[str, str], held: set[str]) -> None:
    """Reject a patient on both sides of a split, which would make the scores optimistic."""
    first = {patient: name for name, patient in patients.items() if name in held}
    for name, patient in patients.items():
        if patient in first and name not in held:
            raise DataError(
                f"{source}: trains on {name} and holds out {first[patient]}, both of the patient "
                f"{patient}; expected every patient on one side"
            )


def split_facts(
    settings: Mapping[str, Any], cohort: Cohort, parts: tuple[np.ndarray, np.ndarray]
) -> dict[str, Any]:
    """Summarize the split for the run's records: slices and cases of each side, JSON-like.

    For a split by slice, the summary also lists the native indices of the held-out slices by case.

    Args:
      settings: config of the run.
      cohort: cohort of all cases.
      parts: result of `split_cohort`.
    """
    training, validation = ({"slices": len(part), "cases": cohort.cases_of(part)} for part in parts)
    if settings["data"]["split"] == "slice":
        held = cohort.take(parts[1])
        validation["held_out"] = {
            cohort.case_names[case]: held.slice_index[held.case_index == case].tolist()
            for case in np.unique(held.case_index)
        }
    return {"training": training, "validation": validation}


def written_values(settings: Mapping[str, Any]) -> tuple[int, ...] | None:
    """Value of each label in label maps written for the run's data set; None for 0, 1, 2, ...

    Raises:
      DataError: nnU-Net's dataset.json is unusable.
    """
    return reader(settings).values(_folder(settings["data"])).written()


def resolved(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Make the folders and files in a config absolute, so that it holds from any directory.

    A phantom whose `data.root` is None gets its default folder below the current directory.
    """
    data, train = settings["data"], settings["train"]
    files = {
        name: _absolute(data[name])
        for name in ("patients", "splits")
        if (data[name] or "").endswith((".csv", ".json"))
    }
    source = train["init_from"] and _absolute(train["init_from"])
    return {
        **settings,
        "data": {**data, "root": str(_folder(data)), **files},
        "train": {**train, "init_from": source},
    }


def _absolute(path: str) -> str:
    return str(Path(path).expanduser().absolute())


def is_synthetic(settings: Mapping[str, Any]) -> bool:
    """Whether the cases of the run are a phantom, written for it or found in its folder."""
    data = settings["data"]
    return bool(data["phantom_cases"]) or (_folder(data) / MANIFEST).is_file()


def root(settings: Mapping[str, Any]) -> Path:
    """Folder of the run's cases; write the phantom there first if it is configured.

    Raises:
      DataError: the phantom cannot be written.
    """
    data = settings["data"]
    folder = _folder(data)
    if data["phantom_cases"]:
        _write_phantom(folder, data)
    return folder


def _folder(data: Mapping[str, Any]) -> Path:
    """Absolute folder of the cases."""
    return (Path(data["root"]).expanduser() if data["root"] else _phantom_root(data)).absolute()


def _phantom_root(data: Mapping[str, Any]) -> Path:
    kind = "phantom" if data["layout"] == "emidec" else f"phantom-{data['layout']}"
    return Path("data") / f"{kind}-{data['phantom_cases']}-cases-seed-{data['phantom_seed']}"


def _write_phantom(folder: Path, data: Mapping[str, Any]) -> None:
    num_cases = data["phantom_cases"]
    with tqdm(total=num_cases, desc="writing the phantom", unit="case", disable=None) as bar:
        try:
            write_phantom(
                folder,
                seed=data["phantom_seed"],
                num_cases=num_cases,
                layout=data["layout"],
                progress=lambda *_: bar.update(),
            )
        except ValueError as error:
            raise DataError(
                f"data.root: expected a folder for the phantom: {error}; for cases of your own "
                "set data.phantom_cases=0, or take the config's variant for them"
            ) from error
        except OSError as error:
            raise DataError(
                f"{folder}: cannot write the phantom here ({error.strerror})"
            ) from error
