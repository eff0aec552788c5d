"""The networks of a fold: those of a study's own runs, and of other studies of the same folds."""

from collections.abc import Sequence
from pathlib import Path

from jaxseg import settings, workdir
from jaxseg.study.plan import Run, is_done
from jaxseg.trained import Trained, check_data, load_run
from jaxseg.workdir import WorkdirError


def fold_networks(runs: Sequence[Run], others: Sequence[Path], fold: int) -> list[Trained]:
    """Read the networks that hold out the cases of one fold.

    Args:
      runs: of the study, all of them.
      others: folders of more studies, whose networks are taken too.
      fold: which.

    Returns:
      The last checkpoint of every run, the study's own first. All of them hold out the same cases.

    Raises:
      WorkdirError: a study without a finished run of this fold, or a run of it that holds out
        other cases.
      SettingsError: settings that do not describe a run.
    """
    networks = [load_run(run.folder, checkpoint="last") for run in runs if run.fold == fold]
    for network in networks:
        check_data(network)
    held_out = networks[0].data["validation"]["cases"]
    folds = networks[0].settings["data"]["folds"]
    for study in others:
        for folder in finished(study, fold, folds):
            network = load_run(folder, checkpoint="last")
            check_data(network)
            if network.data["validation"]["cases"] != held_out:
                raise WorkdirError(
                    f"{folder}: holds out other cases than {networks[0].folder}, and was trained "
                    "on those; expected the same cases and data.split_seed"
                )
            networks.append(network)
    return networks


def finished(study: Path, fold: int, folds: int) -> list[Path]:
    """Workdirs of a study's runs of one fold, all of them done.

    Args:
      study: its folder.
      fold: which.
      folds: of how many.

    Raises:
      WorkdirError: there is none, or one that is not done.
      SettingsError: settings that do not describe a run.
    """
    own = []
    for folder in sorted((study / "runs").glob("*")):
        config = workdir.read_settings(folder)
        settings.check(config)
        data = config["data"]
        if data["split"] == "case" and (data["folds"], data["fold"]) == (folds, fold):
            own.append(folder)
    if not own or not all(map(is_done, own)):
        raise WorkdirError(
            f"{study}: fold {fold} of {folds} is not done there; expected a study that "
            "--mode=crossvalidate has brought to its end, of the same folds"
        )
    return own
