"""The work on a study's runs: train and score what is not done yet, alone or with others."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from jaxseg.config import run_data
from jaxseg.data import Cohort
from jaxseg.errors import UserError
from jaxseg.evaluation.evaluate import evaluate
from jaxseg.machine.devices import describe
from jaxseg.machine.stdout import Say
from jaxseg.runs import workdir
from jaxseg.studies.schedule import Run
from jaxseg.training import start
from jaxseg.training.loop import DivergedError
from jaxseg.training.train import train

# Held while a run is trained and scored; training alone holds the workdir's own.
_LOCK = ".study.lock"


class StudyError(UserError, RuntimeError):
    """Runs that diverged, a line each; those of this process alone are told of."""


def complete(
    runs: Sequence[Run],
    config: Mapping[str, Any],
    folder: Path,
    write: Callable[[Cohort], None],
    *,
    check: Callable[[Cohort], None] = lambda cohort: None,
    say: Say = print,
) -> None:
    """Train and score every run that no other process holds; the process that ends last writes.

    Args:
      runs: all of them.
      config: settings of the cases that they share.
      folder: of the study.
      write: makes what comes of all runs, once they are done; takes the cases.
      check: raises what would otherwise be told after hours of training; takes the cases.
      say: takes each line for the user.

    Raises:
      SettingsError: devices that JAX does not have here, or flags of it that change results; as
        `jaxseg.training.start.check` and `jaxseg.training.start.check_held_out`.
      WorkdirError: a folder that holds runs of other settings or cases, or cannot be written to.
      DataError: a case that cannot be used.
      StudyError: runs that diverged.
      Interrupted: SIGTERM or Ctrl-C; the run at work is saved.
    """
    workdir.check_writable(folder)
    starting: dict[str, dict[str, Any]] = {}  # from another run, by the name of the folder
    for run in runs:
        own = run_data.resolved(run.settings)  # as training notes it
        workdir.check_settings(run.folder, own)
        if own["train"]["init_from"] and not start.is_begun(run.folder):
            start.check(own)
            starting[run.folder.name] = own
    say(describe())
    cohort = run_data.load_cohort(config)
    _check_data(runs, cohort)
    check(cohort)
    for name, own in starting.items():
        start.check_held_out(own, cohort, name)
    _work(runs, cohort, say)
    waiting = [run.folder.name for run in runs if not run.done]
    if waiting:
        say(
            f"\nno table yet: {len(waiting)} of {len(runs)} runs were held by other processes "
            f"({', '.join(waiting)}). The one that ends last writes it; if none is at work, repeat "
            "the command"
        )
        return
    try:
        with workdir.locked(folder, name=_LOCK):
            write(cohort)
    except workdir.InUseError:
        say(f"\n{folder}: another process is writing the report")


def _work(runs: Sequence[Run], cohort: Cohort, say: Say) -> None:
    """Complete every run that no other process holds.

    Raises:
      StudyError: runs diverged. There can be no table then: without them it would be one of the
        seeds that went well.
    """
    failures = []
    for number, run in enumerate(runs, start=1):
        if run.done:
            continue
        say(f"\n[{number}/{len(runs)}] {run.folder.name}")
        try:
            with workdir.locked(run.folder, name=_LOCK):
                if not run.done:  # nor has another process done it in the meantime
                    _complete(run, cohort, say)
        except workdir.InUseError:
            say("left to the process that holds it")
        except DivergedError as error:
            failures.append(f"  {run.folder.name}: {error}")
    if failures:
        lines = "\n".join(failures)
        raise StudyError(f"no table: {len(failures)} of {len(runs)} runs diverged\n{lines}")


def _complete(run: Run, cohort: Cohort, say: Say) -> None:
    """Train and score one run.

    Scored is the last checkpoint: the best one is chosen on the very slices that are scored.
    """
    train(run.settings, run.folder, cohort=cohort, say=say)
    evaluate(run.folder, checkpoint="last", output=run.evaluation, say=lambda _: None)
    # Compiled functions of ended runs would pile up.
    jax.clear_caches()


def _check_data(runs: Sequence[Run], cohort: Cohort) -> None:
    """Runs that are done never look at the cases again, and all must stand on the same ones."""
    facts = cohort.facts()
    for run in runs:
        if run.done:
            workdir.check_cases(run.folder, facts)
