"""Fit the rule on pathology: the factor of its odds, and bounds of its expected DSC."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from jaxseg.anatomy import Anatomy, LabelSet, inner_labels
from jaxseg.evaluation.bootstrap import mean_interval
from jaxseg.inference import case_decision
from jaxseg.inference.case_decision import CaseDecision, Cost
from jaxseg.metrics import dice, summarize
from jaxseg.presence import Inclusions, believed, corrected_labels, presence_bound
from jaxseg.studies.held_out import HeldOut

_MOST = 10.0  # largest factor of the odds of pathology


def fit_odds(found: Sequence[HeldOut]) -> float:
    """Fit the factor of `with_odds` with which the total volume of pathology is the reference's.

    Volumes are of the voxels whose most probable label is any pathology, before any is dropped.
    Only cases whose reference contains some count, since the others are decided by the bounds.

    Returns:
      The factor, between 1/10 and 10; 1 if no case contains pathology, or if `corrected_labels` is
      empty.
    """
    ratios, volumes, total = [], [], 0.0
    for p in found:
        sick, every = inner_labels(p.inclusions), range(p.probabilities.shape[-1])
        voxels = np.isin(p.reference, sick).sum()
        corrected = corrected_labels(p.inclusions)
        if not (voxels and corrected):
            continue
        groups = [[k in corrected for k in every], [k not in sick for k in every]]
        groups.append([k in sick and k not in corrected for k in every])
        ours, theirs, fixed = (p.probabilities[..., g].max(-1, initial=0.0).ravel() for g in groups)
        stays = fixed > theirs  # pathology, whatever the factor
        possible = stays | (ours * _MOST > theirs)
        needed = np.where(stays, 0.0, theirs / np.where(ours > 0, ours, 1.0))
        ratios.append(needed[possible])
        volumes.append(np.full(possible.sum(), np.prod(p.spacing)))
        total += voxels * float(np.prod(p.spacing))
    if not ratios:
        return 1.0
    needed = np.concatenate(ratios)  # a voxel becomes pathology if the factor exceeds this
    order = np.argsort(needed)
    reached = np.searchsorted(np.cumsum(np.concatenate(volumes)[order]), total)
    factor = float(needed[order[reached]]) if reached < len(order) else _MOST
    return min(max(factor, 1 / _MOST), _MOST)


def fit_bounds(found: Sequence[HeldOut], inclusions: Inclusions) -> tuple[float, ...]:
    """Fit the bound of each inclusion pair to these cases."""
    bounds = []
    for k, (inner, _) in enumerate(inclusions):
        rows = []
        for p in found:
            if not np.isin(p.large_only, inner).any():  # nothing to decide
                continue
            score = dice(p.large_only, p.reference, inner, empty=1.0)
            rows.append((p.expected_dice[k], np.isin(p.reference, inner).any(), score))
        expected, holds, score = np.array(rows, np.float64).reshape(-1, 3).T
        bounds.append(presence_bound(expected, holds > 0, score) if rows else 0.0)
    return tuple(bounds)


def drop_doubtful(p: HeldOut, bounds: tuple[float, ...]) -> NDArray[np.uint8]:
    """Return the label map of a case without small and without doubtful pathology."""
    rule = replace(p.rule, min_dice=bounds)
    return believed(p.labels, p.expected_dice, p.spacing, p.inclusions, rule)


def rule_for_others(
    study: str,
    anatomy: Anatomy,
    mirror: bool,
    found: Sequence[HeldOut],
    final: Sequence[NDArray[np.uint8]],
) -> CaseDecision:
    """Build the rule for other cases, with the effect of the decision on the study's own cases.

    The factor of the odds and the bounds are fitted to all cases, the bounds with that factor.

    Args:
      study: name of the study.
      anatomy: label set of the study.
      mirror: whether mirror images were averaged.
      found: all cases of the study.
      final: their label maps after the decision, in the same order.
    """
    odds = fit_odds(found)
    smallest = zip(*(p.rule.smallest_mm3 for p in found), strict=True)
    return CaseDecision(
        study=study,
        mirror=mirror,
        pairs=case_decision.pair_names(anatomy),
        min_dice=fit_bounds([replace(p, odds=odds) for p in found], anatomy.inclusions),
        smallest_mm3=tuple(
            min((v for v in own if v is not None), default=None) for own in smallest
        ),
        odds=odds,
        cost=tuple(
            _cost(" + ".join(anatomy.labels[label] for label in inner), inner, found, final)
            for inner, _ in anatomy.inclusions
        ),
    )


def _cost(
    region: str,
    inner: LabelSet,
    found: Sequence[HeldOut],
    final: Sequence[NDArray[np.uint8]],
) -> Cost:
    maps = [(p.labels, after, p.reference) for p, after in zip(found, final, strict=True)]
    before, after, holds = np.array([[np.isin(m, inner).any() for m in row] for row in maps]).T
    dropped = before & ~after
    dsc = np.array([[dice(m, row[2], inner) for m in row[:2]] for row in maps])[holds]
    low = high = [np.nan]
    if holds.any():
        low, high = mean_interval(dsc[:, 1:] - dsc[:, :1], np.arange(len(dsc)))
    predicted, decided = summarize(dsc).mean
    return Cost(
        region=region,
        holding=int(holds.sum()),
        lost=int((dropped & holds).sum()),
        predicted=float(predicted),
        decided=float(decided),
        difference=float(decided - predicted),
        low=float(low[0]),
        high=float(high[0]),
        false=int((before & ~holds).sum()),
        removed=int((dropped & ~holds).sum()),
    )
