"""Print lines for the user, even if stdout is closed or full."""

import logging
import os
import signal
import sys
from typing import NoReturn


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


class StdoutHandler(logging.Handler):
    """Prints and flushes each record; warnings begin with "warning: ".

    Characters that stdout cannot encode become backslash escapes. Unlike other handlers, this one
    raises StdoutError if a line cannot be written.
    """

    def emit(self, record: logging.LogRecord) -> None:
        """Print one record."""
        line = "warning: " * (record.levelno >= logging.WARNING) + record.getMessage()
        encoding = sys.stdout.encoding or "utf-8"
        try:
            print(line.encode(encoding, "backslashreplace").decode(encoding), flush=True)
        except OSError as error:
            raise StdoutError(error) from error
