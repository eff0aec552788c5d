"""Memory and page faults of processes of their own."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from jaxseg.machine import host_memory

FAULTS = """
import resource, sys
import numpy as np
from jaxseg.machine.host_memory import keep_freed_memory, lower_peak_memory
if sys.argv[1] == "keep":
    assert lower_peak_memory() and keep_freed_memory()
for _ in range(5):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = np.empty(2**26, np.uint8)
    block[::4096] = 1
    del block
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""

DISPATCH = """
import sys
import jax, jax.numpy as jnp
from jaxseg.machine.host_memory import lower_peak_memory
if sys.argv[1] == "lower":
    lower_peak_memory()
step = jax.jit(lambda x: jnp.tanh(x @ x) @ x)
x = jax.block_until_ready(step(jnp.ones((2000, 2000))))
print(*(int(step(x).is_ready()) for _ in range(3)))
"""

COMPILATION = """
import re
from pathlib import Path
import jax, numpy as np
from jaxseg.machine.host_memory import lower_peak_memory
def resident():
    return int(re.search(r"VmRSS:\\s*(\\d+)", Path("/proc/self/status").read_text())[1]) // 1024
assert lower_peak_memory()
blocks = [np.ones(8192) for _ in range(4000)]  # 64 KiB each, 250 MiB in all
last = np.ones(8192)  # which keeps the end of the heap from being returned
print(resident())
blocks.clear()
jax.jit(lambda x: x + 1)(1.0)
print(resident())
"""


def printed(script: str, *arguments: str) -> list[int]:
    """Numbers that a script prints in a process of its own, on the CPU."""
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        cwd=root,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [int(number) for number in done.stdout.split()]


with_glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc's")


@with_glibc
def test_freed_memory_is_reused():
    kept = printed(FAULTS, "keep")
    assert kept[0] > 0
    # The same pages: no more than a few faults for all that follow.
    assert max(kept[1:]) < 100
    assert kept[0] > 10 * max(kept[1:])


def test_a_step_has_ended_and_freed_its_memory_when_its_call_returns():
    assert printed(DISPATCH, "lower") == [1, 1, 1]
    assert printed(DISPATCH, "default") == [0, 0, 0]  # so that the test can fail


@with_glibc
def test_a_compilation_returns_freed_memory():
    before, after = printed(COMPILATION)
    assert after < before - 200


def test_other_systems_are_not_changed(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert host_memory.lower_peak_memory() is False
    assert host_memory.keep_freed_memory() is False

    class Musl:
        def __init__(self, name): ...

    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(host_memory.ctypes, "CDLL", Musl)
    assert host_memory.lower_peak_memory() is False
    assert host_memory.keep_freed_memory() is False
