"""Intervals by hand, by a loop, by theory."""

import math

import numpy as np
import pytest

from jaxseg.evaluation.bootstrap import mean_interval, ratio_interval

RNG = np.random.default_rng(0)


def test_two_cases_by_hand():
    """Means of a resample of {0, 1}: 0 or 1 in a quarter of the draws each, beyond 2.5 %."""
    low, high = mean_interval([[0.0], [1.0]], [0, 1])
    assert (low.tolist(), high.tolist()) == ([0.0], [1.0])


def test_a_loop_over_the_same_draws_agrees():
    top, bottom = RNG.random((7, 3)), RNG.integers(1, 5, (7, 3)).astype(float)
    low, high = ratio_interval(top, bottom, draws=300, seed=4)
    drawn = np.random.default_rng(4).integers(7, size=(300, 7))
    ratios = np.array([top[row].sum(0) / bottom[row].sum(0) for row in drawn])
    np.testing.assert_allclose(low, np.percentile(ratios, 2.5, axis=0), rtol=1e-12)
    np.testing.assert_allclose(high, np.percentile(ratios, 97.5, axis=0), rtol=1e-12)


def test_many_cases_follow_the_normal_distribution():
    scores = RNG.normal(0.8, 0.1, (400, 1))
    low, high = mean_interval(scores, np.arange(400))
    half = 1.96 * scores.std(ddof=1) / 20
    np.testing.assert_allclose(
        [low[0], high[0]], [scores.mean() - half, scores.mean() + half], atol=1e-3
    )


def test_slices_of_a_case_are_drawn_together():
    """Ten equal slices of a case add no information: the interval is that of the cases."""
    by_case = RNG.random((12, 2))
    slices = np.repeat(by_case, 10, axis=0)
    cases = np.repeat(np.arange(12) * 3, 10)  # any numbers may name the cases
    found = mean_interval(slices, cases)
    np.testing.assert_allclose(found, mean_interval(by_case, np.arange(12)), rtol=1e-12)
    naive = mean_interval(slices, np.arange(120))
    assert (found[1] - found[0] > 2 * (naive[1] - naive[0])).all()


def test_undefined_scores_are_ignored():
    scores = np.array([[0.2, math.nan], [0.4, math.nan], [math.nan, 0.5], [0.6, math.nan]])
    low, high = mean_interval(scores, np.arange(4))
    assert 0.2 <= low[0] < 0.4 < high[0] <= 0.6
    assert math.isnan(low[1])  # a single case has no spread
    assert math.isnan(high[1])


def test_resamples_without_a_denominator_are_left_out():
    """Half of the cases hold nothing: a sixteenth of the draws of four has no ratio."""
    low, high = ratio_interval([[1.0], [2.0], [0.0], [0.0]], [[2.0], [2.0], [0.0], [0.0]])
    assert (low.tolist(), high.tolist()) == ([0.5], [1.0])


def test_the_interval_depends_on_the_seed():
    scores = RNG.random((9, 1))
    first, again, other = (mean_interval(scores, np.arange(9), seed=s) for s in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("shapes", [((3,), (3,)), ((3, 1), (3, 2)), ((0, 2), (0, 2))])
def test_shapes_that_do_not_fit_are_refused(shapes):
    with pytest.raises(ValueError, match="shape"):
        ratio_interval(*(np.zeros(shape) for shape in shapes))


def test_scores_without_cases_are_refused():
    for cases in (np.arange(2), np.zeros(0, int)):
        with pytest.raises(ValueError, match=r"\(N,\)|case"):
            mean_interval(np.zeros((3 if len(cases) else 0, 1)), cases)
