"""Build the C++ code of this folder at first use, cache the library, and register it with XLA."""

import ctypes
import hashlib
import os
import platform
import re
import shlex
import shutil
import subprocess
import tempfile
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path

import jax.ffi

from jaxseg.home import HomeError, expanded

TARGETS = ("jaxseg_convolve", "jaxseg_kernel_gradient")
"""Names of the library's functions for `jax.ffi.ffi_call`."""
_SOURCES = (
    "handlers.cc", "convolve.h", "kernel_gradient.h", "threads.h", "winograd.h",
    "winograd_gradient.h",
)  # fmt: skip
_SECONDS = 300  # time limit of the compiler


class NativeError(RuntimeError):
    """Raised if the library is not available; the message is one line."""


def load() -> Path:
    """Build the library unless it is cached, load it, and register its functions with XLA.

    This happens once per process, whether it succeeds or fails.

    Returns:
      Path of the library, in `jaxseg/native` of $XDG_CACHE_HOME (by default ~/.cache). Its name is
      a digest of sources, compiler, flags, processor and jaxlib, so that different machines can
      share the folder.

    Raises:
      NativeError: there is no compiler (`c++`, or $CXX); it fails; or the cache folder cannot be
        written, or can be written by other users.
    """
    found = _once()
    if isinstance(found, NativeError):
        raise found
    return found


@cache
def _once() -> Path | NativeError:
    try:
        path = _file()
        if not _is_kept(path):
            _build(path)
        library = ctypes.CDLL(str(path))
        for name in TARGETS:
            capsule = jax.ffi.pycapsule(getattr(library, name))
            jax.ffi.register_ffi_target(name, capsule, platform="cpu")
    except NativeError as error:
        return error
    except (OSError, AttributeError) as error:
        return NativeError(f"the library cannot be loaded ({error}); delete it to build it again")
    except HomeError as error:
        return NativeError(str(error))
    return path


def _file() -> Path:
    """Path of the cached library."""
    cache_home = expanded(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "$XDG_CACHE_HOME")
    return cache_home / "jaxseg" / "native" / f"{_digest()}.so"


def _is_kept(path: Path) -> bool:
    """Whether an earlier process built the library.

    Raises:
      NativeError: another user owns or can write to the library or its folder, so that it is not
        safe to load.
    """
    for place in (path.parent, path):
        try:
            status = place.stat()
        except FileNotFoundError:
            return False
        except OSError as error:
            raise _unusable(path.parent, error) from error
        if hasattr(os, "getuid") and (status.st_uid != os.getuid() or status.st_mode & 0o022):
            raise NativeError(f"{place}: expected that only this user may write to it")
    return True


def _build(path: Path) -> None:
    """Compile in a temporary folder and link the result in place, unless a library is there now."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".building-") as folder:
            made = Path(folder) / path.name
            _compile(made)
            made.chmod(0o700)
            with made.open("rb") as file:
                os.fsync(file.fileno())
            with suppress(FileExistsError):
                os.link(made, path)
    except OSError as error:
        raise _unusable(path.parent, error) from error
    _is_kept(path)


def _unusable(folder: Path, error: OSError) -> NativeError:
    return NativeError(f"{folder}: cannot write the library here ({error.strerror or error})")


def _compile(output: Path) -> None:
    source, compiler = Path(__file__).parent / _SOURCES[0], _compiler()
    include = f"-isystem{jax.ffi.include_dir()}"
    try:
        ended = subprocess.run(
            [*shlex.split(compiler), *_flags(), include, str(source), "-o", str(output)],
            env=os.environ | {"LC_ALL": "C"},
            timeout=_SECONDS,
            check=False,
            capture_output=True,
            text=True,
            errors="replace",
        )
    except FileNotFoundError as error:
        raise NativeError(f"expected a C++ compiler, {compiler} was not found") from error
    except subprocess.TimeoutExpired as error:
        raise NativeError(f"{compiler} took more than {_SECONDS} s") from error
    except (OSError, ValueError) as error:
        raise NativeError(f"{compiler} cannot be run ({error})") from error
    if ended.returncode:
        said = ended.stderr.strip().splitlines() or [f"status {ended.returncode}"]
        first = next((line for line in said if re.search(r"(^|\W)error: ", line)), said[0])
        raise NativeError(f"{compiler} cannot build {source.name}: {first:.200}")


def _compiler() -> str:
    return os.environ.get("CXX") or "c++"


def _flags() -> list[str]:
    arm = platform.machine().lower() in ("aarch64", "arm64")
    return ["-std=c++17", "-O3", "-fPIC", "-shared", "-mcpu=native" if arm else "-march=native"]


def _digest() -> str:
    """Digest of everything on which the library depends."""
    facts = [_compiler(), _compiler_stamp(), *_flags(), version("jaxlib")]
    facts += [platform.system(), platform.machine(), _processor()]
    sources = b"".join((Path(__file__).parent / name).read_bytes() for name in _SOURCES)
    return hashlib.sha256(sources + "\n".join(facts).encode()).hexdigest()[:16]


def _compiler_stamp() -> str:
    """Size and modification time of the compiler, which change with an update."""
    words = _compiler().split()
    found = shutil.which(words[0]) if words else None
    if found is None:
        return ""
    status = Path(found).stat()
    return f"{status.st_size} {status.st_mtime_ns}"


def _processor() -> str:
    """Instruction sets of this processor, or the name of the machine if they are not listed."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith(("flags", "Features")):
                return line
    return platform.node()
