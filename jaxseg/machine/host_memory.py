"""Keep freed host memory in the process, which speeds up training on a CPU."""

import ctypes
import sys
from collections.abc import Mapping

# Constants of glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8


def use_one_heap() -> bool:
    """Let all threads share one heap, so that `keep_freed_memory` holds for all of them.

    Call this before JAX uses a device: a thread that already has its own heap keeps it.

    Returns:
      Whether the C library supports this option; otherwise the call has no effect.
    """
    return _set({_M_ARENA_MAX: 1})


def keep_freed_memory() -> bool:
    """Keep freed memory for later allocations of this process.

    On a CPU, XLA allocates the activations anew in each step. By default glibc returns freed blocks
    of that size to the system and then faults in each page again, which takes about 8 % of a step.
    After this call the process keeps its peak memory, also on the host of a GPU, so call it after
    the data have been read. Results do not change.

    Returns:
      Whether the C library supports these options; otherwise the call has no effect.
    """
    # Use no mmap, whose blocks are returned at once. A trim threshold of -1 keeps the end of the
    # heap from being returned.
    return _set({_M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: -1})


def _set(options: Mapping[int, int]) -> bool:
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # for example musl
        return False
    return all(mallopt(option, value) for option, value in options.items())
