"""Coordination of several processes that train one run: connection, agreement and termination.

No other module uses `jax.distributed`. In a single process, everything here has no effect. Process
0 is the writer: it alone writes to the run folder, except for the checkpoints, which Orbax writes.
"""

import logging
import os
import sys
import threading
import traceback
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

import jax
import numpy as np
from jax.experimental import multihost_utils
from numpy.typing import ArrayLike

from jaxseg.errors import UserError

_MAX_BYTES = 1000  # largest message to the other processes
_AXIS = "processes"


class HostsError(UserError, RuntimeError):
    """Processes that do not connect or do not agree, or another process that stopped."""


def count() -> int:
    """Return the number of processes of this run."""
    # In a single process, this call would make JAX start its devices before the config is checked.
    return jax.process_count() if jax.distributed.is_initialized() else 1


def is_writer() -> bool:
    """Return whether this process writes to the run folder and prints for the user."""
    return count() == 1 or jax.process_index() == 0


@contextmanager
def connected(
    *,
    distributed: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    connect_seconds: int | None = None,
    heartbeat_seconds: int | None = None,
) -> Iterator[None]:
    """Connect to the other processes before JAX is used otherwise, and disconnect together.

    Only process 0 logs from then on.

    Args:
      distributed: HOST:PORT where process 0 listens, or "auto": the runtime reads all three values
        from the environment of SLURM, Open MPI or Kubernetes. None for a single process.
      num_processes: number of processes of the run.
      process_id: index of this process, from 0.
      connect_seconds: time to wait for the other processes at the start; 300 by default.
      heartbeat_seconds: time without a heartbeat after which a process counts as dead and the
        runtime ends the others; 60 by default.

    Raises:
      HostsError: if the values contradict each other, the environment lacks them, or processes do
        not connect in time.
    """
    _check(distributed, num_processes, process_id, connect_seconds, heartbeat_seconds)
    if distributed is None:
        yield
        return
    connect_seconds, heartbeat_seconds = connect_seconds or 300, heartbeat_seconds or 60
    # The handler of this service would take SIGTERM away from `jaxseg.runs.signals`.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        with _deadline(connect_seconds):
            jax.distributed.initialize(
                None if distributed == "auto" else distributed,
                num_processes,
                process_id,
                cluster_detection_method=None if distributed == "auto" else "deactivate",
                initialization_timeout=2 * connect_seconds,
                heartbeat_timeout_seconds=heartbeat_seconds,
                shutdown_timeout_seconds=heartbeat_seconds,
            )
            # Exchange devices and connections now; the runtime later waits only seconds for them.
            gather(0)
            if jax.process_index():
                logging.getLogger(__name__.partition(".")[0]).setLevel(logging.CRITICAL)
    except (ValueError, RuntimeError) as error:
        raise HostsError(
            f"the processes of this run did not connect ({_first_line(error)}); expected SLURM, "
            "Open MPI or Kubernetes, or --distributed=HOST:PORT --num_processes --process_id"
        ) from error
    try:
        yield
    except BaseException as error:
        # Errors of jaxseg are raised by all processes; any other error is of this process alone.
        if not _is_ours(error):
            _end(error)
        raise
    finally:
        _leave()


def _check(
    distributed: str | None,
    number: int | None,
    own: int | None,
    connect_seconds: int | None,
    heartbeat_seconds: int | None,
) -> None:
    """Check the values given by the user, which the runtime would wait for in vain."""
    seconds = {"connect_seconds": connect_seconds, "heartbeat_seconds": heartbeat_seconds}
    if distributed in (None, "auto"):
        place = {"num_processes": number, "process_id": own}
        for name, value in (place if distributed else place | seconds).items():
            if value is not None:
                needed = "--distributed" if name in seconds else "--distributed=HOST:PORT"
                raise HostsError(f"--{name}: expected only with {needed}")
        return
    host, _, port = distributed.rpartition(":")
    if not (host and port.isascii() and port.isdigit() and 0 < int(port) < 2**16):
        raise HostsError(f"--distributed: expected auto or HOST:PORT, got {distributed!r}")
    if number is None or own is None or not 0 <= own < number:
        raise HostsError(
            "--distributed=HOST:PORT: expected --num_processes and a --process_id from 0 to one "
            f"below it, got {number} and {own}"
        )


@contextmanager
def _deadline(seconds: int) -> Iterator[None]:
    """End this process if the others do not connect; the runtime would end in a core dump."""
    message = f"some processes of this run did not connect within {seconds} s"
    timer = threading.Timer(seconds, _end, [HostsError(message)])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@contextmanager
def agreed() -> Iterator[None]:
    """Make all processes fail if one of them fails in this block.

    Raises:
      HostsError: if another process raised an error, with the first line of its message.
    """
    if count() == 1:
        yield
        return
    failure: Exception | None = None
    try:
        yield
    except Exception as error:
        failure = error
    messages = _gather_texts("" if failure is None else _first_line(failure))
    if failure is not None:
        raise failure
    for process, message in enumerate(messages):
        if message:
            raise HostsError(f"process {process} stopped: {message}")


@contextmanager
def exit_at_once(*, unless: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """End this process at once on an error of its own; the runtime then ends the others.

    The error is printed on stderr. If it propagated, it would reach code that waits for all
    processes, such as Orbax's, while the others wait for this process in a step.

    Args:
      unless: errors that all processes raise at the same place.
    """
    try:
        yield
    except unless:
        raise
    except BaseException as error:
        if count() == 1:
            raise
        _end(error)


def check_same(what: str, fingerprint: str) -> None:
    """Check that all processes hold the same value.

    Args:
      what: description that begins the message, for example "the settings".
      fingerprint: short text that identifies the value.

    Raises:
      HostsError: in every process, if the fingerprints differ.
    """
    if count() == 1:
        return
    known, *others = _gather_texts(fingerprint)
    for process, other in enumerate(others, start=1):
        if other != known:
            raise HostsError(
                f"{what} of process {process} differ from those of process 0 ({other:.12} instead "
                f"of {known:.12}); expected the same in all processes"
            )


def highest(number: int) -> int:
    """Return the largest of all processes' numbers, in each of them."""
    return int(gather(number).max())


def gather(values: ArrayLike) -> np.ndarray:
    """Gather arrays of one shape (...), one per process, as (processes, ...) in each of them."""
    if count() == 1:
        return np.asarray(values)[None]
    return np.asarray(multihost_utils.process_allgather(np.asarray(values)))


def introduce(devices: Sequence[Any]) -> None:
    """Connect the devices of all processes, which must call this at the same time.

    On CPU the runtime waits 30 s for a new connection. Compiling a step may take one process a
    minute longer than another that finds it in its cache. An established connection has no such
    limit.

    Args:
      devices: the devices that will share work, the same number from each process.
    """
    if count() == 1:
        return
    own = sum(device.process_index == jax.process_index() for device in devices)
    total = jax.pmap(lambda x: jax.lax.psum(x, _AXIS), axis_name=_AXIS, devices=devices)
    jax.block_until_ready(total(np.ones(own, np.float32)))


def shared(
    function: Callable[[object, np.ndarray], np.ndarray],
) -> Callable[[object, np.ndarray], np.ndarray]:
    """Distribute the rows of a function over the processes.

    Args:
      function: function from (params, rows (N, ...)) to (N, ...), row by row.

    Returns:
      A function with the same result, which all processes must call at once; each gets all rows.
    """
    if count() == 1:
        return function

    def run(params: object, rows: np.ndarray) -> np.ndarray:
        share = -(-len(rows) // count())
        own = np.arange(share) + share * jax.process_index()
        # The shares must be equal, so the last ones are padded with rows of others.
        results = gather(function(params, rows[own % len(rows)]))
        return results.reshape(-1, *results.shape[2:])[: len(rows)]

    return run


def digest(text: str) -> str:
    """Compute a short fingerprint."""
    return f"{zlib.crc32(text.encode()):08x}"


def _gather_texts(text: str) -> list[str]:
    message = np.zeros(_MAX_BYTES, np.uint8)
    content = text.encode()[:_MAX_BYTES]
    message[: len(content)] = np.frombuffer(content, np.uint8)
    rows = gather(message)
    return [row.tobytes().rstrip(b"\0").decode(errors="ignore") for row in rows]


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _leave() -> None:
    try:
        jax.distributed.shutdown()  # waits for the others, at most as long as for a heartbeat
    except RuntimeError as error:
        _end(error)


def _is_ours(error: BaseException) -> bool:
    return type(error).__module__.partition(".")[0] == __name__.partition(".")[0]


def _is_of_runtime(error: BaseException) -> bool:
    """Return whether the runtime raised the error, for example a broken connection.

    These errors may be of type ValueError, too, but then their message begins with a code.
    """
    code = str(error).partition(":")[0]
    return isinstance(error, jax.errors.JaxRuntimeError) or (
        isinstance(error, ValueError) and code.replace("_", "").isalpha() and code.isupper()
    )


def _end(error: BaseException) -> NoReturn:
    """Print the error and end this process without its exit handlers, which wait for others."""
    status = 1
    if isinstance(error, KeyboardInterrupt):
        line, status = "\nstopped", 130
    elif _is_of_runtime(error):
        line = (
            f"error: {_first_line(error):.300} (if another process ended, this one cannot "
            "continue; the same command in all of them resumes the run)"
        )
    elif _is_ours(error):
        line = f"error: {error}"
    else:
        line = "".join(traceback.format_exception(error)).rstrip()
    print(line, file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
