"""Locks between processes, such as the lock of a run folder."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from filelock import lock_descriptor

from jaxseg.runs.files import WorkdirError


class InUseError(WorkdirError):
    """A run folder that another process holds."""


@contextmanager
def locked(
    workdir: Path, *, name: str = ".lock", wait: bool = False, keep: bool = True
) -> Iterator[None]:
    """Create the run folder if needed, and hold it for this process alone.

    If the block fails before it has written anything, lock file and new folders are removed.

    Args:
      workdir: run folder.
      name: name of the lock file; locks of different names are independent.
      wait: whether to wait until another process releases the lock.
      keep: whether the lock file is kept in the end.

    Raises:
      InUseError: if another process holds the lock and `wait` is False.
      WorkdirError: if the folder cannot be written to, or its file system has no locks.
    """
    fresh = [path for path in (workdir, *workdir.parents) if not path.exists()]
    path = workdir / name
    with _lock(path, wait) as lock:
        alone = False
        try:
            yield
        except BaseException:
            alone = _is_alone(path)
            raise
        finally:
            if alone or not keep:
                _remove(lock, path)
            if alone:
                with suppress(OSError):
                    for folder in fresh:
                        folder.rmdir()


@contextmanager
def _lock(path: Path, wait: bool) -> Iterator[IO[str]]:
    """Lock a file as long as it is open.

    The kernel releases the lock when the process ends, for whatever reason. `filelock.FileLock` is
    not used, since on a file system without locks it falls back to one that outlives the process.
    """
    while True:
        with _open(path) as lock:
            try:
                held = lock_descriptor(lock.fileno(), blocking=wait)
            except OSError as error:
                raise WorkdirError(f"{path}: cannot be locked ({error.strerror})") from error
            if not held:
                raise InUseError(f"{path.parent}: another process is training in this workdir")
            if _is_current(lock, path):
                yield lock
                return


def _open(path: Path) -> IO[str]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("a")
    except OSError as error:
        raise WorkdirError(f"{path.parent}: cannot write here ({error.strerror})") from error


def _is_current(lock: IO[str], path: Path) -> bool:
    """Return whether the file is still there: the previous holder may have removed it meanwhile."""
    try:
        return os.path.samestat(path.stat(), os.fstat(lock.fileno()))
    except FileNotFoundError:
        return False


def _is_alone(path: Path) -> bool:
    """Return whether the folder has nothing but locks, so that nothing was written."""
    try:
        return all(other.name.endswith(".lock") for other in path.parent.iterdir())
    except OSError:
        return False


def _remove(lock: IO[str], path: Path) -> None:
    """Remove a lock file before anyone else can lock it."""
    if os.name == "nt":  # Windows removes no open file, so none that another process has locked
        lock.close()
    with suppress(OSError):
        path.unlink()
