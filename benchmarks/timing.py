"""Interleaved measurement, medians and spread."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

Runner = Callable[[int], float]
"""Runs a task n times and returns the mean seconds per run."""


@dataclass(frozen=True)
class Spread:
    """Median with quartiles and extremes of repeated measurements."""

    median: float
    quartiles: tuple[float, float]
    extremes: tuple[float, float]

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Summarize measurements.

        Raises:
          ValueError: there are no measurements.
        """
        if not len(values):
            raise ValueError("no measurements to summarize")
        low, q1, median, q3, high = np.percentile(values, (0, 25, 50, 75, 100)).tolist()
        return cls(median, (q1, q3), (low, high))


def repeats_for(seconds: float, turn: float) -> int:
    """Number of runs of `seconds` each, so that a turn takes at least `turn` seconds."""
    return max(1, math.ceil(turn / max(seconds, 1e-9)))


def interleave(
    runners: Mapping[str, Runner], *, turns: int, turn_seconds: float
) -> dict[str, list[float]]:
    """Measure tasks in turns A B C A B C ..., so that a drift affects all of them alike.

    A first run of each, which is not counted, determines the number of runs per turn.

    Args:
      runners: tasks by name.
      turns: number of measurements of each.
      turn_seconds: least length of a turn.

    Returns:
      Seconds per run, (turns,) by name; equal positions were measured next to each other.
    """
    repeats = {}
    for name, run in runners.items():
        run(1)
        repeats[name] = repeats_for(run(1), turn_seconds)
    times: dict[str, list[float]] = {name: [] for name in runners}
    for _ in range(turns):
        for name, run in runners.items():
            times[name].append(run(repeats[name]))
    return times


def ratio(times: Sequence[float], reference: Sequence[float]) -> Spread:
    """Times over reference, pair by pair.

    Raises:
      ValueError: the numbers of measurements differ.
    """
    return Spread.of([a / b for a, b in zip(times, reference, strict=True)])
