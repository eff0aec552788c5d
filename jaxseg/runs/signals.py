"""Signal handling that lets a run save its state before it stops."""

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
    """A request to stop, set by a signal and read by the training loop once per step.

    Attributes:
      signal: number of the signal; None if there was none.
    """

    def __init__(self) -> None:
        self.signal: int | None = None

    def __bool__(self) -> bool:
        return self.signal is not None


class StopVote:
    """A vote on whether any process was asked to stop, with one result for all at the same step.

    The vote is counted on the devices, behind the step in flight. The result is read at the next
    step, so that no process waits for it.
    """

    def __init__(self) -> None:
        self._last: Array | None = None
        firsts = [jax.local_devices(process_index=k)[0] for k in range(hosts.count())]
        self._places = NamedSharding(Mesh(np.array(firsts), (_AXIS,)), PartitionSpec(_AXIS))
        everywhere = NamedSharding(self._places.mesh, PartitionSpec())
        self._count = jax.jit(lambda votes: votes.max(), out_shardings=everywhere)

    def __call__(self, signum: int | None) -> int | None:
        """Vote with the signal that this process received, if any; called once per step.

        Returns:
          The signal to stop for; None to continue. It is that of this process if there is only one,
          otherwise the result of the previous vote.
        """
        if hosts.count() == 1:
            return signum
        last, self._last = (
            self._last,
            self._count(
                jax.make_array_from_process_local_data(
                    self._places, np.array([signum or 0], np.int32), (hosts.count(),)
                )
            ),
        )
        return None if last is None else int(last) or None


class Interrupted(Exception):  # noqa: N818 - not an error: the run stopped on request
    """A run that saved its state and stopped because of a signal.

    Attributes:
      signal: number of the signal; shells expect the exit status 128 + number.
    """

    def __init__(self, signum: int, step: int) -> None:
        self.signal = signum
        name = signal.Signals(signum).name
        super().__init__(f"stopped by {name} at step {step}; the same command resumes there")


@contextmanager
def catch_signals() -> Iterator[StopRequest]:
    """Turn SIGTERM and the first Ctrl-C into a request; a second Ctrl-C ends the process at once.

    The first signal is acknowledged on stderr immediately, even while XLA compiles and Python's own
    handlers cannot run. The previous handlers are restored at the end. Outside the main thread,
    where Python allows no handlers, the request is never set.
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
    """Acknowledge the first signal from a thread, as the main thread may be busy in C++ code."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)

    def answer() -> None:
        number = os.read(reader, 1)
        if number:
            name = signal.Signals(number[0]).name
            line = f"\n{name}: stopping after the current step, then saving ...\n"
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
    """Let SIGTERM end the process like Ctrl-C, through every `finally`, with status 143.

    The previous handler is restored at the end. Outside the main thread this has no effect.
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
