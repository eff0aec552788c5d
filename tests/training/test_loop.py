"""The training loop: progress lines."""

import re
import time
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import baseline
from jaxseg.batch_schedule import Plan
from jaxseg.config.setup import build
from jaxseg.metrics import Summary
from jaxseg.runs.signals import StopRequest
from jaxseg.train_step import TrainState
from jaxseg.training.loop import Run, run_steps
from tests.logged import logged


class Scored:
    """A validation that costs nothing but what compiles."""

    regions = ("LV",)

    def __init__(self) -> None:
        self.compiled = False

    def predict_first(self, params: Any) -> None:
        self.compiled = True

    def predict(self, params: Any) -> None:
        assert self.compiled, "not before the first step"

    def score(self, predictions: Any) -> Summary:
        return Summary(np.ones(1), np.zeros(1), np.ones(1, int))


def test_the_remaining_time_excludes_compilation(tmp_path):
    def step(state: TrainState, cohort: Any, indices: jax.Array) -> Any:
        if not state.step:
            time.sleep(3)
        return state.replace(step=state.step + 1), {"loss": jnp.ones(())}

    plan = Plan(num_slices=8, batch_size=1, epochs=1000, validate_every=1, seed=0)
    setup = build(baseline.get_config().to_dict())  # logs every 20 steps
    run: Any = Run(setup, tmp_path, plan, None, None, step, Scored())  # pyright: ignore
    state = TrainState({"network": jnp.zeros(1)}, (), jnp.int32(0), jnp.uint32(0))
    checkpoints: Any = SimpleNamespace(save=lambda state, score: None)

    def stop(line: str) -> None:
        if line.startswith("epoch "):
            raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"), logged(stop) as lines:
        run_steps(run, state, checkpoints, None, StopRequest())
    assert lines[0].startswith("compiling ")
    found = re.search(r"([0-9.]+) min left", lines[1])
    assert found
    assert float(found[1]) < 20  # 50 with the compilation
