"""Whether a case holds a pathology at all: by its size, and by how sure the network is of its core.

A network calls a few voxels of many a healthy heart pathology, and a case without it then scores 0
by the challenge's rule. The prior says where such voxels belong: to what surrounds the pathology.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit, logit

from jaxseg.anatomy import Anatomy, LabelSet
from jaxseg.metrics import volume
from jaxseg.metrics.maps import most_probable

# Confidences nearer to 0 or 1 than this count as that far: a logit is finite.
_SURE = 1e-4
# The core as a share of the smallest volume: of a true pathology as small as that, too, the core is
# sure then, as the rim, whose voxels hold a part of it only, lies outside. Measured:
# docs/studies/015-healthy-case.md.
_CORE = 0.25
_NOTHING = "nothing, as no training case holds any"
# Of a logistic function's slope, a Gaussian prior's inverse variance.
_PRIOR = 0.01

Inclusions = Sequence[tuple[LabelSet, LabelSet]]

SMALL_DROPPED = (
    "Pathology of a case that is smaller than in any training case was given to what surrounds it"
)
"""What `PresenceRule.drop_small` does, for the reader of scores; without a full stop."""


@dataclass(frozen=True)
class PresenceRule:
    """What each inclusion pair's inner region must show to stay in a case's label map.

    Attributes:
      smallest_mm3: its volume in the training case that holds least of it; None where none does,
        whose region stays. Empty without a rule.
      drop_small: whether a smaller one goes.
      min_confidence: `core_confidence` below which it goes; empty for no such bound.
    """

    smallest_mm3: tuple[float | None, ...] = ()
    drop_small: bool = False
    min_confidence: tuple[float, ...] = ()

    def described(self, anatomy: Anatomy) -> tuple[str, ...]:
        """A sentence for each part of the rule, for the reader of scores."""
        names = [_name(anatomy, inner) for inner, _ in anatomy.inclusions]
        sentences = []
        if self.drop_small:
            parts = [
                f"{name} below {smallest / 1000:.2f} ml"
                for name, smallest in zip(names, self.smallest_mm3, strict=True)
                if smallest is not None
            ]
            sentences.append(f"{SMALL_DROPPED}: {', '.join(parts) or _NOTHING}.")
        if self.min_confidence:
            parts = [
                f"{name} below {bound:.3g}"
                for name, bound, smallest in zip(
                    names, self.min_confidence, self.smallest_mm3, strict=True
                )
                if smallest is not None
            ]
            sentences.append(
                "Pathology whose core, the most probable voxels that make up a quarter of the "
                "smallest volume of any training case, has a low mean probability was given to "
                f"what surrounds it: {', '.join(parts) or _NOTHING}."
            )
        return tuple(sentences)


def smallest_volumes(
    labels: NDArray[np.integer],
    case_index: NDArray[np.integer],
    voxel_mm3: Sequence[float],
    inclusions: Inclusions,
) -> list[float | None]:
    """The smallest volume of each pair's inner region over the cases that hold it.

    Args:
      labels: (N, H, W) integer, slices on the network grid.
      case_index: (N,) integer, the case of each slice. Of a case of which some slices are missing,
        the volume is that of the others.
      voxel_mm3: volume of a voxel of such a slice in mm3, by case.
      inclusions: the anatomy's pairs.

    Returns:
      mm3 by pair; None where no case holds the inner region.
    """
    smallest: list[float | None] = []
    for inner, _ in inclusions:
        counts = np.isin(labels, inner).sum((1, 2))
        volumes = np.bincount(case_index, counts, len(voxel_mm3)) * np.asarray(voxel_mm3)
        smallest.append(float(volumes[volumes > 0].min()) if volumes.any() else None)
    return smallest


def core_confidence(
    probabilities: NDArray[np.floating],
    spacing: Sequence[float],
    inclusions: Inclusions,
    smallest_mm3: Sequence[float | None],
) -> NDArray[np.float64]:
    """How sure a prediction is that a case holds each pair's inner region.

    The mean probability of the inner region over its core: its most probable voxels, as many as
    make up a quarter of the smallest volume of any training case. Unlike the volume of what is
    called the region, it tells a large doubtful one from a small certain one.

    Args:
      probabilities: (..., L) of the labels, one whole case.
      spacing: voxel size in mm, one edge an axis.
      inclusions: the anatomy's pairs.
      smallest_mm3: by pair.

    Returns:
      (pairs,) in 0..1; nan where no training case holds the region.
    """
    voxel = float(np.prod(spacing))
    found = []
    for (inner, _), smallest in zip(inclusions, smallest_mm3, strict=True):
        if smallest is None:
            found.append(np.nan)
            continue
        region = probabilities[..., list(inner)].sum(-1, dtype=np.float64).ravel()
        count = min(max(round(_CORE * smallest / voxel), 1), region.size)
        # Rounding may take a sum of probabilities past 1.
        found.append(min(np.partition(region, -count)[-count:].mean(), 1.0))
    return np.array(found, np.float64)


def label_map(
    probabilities: NDArray[np.floating],
    spacing: Sequence[float],
    inclusions: Inclusions,
    rule: PresenceRule,
) -> NDArray[np.uint8]:
    """The most probable labels of one whole case, less the pathology that fails the rule.

    Args:
      probabilities: (..., L).
      spacing: voxel size in mm, one edge an axis.
      inclusions: the anatomy's pairs.
      rule: what they must show.

    Returns:
      (...) uint8.
    """
    labels = most_probable(probabilities)
    confidence = None
    if rule.min_confidence:
        confidence = core_confidence(probabilities, spacing, inclusions, rule.smallest_mm3)
    return believed(labels, confidence, spacing, inclusions, rule)


def believed(
    labels: NDArray[np.uint8],
    confidence: NDArray[np.floating] | None,
    spacing: Sequence[float],
    inclusions: Inclusions,
    rule: PresenceRule,
) -> NDArray[np.uint8]:
    """Give a pathology that fails the rule to the region around it.

    Args:
      labels: label map of one whole case.
      confidence: (pairs,) from `core_confidence`; needed where the rule bounds it.
      spacing: voxel size in mm, one edge an axis.
      inclusions: the anatomy's pairs. Voxels of an inner region that fails take the first label of
        the outer region that the inner does not hold, pair by pair in this order: for EMIDEC
        no-reflow becomes infarct, then infarct becomes myocardium.
      rule: what they must show.

    Returns:
      A label map of the same shape.
    """
    for k, (inner, outer) in enumerate(inclusions):
        # An outer region holds more than the inner one, which `Anatomy` makes sure of.
        around = next(label for label in outer if label not in inner)
        smallest = rule.smallest_mm3[k] if rule.drop_small else None
        small = smallest is not None and volume(labels, inner, spacing) < smallest
        doubtful = (
            bool(rule.min_confidence)
            and confidence is not None
            and bool(confidence[k] < rule.min_confidence[k])
        )
        if small or doubtful:
            labels = np.where(np.isin(labels, inner), around, labels).astype(labels.dtype)
    return labels


def confidence_bound(
    confidence: NDArray[np.floating], holds: NDArray[np.bool_], kept: NDArray[np.floating]
) -> float:
    """The `core_confidence` from which keeping a pathology is worth more than dropping it.

    By the challenge's rule a case without the pathology scores 1 where it is dropped and 0 where
    any is kept, a case with it 0 where it is dropped and, kept, the mean DSC d of such cases. So it
    is worth keeping where P(holds) d > 1 - P(holds), that is P(holds) > 1 / (1 + d). P is a
    logistic function of the confidence's logit, fitted to the cases; the bound with the best score
    of these very cases would be a matter of the few next to it.

    Args:
      confidence: (cases,) in 0..1, at least one case.
        Cases in whose label map nothing of the pathology is left do not belong here.
      holds: (cases,) whether the reference holds the pathology.
      kept: (cases,) DSC of a case with its pathology left in the label map.

    Returns:
      In 0..1: 0.0 keeps whatever the confidence is, 1.0 drops all that is less than certain.
    """
    if holds.all():
        return 0.0
    if not holds.any():
        return 1.0
    needed = 1 / (1 + float(kept[holds].mean()))
    offset, slope = _logistic(logit(np.clip(confidence, _SURE, 1 - _SURE)), holds)
    if slope <= 0:  # the confidence says nothing: all cases alike
        return 0.0 if holds.mean() > needed else 1.0
    return float(expit((logit(needed) - offset) / slope))


def _logistic(x: NDArray[np.floating], positive: NDArray[np.bool_]) -> tuple[float, float]:
    """Offset and slope of the most likely logistic function of x.

    A weak prior on the slope keeps it finite where x parts the two kinds.
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
