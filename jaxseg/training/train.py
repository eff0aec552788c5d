"""Train a run from its config to checkpoints, metrics and a table of DSC in the run folder."""

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxseg import native
from jaxseg.batch import DeviceCohort
from jaxseg.batch_schedule import Plan
from jaxseg.config import recipe, run_data, settings
from jaxseg.data import Cohort
from jaxseg.machine import memory
from jaxseg.machine.devices import describe, describe_networks
from jaxseg.machine.host_memory import keep_freed_memory
from jaxseg.models.segment import make_labels
from jaxseg.runs import hosts, provenance, unseen
from jaxseg.runs.checkpoint import Checkpoints
from jaxseg.runs.config_file import SETTINGS, check_settings
from jaxseg.runs.data_file import STARTED_FROM, claim
from jaxseg.runs.files import WorkdirError, remove_leftovers, writing
from jaxseg.runs.lock import locked
from jaxseg.runs.logbook import Logbook
from jaxseg.runs.signals import Interrupted, StopRequest, catch_signals
from jaxseg.train_step import (
    TrainState,
    batch_devices,
    compile_step,
    init_state,
    make_train_step,
    placement,
)
from jaxseg.training import start
from jaxseg.training.loop import DivergedError, Run, report, run_steps
from jaxseg.training.resume import resume
from jaxseg.training.validation import Validation

_LOG = logging.getLogger(__name__)

# Errors that all processes raise at the same point; any other error is that of a single process.
_COMMON = (Interrupted, DivergedError, hosts.HostsError)


def train(config: Mapping[str, Any], folder: Path, *, cohort: Cohort | None = None) -> str:
    """Train one stage, or resume an interrupted run with the same config.

    Args:
      config: config with the fields of `configs/default.py`.
      folder: the run folder, to which everything is written.
      cohort: result of `run_data.load_cohort` for this config, if already loaded.

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
        keep_freed_memory()
        here = describe()
        devices = _devices(config)
        convolution = recipe.convolution(config).__name__
    result = {**settings.without_places(config), "run": None}  # only fields that affect results
    hosts.check_same("the settings", hosts.digest(json.dumps(result)))
    hosts.check_same("the local devices", str(devices))
    hosts.check_same("the convolutions (run.convolution=xla is had everywhere)", convolution)
    with _held(folder, config), _told(folder, config), catch_signals() as stop:
        _LOG.info(here)
        _use_compilation_cache(config["run"]["compilation_cache"])
        origin = _origin(config, folder)
        cohort = _read(config) if cohort is None else cohort
        with hosts.agreed():
            parts = _split(config, folder, cohort, origin)
        with hosts.agreed():
            _check_shared(folder)
        hosts.introduce(batch_devices(devices))
        with hosts.exit_at_once(unless=_COMMON):
            run, state = _build(config, folder, cohort, parts, devices)
            if origin is not None:
                state, fresh = origin.apply(state, placement(devices))
                at_random = f"; at random: {', '.join(fresh)}" if fresh else ""
                _LOG.info(f"starting from {origin.describe()}{at_random}")
            networks = {"network": state.params["network"], **state.params}  # the network first
            _LOG.info(describe_networks(networks, recipe.convolution(config)))
            _tell_of_slowness(config)
            return _train(run, state, stop)


def _train(run: Run, state: TrainState, stop: StopRequest) -> str:
    """Train from the latest checkpoint, if any, to the final table."""
    with (
        Checkpoints(run.folder) as checkpoints,
        hosts.exit_at_once(unless=_COMMON),
        _told(run.folder, run.config),
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
def _told(folder: Path, config: Mapping[str, Any]) -> Iterator[None]:
    """Report an unwritable run folder or exhausted memory in one line."""
    with writing(folder), memory.advised(memory.training_advice(config)):
        yield


def _check_shared(folder: Path) -> None:
    """Check that all hosts see the run folder, before training and not at its end."""
    if not (hosts.is_writer() or (folder / SETTINGS).exists()):
        raise WorkdirError(
            f"{folder}: expected the files that process 0 wrote; the workdir of a run over several "
            "hosts must lie where all of them see it"
        )


def _origin(config: Mapping[str, Any], folder: Path) -> start.Start | None:
    """The parameters to start from, if the run has no checkpoint and its config names a source."""
    if config["train"]["init_from"] is None or hosts.highest(int(start.is_begun(folder))):
        return None
    with hosts.agreed():
        for line in start.check(config):
            _LOG.info(line)
    with hosts.exit_at_once(unless=_COMMON):
        origin = start.load(config)
    known = provenance.without_places({STARTED_FROM: origin.facts})
    hosts.check_same("the parameters to start from", hosts.digest(json.dumps(known)))
    return origin


def _read(config: Mapping[str, Any]) -> Cohort:
    """Read all cases in every process; a single process writes the phantom."""
    if hosts.count() > 1:
        with hosts.agreed():
            if hosts.is_writer():
                run_data.root(config)
    with hosts.agreed():
        cohort = run_data.load_cohort(config)
    hosts.check_same("the cases", hosts.digest(json.dumps(cohort.facts())))
    return cohort


def _devices(config: Mapping[str, Any]) -> int:
    """Number of local devices to use, the same in every process."""
    devices, batch_size = config["run"]["devices"], config["train"]["batch_size"]
    available = jax.local_device_count()
    if devices > available:
        raise settings.SettingsError(
            f"run.devices: expected at most the {available} of this machine, got {devices}"
        )
    devices = devices or available
    total = devices * hosts.count()
    if batch_size % total:
        raise settings.SettingsError(
            f"train.batch_size: expected a multiple of the {total} devices in use, "
            f"got {batch_size}; or set run.devices"
        )
    return devices


def _use_compilation_cache(folder: str) -> None:
    if folder:
        jax.config.update("jax_compilation_cache_dir", str(Path(folder).expanduser()))


def _tell_of_slowness(config: Mapping[str, Any]) -> None:
    """Report a CPU without the native convolution, where a step takes about 1.5 times as long."""
    if jax.default_backend() == "cpu" and config["run"]["convolution"] == "auto":
        why = native.why_not(config["model"]["precision"])
        if why is not None:
            _LOG.info(f"convolutions by XLA, slower here than the native ones: {why}")


def _split(
    config: Mapping[str, Any],
    folder: Path,
    cohort: Cohort,
    origin: start.Start | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Split the cohort, and bind the run folder to cohort, split and source of the parameters."""
    parts = run_data.split_cohort(config, cohort)
    facts = {
        **cohort.facts(),
        **run_data.split_facts(config, cohort, parts),
        "synthetic": run_data.is_synthetic(config),
        "label_values": run_data.written_values(config),
        "smallest_mm3": recipe.smallest_pathology(config, cohort, parts[0]),
    }
    if origin is not None:
        facts[STARTED_FROM] = origin.facts
    if hosts.is_writer():
        claim(folder, config, facts)
        provenance.note(folder)
    _LOG.info(
        f"{len(cohort.case_names)} cases, {len(cohort)} slices: {len(parts[0])} to train on, "
        f"{len(parts[1])} to validate on ({config['data']['split']} split)"
    )
    if names := unseen.validated_though_seen(facts):
        _LOG.info(
            f"warning: {len(names)} of the validation cases were {unseen.SEEN}, so that scores on "
            f"them are optimistic: {unseen.some(names)}"
        )
    return parts


def _build(
    config: Mapping[str, Any],
    folder: Path,
    cohort: Cohort,
    parts: tuple[np.ndarray, np.ndarray],
    devices: int,
) -> tuple[Run, TrainState]:
    training = cohort.take(parts[0])
    plan = Plan(
        num_slices=len(training),
        batch_size=config["train"]["batch_size"],
        epochs=config["train"]["epochs"],
        validate_every=config["train"]["validate_every"],
        seed=config["seed"],
    )
    networks = recipe.networks(config)
    schedule = recipe.learning_rate(config, plan.steps, plan.steps_per_epoch)
    optimizer = recipe.optimizer(config, schedule)
    step = make_train_step(
        networks, optimizer, recipe.objective(config), recipe.mixup(config),
        augmentation=recipe.augmentation(config),
    )  # fmt: skip
    place = placement(devices)
    # Validation uses a device's share of the training batch, which is known to fit in its memory.
    share = plan.batch_size // len(batch_devices(devices))
    arrays = DeviceCohort.from_slices(
        training.images,
        training.targets,
        training.heights,
        scouts=training.scouts,
        hearts=training.hearts,
        margin=training.margin,
    )
    run = Run(
        config=config,
        folder=folder,
        plan=plan,
        cohort=jax.device_put(arrays, place),
        schedule=schedule,
        step=compile_step(step, devices),
        validation=Validation(
            cohort=cohort.cropped().take(parts[1]),
            segment=hosts.shared(make_labels(networks.segmentation, batch_size=share)),
            anatomy=recipe.anatomy(config),
        ),
    )
    size = recipe.grid(config).size
    return run, init_state(networks, optimizer, config["seed"], size, place)
