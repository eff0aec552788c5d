"""Measure what a few minutes on a machine with a GPU are for, and write one Markdown file.

    python -m benchmarks.gpu --output=gpu.md          # at most 10 minutes, unattended
    python -m benchmarks.gpu --device=cpu --size=32 --width=4 --batch=4 --epochs=1 --cases=4

Each section runs in separate processes under a time limit. If it fails, the file states the error
in one line and the other sections still run. The file is written again after each section.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.breakdown import parts_of_step, profile
from benchmarks.compare import compared, epochs
from benchmarks.plan import Plan
from benchmarks.process import ROOT, WorkerError, cause, group, sides
from benchmarks.stage import stage
from benchmarks.startup import memory_table
from benchmarks.table import COMPARISON, Table, comparison_rows
from benchmarks.workload import JAXSEG, STEPS_PER_CALL, write_data
from jaxseg.runs.files import write_atomic

_STAGE = "awce_penalty"  # stage 4, the most expensive
_STEPS = 4  # steps of the processes whose memory is read
_LEAST_SECONDS = 10  # a section with less time left is not started

Section = Callable[[Plan], list[Table]]


def step(plan: Plan, precision: str) -> list[Table]:
    """A step of stage 4 with mixup on all sides."""
    workload = plan.reference("step", stage=_STAGE, precision=precision)
    note = (
        f"Loss, gradient, clipping, Adam and mixup at {workload.size} x {workload.size} pixels, "
        f"width {workload.width}, batch {workload.batch}. float32 has TF32 products on a GPU."
    )
    groups = {(_STAGE, precision): sides(workload, plan.sides)}
    return [compared(plan, f"Training step, {precision}", ("stage", "precision"), groups, note)]


def calls(plan: Plan, precisions: Sequence[str]) -> list[Table]:
    """Several steps in one call, against one step per call."""
    several = f"{JAXSEG}, {STEPS_PER_CALL} steps per call"
    groups = {}
    for precision in precisions:
        one = plan.reference("step", stage=_STAGE, precision=precision)
        scan = plan.reference("scan", stage=_STAGE, precision=precision)
        groups[(precision,)] = {JAXSEG: one, several: scan}
    rows = []
    for key, times in plan.compare_groups(groups).items():
        if several in times:
            times[several] = [seconds / STEPS_PER_CALL for seconds in times[several]]
        rows += comparison_rows(key, times)
    note = "Seconds per step. The trainer has one step per call; here, `lax.scan` has several."
    return [Table("Steps per call", ("precision", "side", *COMPARISON), rows, (note,))]


def memory(plan: Plan, precisions: Sequence[str]) -> list[Table]:
    """Peak memory of a few steps of stage 4 on all sides."""
    tables = []
    for precision in precisions:
        workload = plan.reference("step", stage=_STAGE, precision=precision)
        runs = {}
        with group(sides(workload, plan.sides), plan.caches, together=plan.together) as processes:
            for side, process in processes.items():
                process.run(_STEPS - 1)
                runs[side] = process.ready | process.close()
        tables.append(memory_table(runs, f"{_STEPS} steps in {precision}"))
    return tables


def sections(flags: argparse.Namespace) -> dict[str, Section]:
    """Sections by name, in the order in which they run: the most important ones first."""
    slices = 24 if flags.device == "cpu" else 320
    precisions = flags.precisions.split(",")

    def for_each(
        name: str, section: Callable[..., list[Table]], **given: Any
    ) -> dict[str, Section]:
        return {f"{name}-{p}": partial(section, precision=p, **given) for p in precisions}

    return {
        **for_each("step", step),
        "epoch": partial(epochs, stage=_STAGE, precision=precisions[-1], slices=slices),
        "calls": partial(calls, precisions=precisions),
        **for_each("stage", stage, flags=flags),
        **for_each("profile", profile, stage=_STAGE),
        "memory": partial(memory, precisions=precisions),
        "parts": parts_of_step,
    }


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("gpu.md"), help="file to write")
    parser.add_argument("--minutes", type=float, default=10.0, help="limit of the whole run")
    parser.add_argument("--limit", type=float, default=150.0, help="limit of a section, s")
    parser.add_argument("--device", choices=("auto", "cpu", "gpu"), default="auto")
    for name in ("size", "width", "batch"):
        parser.add_argument(f"--{name}", type=int, help=f"{name} of the workload")
    parser.add_argument("--precisions", default="float32,bfloat16", help="compute dtypes")
    parser.add_argument("--epochs", type=int, default=20, help="epochs of a stage of Table 1")
    parser.add_argument("--root", type=Path, help="cases in EMIDEC's layout; default: the phantom")
    parser.add_argument("--cases", type=int, default=100, help="cases of the phantom")
    # One section, in the process that the benchmark starts for it.
    parser.add_argument("--section", help=argparse.SUPPRESS)
    parser.add_argument("--scratch", type=Path, help=argparse.SUPPRESS)
    flags = parser.parse_args(given)
    flags.root = flags.root and flags.root.resolve()
    return flags


def describe(flags: argparse.Namespace) -> str:
    """Describe the machine, and set `flags.device` if it is "auto"."""
    names, lines = {}, []
    for framework in ("jax", "torch"):
        try:
            names[framework] = machine.seen_by(framework)
            lines.append(f"- {framework} sees {names[framework] or 'no GPU'}.")
        except RuntimeError as error:
            lines.append(f"- {framework} cannot be used: {cause(str(error))}.")
    name = names.get("jax")
    if flags.device == "auto":
        flags.device = "gpu" if name else "cpu"
    text = machine.describe(flags.device, name)
    return "\n".join(["# Machine", "", text, "", *lines, f"- Driver: {machine.driver()}.", ""])


def guarded(name: str, command: Sequence[str], limit: float) -> str:
    """Run the command of a section; return its output below a line that states how it ended.

    Args:
      name: name of the section.
      command: a command that prints Markdown. Its lines "left out: ..." on standard error are
        included.
      limit: seconds after which the command and the processes that it started are killed.
    """
    start = time.monotonic()
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        process_group=0,
    )
    try:
        output, errors = process.communicate(timeout=limit)
        took = f"after {time.monotonic() - start:.0f} s"
        end = f"Failed {took}: {cause(errors)}" if process.returncode else f"Done {took}."
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, errors = process.communicate()
        end = f"Stopped at its limit of {limit:.0f} s."
    finally:
        with suppress(ProcessLookupError):  # of what the command left running, or of an interrupt
            os.killpg(process.pid, signal.SIGKILL)
    missing = [line for line in errors.splitlines() if line.startswith("left out: ")]
    notes = "\n".join(f"- {line}" for line in dict.fromkeys(missing))
    return "\n\n".join(filter(None, [f"# {name}", end, notes, output.strip()])) + "\n"


def run(flags: argparse.Namespace) -> None:
    """Run section by section, and write the file after each."""
    deadline = time.monotonic() + 60 * flags.minutes
    parts = [describe(flags)]
    with tempfile.TemporaryDirectory() as scratch:
        flags.scratch = Path(scratch)
        (flags.scratch / "data").mkdir()
        write_data(flags.scratch / "data")
        given = [f"--{name}={value}" for name, value in vars(flags).items() if value is not None]
        command = [sys.executable, "-m", "benchmarks.gpu", *given]
        for name in sections(flags):
            left = deadline - time.monotonic()
            if left < _LEAST_SECONDS:
                parts.append(f"# {name}\n\nLeft out: {flags.minutes:g} minutes were used up.\n")
            else:
                limit = min(left, flags.limit)
                parts.append(guarded(name, [*command, f"--section={name}"], limit))
            write_atomic(flags.output, "\n".join(parts))
            print(parts[-1], flush=True)


def run_section(flags: argparse.Namespace) -> None:
    """Print the tables of one section.

    Raises:
      WorkerError: there are none.
    """
    scratch, quick = flags.scratch, flags.device == "cpu"
    size = {name: getattr(flags, name) for name in ("size", "width", "batch")}
    plan = Plan(flags.device, quick, machine.cores(), scratch / "data", scratch / "caches", **size)
    tables = [table for table in sections(flags)[flags.section](plan) if table.rows]
    if not tables:
        raise WorkerError("nothing could be measured")
    print("\n".join(table.markdown() for table in tables))


if __name__ == "__main__":
    given = arguments()
    run_section(given) if given.section else run(given)
