"""An ablation from settings to its report."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxseg.data import Cohort
from jaxseg.machine.stdout import Say
from jaxseg.studies.ablation.report import write_report
from jaxseg.studies.schedule import plan_runs
from jaxseg.studies.work import complete


def ablate(
    config: Mapping[str, Any],
    stages: Mapping[str, Mapping[str, Any]],
    folder: Path,
    *,
    seeds: int = 3,
    folds: int = 0,
    say: Say = print,
) -> None:
    """Train and score every stage on every seed and fold, then write tables, figures and report.

    The same command goes on where it stopped. Several processes may work in one folder: each
    takes runs that no other holds, and the one that ends last writes the report.

    Args:
      config: as `plan_runs`.
      stages: as `plan_runs`.
      folder: as `plan_runs`; created if needed.
      seeds: as `plan_runs`.
      folds: as `plan_runs`.
      say: takes each line for the user.

    Raises:
      SettingsError: as `plan_runs`.
      WorkdirError, DataError, StudyError, Interrupted: as `jaxseg.studies.work.complete`.
    """
    runs = plan_runs(config, stages, folder, seeds=seeds, folds=folds)

    def write(cohort: Cohort) -> None:
        write_report(runs, cohort, folder, say=say)

    complete(runs, config, folder, write, say=say)
