"""Both sides in turns: steps, epochs, predictions, and how they scale."""

from collections.abc import Mapping
from dataclasses import replace

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

SPLIT, PLAIN = f"{JAXSEG}, a device a core", f"{JAXSEG}, XLA's convolutions"
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
        "Loss, gradient, clipping and Adam on a batch that lies on the device. Where there is "
        "mixup, it is part of the step: this project's own, and the same two small matrix "
        "products vectorized by hand in PyTorch."
    )
    return [_compared(plan, "Training step", ("stage", "mixup", "precision"), groups, note)]


def _variants(plan: Plan, workload: Workload) -> dict[str, Workload]:
    """This project on a CPU without its native convolution, and with a device a core if several."""
    if plan.device != "cpu":
        return {}
    ours = replace(workload, side=JAXSEG)
    variants = {PLAIN: replace(ours, convolution="xla")}
    if plan.cores > 1 and not workload.batch % plan.cores:
        variants[SPLIT] = replace(ours, devices=plan.cores)
    return variants


def _compared(
    plan: Plan,
    title: str,
    keys: tuple[str, ...],
    groups: Mapping[tuple[str, ...], Mapping[str, Workload]],
    note: str,
) -> Table:
    """Sides beside each other, group by group; `keys` are what tells the groups apart."""
    times = plan.compare_groups(groups)
    rows = [row for key, group in times.items() for row in comparison_rows(key, group)]
    return Table(title, (*keys, "side", *COMPARISON), rows, (note,))


def epochs(plan: Plan) -> list[Table]:
    """Time of an epoch with mixup, from the first index to the last update."""
    workers = min(plan.cores, 8)
    reference = plan.reference("epoch", slices=24 if plan.quick else 96)
    torch_sides = [CHANNELS_LAST] if plan.quick else [EAGER, CHANNELS_LAST, COMPILED]
    workloads = sides(reference, [JAXSEG]) | _variants(plan, reference)
    workloads |= sides(reference, torch_sides)
    for count in (0, workers):
        loaded = plan.reference(
            "epoch", CHANNELS_LAST, slices=reference.slices, loader_workers=count
        )
        workloads[f"{CHANNELS_LAST}, SciPy mixup in {count} loader workers"] = loaded
    times = plan.compare(workloads, turns=plan.turns if plan.device == "gpu" else 3)
    notes = (
        f"{reference.slices} slices, {reference.slices // reference.batch} steps, stage attention "
        "with mixup. Half of the examples are mixed; the loader's workers warp those alone, and "
        "share the cores with the training process.",
    )
    return [Table("Epoch", ("side", *COMPARISON), comparison_rows((), times), notes)]


def predictions(plan: Plan) -> list[Table]:
    """Time of a prediction."""
    groups = {
        # Width and grid as in training; a stack of the phantom's first case.
        (what,): sides(plan.reference(task, slices=7), plan.sides)
        for task, what in (("predict", "7 slices on the network grid"), ("case", "a whole case"))
    }
    note = (
        "NumPy array to NumPy array. The whole case adds resampling and normalization to the "
        "network grid and the probabilities' way back to the native one, by the same functions "
        "on both sides. This project fills the 7 slices up to a batch of 8."
    )
    return [_compared(plan, "Prediction", ("what",), groups, note)]


def scaling(plan: Plan) -> list[Table]:
    """Time of a step with mixup against image size, width, batch and number of slices."""
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
        f"Step with mixup, stage attention; what is not varied is {reference.size} x "
        f"{reference.size} pixels, width {reference.width}, batch {reference.batch}, "
        f"{reference.slices} slices in the cohort.",
    )
    header = ("varied", "value", REFERENCE, plan.rival, f"{plan.rival} over {REFERENCE}")
    return [Table("Scaling", header, rows, notes)]
