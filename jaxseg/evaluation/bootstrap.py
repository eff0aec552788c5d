"""Bootstrap intervals of means over patients."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

DRAWS = 2000
LEVEL = 0.95


def ratio_interval(
    numerators: ArrayLike, denominators: ArrayLike, *, draws: int = DRAWS, seed: int = 0
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """95 % percentile interval of sum(numerators) / sum(denominators), cases drawn anew.

    Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13. The unit drawn is the
    case: slices of one patient are alike, and drawn as if they were not, they would make the
    interval too narrow.

    Args:
      numerators: (cases, R), sums over whatever a case holds of each of R quantities.
      denominators: (cases, R), their counts.
      draws: number of resamples.
      seed: of the resampling; one draw of cases serves all R.

    Returns:
      Lower and upper bound, each (R,). Resamples in which a denominator is 0 are left out for that
      quantity; nan where fewer than two cases have a denominator above 0.

    Raises:
      ValueError: shapes differ or are not (cases, R), or there is no case.
    """
    top, bottom = np.asarray(numerators, np.float64), np.asarray(denominators, np.float64)
    if top.ndim != 2 or top.shape != bottom.shape or not len(top):
        raise ValueError(
            f"numerators and denominators: expected one shape (cases, R) with at least one case, "
            f"got {top.shape} and {bottom.shape}"
        )
    cases = len(top)
    drawn = np.random.default_rng(seed).integers(cases, size=(draws, cases))
    # How often each case was drawn, so that a resample is a row of one matrix product.
    times = np.stack([np.bincount(row, minlength=cases) for row in drawn])
    sums, counts = times @ top, times @ bottom
    low, high = np.full(top.shape[1], np.nan), np.full(top.shape[1], np.nan)
    tail = 50 * (1 - LEVEL)
    for k in range(top.shape[1]):
        if np.count_nonzero(bottom[:, k]) > 1:
            defined = counts[:, k] > 0
            ratios = sums[defined, k] / counts[defined, k]
            low[k], high[k] = np.percentile(ratios, (tail, 100 - tail))
    return low, high


def mean_interval(
    scores: ArrayLike, cases: ArrayLike, *, draws: int = DRAWS, seed: int = 0
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """95 % percentile interval of the mean of the defined scores, cases drawn anew.

    Args:
      scores: (N, R), nan where a score is not defined.
      cases: (N,) integer, the case that each row belongs to.
      draws: as `ratio_interval`.
      seed: as `ratio_interval`.

    Returns:
      As `ratio_interval`.

    Raises:
      ValueError: `scores` is not (N, R) or `cases` not (N,), or there is no score.
    """
    scores = np.asarray(scores, np.float64)
    _, rows = np.unique(np.asarray(cases), return_inverse=True)
    if scores.ndim != 2 or rows.shape != scores.shape[:1]:
        raise ValueError(f"scores {scores.shape} and cases {rows.shape}: expected (N, R) and (N,)")
    defined = ~np.isnan(scores)
    shape = (int(rows.max(initial=-1)) + 1, scores.shape[1])
    sums, counts = np.zeros(shape), np.zeros(shape)
    np.add.at(sums, rows, np.where(defined, scores, 0.0))
    np.add.at(counts, rows, defined)
    return ratio_interval(sums, counts, draws=draws, seed=seed)
