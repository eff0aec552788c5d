"""Bootstrap confidence intervals of means over patients."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

DRAWS = 2000
LEVEL = 0.95


def ratio_interval(
    numerators: ArrayLike, denominators: ArrayLike, *, draws: int = DRAWS, seed: int = 0
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Bootstrap the 95 % percentile interval of sum(numerators) / sum(denominators) over cases.

    The method is that of Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13.
    Cases are resampled, not slices: slices of one patient are correlated, and resampling them
    independently would make the interval too narrow.

    Args:
      numerators: (cases, R), sums within each case, for R quantities.
      denominators: (cases, R), the corresponding counts.
      draws: number of resamples.
      seed: seed of the resampling; all R quantities share the resampled cases.

    Returns:
      Lower and upper bounds, each (R,). A quantity ignores the resamples in which its denominator
      is 0. A bound is nan where fewer than two cases have a denominator above 0.

    Raises:
      ValueError: if the shapes differ or are not (cases, R), or if there are no cases.
    """
    top, bottom = np.asarray(numerators, np.float64), np.asarray(denominators, np.float64)
    if top.ndim != 2 or top.shape != bottom.shape or not len(top):
        raise ValueError(
            f"numerators and denominators: expected one shape (cases, R) with at least one case, "
            f"got {top.shape} and {bottom.shape}"
        )
    cases = len(top)
    drawn = np.random.default_rng(seed).integers(cases, size=(draws, cases))
    # How often each case was drawn: all resampled sums are then one matrix product.
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
    """Bootstrap the 95 % percentile interval of the mean of the defined scores over cases.

    Args:
      scores: (N, R), nan where a score is undefined.
      cases: (N,) integer, the case of each row.
      draws: as in `ratio_interval`.
      seed: as in `ratio_interval`.

    Returns:
      As in `ratio_interval`.

    Raises:
      ValueError: if `scores` is not (N, R) or `cases` is not (N,), or if there are no scores.
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
