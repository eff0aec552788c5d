"""Whether a case holds a pathology at all: by its size, and by how sure the network is of its core.

A network calls a few voxels of many a healthy heart pathology, and a case without it then scores 0
by the challenge's rule. The prior says where such voxels belong: to what surrounds the pathology.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from jaxseg.anatomy import Anatomy, LabelSet
from jaxseg.data import most_probable
from jaxseg.metrics import volume

Inclusions = Sequence[tuple[LabelSet, LabelSet]]


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
            sentences.append(
                "Pathology of a case that is smaller than in any training case was given to what "
                f"surrounds it: {', '.join(parts) or 'nothing, as no training case holds any'}."
            )
        if self.min_confidence:
            parts = [
                f"{name} below {bound:.3g}"
                for name, bound in zip(names, self.min_confidence, strict=True)
            ]
            sentences.append(
                "Pathology whose core, the most probable voxels that make up the smallest volume "
                "of any training case, has a low mean probability was given to what surrounds it: "
                f"{', '.join(parts)}."
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
    make up the smallest volume of any training case. Unlike the volume of what is called the
    region, it tells a large doubtful one from a small certain one.

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
        count = min(max(round(smallest / voxel), 1), region.size)
        found.append(np.partition(region, -count)[-count:].mean())
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


def best_bound(
    confidence: NDArray[np.floating], kept: NDArray[np.floating], dropped: NDArray[np.floating]
) -> float:
    """The bound of `core_confidence` under which a set of cases scores best.

    Args:
      confidence: (cases,) in 0..1.
      kept: (cases,) the score of each case with its pathology left in the label map.
      dropped: (cases,) without.

    Returns:
      Half way between two neighboring confidences, the pair farthest apart where several score
      alike; 0.0 where nothing should be dropped.
    """
    order = np.argsort(confidence)
    levels, gains = confidence[order], (dropped - kept)[order]
    # Total gain of dropping the first k cases, for k that do not part equal confidences.
    edges = np.concatenate([[0.0], levels, [1.0]])
    gaps = np.diff(edges)
    totals = np.concatenate([[0.0], np.cumsum(gains)])
    totals[1:][gaps[1:] <= 0] = -np.inf
    # Sums of the same scores in another order differ in their last digits.
    best = np.flatnonzero(totals >= totals.max() - 1e-9)
    if 0 in best:
        return 0.0
    first = best[np.argmax(gaps[best])]
    return float((edges[first] + edges[first + 1]) / 2)


def _name(anatomy: Anatomy, labels: LabelSet) -> str:
    return " + ".join(anatomy.labels[label] for label in labels)
