"""The ablation study, from config to report."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxseg.config.setup import build
from jaxseg.data import Cohort
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
) -> None:
    """Train and score every stage on every seed and fold, then write the report.

    Repeating the command resumes an interrupted study. Several processes may work in one folder:
    each takes runs that no other process holds, and the last to finish writes the report. The
    arguments are as in `plan_runs`; the folder is created if needed.

    Raises:
      SettingsError: as in `plan_runs`.
      DeviceError, WorkdirError, DataError, StudyError, Interrupted: as in
        `jaxseg.studies.work.complete`.
    """
    runs = plan_runs(config, stages, folder, seeds=seeds, folds=folds)

    def write(cohort: Cohort) -> None:
        write_report(runs, cohort, folder)

    complete(runs, build(config), folder, write)
