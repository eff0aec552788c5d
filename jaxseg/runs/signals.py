"""Leave a run in good order when it is asked to stop."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from types import FrameType

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxseg.runs import hosts

_AXIS = "processes"


class StopRequest:
    """Set by a signal, read by the training loop once a step.

    Attributes:
      signal: number of the signal that asked to stop, None as long as none did.
    """

    def __init__(self) -> None:
        self.signal: int | None = None

    def __bool__(self) -> bool:
        return self.signal is not None


class StopVote:
    """Whether any process was asked to stop; all hear it at the same step.

    A vote is counted on the devices, behind the step in flight, and heard with the next one, so
    that nobody waits for it.
    """

    def __init__(self) -> None:
        self._last: Array | None = None
        firsts = [jax.local_devices(process_index=k)[0] for k in range(hosts.count())]
        self._places = NamedSharding(Mesh(np.array(firsts), (_AXIS,)), PartitionSpec(_AXIS))
        everywhere = NamedSharding(self._places.mesh, PartitionSpec())
        self._count = jax.jit(lambda votes: votes.max(), out_shardings=everywhere)

    def __call__(self, signum: int | None) -> int | None:
        """Vote with the signal that this process got, if any; once a step.

        Returns:
          The signal to stop for: in a single process the very one, else that of the last vote.
        """
        if hosts.count() == 1:
            return signum
        last, self._last = self._last, self._count(
            jax.make_array_from_process_local_data(
                self._places, np.array([signum or 0], np.int32), (hosts.count(),)
            )
        )  # fmt: skip
        return None if last is None else int(last) or None


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

    The first signal is acknowledged on stderr as it comes, also while XLA compiles, when Python's
    own handlers wait. Handlers are given back on the way out. Outside the main thread, where Python
    allows no handlers, the request is simply never set.
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
        with _acknowledged() if previous else nullcontext():
            yield request
    finally:
        for signum, handler in previous.items():
            signal.signal(signum, handler)


@contextmanager
def _acknowledged() -> Iterator[None]:
    """Answer the first signal from a thread: Python's main thread runs no handler in C++ code."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)

    def answer() -> None:
        number = os.read(reader, 1)
        if number:
            name = signal.Signals(number[0]).name
            line = f"\n{name}: stopping after the step at work, then saving ...\n"
            with suppress(OSError):
                os.write(2, line.encode())

    before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(writer)
        thread.join()
        os.close(reader)


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
