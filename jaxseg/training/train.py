"""Training, from settings and a workdir to checkpoints, metrics and a table of DSC."""

import json
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
from jaxseg.machine.stdout import Say
from jaxseg.models.segment import make_labels
from jaxseg.runs import hosts, provenance, unseen, workdir
from jaxseg.runs.checkpoint import Checkpoints
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

# What all processes raise at the same place; anything else is one process's own.
_COMMON = (Interrupted, DivergedError, hosts.HostsError)


def train(
    config: Mapping[str, Any], folder: Path, *, cohort: Cohort | None = None, say: Say = print
) -> str:
    """Train one stage, or go on where an interrupted run of the same settings stopped.

    Args:
      config: settings of the shape of `configs/default.py`.
      folder: the workdir; it holds everything that the run writes.
      cohort: what `run_data.load_cohort` gives for these settings, where it was read already.
      say: takes each line for the user.

    Returns:
      The table of DSC on the validation slices, Markdown.

    Raises:
      SettingsError: settings that cannot be run.
      WorkdirError: a workdir that holds another run, is in use, cannot be written to, or whose
        checkpoints are damaged.
      DataError: a case that cannot be used.
      HostsError: another process of the run stopped, or has other settings or cases.
      DivergedError: a loss that is not finite.
      OutOfMemoryError: memory is spent.
      Interrupted: SIGTERM or Ctrl-C; the state is saved.
    """
    with hosts.agreed():
        settings.check(config)
        config = run_data.resolved(config)
        keep_freed_memory()
        here = describe()
        devices = _devices(config)
        convolution = recipe.convolution(config).__name__
    result = {**settings.without_places(config), "run": None}  # what bears on the result
    hosts.check_same("the settings", hosts.digest(json.dumps(result)))
    hosts.check_same("the local devices", str(devices))
    hosts.check_same("the convolutions (run.convolution=xla is had everywhere)", convolution)
    if not hosts.is_writer():
        say = _say_nothing
    with _held(folder, config), _told(folder, config), catch_signals() as stop:
        say(here)
        _use_compilation_cache(config["run"]["compilation_cache"])
        origin = _origin(config, folder, say)
        cohort = _read(config) if cohort is None else cohort
        with hosts.agreed():
            parts = _split(config, folder, cohort, origin, say)
        with hosts.agreed():
            _check_shared(folder)
        hosts.introduce(batch_devices(devices))
        with hosts.exit_at_once(unless=_COMMON):
            run, state = _build(config, folder, cohort, parts, devices)
            if origin is not None:
                state, fresh = origin.apply(state, placement(devices))
                at_random = f"; at random: {', '.join(fresh)}" if fresh else ""
                say(f"starting from {origin.describe()}{at_random}")
            networks = {"network": state.params["network"], **state.params}  # the network first
            say(describe_networks(networks, recipe.convolution(config)))
            _tell_of_slowness(config, say)
            return _train(run, state, stop, say)


def _train(run: Run, state: TrainState, stop: StopRequest, say: Say) -> str:
    """From the latest checkpoint, if there is one, to the table."""
    with (
        Checkpoints(run.folder) as checkpoints,
        hosts.exit_at_once(unless=_COMMON),
        _told(run.folder, run.config),
    ):
        hosts.check_same("the checkpoints", str(checkpoints.steps))
        state, resumed = resume(checkpoints, state, say)
        if resumed:
            say(f"resuming at step {int(state.step)} of {run.plan.steps}")
        writer = hosts.is_writer()
        with Logbook(run.folder, step=int(state.step)) if writer else nullcontext() as logbook:
            state = run_steps(run, state, checkpoints, logbook, stop, say)
        checkpoints.wait()
        table = report(run, state, checkpoints, say)
    signum = hosts.highest(stop.signal or 0)
    if signum:  # too late for the loop; whoever called must not go on
        raise Interrupted(signum, int(state.step))
    return table


def _say_nothing(line: str) -> None:
    del line


@contextmanager
def _held(folder: Path, config: Mapping[str, Any]) -> Iterator[None]:
    """Hold the workdir, through the writer; it holds no run, or one of these settings."""
    with ExitStack() as stack:
        with hosts.agreed():
            if hosts.is_writer():
                stack.enter_context(workdir.locked(folder))
                workdir.check_settings(folder, config)
                workdir.remove_leftovers(folder)
        yield


@contextmanager
def _told(folder: Path, config: Mapping[str, Any]) -> Iterator[None]:
    """A workdir that cannot be written to and memory that is spent, each as one line."""
    with workdir.writing(folder), memory.advised(memory.training_advice(config)):
        yield


def _check_shared(folder: Path) -> None:
    """Seen at the start, not where the best checkpoint is read at the end."""
    if not (hosts.is_writer() or (folder / workdir.SETTINGS).exists()):
        raise workdir.WorkdirError(
            f"{folder}: expected the files that process 0 wrote; the workdir of a run over several "
            "hosts must lie where all of them see it"
        )


def _origin(config: Mapping[str, Any], folder: Path, say: Say) -> start.Start | None:
    """What a run that has no checkpoint yet starts from, where that is another run."""
    if config["train"]["init_from"] is None or hosts.highest(int(start.is_begun(folder))):
        return None
    with hosts.agreed():
        for line in start.check(config):
            say(line)
    with hosts.exit_at_once(unless=_COMMON):
        origin = start.load(config)
    known = provenance.without_places({workdir.STARTED_FROM: origin.facts})
    hosts.check_same("the parameters to start from", hosts.digest(json.dumps(known)))
    return origin


def _read(config: Mapping[str, Any]) -> Cohort:
    """Every process reads all cases; the phantom is written by one."""
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


def _tell_of_slowness(config: Mapping[str, Any], say: Say) -> None:
    """A CPU without the native convolution takes half as long again for a step."""
    if jax.default_backend() == "cpu" and config["run"]["convolution"] == "auto":
        why = native.why_not(config["model"]["precision"])
        if why is not None:
            say(f"convolutions by XLA, slower here than the native ones: {why}")


def _split(
    config: Mapping[str, Any],
    folder: Path,
    cohort: Cohort,
    origin: start.Start | None,
    say: Say,
) -> tuple[np.ndarray, np.ndarray]:
    """Split the cohort, and bind the workdir to both, and to what the run starts from."""
    parts = run_data.split_cohort(config, cohort)
    facts = {
        **cohort.facts(),
        **run_data.split_facts(config, cohort, parts),
        "synthetic": run_data.is_synthetic(config),
        "label_values": run_data.written_values(config),
        "smallest_mm3": recipe.smallest_pathology(config, cohort, parts[0]),
    }
    if origin is not None:
        facts[workdir.STARTED_FROM] = origin.facts
    if hosts.is_writer():
        workdir.claim(folder, config, facts)
        provenance.note(folder)
    say(
        f"{len(cohort.case_names)} cases, {len(cohort)} slices: {len(parts[0])} to train on, "
        f"{len(parts[1])} to validate on ({config['data']['split']} split)"
    )
    if names := unseen.validated_though_seen(facts):
        say(
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
    # What a device holds of a training batch, its memory holds in validation too.
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
