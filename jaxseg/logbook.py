"""What a run writes down as it goes: JSON lines and TensorBoard."""

import json
import math
import os
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tensorboardX import SummaryWriter

from jaxseg.workdir import WorkdirError

Value = float | Mapping[str, float]


class Logbook(AbstractContextManager):
    """Metrics of a run, one JSON object a line in `metrics.jsonl` and curves in `tensorboard/`.

    A resumed run continues both: lines past the restored step are dropped first, since the run
    writes them again.

    Args:
      workdir: of the run.
      step: the step that the run starts from, 0 for a new one.
    """

    def __init__(self, workdir: Path, *, step: int) -> None:
        self._path = workdir / "metrics.jsonl"
        _drop_lines_after(self._path, step)
        self._lines = self._path.open("a", encoding="utf-8")
        self._board = SummaryWriter(str(workdir / "tensorboard"), purge_step=step + 1)

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
                self._board.add_scalar(f"{group}/{name}", value, step)

    def picture(self, step: int, name: str, pixels: NDArray[np.uint8]) -> None:
        """Show an (H, W, 3) uint8 picture on TensorBoard."""
        self._board.add_image(name, pixels, step, dataformats="HWC")


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


def read_metrics(workdir: Path) -> list[dict]:
    """All complete lines of a run's metrics, oldest first; a torn last line is left out.

    Raises:
      WorkdirError: the file cannot be read, or a line is no object with a step.
    """
    path = workdir / "metrics.jsonl"
    if not path.exists():
        return []
    lines = []
    try:
        texts = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise WorkdirError(f"{path}: cannot be read ({error})") from error
    for number, text in enumerate(texts, 1):
        try:
            line = json.loads(text)
        except json.JSONDecodeError:
            break
        except (ValueError, RecursionError) as error:
            raise WorkdirError(f"{path}, line {number}: cannot be read ({error})") from error
        if not isinstance(line, dict) or type(line.get("step")) is not int:
            raise WorkdirError(f"{path}, line {number}: expected a JSON object with a step")
        lines.append(line)
    return lines


def _drop_lines_after(path: Path, step: int) -> None:
    if not path.exists():
        return
    kept = [line for line in read_metrics(path.parent) if line["step"] <= step]
    # Replaced in one move: a run killed here leaves the old file or the new one.
    temporary = path.with_suffix(".tmp")
    temporary.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
    os.replace(temporary, path)  # noqa: PTH105
