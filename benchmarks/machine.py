"""Description of the machine for readers of the tables."""

import json
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "torch", "numpy", "scipy")
_PROBE = """
import json, sys
def jax_gpu():
    import jax
    return jax.devices()[0].device_kind if jax.default_backend() == "gpu" else None
def torch_gpu():
    import torch
    return torch.cuda.get_device_name() if torch.cuda.is_available() else None
print(json.dumps({"jax": jax_gpu, "torch": torch_gpu}[sys.argv[1]]()))
"""


def cores() -> int:
    """Number of cores that this process and its children may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def gpu() -> str | None:
    """Name of the GPU that both frameworks see; None if neither sees one.

    Raises:
      RuntimeError: only one of them sees a GPU, or one cannot be imported.
    """
    names = {framework: seen_by(framework) for framework in ("jax", "torch")}
    if (names["jax"] is None) != (names["torch"] is None):
        raise RuntimeError(
            f"jax sees the GPU {names['jax']}, torch sees {names['torch']}; expected both or "
            "neither; --device=cpu measures on the CPU"
        )
    return names["torch"]


def seen_by(framework: str) -> str | None:
    """Name of the GPU that "jax" or "torch" sees; None if it sees none.

    Raises:
      RuntimeError: the framework cannot be imported.
    """
    # Use a separate process, because a framework that has seen a GPU reserves memory on it.
    command = [sys.executable, "-c", _PROBE, framework]
    probe = subprocess.run(command, capture_output=True, text=True, check=False)
    if probe.returncode:
        raise RuntimeError(f"{framework} cannot be used: {probe.stderr.strip()[-500:]}")
    return json.loads(probe.stdout.splitlines()[-1])


def driver() -> str:
    """Driver and memory of the GPU, as nvidia-smi reports them."""
    command = ["nvidia-smi", "--query-gpu=driver_version,memory.total", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def cpu() -> str:
    """Model name of the CPU."""
    path = Path("/proc/cpuinfo")
    if path.is_file():
        for line in path.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def describe(device: str, gpu_name: str | None) -> str:
    """A paragraph: machine, threads, versions, date."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    lines = [
        f"{cpu()}, {cores()} cores used by either framework, {memory:.0f} GiB, "
        f"load {os.getloadavg()[0]:.1f} at the start",
        f"GPU: {gpu_name}" if device == "gpu" else "no GPU in use",
        ", ".join(
            [f"Python {platform.python_version()}", *(f"{p} {_version(p)}" for p in _PACKAGES)]
        ),
        datetime.now(UTC).strftime("%Y-%m-%d"),
    ]
    return "; ".join(lines) + "."


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "missing"
