"""Turns, medians and ratios by hand."""

from collections.abc import Iterator

import pytest

from benchmarks.timing import Runner, Spread, interleave, ratio, repeats_for


def test_spread_of_five():
    spread = Spread.of([5.0, 1.0, 2.0, 4.0, 3.0])
    assert spread == Spread(3.0, (2.0, 4.0), (1.0, 5.0))


def test_spread_of_one_and_of_none():
    assert Spread.of([2.0]) == Spread(2.0, (2.0, 2.0), (2.0, 2.0))
    with pytest.raises(ValueError, match="no measurements"):
        Spread.of([])


@pytest.mark.parametrize(
    ("seconds", "turn", "repeats"), [(0.3, 1.0, 4), (2.0, 1.0, 1), (0.5, 1.0, 2), (0.0, 1e-6, 1000)]
)
def test_repeats_fill_a_turn(seconds: float, turn: float, repeats: int):
    assert repeats_for(seconds, turn) == repeats


def test_sides_take_turns_and_first_runs_do_not_count():
    order: list[tuple[str, int]] = []

    def runner(name: str, times: Iterator[float]) -> Runner:
        def run(repeats: int) -> float:
            order.append((name, repeats))
            return next(times)

        return run

    # Compiles for 9 s, then takes 0.5 s: two runs a turn.
    fast = runner("fast", iter([9.0, 0.5, 0.6, 0.7, 0.8]))
    slow = runner("slow", iter([3.0, 2.0, 2.1, 2.2, 2.3]))
    times = interleave({"fast": fast, "slow": slow}, turns=3, turn_seconds=1.0)
    assert times == {"fast": [0.6, 0.7, 0.8], "slow": [2.1, 2.2, 2.3]}
    assert order[:4] == [("fast", 1), ("fast", 1), ("slow", 1), ("slow", 1)]
    assert order[4:] == [("fast", 2), ("slow", 1)] * 3


def test_ratio_goes_pair_by_pair():
    """A machine that halves its speed between turns leaves the ratio as it is."""
    assert ratio([2.0, 4.0, 2.0], [1.0, 2.0, 1.0]) == Spread(2.0, (2.0, 2.0), (2.0, 2.0))
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        ratio([1.0, 2.0], [1.0])
