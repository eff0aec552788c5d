"""Start-up, compilation and peak memory, each in a new process while nothing else runs."""

import sys
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.plan import Plan
from benchmarks.process import Process, WorkerError
from benchmarks.table import REFERENCE, Table, mebibytes, seconds
from benchmarks.workload import SIDES

_MEASURED_STEPS = 3


def startup(plan: Plan) -> list[Table]:
    """Time to the first step with cold and warm caches, and peak memory of a few steps."""
    runs: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(1 if plan.quick or plan.device == "gpu" else 2):
            # The first cold start fills the caches for all later processes.
            caches = plan.caches if turn == 0 else Path(folder)
            for side in plan.sides:
                for state in _STATES:
                    try:
                        runs[side, state].append(fresh(plan, side, caches))
                    except WorkerError as error:
                        print(f"left out: {error}", file=sys.stderr)
    warm = {side: runs[side, "warm"][-1] for side in SIDES if runs[side, "warm"]}
    return [_times(runs), memory_table(warm, f"{_MEASURED_STEPS + 1} bare steps")]


def fresh(plan: Plan, side: str, caches: Path) -> dict[str, Any]:
    """Measurements of the first step and of memory in a new process."""
    workload = plan.reference("bare step", side)
    with Process(workload, caches) as process:
        process.run(_MEASURED_STEPS)
        return process.ready | process.close()


def _times(runs: dict[tuple[str, str], list[dict[str, Any]]]) -> Table:
    def median(side: str, state: str, field: str) -> float:
        return float(np.median([run[field] for run in runs[side, state]]))

    rows = []
    for side in SIDES:
        if not (runs[side, "cold"] and runs[side, "warm"]):
            continue
        cold, warm = (median(side, state, "wall") for state in ("cold", "warm"))
        base = [median(REFERENCE, s, "wall") if runs[REFERENCE, s] else np.nan for s in _STATES]
        rows.append(
            (
                side,
                seconds(median(side, "warm", "imports")),
                seconds(median(side, "cold", "first_run")),
                seconds(cold),
                seconds(median(side, "warm", "first_run")),
                seconds(warm),
                f"{cold / base[0]:.2f}",
                f"{warm / base[1]:.2f}",
            )
        )
    header = (
        "side",
        "imports",
        "first step, cold",
        "start to first step, cold",
        "first step, warm",
        "start to first step, warm",
        f"cold over {REFERENCE}",
        f"warm over {REFERENCE}",
    )
    notes = (
        "The table describes the bare step of stage attention. Cold means that the compilation "
        "cache of the framework is empty, warm that an earlier process has filled it. The files "
        "of both frameworks are in the page cache. The start includes reading the phantom and, "
        "for jaxseg, initializing the parameters in a compiled function.",
    )
    return Table("Start-up", header, rows, notes)


_STATES = ("cold", "warm")


def memory_table(runs: Mapping[str, Mapping[str, Any]], what: str) -> Table:
    """Peak memory of one process per side.

    Args:
      runs: answers of the process of each side.
      what: what the processes ran, as in "4 bare steps".
    """
    reference = runs.get(REFERENCE)
    rows = []
    for side, run in runs.items():
        field = "peak" if run["device_peak"] is None else "device_peak"
        against = f"{run[field] / reference[field]:.2f}" if reference else "-"
        rows.append(
            (
                side,
                mebibytes(run["memory_before"]),
                mebibytes(run["peak"]),
                mebibytes(run["peak"] - run["memory_before"]),
                mebibytes(run["device_peak"]),
                against,
            )
        )
    header = (
        "side",
        "resident before the first step",
        "peak resident",
        "difference",
        "peak on the GPU",
        f"over {REFERENCE}",
    )
    notes = (
        f"The table describes a process that took {what} with a warm cache. Memory is the largest "
        "resident set or, on a GPU, the value that the framework reports. Before the first step, "
        "memory contains the imports and the data.",
    )
    return Table("Memory", header, rows, notes)
