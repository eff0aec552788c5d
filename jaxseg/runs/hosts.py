"""Several processes that train one run: how they meet, agree, share work and end together.

The only file that knows `jax.distributed`. In a single process everything here does nothing. The
writer is process 0: it alone touches the workdir, but for the checkpoints, which Orbax writes.
"""

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

_MAX_BYTES = 1000  # of a message to the others
_AXIS = "processes"


class HostsError(UserError, RuntimeError):
    """Processes that do not meet or do not agree, or another one that stopped."""


def count() -> int:
    """Number of processes of this run."""
    # Asked of a single process, JAX would start its devices before settings are checked.
    return jax.process_count() if jax.distributed.is_initialized() else 1


def is_writer() -> bool:
    """Whether this process writes the workdir and tells the user."""
    return count() == 1 or jax.process_index() == 0


@contextmanager
def connected(
    *,
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    connect_seconds: int = 300,
    heartbeat_seconds: int = 60,
) -> Iterator[None]:
    """Meet the other processes, before anything else is asked of JAX, and leave together.

    Args:
      coordinator: host:port where process 0 listens; None: all three are the environment's, as the
        runtime reads it from SLURM, Open MPI and Kubernetes.
      num_processes: of the whole run.
      process_id: of this one, from 0.
      connect_seconds: how long to wait for the others at the start.
      heartbeat_seconds: after so long without a sign of life a process counts as dead, and the
        runtime ends the others.

    Raises:
      HostsError: an environment that says nothing, or processes that do not come.
    """
    try:
        with _deadline(connect_seconds):
            _connect(coordinator, num_processes, process_id, connect_seconds, heartbeat_seconds)
    except (ValueError, RuntimeError) as error:
        raise HostsError(
            f"the processes of this run did not meet ({_first_line(error)}); expected SLURM, Open "
            "MPI or Kubernetes, or --distributed=HOST:PORT --num_processes --process_id"
        ) from error
    try:
        yield
    except BaseException as error:
        # What jaxseg raises, all processes raise; anything else is this process's own.
        if not _is_ours(error):
            _end(error)
        raise
    finally:
        _leave()


def _connect(
    coordinator: str | None,
    num_processes: int | None,
    process_id: int | None,
    connect_seconds: int,
    heartbeat_seconds: int,
) -> None:
    # Its handler would take SIGTERM from `jaxseg.runs.signals`.
    jax.config.update("jax_enable_preemption_service", False)
    jax.distributed.initialize(
        coordinator,
        num_processes,
        process_id,
        cluster_detection_method="deactivate" if coordinator else None,
        initialization_timeout=2 * connect_seconds,
        heartbeat_timeout_seconds=heartbeat_seconds,
        shutdown_timeout_seconds=heartbeat_seconds,
    )
    # Devices and connections are exchanged now: the runtime waits for them for seconds only.
    gather(0)


@contextmanager
def _deadline(seconds: int) -> Iterator[None]:
    """End this process if the others do not come; the runtime itself would end in a core dump."""
    message = f"the processes of this run did not all come within {seconds} s"
    timer = threading.Timer(seconds, _end, [HostsError(message)])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@contextmanager
def agreed() -> Iterator[None]:
    """Something that every process does, and all fail if one does.

    Raises:
      HostsError: another process raised; its message, in one line.
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
    """An error of this process alone ends it here, told on stderr; the runtime ends the others.

    On its way out it would meet code that waits for all processes, such as Orbax's, while those
    wait for this one in a step.

    Args:
      unless: what all processes raise at the same place.
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
    """Make sure that all processes hold the same.

    Args:
      what: "the settings"; begins the message.
      fingerprint: a short text that tells different ones apart.

    Raises:
      HostsError: if they do not; in every process.
    """
    if count() == 1:
        return
    known, *others = _gather_texts(fingerprint)
    for process, other in enumerate(others, start=1):
        if other != known:
            raise HostsError(
                f"{what} of process {process} differ from those of process 0 ({other:.12} instead "
                f"of {known:.12}); every process needs the same ones"
            )


def highest(number: int) -> int:
    """The highest of all processes' numbers, in each of them."""
    return int(gather(number).max())


def gather(values: ArrayLike) -> np.ndarray:
    """Arrays of one shape (...), one a process, to (processes, ...) in each of them."""
    if count() == 1:
        return np.asarray(values)[None]
    return np.asarray(multihost_utils.process_allgather(np.asarray(values)))


def introduce(devices: Sequence[Any]) -> None:
    """Connect devices of all processes, which must call this at the same time.

    On CPU the runtime waits 30 s for a new connection, but compiling the step may take one process
    a minute longer than another that finds it in its cache. A connection that stands waits.

    Args:
      devices: those that will share work, as many of each process.
    """
    if count() == 1:
        return
    own = sum(device.process_index == jax.process_index() for device in devices)
    total = jax.pmap(lambda x: jax.lax.psum(x, _AXIS), axis_name=_AXIS, devices=devices)
    jax.block_until_ready(total(np.ones(own, np.float32)))


def shared(
    function: Callable[[object, np.ndarray], np.ndarray],
) -> Callable[[object, np.ndarray], np.ndarray]:
    """Let each process take a share of the rows.

    Args:
      function: (params, rows (N, ...)) to (N, ...), row by row.

    Returns:
      The same, to be called by all processes at once; each gets all rows.
    """
    if count() == 1:
        return function

    def run(params: object, rows: np.ndarray) -> np.ndarray:
        share = -(-len(rows) // count())
        own = np.arange(share) + share * jax.process_index()
        # Shares must be equal; what the last ones lack, they fill up with rows of others.
        results = gather(function(params, rows[own % len(rows)]))
        return results.reshape(-1, *results.shape[2:])[: len(rows)]

    return run


def digest(text: str) -> str:
    """A short fingerprint."""
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
        jax.distributed.shutdown()  # waits for the others, no longer than for a sign of life
    except RuntimeError as error:
        _end(error)


def _is_ours(error: BaseException) -> bool:
    return type(error).__module__.partition(".")[0] == __name__.partition(".")[0]


def _is_of_runtime(error: BaseException) -> bool:
    """A broken connection comes as a ValueError too; what the runtime raises begins with a code."""
    code = str(error).partition(":")[0]
    return isinstance(error, jax.errors.JaxRuntimeError) or (
        isinstance(error, ValueError) and code.replace("_", "").isalpha() and code.isupper()
    )


def _end(error: BaseException) -> NoReturn:
    """Tell what happened and end this process without its exit handlers, which wait for others."""
    status = 1
    if isinstance(error, KeyboardInterrupt):
        line, status = "\nstopped", 130
    elif _is_of_runtime(error):
        line = (
            f"error: {_first_line(error):.300} (where another process ended, this one cannot go "
            "on; the same command in all of them resumes the run)"
        )
    elif _is_ours(error):
        line = f"error: {error}"
    else:
        line = "".join(traceback.format_exception(error)).rstrip()
    print(line, file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
