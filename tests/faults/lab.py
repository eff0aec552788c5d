"""Tiny runs in processes that can be killed, filled with faults and compared."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxseg.config.setup import build
from jaxseg.runs.checkpoint import Checkpoints
from jaxseg.runs.config_file import read_settings
from jaxseg.runs.logbook import METRICS, read_metrics
from jaxseg.train_step import init_state
from tests.allowed_warnings import STRICT

ZYGOTE = Path(__file__).with_name("zygote.py")
CONFIGS = ZYGOTE.parents[2] / "configs"
STEPS = 27  # 35 slices, batches of 4, 3 epochs
FIELDS = {
    "grid.size": "16,16", "grid.spacing": 8.4, "grid.allow_outside": True, "model.width": 4,
    "model.depth": 0, "model.groups": 4, "balance.width": 4, "data.phantom_cases": 6,
    "train.epochs": 3, "train.batch_size": 4, "train.validate_every": 1, "run.log_every": 2,
    "run.pictures": 1, "optimizer.warmup_epochs": 1.0,
}  # fmt: skip


@dataclass(frozen=True)
class Ended:
    """An ended process: exit status (negative for a signal), stdout and stderr."""

    status: int
    output: str
    errors: str

    def refused(self, *words: str) -> str:
        """Check that it ended with one line of error, and return the line."""
        assert self.status == 1, (self.status, self.output, self.errors)
        assert self.errors.startswith("error: "), self.errors
        assert self.errors.count("\n") == 1, self.errors
        for word in words:
            assert word in self.errors, self.errors
        return self.errors


class Process:
    """A command at work."""

    def __init__(self, lab: "Lab", pid: int, files: tuple[Path, Path]) -> None:
        self.pid, self._lab, self._files = pid, lab, files

    def send(self, signum: int) -> None:
        os.kill(self.pid, signum)

    def wait(self) -> Ended:
        status = self._lab.ask({"wait": self.pid})
        return Ended(status, *(path.read_text() for path in self._files))

    def signal_when(self, condition: Callable[[], object], signum: int) -> None:
        """A signal as soon as a condition holds, looked at as often as can be."""
        deadline = time.monotonic() + 120
        while not condition():
            if time.monotonic() > deadline:
                self.send(signal.SIGKILL)
                raise AssertionError(f"waited in vain: {self.wait()}")
            if Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return
        self.send(signum)

    def kill_when(self, condition: Callable[[], object]) -> Ended:
        self.signal_when(condition, signal.SIGKILL)
        return self.wait()


class Lab:
    """Starts processes, all on one phantom and one compilation cache."""

    def __init__(self, folder: Path, zygote: subprocess.Popen[str]) -> None:
        self.folder, self._zygote, self._count = folder, zygote, 0

    def ask(self, request: dict) -> int:
        assert self._zygote.stdin is not None
        assert self._zygote.stdout is not None
        self._zygote.stdin.write(json.dumps(request) + "\n")
        self._zygote.stdin.flush()
        return json.loads(self._zygote.stdout.readline())

    def start(self, *argv: object, hook: str = "") -> Process:
        """`main.py`, or `python -m jaxseg` if the first argument is a command.

        `hook` is Python that the process runs first.
        """
        self._count += 1
        files = tuple(self.folder / f"{name}-{self._count}.txt" for name in ("output", "errors"))
        for file in files:
            file.touch()  # a process that is killed at once writes nothing
        pid = self.ask(
            {"argv": [str(a) for a in argv], "hook": hook, "output": str(files[0]),
             "errors": str(files[1])}
        )  # fmt: skip
        return Process(self, pid, (files[0], files[1]))

    def train(self, run: Path, *flags: str, hook: str = "", **changes: object) -> Process:
        """A tiny training run; `changes` set fields, with __ for the dot."""
        fields = FIELDS | {"run.compilation_cache": self.folder / "cache"}
        fields |= {name.replace("__", "."): value for name, value in changes.items()}
        given = [f"--config.{name}={value}" for name, value in fields.items() if value is not None]
        stage = f"--config={CONFIGS / 'baseline.py'}"
        return self.start(stage, *given, *flags, f"--workdir={run}", hook=hook)

    def finish(self, run: Path, **changes: object) -> Ended:
        """Train to the end, whatever is there."""
        ended = self.train(run, **changes).wait()
        assert (ended.status, ended.errors) == (0, ""), ended
        return ended


def start_zygote(folder: Path, **environment: str) -> subprocess.Popen[str]:
    # Tiny nets compile far longer than they run.
    settings = {
        "JAX_PLATFORMS": "cpu",
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "XLA_FLAGS": "--xla_backend_optimization_level=1",
    }
    return subprocess.Popen(
        [sys.executable, *STRICT, str(ZYGOTE)], cwd=folder, text=True,
        env=os.environ | settings | environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip


def notes(run: Path) -> dict[str, dict]:
    """Score and digests of parameters and optimizer, by step."""
    paths = (run / "checkpoints").glob("*/metrics/metrics")
    return {path.parts[-3]: json.loads(path.read_text()) for path in paths}


@cache
def _template(config: str) -> object:
    setup = build(json.loads(config))
    optimizer = setup.optimization.optimizer(lambda step: 0.0 * step)
    return jax.eval_shape(lambda: init_state(setup.networks, optimizer, 0, setup.grid.size))


def arrays_on_disk(run: Path) -> dict[int, list[tuple[str, tuple[int, ...], bytes]]]:
    """Every array of every checkpoint, read back: type, shape and bytes, by step."""
    template = _template(json.dumps(read_settings(run)))
    with Checkpoints(run, read_only=True) as checkpoints:
        states = {step: checkpoints.restore(template, step) for step in checkpoints.steps}
    leaves = {step: [np.asarray(x) for x in jax.tree.leaves(s)] for step, s in states.items()}
    return {step: [(x.dtype.str, x.shape, x.tobytes()) for x in xs] for step, xs in leaves.items()}


_arrays_of_reference = cache(arrays_on_disk)


def _assert_same_metrics(run: Path, reference: Path, stopped: int | None) -> None:
    """To the byte, except that a stop between two averaged steps gives two lines."""
    if (run / METRICS).read_bytes() == (reference / METRICS).read_bytes():
        return
    assert stopped is not None, f"{METRICS} differ"
    found, wanted = read_metrics(run / METRICS), read_metrics(reference / METRICS)
    at = next(k for k, line in enumerate(found) if line["step"] == stopped)
    parts, whole = found[at : at + 2], wanted[at]
    assert [line["step"] for line in parts] == [stopped, stopped + 1]
    for name in ("loss", "cross_entropy", "gradient_norm", "update_norm"):
        mean = (parts[0].pop(name) + parts[1].pop(name)) / 2
        assert mean == pytest.approx(whole.pop(name), rel=1e-5), name
    assert parts[1] == whole
    assert found[:at] + found[at + 2 :] == wanted[:at] + wanted[at + 1 :]


def assert_same(run: Path, reference: Path, *, stopped: int | None = None) -> None:
    """Same parameters and optimizer state, bit for bit, on disk too, and the same files of them.

    Args:
      run: the disturbed run.
      reference: the undisturbed run.
      stopped: step at which the run was asked to stop; it writes a line of metrics there.
    """
    assert notes(run) == notes(reference)
    assert str(STEPS) in notes(run)
    # Notes were made of what lay in memory.
    arrays = arrays_on_disk(run)
    assert STEPS in arrays
    assert arrays == _arrays_of_reference(reference)
    kept = [{path.name for path in (r / "checkpoints").iterdir()} for r in (run, reference)]
    assert kept[0] == kept[1]
    _assert_same_metrics(run, reference, stopped)
    for name in ("table.md", "table.csv", "data.json"):
        assert (run / name).read_bytes() == (reference / name).read_bytes(), name
    for picture in (reference / "pictures").iterdir():
        assert (run / "pictures" / picture.name).read_bytes() == picture.read_bytes()
    # No matter how often it was killed: no rubbish beside what a run leaves.
    left = [{path.name for path in r.iterdir()} - {"damaged"} for r in (run, reference)]
    assert left[0] <= left[1], left
