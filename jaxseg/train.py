"""The training loop: settings and a workdir in; checkpoints, metrics and a table of DSC out."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from tqdm import tqdm

from jaxseg import recipe, settings, workdir
from jaxseg.batch import DeviceCohort
from jaxseg.checkpoint import Checkpoints
from jaxseg.data import Cohort, with_neighbors
from jaxseg.inference import make_labels
from jaxseg.interrupt import Interrupted, StopRequest, catch_signals
from jaxseg.logbook import Logbook
from jaxseg.metrics import Summary
from jaxseg.plan import Plan
from jaxseg.report import pictures, tables
from jaxseg.train_step import (
    TrainState,
    TrainStep,
    compile_step,
    init_state,
    make_train_step,
    placement,
)
from jaxseg.validation import Validation, foreground_mean, score_table

Say = Callable[[str], None]


class DivergedError(RuntimeError):
    """A loss or gradient that is not finite; the checkpoints before it are kept."""


@dataclass(frozen=True)
class _Run:
    """What a run is made of, once everything is read and built."""

    config: Mapping[str, Any]
    folder: Path
    plan: Plan
    cohort: DeviceCohort
    schedule: optax.Schedule
    step: TrainStep
    validation: Validation


def train(
    config: Mapping[str, Any], folder: Path, *, cohort: Cohort | None = None, say: Say = print
) -> str:
    """Train one stage, or go on where an interrupted run of the same settings stopped.

    Args:
      config: settings of the shape of `configs/default.py`.
      folder: the workdir; it holds everything that the run writes.
      cohort: what `recipe.load_cohort` gives for these settings, where it was read already.
      say: takes each line for the user.

    Returns:
      The table of DSC on the validation slices, Markdown.

    Raises:
      SettingsError: settings that cannot be run.
      WorkdirError: a workdir that holds another run, or is in use.
      DataError: a case that cannot be used.
      DivergedError: a loss that is not finite.
      Interrupted: SIGTERM or Ctrl-C; the state is saved.
    """
    settings.check(config)
    devices = _devices(config)
    with workdir.locked(folder), catch_signals() as stop:
        workdir.check_settings(folder, config)
        _use_compilation_cache(config["run"]["compilation_cache"])
        cohort = recipe.load_cohort(config) if cohort is None else cohort
        parts = _split(config, folder, cohort, say)
        run, state = _build(config, folder, cohort, parts, devices)
        with Checkpoints(folder) as checkpoints:
            if checkpoints.latest_step is not None:
                state = checkpoints.restore(state, checkpoints.latest_step)
                say(f"resuming at step {int(state.step)} of {run.plan.steps}")
            with Logbook(folder, step=int(state.step)) as logbook:
                state = _loop(run, state, checkpoints, logbook, stop, say)
            checkpoints.wait()
            table = _report(run, state, checkpoints, say)
        if stop.signal is not None:  # too late for the loop; whoever called must not go on
            raise Interrupted(stop.signal, int(state.step))
        return table


def _devices(config: Mapping[str, Any]) -> int:
    """Number of local devices to use."""
    devices, batch_size = config["run"]["devices"], config["train"]["batch_size"]
    available = jax.local_device_count()
    if devices > available:
        raise settings.SettingsError(
            f"run.devices: expected at most the {available} of this machine, got {devices}"
        )
    devices = devices or available
    if batch_size % devices:
        raise settings.SettingsError(
            f"train.batch_size: expected a multiple of the {devices} devices in use, "
            f"got {batch_size}; or set run.devices"
        )
    return devices


def _use_compilation_cache(folder: str) -> None:
    if folder:
        jax.config.update("jax_compilation_cache_dir", str(Path(folder).expanduser()))


def _split(
    config: Mapping[str, Any], folder: Path, cohort: Cohort, say: Say
) -> tuple[np.ndarray, np.ndarray]:
    """Split the cohort, and bind the workdir to both."""
    parts = recipe.split_cohort(config, cohort)
    names = [[cohort.case_names[i] for i in np.unique(cohort.case_index[part])] for part in parts]
    facts = {
        "fingerprint": cohort.fingerprint(),
        "cases": list(cohort.case_names),
        "spacing": [np.min(cohort.spacings, 0).tolist(), np.max(cohort.spacings, 0).tolist()],
        "training": {"slices": len(parts[0]), "cases": names[0]},
        "validation": {"slices": len(parts[1]), "cases": names[1]},
    }
    workdir.claim(folder, config, facts)
    say(
        f"{len(cohort.case_names)} cases, {len(cohort)} slices: {len(parts[0])} to train on, "
        f"{len(parts[1])} to validate on ({config['data']['split']} split)"
    )
    return parts


def _build(
    config: Mapping[str, Any],
    folder: Path,
    cohort: Cohort,
    parts: tuple[np.ndarray, np.ndarray],
    devices: int,
) -> tuple[_Run, TrainState]:
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
    average = config["optimizer"]["average"]
    step = make_train_step(
        networks, optimizer, recipe.objective(config, training.labels), recipe.mixup(config),
        augmentation=recipe.augmentation(config), average=average,
    )  # fmt: skip
    place = placement(devices)
    slices = config["model"]["slices"]
    inputs = with_neighbors(cohort.images, cohort.case_index, slices=slices)
    arrays = DeviceCohort.from_slices(inputs[parts[0]], training.labels, training.heights)
    run = _Run(
        config=config,
        folder=folder,
        plan=plan,
        cohort=jax.device_put(arrays, place),
        schedule=schedule,
        step=compile_step(step, devices),
        validation=Validation(
            cohort=cohort.take(parts[1]),
            inputs=inputs[parts[1]],
            segment=make_labels(networks.segmentation, batch_size=plan.batch_size),
            anatomy=recipe.anatomy(config),
        ),
    )
    size = recipe.input_shape(config)
    state = init_state(networks, optimizer, config["seed"], size, place, average=bool(average))
    return run, state


def _loop(
    run: _Run,
    state: TrainState,
    checkpoints: Checkpoints,
    logbook: Logbook,
    stop: StopRequest,
    say: Say,
) -> TrainState:
    plan, first, start = run.plan, int(state.step), time.monotonic()
    pending: list[dict[str, Array]] = []
    loss = math.nan
    # Where there is no terminal, the bar stays silent and the lines of `say` tell the progress.
    with tqdm(total=plan.steps, initial=first, unit="step", disable=None) as bar:
        for step in range(first, plan.steps):
            if stop.signal is not None:
                _flush(run, pending, step, logbook)
                checkpoints.save(state, None)
                checkpoints.wait()
                raise Interrupted(stop.signal, step)
            state, logs = run.step(state, run.cohort, jnp.asarray(plan.indices(step)))
            if pending:
                # One step in flight keeps the device busy; more would only delay a signal.
                jax.block_until_ready(pending[-1])
            pending.append(logs)
            done = step + 1
            validates = plan.validates_after(done)
            if validates or done % run.config["run"]["log_every"] == 0:
                loss = _flush(run, pending, done, logbook)
                bar.set_postfix_str(f"loss {loss:.4f}", refresh=False)
            bar.update()
            if validates:
                summary = _validate(run, state, done, logbook)
                checkpoints.save(state, foreground_mean(summary))
                minutes = (time.monotonic() - start) / (done - first) * (plan.steps - done) / 60
                with tqdm.external_write_mode():
                    say(_progress_line(run, done, loss, summary, minutes))
    return state


def _progress_line(run: _Run, done: int, loss: float, summary: Summary, minutes: float) -> str:
    pairs = zip(run.validation.regions, summary.mean, strict=True)
    scores = "  ".join(f"{name} {tables.score(mean)}" for name, mean in pairs)
    return (
        f"epoch {run.plan.epoch(done):.0f}/{run.plan.epochs}  step {done}/{run.plan.steps}  "
        f"loss {loss:.4f}  DSC {scores}  {minutes:.1f} min left"
    )


def _flush(run: _Run, pending: list[dict[str, Array]], done: int, logbook: Logbook) -> float:
    """Write the means of the steps since the last flush; stop at a number that is not finite.

    Returns:
      The mean loss; NaN if there was no step.
    """
    if not pending:
        return math.nan
    logs = jax.device_get(pending)
    pending.clear()
    means = {name: np.mean([np.asarray(log[name]) for log in logs], axis=0) for name in logs[0]}
    bad = [name for name, value in means.items() if not np.isfinite(value).all()]
    if bad:
        raise DivergedError(
            f"{', '.join(bad)} not finite between steps {done - len(logs) + 1} and {done}; the "
            f"last good checkpoint in {run.folder} is kept. A lower optimizer.learning_rate or "
            "optimizer.clip_norm, or model.precision=float32, may help"
        )
    names = run.validation.anatomy.labels
    values: dict[str, Any] = {
        name: dict(zip(names, value.tolist(), strict=True)) if value.ndim else float(value)
        for name, value in means.items()
    }
    values |= {
        "epoch": run.plan.epoch(done),
        "learning_rate": float(np.asarray(run.schedule(done - 1))),
    }
    logbook.scalars(done, "train", values)
    return values["loss"]


def _network_params(state: TrainState) -> Any:
    """The parameters that inference uses, on the first device, where validation runs."""
    return jax.device_put(state.network, jax.local_devices()[0])


def _validate(run: _Run, state: TrainState, done: int, logbook: Logbook) -> Summary:
    validation, epoch = run.validation, run.plan.epoch(done)
    predictions = validation.predict(_network_params(state))
    summary = validation.score(predictions)
    dsc = dict(zip(validation.regions, summary.mean.tolist(), strict=True))
    mean = foreground_mean(summary)
    logbook.scalars(done, "validation", {"dsc": dsc, "mean_foreground_dsc": mean, "epoch": epoch})
    count = run.config["run"]["pictures"]
    if count:
        figure = validation.picture(predictions, count)
        pictures.save(figure, run.folder / "pictures" / f"step-{done:06d}.png")
        logbook.picture(done, "validation", pictures.pixels(figure))
    return summary


def _report(run: _Run, state: TrainState, checkpoints: Checkpoints, say: Say) -> str:
    """Score the best and the last checkpoint; write, say and return the table."""
    validation, plan = run.validation, run.plan
    params = {f"last (epoch {plan.epoch(int(state.step)):.0f})": _network_params(state)}
    best = checkpoints.best_step
    if best is not None:
        restored = checkpoints.restore_network(_network_params(state), best)
        params = {f"best (epoch {plan.epoch(best):.0f})": restored, **params}
    rows = {name: validation.score(validation.predict(value)) for name, value in params.items()}
    slices = (plan.num_slices, len(validation.cohort))
    table, csv = score_table(run.config, validation.regions, rows, slices)
    workdir.write_atomic(run.folder / "table.md", table)
    workdir.write_atomic(run.folder / "table.csv", csv)
    say(f"\n{table}")
    return table
