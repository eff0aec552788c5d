"""Time a stage of Table 1 in `main.py`, and extrapolate it to the whole table."""

import argparse
import re
import subprocess
import sys
import time

from benchmarks.plan import Plan
from benchmarks.process import ROOT, WorkerError, cause, environment
from benchmarks.table import Table, seconds
from jaxseg.data.phantom.write import write_phantom

_EPOCHS, _STAGES = 400, 4  # of the paper's Table 1


def stage(plan: Plan, flags: argparse.Namespace, precision: str) -> list[Table]:
    """Train stage 4 for a few epochs, with its validations and checkpoints.

    Args:
      plan: the plan.
      flags: flags of `benchmarks.gpu`: number of epochs, and the root or number of cases.
      precision: compute dtype.

    Raises:
      WorkerError: the training failed.
    """
    validated, total = _train(plan, flags, precision)
    (first, start), (last, end) = validated[0], validated[-1]
    durations = ["-"] * 4
    if first < last:
        per_epoch = (end - start) / (last - first)
        constant = max(total - last * per_epoch, 0.0)
        whole = constant + _EPOCHS * per_epoch
        durations = [seconds(value) for value in (constant, per_epoch, whole, _STAGES * whole)]
    row = (precision, str(last), seconds(total), *durations)
    header = (
        "precision",
        "epochs",
        "total",
        "of it start, compilation and end",
        "per epoch",
        f"{_EPOCHS} epochs, extrapolated",
        f"{_STAGES} stages, extrapolated",
    )
    source = flags.root.name if flags.root else f"a phantom of {flags.cases} cases"
    notes = (
        f"Stage 4 by main.py on {source}, with validations and checkpoints. The time per epoch is "
        "that between the first and the last validation, if there are two. Stage 4 is the most "
        f"expensive, so that {_STAGES} times its time is an upper bound.",
    )
    return [Table(f"A stage of Table 1, {precision}", header, [row], notes)]


def _train(
    plan: Plan, flags: argparse.Namespace, precision: str
) -> tuple[list[tuple[int, float]], float]:
    """Run main.py; return epochs and seconds of each validation, and the seconds of the run."""
    workload = plan.reference("step", precision=precision)
    root = flags.root or flags.scratch / "phantom"
    if not flags.root:  # before the clock starts; a later call finds the cases
        write_phantom(root, seed=0, num_cases=flags.cases)
    fields = {
        "data.root": root,
        "grid.size": f"{workload.size},{workload.size}",
        "grid.spacing": 1.4 * 128 / workload.size,  # the field of view of the protocol
        "model.width": workload.width,
        "model.precision": precision,
        "train.batch_size": workload.batch,
        "train.epochs": flags.epochs,
        "train.validate_every": max(flags.epochs // 4, 1),  # the protocol's 5 for 20 epochs
        "run.compilation_cache": plan.caches / "stage",
    }
    command = [sys.executable, str(ROOT / "main.py")]
    command += [f"--config={ROOT / 'configs' / 'awce_penalty.py'}:emidec", f"--workdir={precision}"]
    command += [f"--config.{name}={value}" for name, value in fields.items()]
    platforms = {"JAX_PLATFORMS": "cuda,cpu"} if plan.device == "gpu" else {}
    start, validated, lines = time.monotonic(), [], []
    with subprocess.Popen(
        command,
        cwd=flags.scratch,
        env=environment(workload, plan.caches) | {"PYTHONUNBUFFERED": "1"} | platforms,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line)
            if match := re.match(r"epoch (\d+)/", line):
                validated.append((int(match[1]), time.monotonic() - start))
    if process.returncode or not validated:
        raise WorkerError(f"main.py: status {process.returncode}, {cause(''.join(lines))}")
    return validated, time.monotonic() - start
