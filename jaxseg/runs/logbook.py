"""What a run writes down as it goes: JSON lines and TensorBoard."""

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

from jaxseg.runs.workdir import WorkdirError, write_atomic

Value = float | Mapping[str, float]

METRICS = "metrics.jsonl"
# Thousands of validations and logged steps stay far below.
MAX_METRICS_BYTES = 2**28


class Logbook(AbstractContextManager):
    """Metrics of a run, one JSON object a line in `metrics.jsonl` and curves in `tensorboard/`.

    A resumed run continues both: lines past the restored step are dropped first, since the run
    writes them again.

    Args:
      workdir: of the run.
      step: the step that the run starts from, 0 for a new one.
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
        """Write one line and one point a curve.

        Args:
          step: optimizer steps done.
          group: "train" or "validation"; prefix of the curves' names.
          values: numbers by name, or numbers by label by name. JSON has no NaN: such numbers are
            written as null, and left out of the curves.
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
        """Show an (H, W, 3) uint8 picture on TensorBoard."""
        self._board.add(step, summary.image(name, pixels, dataformats="HWC"))


class _Board:
    """TensorBoard's event file, written here and now.

    tensorboardX's own writer leaves it to a thread, which a full disk ends without a word; a dozen
    events later the run would wait for it forever.
    """

    def __init__(self, folder: Path, *, step: int) -> None:
        folder.mkdir(exist_ok=True)
        # TensorBoard reads the files by name. Numbered, they stay in order when the clock does not.
        found = [re.match(r"events\.out\.tfevents\.([0-9]+)", p.name) for p in folder.iterdir()]
        number = max((int(match[1]) for match in found if match), default=0) + 1
        self._writer = RecordWriter(str(folder / f"events.out.tfevents.{number:010d}"))
        self._write(Event(file_version="brain.Event:2"))
        # Whatever an earlier sitting showed from here on is shown again.
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
    """All lines of a run's metrics, oldest first.

    A last line without its end was cut off with the run: it is left out if it is not whole.

    Returns:
      Objects with `step` (int), `group` (a name), and numbers or None by name.

    Raises:
      WorkdirError: the file cannot be read, or another line is damaged; file and line are named.
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
    except ValueError:  # nothing behind the last line's end, or a torn line
        return lines


def _parse(line: str) -> dict[str, Any]:
    """A line of `Logbook.scalars`.

    Raises:
      ValueError: it is none.
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
