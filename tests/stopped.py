"""A run that is stopped by a signal, and its final arrays."""

import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from jaxseg.config.setup import build
from jaxseg.runs.checkpoint import Checkpoints
from jaxseg.runs.config_file import read_settings
from jaxseg.runs.signals import Interrupted
from jaxseg.train_step import init_state
from jaxseg.training.train import train
from tests.logged import logged


def train_stopped(config: Mapping[str, Any], folder: Path) -> None:
    """Train until the first validation, and stop after it."""

    def stop(line: str) -> None:
        if line.startswith("epoch "):
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted), logged(stop):
        train(config, folder)
    assert not (folder / "table.md").exists()


def end_state(run: Path) -> Any:
    """The state of the last checkpoint."""
    setup = build(read_settings(run))
    optimizer = setup.optimization.optimizer(lambda step: 0.0 * step)
    template = jax.eval_shape(lambda: init_state(setup.networks, optimizer, 0, setup.grid.size))
    with Checkpoints(run, read_only=True) as checkpoints:
        assert checkpoints.latest_step is not None
        return checkpoints.restore(template, checkpoints.latest_step)


def assert_same_end(run: Path, other: Path) -> None:
    """Bit for bit: parameters, optimizer and step; and the table."""
    ours, theirs = end_state(run), end_state(other)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_array_equal(a, b)
    assert (run / "table.csv").read_text() == (other / "table.csv").read_text()
