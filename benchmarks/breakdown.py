"""Where a step's time goes: the step built up part by part, and a profile by kind of operation."""

import sys

from benchmarks.plan import Plan
from benchmarks.process import Process, WorkerError
from benchmarks.table import REFERENCE, Table, ratio_cell, seconds
from benchmarks.timing import Spread
from benchmarks.workload import JAXSEG

_PARTS = ("forward", "gradient", "bare step", "mixup", "step")


def breakdown(plan: Plan) -> list[Table]:
    """Cumulative parts of a step on both sides, and this project's profile."""
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
        "Each line is a function of its own, compiled as such, so that differences of lines are "
        "estimates: a compiler fuses across parts.",
    )
    header = ("what", *names, f"{plan.rival} over {REFERENCE}")
    return [Table("Parts of a step", header, rows, notes), *_profile(plan)]


_NAMES = {
    "forward": "forward and loss",
    "gradient": "and backward",
    "bare step": "and clipping and Adam",
    "mixup": "mixup alone",
    "step": "the whole step with mixup",
}


def _profile(plan: Plan) -> list[Table]:
    """Share of each kind of operation in a step with mixup, by JAX's profiler."""
    try:
        with Process(plan.reference("trace"), plan.caches) as process:
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
        f"One step of {JAXSEG} with mixup; on a CPU the times of all threads add up, and an "
        "operation that waits for another counts, too.",
    )
    return [Table("Profile by kind of operation", ("kind", "time", "share"), rows, notes)]
