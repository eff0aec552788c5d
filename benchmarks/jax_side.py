"""The side of jaxseg: the tasks of `benchmarks.workload` by its own functions."""

import gzip
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from benchmarks.trace import operations
from benchmarks.workload import (
    COPIED_NUMBERS,
    MATRIX_SIZE,
    STEPS_PER_CALL,
    Slices,
    Workload,
    read_cases,
    read_slices,
)
from jaxseg.batch import DeviceCohort, mixed_batch
from jaxseg.batch_schedule import Plan
from jaxseg.config import setup
from jaxseg.inference.predictor import make_predictor
from jaxseg.machine.host_memory import keep_freed_memory, lower_peak_memory
from jaxseg.models import initialize
from jaxseg.models.segment import make_probabilities
from jaxseg.objective import loss_and_logs
from jaxseg.runs.trained import Trained
from jaxseg.train_step import (
    compile_step,
    init_state,
    make_train_step,
    placement,
)

_RATE = 1e-3  # learning rate, which does not affect the time


class Task:
    """A task, as a function that starts one run and returns the arrays to wait for."""

    def __init__(self, start: Callable[[], Any], extra: dict[str, Any] | None = None) -> None:
        self._start = start
        self._extra = {} if extra is None else extra  # filled while the task runs

    def run(self, times: int) -> None:
        """Start runs and keep freed memory as the training loop does."""
        previous = None
        for _ in range(times):
            started = self._start()
            if previous is not None:
                jax.block_until_ready(previous)
            previous = started
        jax.block_until_ready(previous)
        keep_freed_memory()

    def report(self) -> dict[str, Any]:
        """Number of devices and, on a GPU, peak memory of the first one in bytes."""
        devices = jax.local_devices()
        statistics = devices[0].memory_stats() or {}
        peak = statistics.get("peak_bytes_in_use")
        return {"devices": len(devices), "device_peak": peak, **self._extra}


def build(workload: Workload) -> Task:
    """Build the workload without running it."""
    lower_peak_memory()
    if workload.devices > 1:  # must precede the first use of JAX
        jax.config.update("jax_num_cpu_devices", workload.devices)
    match workload.task:
        case "step" | "scan":
            return _step(workload)
        case "epoch":
            return _epoch(workload)
        case "trace":
            return _trace(workload)
        case "predict" | "case":
            return _predict(workload)
        case "matmul" | "copy":
            return _rate(workload)
        case _:
            return _without_mixup(workload)


def _networks(workload: Workload) -> tuple[Any, Any, Any]:
    wanted = setup.build(workload.settings())
    optimizer = wanted.optimization.optimizer(optax.constant_schedule(_RATE))
    return wanted.networks, wanted.objective, optimizer


def _training(workload: Workload) -> tuple[Callable[[], Any], Slices]:
    """A training step as in `jaxseg.training.train`, with its slices."""
    data = read_slices(workload)
    networks, objective, optimizer = _networks(workload)
    mixup = setup.build(workload.settings()).mixup
    train_step = make_train_step(networks, optimizer, objective, mixup)
    several = STEPS_PER_CALL if workload.task == "scan" else None
    step = compile_step(_scan(train_step) if several else train_step, workload.devices)
    place, size = placement(workload.devices), (workload.size, workload.size)
    state = init_state(networks, optimizer, 0, size, place)
    cohort = DeviceCohort.from_slices(data.images, data.labels, data.heights)
    cohort = jax.device_put(cohort, place)
    plan = Plan(len(data.images), workload.batch, epochs=10**6, validate_every=10**6, seed=0)
    done = 0

    def start() -> Any:
        nonlocal state, done
        batches = [plan.indices(done + i) for i in range(several or 1)]
        indices = np.stack(batches) if several else batches[0]
        state, logs = step(state, cohort, jnp.asarray(indices))
        done += len(batches)
        return logs

    return start, data


def _scan(train_step: Callable[..., Any]) -> Callable[..., Any]:
    """Several steps as one function, whose indices are (steps, B)."""

    def steps(state: Any, cohort: DeviceCohort, indices: Array) -> tuple[Any, Any]:
        return jax.lax.scan(lambda now, batch: train_step(now, cohort, batch), state, indices)

    return steps


def _step(workload: Workload) -> Task:
    return Task(_training(workload)[0])


def _epoch(workload: Workload) -> Task:
    start, data = _training(workload)
    steps = Task(start)

    def epoch() -> None:
        steps.run(len(data.images) // workload.batch)

    return Task(epoch)


def _without_mixup(workload: Workload) -> Task:
    """Parts of a step on given images and targets."""
    data = read_slices(workload)
    networks, objective, optimizer = _networks(workload)
    cohort = DeviceCohort.from_slices(data.images, data.labels, data.heights)
    indices = jnp.arange(workload.batch)
    mixup = setup.build(workload.settings()).mixup

    def mix(key: Array) -> tuple[Array, Array]:
        return mixed_batch(key, cohort, indices, 0, mixup, networks.segmentation.num_labels)

    compiled_mix = jax.jit(mix)
    if workload.task == "mixup":
        return Task(lambda: compiled_mix(jax.random.key(0)))
    images, targets = compiled_mix(jax.random.key(0))
    state = init_state(networks, optimizer, 0, (workload.size, workload.size), placement(1))

    def loss(params: Any) -> tuple[Array, dict[str, Array]]:
        return loss_and_logs(params, networks, objective, images, targets)

    if workload.task == "forward":
        forward = jax.jit(lambda params: loss(params)[0])
        return Task(lambda: forward(state.params))
    if workload.task == "gradient":
        gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))
        return Task(lambda: gradient(state.params))

    def step(params: Any, opt_state: Any) -> tuple[Any, Any, Any]:
        (_, logs), gradients = jax.value_and_grad(loss, has_aux=True)(params)
        updates, opt_state = optimizer.update(gradients, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, logs

    compiled = jax.jit(step, donate_argnums=(0, 1))
    if workload.task == "cost":
        counted = compiled.lower(state.params, state.opt_state).compile().cost_analysis() or {}
        cost = {"flops": counted.get("flops"), "bytes": counted.get("bytes accessed")}
        return Task(lambda: None, cost)
    carried = (state.params, state.opt_state)

    def start() -> Any:
        nonlocal carried
        *carried, logs = compiled(*carried)
        return logs

    return Task(start)


def _predict(workload: Workload) -> Task:
    wanted = setup.build(workload.settings())
    network, size = wanted.networks.segmentation, wanted.grid.size
    params = initialize(network, jax.random.key(0), jnp.zeros((1, *size, 1)))
    if workload.task == "case":
        folder = Path(workload.data)
        run = Trained(folder, "last", 0, wanted, {}, network, params)
        predict, case = make_predictor([run]), read_cases(folder)[0]
        return Task(lambda: predict(case))
    segment, images = make_probabilities(network, batch_size=8), read_slices(workload).images
    return Task(lambda: segment(params, images))


def _rate(workload: Workload) -> Task:
    if workload.task == "copy":
        array = jnp.zeros(COPIED_NUMBERS[workload.device], jnp.float32)
        add = jax.jit(lambda x: x + 1.0)
        return Task(lambda: add(array))
    size = MATRIX_SIZE[workload.device]
    matrix = jax.random.normal(jax.random.key(0), (size, size), workload.precision)
    product = jax.jit(lambda x: x @ x)
    return Task(lambda: product(matrix))


def _trace(workload: Workload) -> Task:
    """Steps under the profiler; the report gives milliseconds by operation, over all steps."""
    start, _ = _training(workload)
    steps, extra = Task(start), {}
    steps.run(2)

    def traced() -> None:
        with tempfile.TemporaryDirectory() as folder:
            with jax.profiler.trace(folder):
                steps.run(1)
            (path,) = Path(folder).rglob("*.trace.json.gz")
            with gzip.open(path, "rt") as file:
                extra["operations"] = operations(json.load(file)["traceEvents"])

    return Task(traced, extra)
