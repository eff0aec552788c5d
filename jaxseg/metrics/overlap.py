"""DSC of label maps, slices and cases, and its statistics."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jaxseg.metrics.maps import Labels, Regions, checked_pair, region_mask


class Summary(NamedTuple):
    """Statistics of the defined (not NaN) scores of each region, each of shape (R,)."""

    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    n: NDArray[np.int64]


def dice(
    prediction: ArrayLike, reference: ArrayLike, labels: Labels, *, empty: float = float("nan")
) -> float:
    """Dice similarity coefficient (DSC), 2 |P and R| / (|P| + |R|), in 0..1.

    Args:
      prediction: integer label map of any rank.
      reference: integer label map of the same shape.
      labels: the scored label, or a tuple that stands for the union.
      empty: score of two empty masks; 1.0 by the EMIDEC challenge's rule.

    Raises:
      ValueError: the shapes differ, a map is not an integer array, or a label is not an int.
    """
    predicted, actual = (region_mask(m, labels) for m in checked_pair(prediction, reference))
    return float(dice_from_counts(*_counts(predicted, actual, axes=None), empty=empty))


def dice_from_counts(
    intersection: ArrayLike,
    predicted: ArrayLike,
    reference: ArrayLike,
    *,
    empty: float = float("nan"),
) -> NDArray[np.float64]:
    """DSC from pixel counts, which share one shape; `empty` where both sizes are 0.

    Summing the counts over the slices of a case first gives its DSC in 3D.
    """
    twice = 2.0 * np.asarray(intersection, np.float64)
    sizes = np.asarray(predicted, np.float64) + np.asarray(reference, np.float64)
    return np.where(sizes > 0, twice / np.maximum(sizes, 1.0), empty)


def slice_dice(
    intersection: ArrayLike, predicted: ArrayLike, reference: ArrayLike
) -> NDArray[np.float64]:
    """DSC of each slice by the rule of the paper's Table 1: NaN if the reference lacks the region.

    A region predicted on a slice whose reference lacks it has no effect here. Scores of whole cases
    include it.
    """
    scores = dice_from_counts(intersection, predicted, reference)
    return np.where(np.asarray(reference) > 0, scores, np.nan)


def slice_scores(
    prediction: ArrayLike, reference: ArrayLike, regions: Regions
) -> NDArray[np.float64]:
    """DSC of each slice and region, by the rule of `slice_dice`.

    Args:
      prediction: (N, H, W) integer label maps.
      reference: (N, H, W) integer label maps.
      regions: R pairs (name, labels), as `Anatomy.slice_regions`.

    Returns:
      (N, R), NaN where the reference slice does not hold the region.

    Raises:
      ValueError: the shapes differ or are not (N, H, W), a map is not an integer array, or there is
        no region.
    """
    return slice_dice(*np.moveaxis(slice_counts(prediction, reference, regions), -1, 0))


def slice_counts(
    prediction: ArrayLike, reference: ArrayLike, regions: Regions
) -> NDArray[np.int64]:
    """Pixel counts of each slice and region; their sums over slices give a pooled DSC.

    Arguments and errors are as in `slice_scores`.

    Returns:
      (N, R, 3): counts of the intersection, the prediction and the reference, in the order of
      `dice_from_counts`.
    """
    prediction, reference = checked_pair(prediction, reference)
    if prediction.ndim != 3:
        raise ValueError(
            f"prediction and reference: expected one shape (N, H, W), got {prediction.shape}"
        )
    if not regions:
        raise ValueError("regions: expected at least one region, got none")
    columns = []
    for _, values in regions:
        predicted, actual = region_mask(prediction, values), region_mask(reference, values)
        columns.append(np.stack(_counts(predicted, actual, axes=(1, 2)), axis=-1))
    return np.stack(columns, axis=1)


def summarize(scores: ArrayLike) -> Summary:
    """Mean, standard deviation and number of the scores of each region, ignoring NaN.

    Args:
      scores: (N, R); NaN marks an undefined score.

    Returns:
      Mean (NaN if n = 0), sample standard deviation (divisor n - 1, NaN if n < 2) and n.

    Raises:
      ValueError: `scores` is not of rank 2.
    """
    scores = np.asarray(scores, np.float64)
    if scores.ndim != 2:
        raise ValueError(f"scores: expected shape (N, R), got {scores.shape}")
    defined = np.logical_not(np.isnan(scores))
    n = defined.sum(axis=0, dtype=np.int64)
    # np.nanmean and np.nanstd are not used because they warn about a column without a score.
    mean = np.where(n > 0, np.where(defined, scores, 0.0).sum(axis=0) / np.maximum(n, 1), np.nan)
    squares = (np.where(defined, scores - mean, 0.0) ** 2).sum(axis=0)
    std = np.where(n > 1, np.sqrt(squares / np.maximum(n - 1, 1)), np.nan)
    return Summary(mean, std, n)


def _counts(
    predicted: NDArray[np.bool_], actual: NDArray[np.bool_], axes: tuple[int, ...] | None
) -> tuple[NDArray[np.int64], ...]:
    sizes = [m.sum(axis=axes, dtype=np.int64) for m in (predicted & actual, predicted, actual)]
    return tuple(sizes)
