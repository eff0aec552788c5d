"""Print lines for the user, even if stdout is closed or full."""

import logging
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn


def open_missing_streams() -> None:
    """Open the standard streams that the shell closed, as by `>&-`, and for which Python has None.

    Otherwise the next files of this process would get their numbers, and what a library prints
    would end up in them. Text for stderr is dropped. Text for stdout fails when it is flushed,
    except for the lines of `StdoutHandler`, which are dropped as well.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number, which is this one
    if sys.stdout is None:
        sys.stdout = open(os.open(os.devnull, os.O_RDONLY), "w", closefd=False)  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115


@contextmanager
def flushed() -> Iterator[None]:
    """Flush stdout at the end of the block, where a failure can still be reported.

    Raises:
      StdoutError: if stdout cannot be written to.
    """
    try:
        yield
    finally:
        try:
            sys.stdout.flush()
        except OSError as error:
            raise StdoutError(error) from error


class StdoutError(Exception):
    """Raised if a line cannot be written; an OSError would be mistaken for that of a file."""

    def __init__(self, error: OSError) -> None:
        # The reader closed the pipe, as in `... | head -1`, which is not an error.
        self._closed = isinstance(error, BrokenPipeError)
        super().__init__(f"stdout: cannot write here ({error.strerror or error})")

    def leave(self) -> NoReturn:
        """End the process: silently, as by SIGPIPE, if the pipe is closed, else with an error."""
        # The rest of the buffer would fail again when Python exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if self._closed:
            sys.exit(128 + signal.SIGPIPE)
        print(f"error: {self}", file=sys.stderr)
        sys.exit(1)


class StdoutHandler(logging.Handler):
    """Prints and flushes each record; warnings begin with "warning: ".

    Characters that stdout cannot encode become backslash escapes. Unlike other handlers, this one
    raises StdoutError if a line cannot be written. Lines are dropped if the shell closed stdout.
    """

    def emit(self, record: logging.LogRecord) -> None:
        """Print one record."""
        if sys.__stdout__ is None:
            return
        line = "warning: " * (record.levelno >= logging.WARNING) + record.getMessage()
        encoding = sys.stdout.encoding or "utf-8"
        try:
            print(line.encode(encoding, "backslashreplace").decode(encoding), flush=True)
        except OSError as error:
            raise StdoutError(error) from error
