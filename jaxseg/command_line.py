"""Run a command: its log goes to stdout, its errors become one line and an exit status."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from jaxseg.errors import UserError
from jaxseg.machine.stdout import StdoutError, StdoutHandler, flushed, open_missing_streams
from jaxseg.runs.orbax_setup import quiet_orbax
from jaxseg.runs.signals import Interrupted


@contextmanager
def command() -> Iterator[None]:
    """Run the body as a command.

    What jaxseg logs goes to stdout. An error that the user can correct becomes one message on
    stderr and status 1; other errors keep their traceback.

    Raises:
      SystemExit: on such an error, or if the command is stopped.
    """
    open_missing_streams()
    quiet_orbax()
    try:
        with flushed(), _logged_to_stdout():
            yield
    except Interrupted as stop:
        _exit(f"\n{stop}", 128 + stop.signal)
    except KeyboardInterrupt:
        _exit("\nstopped", 130)
    except StdoutError as error:
        error.leave()
    except UserError as error:
        _exit(f"error: {error}", 1)
    except MemoryError as error:  # while reading or reporting, where no field of a config helps
        _exit(f"error: out of memory ({error})", 1)


@contextmanager
def _logged_to_stdout() -> Iterator[None]:
    logger, handler = logging.getLogger(__package__), StdoutHandler()
    level, propagate = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate


def _exit(message: str, status: int) -> None:
    print(message, file=sys.stderr)
    sys.exit(status)
