"""Reduce the trace of a profiler to time by kind of operation."""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

# The first match gives the kind. Names are those of HLO operations and of GPU kernels.
_KINDS = (
    ("convolution", r"conv(?!ert)|ffi_call|cudnn|implicit|wgrad|dgrad|fprop|winograd"),
    # XLA's library for CPUs computes both products and reductions.
    ("YNNPACK", r"^ynn"),
    ("matrix product", r"dot|gemm|matmul|cublas|cutlass"),
    ("copy, transpose", r"copy|transpose|memcpy|memset|bitcast"),
    ("reduction", r"reduce|reduction"),
    ("fused elementwise", r"fusion|loop_|input_|wrapped|elementwise|multiply|add|select|maximum"),
)


def kind(name: str) -> str:
    """Kind of operation by its name; "other" if the name is unknown."""
    for label, pattern in _KINDS:
        if re.search(pattern, name.lower()):
            return label
    return "other"


def operations(events: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Milliseconds by kind of operation.

    On a GPU the events of its streams count, on a CPU those that name an HLO operation. Times are
    summed over threads.

    Args:
      events: "traceEvents" of a trace in Chrome's format.

    Returns:
      Milliseconds by kind, the largest first.
    """
    named = [e for e in events if e.get("ph") == "M"]
    gpus = {
        e["pid"]
        for e in named
        if e.get("name") == "process_name" and "gpu" in str(e["args"].get("name")).lower()
    }
    streams = {
        (e["pid"], e["tid"])
        for e in named
        if e.get("name") == "thread_name" and "Stream" in str(e["args"].get("name"))
    }
    total: dict[str, float] = defaultdict(float)
    for event in events:
        if event.get("ph") != "X":
            continue
        arguments = event.get("args", {})
        if gpus:
            counts = (event["pid"], event.get("tid")) in streams and event["pid"] in gpus
        else:
            counts = "hlo_op" in arguments
        if counts:
            # The name of a kernel is more specific than that of the operation that launched it.
            total[kind(event["name"])] += event.get("dur", 0.0) / 1e3
    return dict(sorted(total.items(), key=lambda item: -item[1]))
