"""Correct the probability of pathology, and decide whether a case contains any.

Networks trained to find rare pathology predict too much of it, which a factor on its odds corrects.
In many healthy hearts they label a few voxels as pathology. By the challenge's rule such a case
scores 0. These voxels are relabeled as the surrounding region of the inclusion pair.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit, logit

from jaxseg.anatomy import Anatomy, LabelSet, inner_labels
from jaxseg.metrics import volume
from jaxseg.metrics.maps import most_probable

# Values of the expected DSC are clipped to this distance from 0 and 1, so that logits are finite.
_MARGIN = 1e-4
_NOTHING = "none, because no training case contains any"
# Inverse variance of the Gaussian prior on the slope of the logistic function.
_PRIOR = 0.01

Inclusions = Sequence[tuple[LabelSet, LabelSet]]

SMALL_DROPPED = "Pathology smaller than in any training case was relabeled as the region around it"
"""Description of `PresenceRule.drop_small` for readers of scores, without a full stop."""


@dataclass(frozen=True)
class PresenceRule:
    """How much pathology is predicted, and when the inner region of an inclusion pair stays.

    Attributes:
      smallest_mm3: for each pair, the smallest volume in mm3 of the inner region over the training
        cases in which it is present. None if there is no such case; no region is then too small.
        Empty if unknown.
      drop_small: whether to drop a region of a smaller volume.
      min_dice: for each pair, the `expected_dice` below which the region is dropped; empty
        for no such bound.
      odds: factor of the odds of pathology, applied first, as in `with_odds`.
    """

    smallest_mm3: tuple[float | None, ...] = ()
    drop_small: bool = False
    min_dice: tuple[float, ...] = ()
    odds: float = 1.0

    def described(self, anatomy: Anatomy) -> tuple[str, ...]:
        """Describe each part of the rule in a sentence, for readers of scores."""
        names = [_name(anatomy, inner) for inner, _ in anatomy.inclusions]
        sentences = []
        if self.odds != 1:
            corrected = _name(anatomy, corrected_labels(anatomy.inclusions))
            sentences.append(f"The odds of {corrected} were multiplied by {self.odds:.3g}.")
        if self.drop_small:
            parts = [
                f"{name} below {smallest / 1000:.2f} ml"
                for name, smallest in zip(names, self.smallest_mm3, strict=True)
                if smallest is not None
            ]
            sentences.append(f"{SMALL_DROPPED}: {', '.join(parts) or _NOTHING}.")
        if self.min_dice:
            parts = [
                f"{name} below {bound:.3g}"
                for name, bound in zip(names, self.min_dice, strict=True)
                if bound > 0
            ]
            sentences.append(
                "Pathology with a low expected DSC, computed from the probabilities, was relabeled "
                f"as the region around it: {', '.join(parts) or 'none, as every bound is 0'}."
            )
        return tuple(sentences)


def corrected_labels(inclusions: Inclusions) -> LabelSet:
    """Labels whose odds `with_odds` multiplies: those in exactly one inner region.

    For EMIDEC this is infarct. No-reflow, which also lies in that of infarct, is not predicted too
    often.
    """
    found = [label for inner, _ in inclusions for label in inner]
    return tuple(label for label in inner_labels(inclusions) if found.count(label) == 1)


def with_odds(
    probabilities: NDArray[np.floating], inclusions: Inclusions, odds: float
) -> NDArray[np.floating]:
    """Multiply the odds of pathology in every voxel by a factor.

        p' = odds p / (1 - p + odds p)

    p is the sum of the probabilities of `corrected_labels`. Ratios between these do not change, nor
    do those between the other labels. This corrects a prior probability that differs between
    training and use (Saerens et al. 2002, Neural Computation 14(1):21, Eq. 2.4).

    Args:
      probabilities: (..., L) label probabilities.
      inclusions: inclusion pairs of the anatomy.
      odds: the factor, above 0.

    Returns:
      (..., L), summing to 1 where the probabilities do.
    """
    if odds == 1:
        return probabilities
    factors = np.ones(probabilities.shape[-1], np.result_type(probabilities, np.float32))
    factors[list(corrected_labels(inclusions))] = odds
    weighted = probabilities * factors
    return weighted / weighted.sum(-1, keepdims=True)


def smallest_volumes(
    labels: NDArray[np.integer],
    case_index: NDArray[np.integer],
    voxel_mm3: Sequence[float],
    inclusions: Inclusions,
) -> list[float | None]:
    """The smallest volume of each pair's inner region over the cases in which it is present.

    Args:
      labels: (N, H, W) integer, slices on the network grid.
      case_index: (N,) integer, the case of each slice. If slices of a case are missing, its volume
        is that of the other slices.
      voxel_mm3: volume in mm3 of a voxel of these slices, for each case.
      inclusions: inclusion pairs of the anatomy.

    Returns:
      Volumes in mm3, one for each pair; None if the inner region is present in no case.
    """
    smallest: list[float | None] = []
    for inner, _ in inclusions:
        counts = np.isin(labels, inner).sum((1, 2))
        volumes = np.bincount(case_index, counts, len(voxel_mm3)) * np.asarray(voxel_mm3)
        smallest.append(float(volumes[volumes > 0].min()) if volumes.any() else None)
    return smallest


def expected_dice(
    probabilities: NDArray[np.floating], inclusions: Inclusions
) -> NDArray[np.float64]:
    """DSC of each pair's predicted inner region that is expected from the probabilities.

        2 sum(m p) / (sum(m) + sum(p))

    p is a voxel's probability of the region, and m is 1 if its most probable label belongs to the
    region, otherwise 0. If probabilities were correct and voxels many and independent, this would
    be the mean DSC. A faint prediction, as in healthy hearts, has a low value whatever its size.

    Args:
      probabilities: (..., L) label probabilities of one whole case.
      inclusions: inclusion pairs of the anatomy.

    Returns:
      (pairs,) in 0..1; 0 where no voxel is predicted.
    """
    labels = most_probable(probabilities)
    found = []
    for inner, _ in inclusions:
        region = probabilities[..., list(inner)].sum(-1, dtype=np.float64)
        predicted = np.isin(labels, inner)
        total = predicted.sum() + region.sum()
        found.append(min(2 * region[predicted].sum() / total, 1.0) if total else 0.0)
    return np.array(found, np.float64)


def label_map(
    probabilities: NDArray[np.floating],
    spacing: Sequence[float],
    inclusions: Inclusions,
    rule: PresenceRule,
) -> NDArray[np.uint8]:
    """Most probable labels of one whole case by a rule, without the pathology that fails it.

    Args:
      probabilities: (..., L) label probabilities.
      spacing: voxel size in mm, one value for each axis.
      inclusions: inclusion pairs of the anatomy.
      rule: the rule.

    Returns:
      (...) uint8.
    """
    probabilities = with_odds(probabilities, inclusions, rule.odds)
    labels = most_probable(probabilities)
    expected = expected_dice(probabilities, inclusions) if rule.min_dice else None
    return believed(labels, expected, spacing, inclusions, rule)


def believed(
    labels: NDArray[np.uint8],
    expected: NDArray[np.floating] | None,
    spacing: Sequence[float],
    inclusions: Inclusions,
    rule: PresenceRule,
) -> NDArray[np.uint8]:
    """Relabel a pathology that fails the rule as the region around it.

    Args:
      labels: label map of one whole case.
      expected: (pairs,) from `expected_dice`; required if the rule has a bound on it.
      spacing: voxel size in mm, one value for each axis.
      inclusions: inclusion pairs of the anatomy, applied in this order. The voxels of an inner
        region that fails get the first label of the outer region that is not in the inner one. For
        EMIDEC no-reflow becomes infarct, and then infarct becomes myocardium.
      rule: the rule.

    Returns:
      A label map of the same shape.

    Raises:
      ValueError: the rule has bounds, but `expected` is None.
    """
    if rule.min_dice and expected is None:
        raise ValueError("expected: None, but the rule has bounds on it")
    for k, (inner, outer) in enumerate(inclusions):
        # `Anatomy` ensures that an outer region has more labels than the inner one.
        around = next(label for label in outer if label not in inner)
        smallest = rule.smallest_mm3[k] if rule.drop_small else None
        small = smallest is not None and volume(labels, inner, spacing) < smallest
        doubtful = (
            bool(rule.min_dice) and expected is not None and bool(expected[k] < rule.min_dice[k])
        )
        if small or doubtful:
            labels = np.where(np.isin(labels, inner), around, labels).astype(labels.dtype)
    return labels


def presence_bound(
    expected: NDArray[np.floating], holds: NDArray[np.bool_], kept: NDArray[np.floating]
) -> float:
    """The `expected_dice` above which keeping a pathology scores higher than dropping it.

    By the challenge's rule, a case without the pathology scores 1 if it is dropped and 0 if any of
    it is kept. A case with the pathology scores 0 if it is dropped and d if it is kept, where d is
    the mean DSC of such cases. It is therefore worth keeping if P(holds) d > 1 - P(holds), that is
    P(holds) > 1 / (1 + d). P is a logistic function of the logit of the expected DSC, fitted to all
    cases. The bound with the best score on these cases would depend on the few cases next to it.

    Args:
      expected: (cases,) in 0..1, at least one case. Exclude cases without any pathology in their
        label map.
      holds: (cases,) whether the reference holds the pathology.
      kept: (cases,) DSC of a case if its pathology is kept.

    Returns:
      A bound in 0..1: 0.0 keeps every pathology, 1.0 drops all that are less than certain.
    """
    if holds.all():
        return 0.0
    if not holds.any():
        return 1.0
    needed = 1 / (1 + float(kept[holds].mean()))
    offset, slope = _logistic(logit(np.clip(expected, _MARGIN, 1 - _MARGIN)), holds)
    if slope <= 0:  # it carries no information, so treat all cases alike
        return 0.0 if holds.mean() > needed else 1.0
    return float(expit((logit(needed) - offset) / slope))


def _logistic(x: NDArray[np.floating], positive: NDArray[np.bool_]) -> tuple[float, float]:
    """Offset and slope of the most likely logistic function of x.

    A weak prior on the slope keeps it finite if x separates the two classes.
    """
    sign = np.where(positive, -1.0, 1.0)

    def loss(at: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        z = sign * (at[0] + at[1] * x)
        pull = sign * expit(z)
        gradient = np.array([pull.sum(), (pull * x).sum() + _PRIOR * at[1]])
        return float(np.logaddexp(0, z).sum() + _PRIOR * at[1] ** 2 / 2), gradient

    offset, slope = minimize(loss, np.zeros(2), jac=True, method="BFGS").x
    return float(offset), float(slope)


def _name(anatomy: Anatomy, labels: LabelSet) -> str:
    return " + ".join(anatomy.labels[label] for label in labels)
