"""Comparison of steps, epochs, predictions and their scaling, with both sides in turns."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from benchmarks.plan import Plan
from benchmarks.process import sides
from benchmarks.table import (
    COMPARISON,
    REFERENCE,
    Table,
    comparison_rows,
    ratio_cell,
    seconds,
)
from benchmarks.timing import Spread
from benchmarks.workload import CHANNELS_LAST, COMPILED, EAGER, JAXSEG, Workload

SPLIT, PLAIN = f"{JAXSEG}, a device per core", f"{JAXSEG}, XLA's convolutions"
_STEPS = (("attention", "bare step"), ("attention", "step"), ("awce_penalty", "step"))


def steps(plan: Plan) -> list[Table]:
    """Time of a training step, with and without mixup."""
    groups = {}
    for precision in plan.precisions:
        for stage, task in _STEPS[:2] if plan.quick else _STEPS:
            workload = plan.reference(task, stage=stage, precision=precision)
            mixup = "no" if task == "bare step" else "yes"
            groups[stage, mixup, precision] = sides(workload, plan.sides)
            if task == "step":
                groups[stage, mixup, precision] |= _variants(plan, workload)
    note = (
        "A step consists of loss, gradient, clipping and Adam on a batch that is on the device. "
        "It includes mixup if the table says so. In PyTorch, mixup consists of the same two small "
        "matrix products, vectorized by hand."
    )
    return [compared(plan, "Training step", ("stage", "mixup", "precision"), groups, note)]


def _variants(plan: Plan, workload: Workload) -> dict[str, Workload]:
    """jaxseg on a CPU without its native convolution, and with one device per core."""
    if plan.device != "cpu":
        return {}
    ours = replace(workload, side=JAXSEG)
    variants = {PLAIN: replace(ours, convolution="xla")}
    if plan.cores > 1 and not workload.batch % plan.cores:
        variants[SPLIT] = replace(ours, devices=plan.cores)
    return variants


def compared(
    plan: Plan,
    title: str,
    keys: tuple[str, ...],
    groups: Mapping[tuple[str, ...], Mapping[str, Workload]],
    note: str,
) -> Table:
    """Table of all sides for each group; `keys` name the columns that identify a group."""
    times = plan.compare_groups(groups)
    rows = [row for key, group in times.items() for row in comparison_rows(key, group)]
    return Table(title, (*keys, "side", *COMPARISON), rows, (note,))


def epochs(plan: Plan, **changes: Any) -> list[Table]:
    """Time of an epoch with mixup, from the first index to the last update.

    Args:
      plan: the plan.
      changes: changes to the reference workload.
    """
    workers = min(plan.cores, 8)
    defaults: dict[str, Any] = {"slices": 24 if plan.quick else 96}
    reference = plan.reference("epoch", **defaults | changes)
    torch_sides = [CHANNELS_LAST] if plan.quick else [EAGER, CHANNELS_LAST, COMPILED]
    workloads = sides(reference, [JAXSEG]) | _variants(plan, reference)
    workloads |= sides(reference, torch_sides)
    for count in (0, workers):
        loaded = replace(reference, side=CHANNELS_LAST, loader_workers=count)
        workloads[f"{CHANNELS_LAST}, SciPy mixup in {count} loader workers"] = loaded
    times = plan.compare(workloads, turns=plan.turns if plan.device == "gpu" else 3)
    notes = (
        f"An epoch has {reference.slices} slices and {reference.slices // reference.batch} steps "
        f"of stage {reference.stage} with mixup in {reference.precision}. Half of the examples are "
        "mixed. The workers of the loader warp only these, and share the cores with the training "
        "process.",
    )
    return [Table("Epoch", ("side", *COMPARISON), comparison_rows((), times), notes)]


def predictions(plan: Plan) -> list[Table]:
    """Time of a prediction."""
    groups = {
        # Width and grid are those of training; the stack is the first case of the phantom.
        (what,): sides(plan.reference(task, slices=7), plan.sides)
        for task, what in (("predict", "7 slices on the network grid"), ("case", "a whole case"))
    }
    note = (
        "Input and output are NumPy arrays. The whole case adds normalization and resampling to "
        "the network grid and back, by the same functions on both sides. jaxseg pads the 7 slices "
        "to a batch of 8."
    )
    return [compared(plan, "Prediction", ("what",), groups, note)]


def scaling(plan: Plan) -> list[Table]:
    """Time of a step with mixup as a function of grid size, width, batch and number of slices."""
    names = (JAXSEG, plan.rival)
    groups = {
        (field, str(value)): sides(plan.reference("step", **{field: value}), names)
        for field, values in plan.sweeps().items()
        for value in values
    }
    rows = []
    for key, times in plan.compare_groups(groups, turns=min(plan.turns, 4)).items():
        ours, theirs = (times.get(name) for name in names)
        medians = (seconds(Spread.of(side).median) if side else "-" for side in (ours, theirs))
        rows.append((*key, *medians, ratio_cell(theirs, ours) if ours and theirs else "-"))
    reference = plan.reference("step")
    notes = (
        "The table gives the time of a step with mixup, stage attention. The other values are "
        f"{reference.size} x {reference.size} pixels, width {reference.width}, batch "
        f"{reference.batch} and {reference.slices} slices in the data set.",
    )
    header = ("varied", "value", REFERENCE, plan.rival, f"{plan.rival} over {REFERENCE}")
    return [Table("Scaling", header, rows, notes)]
