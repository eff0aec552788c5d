"""The networks of each fold, from a study's own runs and from other studies of the same folds."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxseg.anatomy import Anatomy
from jaxseg.inference.predictor import presence_rule
from jaxseg.runs.config_file import SETTINGS
from jaxseg.runs.files import WorkdirError
from jaxseg.runs.trained import Trained, check_data, load_run, read_setup
from jaxseg.studies.schedule import RUNS, is_done

Folds = Mapping[int, Sequence[Path]]
"""Run folders of finished runs by held-out fold, the same number for each fold."""


def finished_runs(study: Path, number: int) -> Folds:
    """Find the runs of a finished cross-validation.

    Args:
      study: folder of the cross-validation.
      number: number of folds.

    Raises:
      WorkdirError: if the folder is missing, is not a cross-validation, is not finished or has
        another number of folds.
      SettingsError: if a config does not describe a run.
    """
    if not study.is_dir():
        raise WorkdirError(f"{study}: no such folder; expected a study of --mode=crossvalidate")
    by_fold: dict[int, list[Path]] = {fold: [] for fold in range(number)}
    names = set()
    for path in sorted((study / RUNS).glob(f"*/{SETTINGS}")):
        setup = read_setup(path.parent)
        if (setup.split.kind, setup.split.folds) == ("case", number):
            by_fold[setup.split.fold].append(path.parent)
            names.add(setup.name)
    if len(names) > 1:
        raise WorkdirError(
            f"{study}: holds runs of {', '.join(sorted(names))}; expected a study of "
            "--mode=crossvalidate, of one config"
        )
    for fold, runs in by_fold.items():
        if not runs or len(runs) != len(by_fold[0]) or not all(map(is_done, runs)):
            raise WorkdirError(
                f"{study}: fold {fold} of {number} is not done there; expected a study that "
                "--mode=crossvalidate has brought to its end, of as many folds"
            )
    return by_fold


def check_runs(runs: Folds, held_out: Mapping[int, set[str]], anatomy: Anatomy) -> None:
    """Check that the networks of another study can be averaged with those of this one.

    Args:
      runs: runs of the other study.
      held_out: digests of the images that this study holds out, by fold.
      anatomy: anatomy of this study.

    Raises:
      WorkdirError: if a run cannot be read, holds out other cases, has another label set, or does
        not record the smallest pathology that it was trained on.
      SettingsError: if a config does not describe a run.
      DeviceError: as in `load_run`.
    """
    for fold, folders in runs.items():
        for folder in folders:
            network = load_run(folder, checkpoint="last")
            check_data(network.folder, network.data)
            if held_out_images(network.data) != held_out[fold]:
                raise WorkdirError(
                    f"{folder}: holds out other cases than fold {fold} here, and was trained on "
                    "those; expected the same cases and data.split_seed"
                )
            prior = network.anatomy
            if (prior.labels, prior.inclusions) != (anatomy.labels, anatomy.inclusions):
                raise WorkdirError(
                    f"{folder}: of other labels or inclusion pairs; expected anatomy as here"
                )
            presence_rule([network], drop_small=bool(anatomy.inclusions))


def held_out_images(data: Mapping[str, Any]) -> set[str]:
    """Return the digests of the images of a run's validation cases, from its `data.json`."""
    return {data["digests"][name]["image"] for name in data["validation"]["cases"]}


def load_networks(folders: Sequence[Path]) -> list[Trained]:
    """Load the last checkpoint of every run."""
    networks = [load_run(folder, checkpoint="last") for folder in folders]
    for network in networks:
        check_data(network.folder, network.data)
    return networks
