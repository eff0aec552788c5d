"""Roofline of a step: counted work compared with measured rates of the machine."""

from dataclasses import dataclass

import numpy as np

from benchmarks.plan import Plan
from benchmarks.process import Process, sides
from benchmarks.table import REFERENCE, Table, seconds
from benchmarks.timing import Spread
from benchmarks.workload import (
    COPIED_NUMBERS,
    JAXSEG,
    MATRIX_SIZE,
    Workload,
)


@dataclass(frozen=True)
class Work:
    """FLOPs of a pass, and the least bytes that its convolutions must read and write."""

    flops: float
    bytes: float

    def __add__(self, other: "Work") -> "Work":
        return Work(self.flops + other.flops, self.bytes + other.bytes)


def convolution(
    pixels: int, channels: int, features: int, taps: int, *, first: bool = False
) -> Work:
    """A convolution of one image, forward and backward.

    Args:
      pixels: number of output pixels.
      channels: input channels, at the same number of pixels (stride 1).
      features: output channels.
      taps: number of kernel taps, 9 for 3x3.
      first: whether the input is the image, which needs no gradient.

    Returns:
      Work of two or three products: output, gradient of the kernel, gradient of the input. A
      multiplication with addition is two FLOPs. Each product reads and writes its float32 tensors
      once.
    """
    products = 2 if first else 3
    tensors = 4 * (pixels * (channels + features) + taps * channels * features)
    return Work(products * 2.0 * pixels * channels * features * taps, products * tensors)


def step_work(workload: Workload) -> Work:
    """Analytical count of the convolutions in a bare step of stage attention.

    Normalization, activations, loss and optimizer, with few FLOPs per number, are left out.
    """
    settings = workload.settings()
    width, depth = workload.width, settings["model"]["depth"]
    num_labels = len(settings["anatomy"]["labels"])

    def block(pixels: int, channels: int, features: int, *, first: bool = False) -> Work:
        branch = convolution(pixels, channels, features, 9, first=first)
        branch += convolution(pixels, features, features, 9)
        return branch + branch  # two layers of the block, and two of the attention branch

    pixels = [(workload.size // 2**level) ** 2 for level in range(depth + 1)]
    total, channels = Work(0.0, 0.0), 1
    for level in range(depth + 1):
        total += block(pixels[level], channels, width * 2**level, first=level == 0)
        channels = width * 2**level
    for level in range(depth):
        features = width * 2**level
        # A transposed 2x2 convolution is a dense layer to four pixels.
        total += convolution(pixels[level + 1], 2 * features, 4 * features, 1)
        total += block(pixels[level], 2 * features, features)
    total += convolution(pixels[0], width, num_labels, 1)
    return Work(workload.batch * total.flops, workload.batch * total.bytes)


def roofline(plan: Plan) -> list[Table]:
    """Measured rates, counted work, and the share of the rates that a step of each side reaches."""
    rates, reached = [], []
    for precision in plan.precisions:
        matmul, copy = _rates(plan, precision)
        rates += [
            (precision, "matrix product", *(f"{matmul[n] / 1e9:.0f} GFLOP/s" for n in _RATED)),
            (precision, "copy", *(f"{copy[n] / 1e9:.3g} GB/s" for n in _RATED)),
        ]
        peak, bandwidth = max(matmul.values()), max(copy.values())
        reached += _reached(plan, precision, peak, bandwidth)
    count = _counts(plan)
    header = (
        "precision",
        "side",
        "step",
        "GFLOP/s",
        "share of peak",
        "bound by FLOPs",
        "bound by convolutions' bytes",
        f"share of peak over {REFERENCE}",
    )
    notes = (
        "The peak is the higher rate of the two frameworks. Bounds are the times that the "
        "analytically counted work would take at these rates; at half precision its bytes are "
        "halved.",
    )
    return [
        count,
        Table("Rates of the machine", ("precision", "what", *_RATED), rates),
        Table("Share of peak, bare step", header, reached, notes),
    ]


_RATED = (JAXSEG, "torch eager")


def _rates(plan: Plan, precision: str) -> tuple[dict[str, float], dict[str, float]]:
    """FLOP/s of a matrix product and bytes/s of a copy, by framework."""
    size, numbers = MATRIX_SIZE[plan.device], COPIED_NUMBERS[plan.device]
    work = {"matmul": 2.0 * size**3, "copy": 8.0 * numbers}  # a copy reads and writes 4 bytes
    found = []
    for task, amount in work.items():
        times = plan.compare(sides(plan.reference(task, precision=precision), _RATED))
        rate = {name: amount / Spread.of(values).median for name, values in times.items()}
        found.append({name: rate.get(name, float("nan")) for name in _RATED})
    return found[0], found[1]


def _reached(plan: Plan, precision: str, peak: float, bandwidth: float) -> list[tuple[str, ...]]:
    workload = plan.reference("bare step", precision=precision)
    times = plan.compare(sides(workload, plan.sides))
    work = step_work(workload)
    volume = work.bytes / (2 if precision == "bfloat16" else 1)
    medians = {name: Spread.of(values).median for name, values in times.items()}
    ours = medians.get(REFERENCE, np.nan)
    return [
        (
            precision,
            side,
            seconds(median),
            f"{work.flops / median / 1e9:.0f}",
            f"{work.flops / median / peak:.0%}",
            seconds(work.flops / peak),
            seconds(volume / bandwidth),
            f"{ours / median:.2f}",
        )
        for side, median in medians.items()
    ]


def _counts(plan: Plan) -> Table:
    """Work of the bare step: the analytical count and that of XLA."""
    # Use the convolutions of XLA, which does not count those of other libraries.
    workload = plan.reference("cost", convolution="xla")
    work = step_work(workload)
    with Process(workload, plan.caches) as process:
        cost = process.close()
    rows = [
        ("convolutions, analytical", f"{work.flops / 1e9:.1f}", f"{work.bytes / 1e9:.2f}"),
        ("XLA's cost analysis of the compiled step", *(_giga(cost[n]) for n in ("flops", "bytes"))),
    ]
    notes = (
        "The analytical count includes products with padding, as PyTorch's counter does; XLA's "
        "does not. XLA also counts every other operation, and a tensor each time that one of its "
        "fused operations reads or writes it. If one count is far below the other, the compiled "
        "step calls a library whose operations the counter does not see.",
    )
    return Table("Work of the bare step", ("count", "GFLOP", "GB"), rows, notes)


def _giga(value: float | None) -> str:
    return "-" if value is None else f"{value / 1e9:.2f}"
