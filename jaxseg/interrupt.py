"""Leave a run in good order when it is asked to stop."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopRequest:
    """Set by a signal, read by the training loop once a step.

    Attributes:
      signal: number of the signal that asked to stop, None as long as none did.
    """

    def __init__(self) -> None:
        self.signal: int | None = None

    def __bool__(self) -> bool:
        return self.signal is not None


class Interrupted(Exception):  # noqa: N818 - not an error: the run was asked to stop, and did
    """A run that saved its state and stopped because a signal asked it to.

    Attributes:
      signal: its number; 128 + number is the exit status that shells expect.
    """

    def __init__(self, signum: int, step: int) -> None:
        self.signal = signum
        name = signal.Signals(signum).name
        super().__init__(f"stopped by {name} at step {step}; the same command resumes there")


@contextmanager
def catch_signals() -> Iterator[StopRequest]:
    """Turn SIGTERM and the first Ctrl-C into a request; a second Ctrl-C ends the process at once.

    Handlers are given back on the way out. Outside the main thread, where Python allows no
    handlers, the request is simply never set.
    """
    request = StopRequest()

    def handle(signum: int, frame: FrameType | None) -> None:
        if signum == signal.SIGINT and request:
            raise KeyboardInterrupt
        request.signal = signum

    previous = {}
    try:
        for signum in (signal.SIGTERM, signal.SIGINT):
            previous[signum] = signal.signal(signum, handle)
    except ValueError:
        pass
    try:
        yield request
    finally:
        for signum, handler in previous.items():
            signal.signal(signum, handler)


@contextmanager
def unwind_on_sigterm() -> Iterator[None]:
    """Let SIGTERM end the process as Ctrl-C does: through every `finally`, with status 143.

    The handler is given back on the way out. Outside the main thread nothing changes.
    """

    def handle(signum: int, frame: FrameType | None) -> None:
        sys.exit(128 + signum)

    try:
        previous = signal.signal(signal.SIGTERM, handle)
    except ValueError:
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
