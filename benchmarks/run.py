"""Benchmark jaxseg against its PyTorch twin and write Markdown tables.

    python -m benchmarks.run --quick                        # two to three minutes on two CPU cores
    python -m benchmarks.run --output=performance.md        # everything

The benchmark uses the GPU if both frameworks see one.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks import machine
from benchmarks.breakdown import breakdown
from benchmarks.compare import epochs, predictions, scaling, steps
from benchmarks.plan import Plan
from benchmarks.roofline import roofline
from benchmarks.startup import startup
from benchmarks.table import Table
from benchmarks.workload import write_data

SECTIONS: dict[str, Callable[[Plan], list[Table]]] = {
    "startup": startup,
    "steps": steps,
    "epochs": epochs,
    "predictions": predictions,
    "scaling": scaling,
    "roofline": roofline,
    "breakdown": breakdown,
}
QUICK = ("startup", "steps", "epochs", "roofline")
"""Sections of a quick run."""
_READING = (
    "Values are medians. The sides were measured in turns A B C A B C. A ratio is the time of a "
    "side divided by that of jaxseg: the median over turns, with quartiles. Above 1, jaxseg is "
    "faster."
)


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    parser.add_argument("--output", type=Path, help="file to write in addition to standard output")
    parser.add_argument(
        "--quick", action="store_true", help="fewer sections and turns, no torch.compile"
    )
    parser.add_argument("--device", choices=("auto", "cpu"), default="auto")
    for name in ("size", "width", "batch"):
        parser.add_argument(f"--{name}", type=int, help=f"{name} of the reference workload")
    parser.add_argument(
        "--sections",
        help=f"some of {','.join(SECTIONS)}; default all, with --quick {','.join(QUICK)}",
    )
    parsed = parser.parse_args(given)
    default = QUICK if parsed.quick else tuple(SECTIONS)
    parsed.sections = parsed.sections.split(",") if parsed.sections else list(default)
    unknown = sorted(set(parsed.sections) - set(SECTIONS))
    if unknown:
        parser.error(
            f"--sections: expected some of {', '.join(SECTIONS)}, got {', '.join(unknown)}"
        )
    return parsed


def run(flags: argparse.Namespace) -> None:
    """Measure section by section, and write each section when it is complete."""
    gpu = None if flags.device == "cpu" else machine.gpu()
    device = "gpu" if gpu else "cpu"
    parts = [f"{machine.describe(device, gpu)}\n\n{_READING}\n"]
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        data, caches = Path(folder) / "data", Path(folder) / "caches"
        data.mkdir()
        write_data(data)
        plan = Plan(
            device,
            flags.quick,
            machine.cores(),
            data,
            caches,
            size=flags.size,
            width=flags.width,
            batch=flags.batch,
        )
        print(parts[0])
        for name in flags.sections:
            tables = [table.markdown() for table in SECTIONS[name](plan)]
            print("\n".join(tables))
            print(f"{name} done after {time.monotonic() - start:.0f} s", file=sys.stderr)
            parts += tables
            if flags.output is not None:
                flags.output.write_text("\n".join(parts))


if __name__ == "__main__":
    run(arguments())
