"""The C++ of this folder as a shared library: built at first use, kept, and made known to XLA."""

import ctypes
import hashlib
import os
import platform
import subprocess
import tempfile
from functools import cache
from importlib.metadata import version
from pathlib import Path

import jax
import jax.ffi

TARGETS = ("jaxseg_convolve", "jaxseg_kernel_gradient")
"""Names of the library's functions, for `jax.ffi.ffi_call`."""
_SOURCES = ("handlers.cc", "convolve.h", "kernel_gradient.h", "threads.h")
_SECONDS = 300  # for the compiler


class NativeError(RuntimeError):
    """Why there is no library; one line."""


def cache_folder() -> Path:
    """Where libraries are kept: `jaxseg` in $XDG_CACHE_HOME, which is ~/.cache by default."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "jaxseg"


@cache
def load() -> Path:
    """Build the library unless it is kept already, load it, and make its functions known to XLA.

    Once a process; a failure is tried again.

    Returns:
      The library's file. Its name tells sources, compiler flags, processor and jaxlib, so that
      another machine that sees the same folder takes another one.

    Raises:
      NativeError: no compiler (`c++`, or what $CXX names), one that fails, or a folder that cannot
        be written.
    """
    path = cache_folder() / f"native-{_digest()}.so"
    if not path.exists():
        _build(path)
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        raise NativeError(f"{path}: expected a library of this machine ({error})") from error
    for name in TARGETS:
        jax.ffi.register_ffi_target(name, jax.ffi.pycapsule(getattr(library, name)), platform="cpu")
    return path


def _flags() -> list[str]:
    arm = platform.machine().lower() in ("aarch64", "arm64")
    return ["-std=c++17", "-O3", "-fPIC", "-shared", "-mcpu=native" if arm else "-march=native"]


def _digest() -> str:
    """Of all that the library depends on."""
    digest = hashlib.sha256()
    for name in _SOURCES:
        digest.update((Path(__file__).parent / name).read_bytes())
    facts = [*_flags(), version("jaxlib"), platform.system(), platform.machine(), _processor()]
    digest.update("\n".join(facts).encode())
    return digest.hexdigest()[:16]


def _processor() -> str:
    """The instruction sets of this processor, where the system lists them."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")


def _build(path: Path) -> None:
    """Compile under a name of its own first, so that processes may build at the same time."""
    compiler = os.environ.get("CXX") or "c++"
    part = None
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, part = tempfile.mkstemp(dir=path.parent, prefix=".native-", suffix=".so")
        os.close(handle)
        source, include = Path(__file__).parent / _SOURCES[0], f"-isystem{jax.ffi.include_dir()}"
        made = subprocess.run(
            [*compiler.split(), *_flags(), include, str(source), "-o", part],
            capture_output=True, text=True, timeout=_SECONDS, check=False,
        )  # fmt: skip
        if made.returncode:
            said = made.stderr.strip().splitlines() or [f"status {made.returncode}"]
            first = next((line for line in said if "error" in line), said[0])
            raise NativeError(f"{compiler} cannot build {source.name}: {first:.200}")
        Path(part).replace(path)
    except FileNotFoundError as error:
        raise NativeError(f"expected a C++ compiler, {compiler} is not there") from error
    except subprocess.TimeoutExpired as error:
        raise NativeError(f"{compiler} took more than {_SECONDS} s") from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise NativeError(f"{path.parent}: cannot keep the library here ({reason})") from error
    finally:
        if part is not None:
            Path(part).unlink(missing_ok=True)
