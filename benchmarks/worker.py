"""A process of one side, which builds a workload and runs it on request.

It reads a workload and then numbers of runs, one per line, from standard input, and answers in
lines of JSON. The first answer gives the time of imports and building, the last one memory.
"""

import json
import os
import resource
import sys
import time
from typing import Any, Protocol, TextIO

from benchmarks.workload import JAXSEG, Workload


class Task(Protocol):
    """A workload as built by one side."""

    def run(self, times: int) -> None:
        """Run it that many times, and wait for the last result."""
        ...

    def report(self) -> dict[str, Any]:
        """Report after the runs; "device_peak" is in bytes, None without a GPU."""
        ...


def build(workload: Workload) -> tuple[Task, float]:
    """Import the framework of a side and build the workload; return it with the import seconds."""
    start = time.perf_counter()
    if workload.side == JAXSEG:
        from benchmarks import jax_side as side
    else:
        from benchmarks import torch_side as side
    imported = time.perf_counter() - start
    return side.build(workload), imported


def peak_memory() -> int:
    """Largest resident set of this process so far, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def serve(requests: TextIO, answers: TextIO) -> None:
    """Answer until the requests end."""

    def answer(**values: Any) -> None:
        answers.write(json.dumps(values) + "\n")
        answers.flush()

    task, imported = build(Workload.from_json(requests.readline()))
    before = peak_memory()
    start = time.perf_counter()
    task.run(1)
    answer(imports=imported, first_run=time.perf_counter() - start, memory_before=before)
    for line in requests:
        times = int(line)
        start = time.perf_counter()
        task.run(times)
        answer(seconds=(time.perf_counter() - start) / times)
    answer(peak=peak_memory(), **task.report())


if __name__ == "__main__":
    # Output of libraries goes to standard error, so that standard output has only the answers.
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    serve(sys.stdin, channel)
