"""The training loop: steps, validations, checkpoints and the final table."""

import logging
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from tqdm import tqdm

from jaxseg.batch import DeviceCohort
from jaxseg.batch_schedule import Plan
from jaxseg.config.setup import Setup
from jaxseg.errors import UserError
from jaxseg.machine.host_memory import keep_freed_memory
from jaxseg.metrics import Summary
from jaxseg.reports import pictures, tables
from jaxseg.runs import hosts, provenance, unseen
from jaxseg.runs.checkpoint import Checkpoints
from jaxseg.runs.data_file import read_data
from jaxseg.runs.files import write_atomic
from jaxseg.runs.logbook import Logbook
from jaxseg.runs.signals import Interrupted, StopRequest, StopVote
from jaxseg.train_step import TrainState, TrainStep
from jaxseg.training.validation import Validation, foreground_mean, score_table

_LOG = logging.getLogger(__name__)


class DivergedError(UserError, RuntimeError):
    """Raised if a loss or another logged value is not finite; earlier checkpoints are kept."""


@dataclass(frozen=True)
class Run:
    """Everything that the training loop needs of a run."""

    setup: Setup
    folder: Path
    plan: Plan
    cohort: DeviceCohort
    schedule: optax.Schedule
    step: TrainStep
    validation: Validation


def run_steps(
    run: Run,
    state: TrainState,
    checkpoints: Checkpoints,
    logbook: Logbook | None,
    stop: StopRequest,
) -> TrainState:
    """Run all steps from `state` to the end of the plan.

    Args:
      run: the run.
      state: state to continue from; its step is the position in the plan.
      checkpoints: receives the state after each validation and on a request to stop.
      logbook: logbook in the process that writes, None in the others.
      stop: request to stop, set by a signal.

    Returns:
      The last state.

    Raises:
      DivergedError: a logged value, such as the loss, is not finite.
      Interrupted: a process of the run received a request to stop; the state is saved.
    """
    plan, first, start = run.plan, int(state.step), time.monotonic()
    if first < plan.steps:
        _LOG.info("compiling the training step and validation, which an empty cache makes long ...")
        run.validation.predict_first(_network_params(state))
    pending: list[dict[str, Array]] = []
    loss, vote = math.nan, StopVote()
    # Without a terminal the bar is silent, and logged lines report the progress.
    hidden = None if hosts.is_writer() else True
    with tqdm(total=plan.steps, initial=first, unit="step", disable=hidden) as bar:
        for step in range(first, plan.steps):
            if signum := vote(stop.signal):
                _flush(run, pending, step, logbook)
                checkpoints.save(state, None)
                checkpoints.wait()
                raise Interrupted(signum, step)
            state, logs = run.step(state, run.cohort, jnp.asarray(plan.indices(step)))
            if pending:
                # One step in flight keeps a GPU busy; more would only delay a stop request.
                jax.block_until_ready(pending[-1])
            pending.append(logs)
            if step == first:  # exclude the compilation from the estimate of the remaining time
                jax.block_until_ready(logs)
                keep_freed_memory()
                start = time.monotonic()
                bar.unpause()
            done = step + 1
            validates = plan.validates_after(done)
            if validates or done % run.setup.options.log_every == 0:
                loss = _flush(run, pending, done, logbook)
                bar.set_postfix_str(f"loss {loss:.4f}", refresh=False)
            bar.update()
            if validates:
                summary = _validate(run, state, done, logbook)
                checkpoints.save(state, foreground_mean(summary))
                per_step = (time.monotonic() - start) / max(done - first - 1, 1)
                with tqdm.external_write_mode():
                    _LOG.info(_progress_line(run, done, loss, summary, per_step))
    return state


def _progress_line(run: Run, done: int, loss: float, summary: Summary, per_step: float) -> str:
    """Format the state of a run; `per_step` is the time of a step in seconds."""
    minutes = per_step / 60 * (run.plan.steps - done)
    pairs = zip(run.validation.regions, summary.mean, strict=True)
    scores = "  ".join(f"{name} {tables.score(mean)}" for name, mean in pairs)
    return (
        f"epoch {run.plan.epoch(done):.0f}/{run.plan.epochs}  step {done}/{run.plan.steps}  "
        f"loss {loss:.4f}  DSC {scores}  {minutes:.1f} min left"
    )


def _flush(run: Run, pending: list[dict[str, Array]], done: int, logbook: Logbook | None) -> float:
    """Log the means over the steps since the last flush; raise if a value is not finite.

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
            f"{', '.join(bad)} not finite between steps {done - len(logs) + 1} and {done}; "
            f"checkpoints of before, if any, are kept in {run.folder}. A lower "
            "optimizer.learning_rate or optimizer.clip_norm, or model.precision=float32, may help, "
            "in a --workdir of its own"
        )
    if logbook is None:
        return float(means["loss"])
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
    """The network's parameters on the first device, where validation runs."""
    return jax.device_put(state.params["network"], jax.local_devices()[0])


def _validate(run: Run, state: TrainState, done: int, logbook: Logbook | None) -> Summary:
    validation, epoch = run.validation, run.plan.epoch(done)
    predictions = validation.predict(_network_params(state))
    summary = validation.score(predictions)
    if logbook is None:
        return summary
    dsc = dict(zip(validation.regions, summary.mean.tolist(), strict=True))
    mean = foreground_mean(summary)
    logbook.scalars(done, "validation", {"dsc": dsc, "mean_foreground_dsc": mean, "epoch": epoch})
    count = min(run.setup.options.pictures, len(validation.cohort))
    if count:
        figure = validation.picture(predictions, count)
        pictures.save(figure, run.folder / "pictures" / f"step-{done:06d}.png")
        logbook.picture(done, "validation", pictures.pixels(figure))
    return summary


def report(run: Run, state: TrainState, checkpoints: Checkpoints) -> str:
    """Score the last and the best checkpoint on the validation slices.

    Args:
      run: the run; the table is written to its folder.
      state: the last state.
      checkpoints: checkpoints of the run, including the best one.

    Returns:
      The table, as written to `table.md`.

    Raises:
      WorkdirError: a checkpoint cannot be read, or the table cannot be written.
    """
    validation, plan = run.validation, run.plan
    params = {f"last (epoch {plan.epoch(int(state.step)):.0f})": _network_params(state)}
    best = checkpoints.best_step
    if best is not None:
        restored = checkpoints.restore_network(_network_params(state), best)
        params[f"best (epoch {plan.epoch(best):.0f}), optimistic"] = restored
    rows = {name: validation.score(validation.predict(value)) for name, value in params.items()}
    slices = (plan.num_slices, len(validation.cohort))
    table, csv = score_table(run.setup, validation.regions, rows, slices)
    known = read_data(run.folder)
    if sentences := provenance.started_from(known):
        if names := unseen.validated_though_seen(known):
            sentences.append(
                f"Of the validation cases {len(names)} were among these, so that their scores are "
                "optimistic."
            )
        table += f"\n{' '.join(sentences)}\n"
    table += f"\nMade with {provenance.described(provenance.read(run.folder))}.\n"
    if hosts.is_writer():
        write_atomic(run.folder / "table.md", table)
        write_atomic(run.folder / "table.csv", csv)
    _LOG.info(f"\n{table}")
    return table
