"""A process of one side: builds its work, then runs it as often as it is told.

Reads a workload and then numbers of runs, a line each, from standard input; answers in lines of
JSON. What imports and building took is the first answer, memory the last.
"""

import json
import os
import resource
import sys
import time
from typing import Any, Protocol, TextIO

from benchmarks.workload import JAXSEG, Workload


class Task(Protocol):
    """Work that a side has built."""

    def run(self, times: int) -> None:
        """Do it that often, and wait for the last one's result."""
        ...

    def report(self) -> dict[str, Any]:
        """What is worth knowing at the end; "device_peak" is in bytes, None without a GPU."""
        ...


def build(workload: Workload) -> tuple[Task, float]:
    """Import the side's framework, build its work; and the seconds that the imports took."""
    start = time.perf_counter()
    if workload.side == JAXSEG:
        from benchmarks import jax_side as side
    else:
        from benchmarks import torch_side as side
    imported = time.perf_counter() - start
    return side.build(workload), imported


def peak_memory() -> int:
    """Largest resident set of this process so far, bytes."""
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
    # Whatever a library prints goes to standard error; the answers have their own channel.
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    serve(sys.stdin, channel)
