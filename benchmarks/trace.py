"""A profiler's trace reduced to time by kind of operation."""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

# The first that matches names the kind; names are those of HLO operations and of GPU kernels.
_KINDS = (
    ("convolution", r"conv(?!ert)|ffi_call|cudnn|implicit|wgrad|dgrad|fprop|winograd"),
    # XLA's library for CPUs, which takes products and reductions alike.
    ("YNNPACK", r"^ynn"),
    ("matrix product", r"dot|gemm|matmul|cublas|cutlass"),
    ("copy, transpose", r"copy|transpose|memcpy|memset|bitcast"),
    ("reduction", r"reduce|reduction"),
    ("fused elementwise", r"fusion|loop_|input_|wrapped|elementwise|multiply|add|select|maximum"),
)


def kind(name: str) -> str:
    """Kind of operation that a name tells of; "other" where it tells nothing."""
    for label, pattern in _KINDS:
        if re.search(pattern, name.lower()):
            return label
    return "other"


def operations(events: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Milliseconds by kind of operation.

    On a GPU the events of its streams count, on a CPU those that name an HLO operation. Times of
    several threads add up.

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
            # A kernel's own name tells more than that of the operation it was launched for.
            total[kind(event["name"])] += event.get("dur", 0.0) / 1e3
    return dict(sorted(total.items(), key=lambda item: -item[1]))
