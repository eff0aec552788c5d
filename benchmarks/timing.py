"""Interleaved measurement, medians and spread."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

Runner = Callable[[int], float]
"""Runs a piece of work n times and returns the seconds that one took."""


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
          ValueError: if there are none.
        """
        if not len(values):
            raise ValueError("no measurements to summarize")
        low, q1, median, q3, high = np.percentile(values, (0, 25, 50, 75, 100)).tolist()
        return cls(median, (q1, q3), (low, high))


def repeats_for(seconds: float, turn: float) -> int:
    """How often to run a piece of work of `seconds` so that a turn takes at least `turn`."""
    return max(1, math.ceil(turn / max(seconds, 1e-9)))


def interleave(
    runners: Mapping[str, Runner], *, turns: int, turn_seconds: float
) -> dict[str, list[float]]:
    """Measure pieces of work in turns A B C A B C ..., so that all see the same drift.

    Each is run once, not counted, to settle how many runs make up a turn.

    Args:
      runners: what is measured, by name.
      turns: measurements of each.
      turn_seconds: least length of a turn.

    Returns:
      Seconds a run, (turns,) by name; equal positions were measured next to each other.
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
      ValueError: if they do not pair up.
    """
    return Spread.of([a / b for a, b in zip(times, reference, strict=True)])
