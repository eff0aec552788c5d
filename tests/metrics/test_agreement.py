"""Agreement by hand, against SciPy and by other formulas."""

import math

import numpy as np
import pytest
from scipy import stats

from jaxseg.metrics import agreement

RNG = np.random.default_rng(0)


def test_three_pairs_by_hand():
    """Differences 1, 2 and 3: mean 2, standard deviation 1."""
    found = agreement([2.0, 4.0, 6.0], [1.0, 2.0, 3.0])
    assert (found.n, found.reference, found.bias) == (3, 2.0, 2.0)
    assert (found.low, found.high) == pytest.approx((2 - 1.96, 2 + 1.96))
    assert found.correlation == pytest.approx(1.0)
    # Variances over n are 8/3 and 2/3, the covariance 4/3: 2 * 4/3 / (10/3 + 4).
    assert found.concordance == pytest.approx((8 / 3) / (22 / 3))


def test_correlation_agrees_with_scipy_and_concordance_with_other_formulas():
    x = RNG.normal(10, 3, 40)
    y = 0.8 * x + RNG.normal(3, 2, 40)
    found = agreement(x, y)
    r = stats.pearsonr(x, y).statistic
    assert found.correlation == pytest.approx(r)
    # Lin 1989: r times the bias correction factor of location and scale shift.
    scale = x.std() / y.std()
    shift = (x.mean() - y.mean()) / math.sqrt(x.std() * y.std())
    assert found.concordance == pytest.approx(r * 2 / (scale + 1 / scale + shift**2))
    # And 1 minus the expected squared distance over that of independent values.
    independent = np.square(x[:, None] - y[None]).mean()
    assert found.concordance == pytest.approx(1 - np.square(x - y).mean() / independent)
    low, high = stats.norm.interval(0.95, (x - y).mean(), np.std(x - y, ddof=1))
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-3)


def test_a_bias_lowers_concordance_alone():
    y = RNG.normal(size=30)
    assert agreement(y, y).concordance == pytest.approx(1)
    shifted = agreement(y + 1, y)
    assert shifted.correlation == pytest.approx(1)
    assert shifted.concordance < 0.8
    assert shifted.low == pytest.approx(shifted.high) == pytest.approx(1)


def test_what_is_undefined_is_nan():
    nan = math.nan
    found = agreement([1.0, nan, 3.0], [1.0, 2.0, nan])
    assert (found.n, found.bias) == (1, 0)
    assert math.isnan(found.low)
    assert math.isnan(found.concordance)
    assert math.isnan(agreement([0.0, 0.0], [0.0, 0.0]).concordance)
    constant = agreement([1.0, 2.0], [5.0, 5.0])
    assert math.isnan(constant.correlation)
    assert constant.concordance == 0
    empty = agreement([nan], [1.0])
    assert empty.n == 0
    assert all(map(math.isnan, empty[1:]))


def test_shapes_that_differ_are_refused():
    with pytest.raises(ValueError, match=r"one shape \(n,\), got \(2,\) and \(3,\)"):
        agreement([1, 2], [1, 2, 3])
    with pytest.raises(ValueError, match="one shape"):
        agreement([[1.0]], [[1.0]])
