"""Train a run from its config to checkpoints, metrics and a table of DSC in the run folder."""

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from jaxseg.anatomy import Anatomy
from jaxseg.config import run_data, settings
from jaxseg.config.setup import Setup, build
from jaxseg.data import Cohort
from jaxseg.machine import memory
from jaxseg.machine.devices import describe, describe_networks
from jaxseg.machine.host_memory import lower_peak_memory
from jaxseg.runs import hosts, provenance, unseen
from jaxseg.runs.checkpoint import Checkpoints
from jaxseg.runs.config_file import SETTINGS, check_settings
from jaxseg.runs.data_file import STARTED_FROM, claim
from jaxseg.runs.files import WorkdirError, remove_leftovers, writing
from jaxseg.runs.lock import locked
from jaxseg.runs.logbook import Logbook
from jaxseg.runs.signals import Interrupted, StopRequest, catch_signals
from jaxseg.train_step import TrainState, batch_devices, placement
from jaxseg.training import start
from jaxseg.training.build_run import (
    build_run,
    count_devices,
    log_slow_convolution,
    use_compilation_cache,
)
from jaxseg.training.loop import DivergedError, Run, report, run_steps
from jaxseg.training.resume import resume

_LOG = logging.getLogger(__name__)

# Errors that all processes raise at the same point; any other error is that of a single process.
_COMMON = (Interrupted, DivergedError, hosts.HostsError)


def train(config: Mapping[str, Any], folder: Path, *, cohort: Cohort | None = None) -> str:
    """Train one stage, or resume an interrupted run with the same config.

    Args:
      config: config with the fields of `configs/default.py`.
      folder: the run folder, to which everything is written.
      cohort: result of `run_data.load_cohort` for this run, if already loaded.

    Returns:
      The table of DSC on the validation slices, in Markdown.

    Raises:
      SettingsError: the config is invalid.
      WorkdirError: the run folder holds another run, is in use, or cannot be written; or its
        checkpoints are damaged.
      DataError: a case is unusable.
      HostsError: another process of the run stopped, or has another config or other cases.
      DivergedError: a logged value, such as the loss, is not finite.
      OutOfMemoryError: memory ran out.
      Interrupted: the process received SIGTERM or Ctrl-C; the state is saved.
    """
    with hosts.agreed():
        settings.check(config)
        config = run_data.resolved(config)
        setup = build(config)
        lower_peak_memory()
        here = describe()
        devices = count_devices(setup)
        convolution = setup.convolve.__name__
    result = {**settings.without_places(config), "run": None}  # only fields that affect results
    hosts.check_same("the settings", hosts.digest(json.dumps(result)))
    hosts.check_same("the local devices", str(devices))
    hosts.check_same("the convolutions (run.convolution=xla is available everywhere)", convolution)
    with _held(folder, config), _errors_in_one_line(folder, setup), catch_signals() as stop:
        _LOG.info(here)
        use_compilation_cache(setup.options.compilation_cache)
        origin = _origin(config, setup, folder)
        cohort = _read(setup) if cohort is None else cohort
        with hosts.agreed():
            parts = _split(config, setup, folder, cohort, origin)
        with hosts.agreed():
            _check_shared(folder)
        hosts.introduce(batch_devices(devices))
        with hosts.exit_at_once(unless=_COMMON):
            run, state = build_run(setup, folder, cohort, parts, devices)
            del cohort  # of which the device and the validation have copies
            if origin is not None:
                state, fresh = origin.apply(state, placement(devices))
                at_random = f"; at random: {', '.join(fresh)}" if fresh else ""
                _LOG.info(f"starting from {origin.describe()}{at_random}")
            networks = {"network": state.params["network"], **state.params}  # the network first
            _LOG.info(describe_networks(networks, setup.convolve))
            log_slow_convolution(setup)
            return _train(run, state, stop)


def _train(run: Run, state: TrainState, stop: StopRequest) -> str:
    """Train from the latest checkpoint, if any, to the final table."""
    with (
        Checkpoints(run.folder) as checkpoints,
        hosts.exit_at_once(unless=_COMMON),
        _errors_in_one_line(run.folder, run.setup),
    ):
        hosts.check_same("the checkpoints", str(checkpoints.steps))
        state, resumed = resume(checkpoints, state)
        if resumed:
            _LOG.info(f"resuming at step {int(state.step)} of {run.plan.steps}")
        writer = hosts.is_writer()
        with Logbook(run.folder, step=int(state.step)) if writer else nullcontext() as logbook:
            state = run_steps(run, state, checkpoints, logbook, stop)
        checkpoints.wait()
        table = report(run, state, checkpoints)
    signum = hosts.highest(stop.signal or 0)
    if signum:  # the loop has ended, but the caller must not continue
        raise Interrupted(signum, int(state.step))
    return table


@contextmanager
def _held(folder: Path, config: Mapping[str, Any]) -> Iterator[None]:
    """Lock the run folder in the writing process and check that it holds no other run."""
    with ExitStack() as stack:
        with hosts.agreed():
            if hosts.is_writer():
                stack.enter_context(locked(folder))
                check_settings(folder, config)
                remove_leftovers(folder)
        yield


@contextmanager
def _errors_in_one_line(folder: Path, setup: Setup) -> Iterator[None]:
    """Report an unwritable run folder or exhausted memory in one line."""
    advice = memory.training_advice(
        batch_size=setup.course.batch_size,
        size=setup.grid.size,
        width=setup.architecture.width,
        depth=setup.architecture.depth,
        context=setup.architecture.context,
    )
    kept = "; saved files are kept, and repeating the command resumes"
    with writing(folder, kept), memory.advised(advice):
        yield


def _check_shared(folder: Path) -> None:
    """Check that all hosts see the run folder, before training and not at its end."""
    if not (hosts.is_writer() or (folder / SETTINGS).exists()):
        raise WorkdirError(
            f"{folder}: expected the files that process 0 wrote; the workdir of a run over several "
            "hosts must lie where all of them see it"
        )


def _origin(config: Mapping[str, Any], setup: Setup, folder: Path) -> start.Start | None:
    """The parameters to start from, if the run has no checkpoint and its config names a source."""
    source = setup.course.init_from
    if source is None or hosts.highest(int(start.is_begun(folder))):
        return None
    with hosts.agreed():
        for line in start.check(source, config):
            _LOG.warning(line)
    with hosts.exit_at_once(unless=_COMMON):
        origin = start.load(source, setup)
    known = provenance.without_places({STARTED_FROM: origin.facts})
    hosts.check_same("the parameters to start from", hosts.digest(json.dumps(known)))
    return origin


def _read(setup: Setup) -> Cohort:
    """Read all cases in every process; a single process writes the phantom."""
    with hosts.agreed():
        run_data.check_phantom_split(setup)
    if hosts.count() > 1:
        with hosts.agreed():
            if hosts.is_writer():
                run_data.root(setup.source)
    with hosts.agreed():
        cohort = run_data.load_cohort(setup)
    hosts.check_same("the cases", hosts.digest(json.dumps(cohort.facts())))
    return cohort


def _split(
    config: Mapping[str, Any],
    setup: Setup,
    folder: Path,
    cohort: Cohort,
    origin: start.Start | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Split the cohort, and bind the run folder to cohort, split and source of the parameters."""
    parts = run_data.split_cohort(setup.split, cohort)
    facts = {
        **cohort.facts(),
        **run_data.split_facts(setup.split, cohort, parts),
        "synthetic": run_data.is_synthetic(setup.source),
        "label_values": run_data.written_values(setup),
        **run_data.smallest(setup, cohort, parts[0]),
    }
    if origin is not None:
        facts[STARTED_FROM] = origin.facts
    if hosts.is_writer():
        claim(folder, config, facts)
        provenance.note(folder)
    _LOG.info(
        f"{len(cohort.case_names)} cases, {len(cohort)} slices: {len(parts[0])} to train on, "
        f"{len(parts[1])} to validate on ({setup.split.kind} split)"
    )
    if absent := _absent(cohort.labels[parts[0]], setup.anatomy):
        _LOG.warning(f"no training slice holds {', '.join(absent)}: not to be learned from them")
    if names := unseen.validated_though_seen(facts):
        _LOG.warning(
            f"{len(names)} of the validation cases were {unseen.SEEN}, so that scores on "
            f"them are optimistic: {unseen.some(names)}"
        )
    return parts


def _absent(labels: np.ndarray, anatomy: Anatomy) -> list[str]:
    """Return the names of the labels that are in no slice, apart from the background."""
    found = np.unique(labels)
    return [name for value, name in enumerate(anatomy.labels) if value and value not in found]
