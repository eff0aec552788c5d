"""Freed memory that a process keeps: counted in page faults, in processes of their own."""

import platform
import subprocess
import sys
from pathlib import Path

import pytest

from jaxseg.machine import host_memory

SCRIPT = """
import resource, sys
import numpy as np
from jaxseg.machine.host_memory import keep_freed_memory, use_one_heap
if sys.argv[1] == "keep":
    assert use_one_heap() and keep_freed_memory()
counts = []
for _ in range(5):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = np.empty(2**26, np.uint8)
    block[::4096] = 1
    del block
    counts.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(*counts)
"""


def faults(how: str) -> list[int]:
    """Page faults of five blocks of 64 MiB, each freed before the next."""
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, how], cwd=root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return [int(count) for count in done.stdout.split()]


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc's")
def test_freed_memory_is_reused():
    kept = faults("keep")
    assert kept[0] > 0
    # The same pages: no more than a few faults for all that follow.
    assert max(kept[1:]) < 100
    assert kept[0] > 10 * max(kept[1:])


def test_other_systems_are_not_changed(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert host_memory.use_one_heap() is False
    assert host_memory.keep_freed_memory() is False

    class Musl:
        def __init__(self, name): ...

    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(host_memory.ctypes, "CDLL", Musl)
    assert host_memory.use_one_heap() is False
    assert host_memory.keep_freed_memory() is False
