"""Lines for the user on a stdout that may be closed or full."""

import os
import signal
import sys
from collections.abc import Callable
from typing import NoReturn

Say = Callable[[str], None]
"""Takes a line for the user."""


class StdoutError(Exception):
    """A line that cannot be written; no OSError, which would be taken for a fault of a file."""

    def __init__(self, error: OSError) -> None:
        # Nobody reads any more, as in `... | head -1`: no fault of anybody's.
        self._closed = isinstance(error, BrokenPipeError)
        super().__init__(f"stdout: cannot write here ({error.strerror or error})")

    def leave(self) -> NoReturn:
        """End the process: quietly as by SIGPIPE where nobody reads, else with a line on stderr."""
        # What is left in the buffer would fail again when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        if self._closed:
            sys.exit(128 + signal.SIGPIPE)
        print(f"error: {self}", file=sys.stderr)
        sys.exit(1)


def say(line: str) -> None:
    """Print a line and pass it on at once; what stdout cannot encode as backslash escapes.

    Raises:
      StdoutError: it cannot be written.
    """
    encoding = sys.stdout.encoding or "utf-8"
    line = line.encode(encoding, "backslashreplace").decode(encoding)
    try:
        print(line, flush=True)
    except OSError as error:
        raise StdoutError(error) from error
