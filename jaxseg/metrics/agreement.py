"""Agreement of measured quantities with reference values."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

# 95 % of a normal distribution lie within this many standard deviations.
_NORMAL_95 = 1.96


class Agreement(NamedTuple):
    """Agreement of n pairs of values; nan where it is undefined.

    Attributes:
      n: number of pairs.
      reference: mean of the reference values.
      bias: mean of prediction - reference.
      low: lower 95 % limit of agreement, bias - 1.96 standard deviations of the differences.
      high: upper limit, bias + 1.96 standard deviations.
      concordance: Lin's concordance correlation coefficient.
      correlation: Pearson's correlation coefficient.
    """

    n: int
    reference: float
    bias: float
    low: float
    high: float
    concordance: float
    correlation: float


def agreement(prediction: ArrayLike, reference: ArrayLike) -> Agreement:
    """Compare predicted quantities with reference values, one pair for each case.

    Bias and limits of agreement are those of Bland and Altman (Lancet 327:307, 1986), with the
    sample standard deviation. Lin's coefficient (Biometrics 45:255, 1989) is
    2 s_xy / (s_x^2 + s_y^2 + (m_x - m_y)^2) with moments over n, as in that paper. Unlike Pearson's
    coefficient, it falls with a bias.

    Args:
      prediction: (n,) values in one unit; pairs with a nan are left out.
      reference: (n,) values in the same unit.

    Raises:
      ValueError: if the arrays are not of one shape (n,).
    """
    x, y = np.asarray(prediction, np.float64), np.asarray(reference, np.float64)
    if x.ndim != 1 or x.shape != y.shape:
        raise ValueError(f"expected one shape (n,), got {x.shape} and {y.shape}")
    defined = ~(np.isnan(x) | np.isnan(y))
    x, y = x[defined], y[defined]
    if not len(x):
        return Agreement(0, *[float("nan")] * 6)
    bias = float((x - y).mean())
    half = _NORMAL_95 * float((x - y).std(ddof=1)) if len(x) > 1 else float("nan")
    (xx, xy), (_, yy) = np.cov(x, y, bias=True)
    spread = float(xx + yy + bias**2)
    return Agreement(
        n=len(x),
        reference=float(y.mean()),
        bias=bias,
        low=bias - half,
        high=bias + half,
        concordance=float(2 * xy) / spread if spread else float("nan"),
        correlation=float(xy / np.sqrt(xx * yy)) if xx * yy else float("nan"),
    )
