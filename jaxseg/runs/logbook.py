"""The metrics of a run, written as JSON lines and TensorBoard events and read back."""

import json
import math
import re
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tensorboardX import summary
from tensorboardX.proto.event_pb2 import Event, SessionLog  # pyright: ignore
from tensorboardX.record_writer import RecordWriter

from jaxseg.runs.files import WorkdirError, write_atomic

Value = float | Mapping[str, float]

METRICS = "metrics.jsonl"
# Far above the size of thousands of validations and logged steps.
MAX_METRICS_BYTES = 2**28


class Logbook(AbstractContextManager):
    """Writer of a run's metrics: JSON lines in `metrics.jsonl`, curves in `tensorboard/`.

    A resumed run continues both. Lines after the restored step are dropped first, since the run
    writes them again.

    Args:
      workdir: run folder.
      step: step that the run starts from; 0 for a new run.
    """

    def __init__(self, workdir: Path, *, step: int) -> None:
        path = workdir / METRICS
        if path.exists():
            kept = [line for line in read_metrics(path) if line["step"] <= step]
            write_atomic(path, "".join(json.dumps(line) + "\n" for line in kept))
        self._lines = path.open("a", encoding="utf-8")
        self._board = _Board(workdir / "tensorboard", step=step)

    def __exit__(self, *_: object) -> None:
        self._lines.close()
        self._board.close()

    def scalars(self, step: int, group: str, values: Mapping[str, Value]) -> None:
        """Write one line, and one point per curve.

        Args:
          step: number of finished optimizer steps.
          group: "train" or "validation"; prefix of the curves' names.
          values: numbers by name, or numbers by label by name. Numbers that are not finite are
            written as null, since JSON has no NaN, and left out of the curves.
        """
        flat = dict(_flatten(values))
        line = {"step": step, "group": group} | {k: _finite(v) for k, v in flat.items()}
        self._lines.write(json.dumps(line) + "\n")
        self._lines.flush()
        for name, value in flat.items():
            if math.isfinite(value):
                self._board.add(step, summary.scalar(f"{group}/{name}", value))
        self._board.flush()

    def picture(self, step: int, name: str, pixels: NDArray[np.uint8]) -> None:
        """Show an (H, W, 3) uint8 picture in TensorBoard."""
        self._board.add(step, summary.image(name, pixels, dataformats="HWC"))


class _Board:
    """Writer of a TensorBoard event file that writes synchronously.

    The writer of tensorboardX uses a thread, which ends silently if the disk is full. A dozen
    events later the run would wait for it forever.
    """

    def __init__(self, folder: Path, *, step: int) -> None:
        folder.mkdir(exist_ok=True)
        # TensorBoard orders the files by name; numbers keep their order if the clock is wrong.
        found = [re.match(r"events\.out\.tfevents\.([0-9]+)", p.name) for p in folder.iterdir()]
        number = max((int(match[1]) for match in found if match), default=0) + 1
        self._writer = RecordWriter(str(folder / f"events.out.tfevents.{number:010d}"))
        self._write(Event(file_version="brain.Event:2"))
        # Discards what an earlier process logged from this step on, since it is logged again.
        self._write(Event(step=step + 1, session_log=SessionLog(status=SessionLog.START)))
        self.flush()

    def add(self, step: int, what: Any) -> None:
        self._write(Event(step=step, summary=what))

    def _write(self, event: Any) -> None:
        event.wall_time = time.time()
        self._writer.write(event.SerializeToString())

    def flush(self) -> None:
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


def _flatten(values: Mapping[str, Value]) -> list[tuple[str, float]]:
    flat: list[tuple[str, float]] = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat += [(f"{name}/{part}", float(number)) for part, number in value.items()]
        else:
            flat.append((name, float(value)))
    return flat


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Read all lines of a run's metrics, oldest first.

    A last line that was cut off with the run is left out.

    Returns:
      Objects with `step` (int), `group` (a name), and numbers or None by name.

    Raises:
      WorkdirError: if the file cannot be read or another line is damaged; the message names both.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_METRICS_BYTES + 1)
        if len(content) > MAX_METRICS_BYTES:
            raise ValueError(f"expected at most {MAX_METRICS_BYTES} bytes")
        text = content.decode("utf-8")
    except (OSError, ValueError) as error:
        raise WorkdirError(f"{path}: cannot be read ({error})") from error
    *complete, rest = text.split("\n")
    lines = []
    for number, line in enumerate(complete, 1):
        try:
            lines.append(_parse(line))
        except ValueError as error:
            raise WorkdirError(f"{path}, line {number}: {error}") from error
    try:
        return [*lines, _parse(rest)]
    except ValueError:  # no text after the last line break, or a line that was cut off
        return lines


def _parse(line: str) -> dict[str, Any]:
    """Parse a line written by `Logbook.scalars`.

    Raises:
      ValueError: if it is not such a line.
    """
    try:
        fields = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON ({error.msg} at character {error.pos + 1})") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not JSON ({error})") from None
    if not isinstance(fields, dict):
        raise ValueError(f"expected a JSON object, got {type(fields).__name__}")
    if not isinstance(fields.get("group"), str):
        raise ValueError(f"group: expected a name, got {fields.get('group')!r:.80}")
    if type(fields.get("step")) is not int:
        raise ValueError(f"step: expected a whole number, got {fields.get('step')!r:.80}")
    for name, value in fields.items():
        is_number = type(value) is float or (type(value) is int and abs(value) < 2**63)
        if name != "group" and value is not None and not is_number:
            raise ValueError(f"{name}: expected a number or null, got {value!r:.80}")
    return fields
