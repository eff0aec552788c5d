"""Lines for the user on a stdout that may be closed or full."""

import os
import sys


class StdoutError(Exception):
    """A line that cannot be written; no OSError, which would be taken for a fault of a file.

    Attributes:
      closed: whether nobody reads any more, as in `... | head -1`: no fault of anybody's.
    """

    def __init__(self, error: OSError) -> None:
        self.closed = isinstance(error, BrokenPipeError)
        super().__init__(f"stdout: cannot write here ({error.strerror or error})")


def say(line: str) -> None:
    """Print a line and pass it on at once.

    Raises:
      StdoutError: it cannot be written.
    """
    try:
        print(line, flush=True)
    except OSError as error:
        # What is left in the buffer would fail again when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise StdoutError(error) from error
