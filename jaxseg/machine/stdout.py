"""Print lines for the user, even if stdout is closed or full."""

import os
import signal
import sys
from collections.abc import Callable
from typing import NoReturn

Say = Callable[[str], None]
"""A function that takes a line for the user."""


class StdoutError(Exception):
    """Raised if a line cannot be written; an OSError would be mistaken for that of a file."""

    def __init__(self, error: OSError) -> None:
        # The reader closed the pipe, as in `... | head -1`, which is not an error.
        self._closed = isinstance(error, BrokenPipeError)
        super().__init__(f"stdout: cannot write here ({error.strerror or error})")

    def leave(self) -> NoReturn:
        """End the process: silently, as by SIGPIPE, if the pipe is closed, else with an error."""
        # The rest of the buffer would fail again when Python exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        if self._closed:
            sys.exit(128 + signal.SIGPIPE)
        print(f"error: {self}", file=sys.stderr)
        sys.exit(1)


def say(line: str) -> None:
    """Print and flush a line; characters that stdout cannot encode become backslash escapes.

    Raises:
      StdoutError: the line cannot be written.
    """
    encoding = sys.stdout.encoding or "utf-8"
    line = line.encode(encoding, "backslashreplace").decode(encoding)
    try:
        print(line, flush=True)
    except OSError as error:
        raise StdoutError(error) from error
