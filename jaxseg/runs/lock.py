"""The lock of a run folder, which one process holds at a time."""

import errno
import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from jaxseg.runs.files import WorkdirError


class InUseError(WorkdirError):
    """A run folder that another process holds."""


@contextmanager
def locked(workdir: Path, *, name: str = ".lock", wait: bool = False) -> Iterator[None]:
    """Create the run folder if needed, and hold it for this process alone.

    Args:
      workdir: run folder.
      name: name of the lock file; locks of different names are independent.
      wait: whether to wait until another process releases the lock.

    Raises:
      InUseError: if another process holds the lock and `wait` is False.
      WorkdirError: if the folder cannot be written to.
    """
    fresh = [path for path in (workdir, *workdir.parents) if not path.exists()]
    with _lock(workdir, name, wait):
        try:
            yield
        except BaseException:
            _remove_traces(workdir, name, fresh)
            raise


def _lock(workdir: Path, name: str, wait: bool) -> IO[str]:
    """Open and lock a file; the lock lasts as long as the file is open."""
    path = workdir / name
    while True:
        try:
            workdir.mkdir(parents=True, exist_ok=True)
            lock = path.open("w")
        except OSError as error:
            raise WorkdirError(f"{workdir}: cannot write here ({error.strerror})") from error
        try:
            # The kernel releases the lock when the process ends, for whatever reason.
            fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            # The previous holder may have removed the file before releasing the lock.
            if path.exists() and os.path.samestat(path.stat(), os.fstat(lock.fileno())):
                return lock
        except OSError as error:
            lock.close()
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise
            raise InUseError(f"{workdir}: another process is training in this workdir") from error
        lock.close()


def _remove_traces(workdir: Path, name: str, fresh: Sequence[Path]) -> None:
    """Remove the lock and the new folders of a command that failed before it wrote anything."""
    with suppress(OSError):
        if {path.name for path in workdir.iterdir()} == {name}:
            (workdir / name).unlink()
            for folder in fresh:
                folder.rmdir()
