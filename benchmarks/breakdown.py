"""Time of the parts of a step, and a profile by kind of operation."""

import sys
from typing import Any

from benchmarks.plan import Plan
from benchmarks.process import Process, WorkerError
from benchmarks.table import REFERENCE, Table, ratio_cell, seconds
from benchmarks.timing import Spread
from benchmarks.workload import JAXSEG

_PARTS = ("forward", "gradient", "bare step", "mixup", "step")


def breakdown(plan: Plan) -> list[Table]:
    """Parts of a step on both sides, and the profile of jaxseg."""
    return [*parts_of_step(plan), *profile(plan)]


def parts_of_step(plan: Plan) -> list[Table]:
    """Cumulative parts of a step on both sides."""
    names = (JAXSEG, plan.rival)
    parts = ("forward", "gradient", "step") if plan.quick else _PARTS
    workloads = {f"{side}: {part}": plan.reference(part, side) for part in parts for side in names}
    times = plan.compare(workloads, turns=min(plan.turns, 5))
    rows = []
    for part in parts:
        ours, theirs = (times.get(f"{side}: {part}") for side in names)
        rows.append(
            (
                _NAMES[part],
                *(seconds(Spread.of(t).median) if t else "-" for t in (ours, theirs)),
                ratio_cell(theirs, ours) if ours and theirs else "-",
            )
        )
    notes = (
        "Each row is a separately compiled function. Differences between rows are estimates, "
        "because a compiler fuses across parts.",
    )
    header = ("what", *names, f"{plan.rival} over {REFERENCE}")
    return [Table("Parts of a step", header, rows, notes)]


_NAMES = {
    "forward": "forward and loss",
    "gradient": "and backward",
    "bare step": "and clipping and Adam",
    "mixup": "mixup alone",
    "step": "the whole step with mixup",
}


def profile(plan: Plan, **changes: Any) -> list[Table]:
    """Share of each kind of operation in a step with mixup, from the profiler of JAX.

    Args:
      plan: the plan.
      changes: changes to the reference workload.
    """
    workload = plan.reference("trace", **changes)
    try:
        with Process(workload, plan.caches) as process:
            process.run(1)
            operations = process.close().get("operations", {})
    except WorkerError as error:
        print(f"left out: {error}", file=sys.stderr)
        return []
    total = sum(operations.values())
    if not total:
        return []
    rows = [
        (kind, f"{milliseconds:.3g} ms", f"{milliseconds / total:.0%}")
        for kind, milliseconds in operations.items()
    ]
    notes = (
        f"One step of {JAXSEG} with mixup, stage {workload.stage}, {workload.precision}. On a CPU, "
        "times are summed over threads and include waiting for other operations.",
    )
    return [Table("Profile by kind of operation", ("kind", "time", "share"), rows, notes)]
