"""The work on a study: train and score the unfinished runs, in one or several processes."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import jax

from jaxseg.config import run_data
from jaxseg.config.sections import Split
from jaxseg.config.setup import Setup, build
from jaxseg.data import Cohort
from jaxseg.errors import UserError
from jaxseg.evaluation.evaluate import evaluate
from jaxseg.machine.devices import describe
from jaxseg.runs.config_file import check_settings
from jaxseg.runs.data_file import check_cases
from jaxseg.runs.files import check_writable
from jaxseg.runs.lock import InUseError, locked
from jaxseg.studies.schedule import Run
from jaxseg.training import start
from jaxseg.training.loop import DivergedError
from jaxseg.training.train import train

_LOG = logging.getLogger(__name__)

# Held while a run is trained and scored; training holds the run folder's own lock as well.
_LOCK = ".study.lock"


class StudyError(UserError, RuntimeError):
    """Raised for runs of this process that diverged, one line each."""


def complete(
    runs: Sequence[Run],
    setup: Setup,
    folder: Path,
    write: Callable[[Cohort], None],
    *,
    check: Callable[[Cohort], None] = lambda cohort: None,
) -> None:
    """Train and score every run that no other process holds, then write the results.

    If several processes work on the study, the last to finish writes the results.

    Args:
      runs: all runs of the study.
      setup: setup of the cases that the runs share.
      folder: folder of the study.
      write: function of the cases that writes the results, called once all runs are finished.
      check: function of the cases that raises errors which would otherwise appear only after
        hours of training.

    Raises:
      DeviceError: as in `jaxseg.machine.devices.describe`.
      SettingsError: as in `jaxseg.training.start.check` and
        `jaxseg.training.start.check_held_out`.
      WorkdirError: if a folder contains runs of another config or of other cases, or cannot be
        written to.
      DataError: if a case cannot be used.
      StudyError: if runs diverged.
      Interrupted: on SIGTERM or Ctrl-C; the current run is saved.
    """
    check_writable(folder)
    starting = _check_runs(runs)
    _LOG.info(describe())
    cohort = run_data.load_cohort(setup)
    facts = cohort.facts()
    for run in runs:
        if run.done:  # such a run does not read the cases again
            check_cases(run.folder, facts)
    check(cohort)
    for name, source, split in starting:
        start.check_held_out(source, split, cohort, name)
    _work(runs, cohort)
    waiting = [run.folder.name for run in runs if not run.done]
    if waiting:
        _LOG.info(
            f"\nno table yet: {len(waiting)} of {len(runs)} runs were held by other processes "
            f"({', '.join(waiting)}). The one that ends last writes it; if none is running, repeat "
            "the command"
        )
        return
    try:
        with locked(folder, name=_LOCK):
            write(cohort)
    except InUseError:
        _LOG.info(f"\n{folder}: another process is writing the report")


def _check_runs(runs: Sequence[Run]) -> list[tuple[str, Path, Split]]:
    """Check the configs; return name, source and split of the runs that start from another run."""
    starting = []
    for run in runs:
        own = run_data.resolved(run.settings)  # as recorded by training
        check_settings(run.folder, own)
        setup = build(own)
        run_data.check_phantom_split(setup)
        source = setup.course.init_from
        if source is not None and not start.is_begun(run.folder):
            start.check(source, own)
            starting.append((run.folder.name, source, setup.split))
    return starting


def _work(runs: Sequence[Run], cohort: Cohort) -> None:
    """Complete every run that no other process holds.

    Raises:
      StudyError: if runs diverged. No table is written then, since it would cover only the seeds
        that converged.
    """
    failures = []
    for number, run in enumerate(runs, start=1):
        if run.done:
            continue
        _LOG.info(f"\n[{number}/{len(runs)}] {run.folder.name}")
        try:
            with locked(run.folder, name=_LOCK):
                if not run.done:  # another process may have finished it
                    _complete(run, cohort)
        except InUseError:
            _LOG.info("left to the process that holds it")
        except DivergedError as error:
            failures.append(f"  {run.folder.name}: {error}")
    if failures:
        lines = "\n".join(failures)
        raise StudyError(f"no table: {len(failures)} of {len(runs)} runs diverged\n{lines}")


def _complete(run: Run, cohort: Cohort) -> None:
    """Train a run and score its last checkpoint.

    The best checkpoint is chosen on the very slices that are scored, so it would be biased.
    """
    train(run.settings, run.folder, cohort=cohort)
    evaluate(run.folder, checkpoint="last", output=run.evaluation)
    # The compiled functions of finished runs would accumulate.
    jax.clear_caches()
