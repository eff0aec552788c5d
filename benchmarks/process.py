"""Start processes of `benchmarks.worker`, and measure groups of them in turns."""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Self

from benchmarks.timing import interleave
from benchmarks.workload import Workload

ROOT = Path(__file__).parents[1]


class WorkerError(RuntimeError):
    """A process ended before it answered; the message contains the end of its output."""


class Process:
    """A new process with one workload.

    Attributes:
      workload: the workload that it runs.
      ready: its first answer, with `wall`: seconds from its start to its first result.
    """

    def __init__(self, workload: Workload, caches: Path) -> None:
        self.workload = workload
        self.errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed in `close`
        start = time.perf_counter()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.worker"],
            cwd=ROOT,
            env=environment(workload, caches),
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
        )
        self._send(workload.to_json())
        self.ready = self._receive()
        self.ready["wall"] = time.perf_counter() - start

    def run(self, times: int) -> float:
        """Mean seconds per run over a number of runs."""
        self._send(str(times))
        return self._receive()["seconds"]

    def close(self) -> dict[str, Any]:
        """End the process and return its report."""
        try:
            assert self._process.stdin is not None
            self._process.stdin.close()
            report = self._receive()
            self._process.wait()
            return report
        finally:
            self.stop()

    def stop(self) -> None:
        """Kill the process."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()
        self.errors.close()

    def _send(self, line: str) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._ended() from None

    def _receive(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise self._ended()
        return json.loads(line)

    def _ended(self) -> WorkerError:
        # The process closed its output, so it is about to end.
        code = self._process.wait()
        self.errors.seek(0)
        said = self.errors.read().decode(errors="replace").strip()
        self.stop()
        where = f"{self.workload.side}, {self.workload.task}"
        return WorkerError(f"{where}: ended with status {code}, {cause(said)}\n{said[-2000:]}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def cause(said: str) -> str:
    """The line of a process's output that names its error: the last exception or the last line."""
    lines = [line.strip() for line in said.splitlines() if line.strip()] or ["no output"]
    raised = [line for line in lines if re.match(r"[\w.]*(Error|Exception|Exit|Interrupt)\b", line)]
    return (raised or lines)[-1][:300]


def environment(workload: Workload, caches: Path) -> dict[str, str]:
    """Environment of a process: cores, caches of this benchmark, no preallocated memory."""
    cores = str(workload.cores)
    return os.environ | {
        "JAX_COMPILATION_CACHE_DIR": str(caches / "jax"),
        "JAX_PLATFORMS": "cpu" if workload.device == "cpu" else "cuda",
        "OMP_NUM_THREADS": cores,
        "TORCHINDUCTOR_CACHE_DIR": str(caches / "torch"),
        "TRITON_CACHE_DIR": str(caches / "triton"),
        "XDG_CACHE_HOME": str(caches / "home"),  # for the native convolution of jaxseg
        # Several processes share a GPU, and peak memory is measured for each.
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    }


@contextmanager
def group(
    workloads: Mapping[str, Workload], caches: Path, *, together: bool
) -> Iterator[dict[str, Process]]:
    """Processes by name, started one after another or (`together`) all at once."""
    started: dict[str, Process] = {}
    try:
        with ThreadPoolExecutor(len(workloads) if together else 1) as pool:
            futures = {n: pool.submit(Process, w, caches) for n, w in workloads.items()}
            for name, future in futures.items():
                error = future.exception()
                if error is None:
                    started[name] = future.result()
                else:
                    print(f"left out: {error}", file=sys.stderr)
        yield started
    finally:
        for process in started.values():
            process.stop()


def compare(
    workloads: Mapping[str, Workload],
    caches: Path,
    *,
    turns: int,
    turn_seconds: float,
    together: bool,
) -> dict[str, list[float]]:
    """Seconds of each workload in a separate process, measured in turns."""
    with group(workloads, caches, together=together) as processes:
        runners = {name: process.run for name, process in processes.items()}
        return interleave(runners, turns=turns, turn_seconds=turn_seconds)


def sides(workload: Workload, names: Iterable[str] | Sequence[str]) -> dict[str, Workload]:
    """The same workload on several sides, by side."""
    return {name: workload.on(name) for name in names}
