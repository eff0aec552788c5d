"""Use of the host's memory: a low peak, and no page faults in the steps of a training run."""

import ctypes
import sys
from collections.abc import Mapping
from functools import cache

import jax

# Constants of glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8
_COMPILED = "/jax/core/compile/backend_compile_duration"  # also sent if a cache has the program


def lower_peak_memory() -> bool:
    """Lower the peak memory of this process on a CPU. Call this before JAX uses a device.

    - JAX runs a computation in the thread that calls it. In threads of its own, the next step would
      start while the memory of the last one is not yet freed.
    - Memory that a compilation frees in small blocks returns to the system. glibc would keep it,
      though a step's activations do not fit between what is left.
    - All threads share one heap, so that `keep_freed_memory` holds for all of them. A thread that
      already has its own heap keeps it.

    Returns:
      Whether the C library supports this; otherwise only the first point holds.
    """
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    library = _glibc()
    if library is None:
        return False
    _release_after_compilations()
    return _set(library, {_M_ARENA_MAX: 1})


def keep_freed_memory() -> bool:
    """Keep freed memory for later allocations of this process.

    On a CPU, XLA allocates the activations anew in each step. By default glibc returns freed blocks
    of that size to the system and then faults in each page again, which takes about 8 % of a step.
    After this call the process keeps its memory until a compilation returns what is free, also on
    the host of a GPU. Call it after the first step, when reading and compiling have freed theirs.
    Results do not change.

    Returns:
      Whether the C library supports these options; otherwise the call has no effect.
    """
    # Use no mmap, whose blocks are returned at once. A trim threshold of -1 keeps the end of the
    # heap from being returned.
    library = _glibc()
    return library is not None and _set(library, {_M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: -1})


@cache  # the listener stays for the life of the process
def _release_after_compilations() -> None:
    trim = ctypes.CDLL(None).malloc_trim

    def release(event: str, duration_secs: float, **_: str | int) -> None:
        if event == _COMPILED:
            trim(0)

    jax.monitoring.register_event_duration_secs_listener(release)


def _set(library: ctypes.CDLL, options: Mapping[int, int]) -> bool:
    return all(library.mallopt(option, value) for option, value in options.items())


def _glibc() -> ctypes.CDLL | None:
    if not sys.platform.startswith("linux"):
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "mallopt") and hasattr(library, "malloc_trim") else None
