"""Bounds of the expected DSC below which a pathology is dropped, fitted in a cross-validation."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from jaxseg.anatomy import Anatomy, LabelSet
from jaxseg.evaluation.bootstrap import mean_interval
from jaxseg.inference import case_decision
from jaxseg.inference.case_decision import CaseDecision, Cost
from jaxseg.metrics import dice, summarize
from jaxseg.presence import Inclusions, believed, presence_bound
from jaxseg.studies.held_out import HeldOut


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


def drop_doubtful(
    p: HeldOut, inclusions: Inclusions, bounds: tuple[float, ...]
) -> NDArray[np.uint8]:
    """Return the label map of a case without small and without doubtful pathology."""
    rule = replace(p.rule, min_dice=bounds)
    return believed(p.labels, p.expected_dice, p.spacing, inclusions, rule)


def rule_for_others(
    study: str,
    anatomy: Anatomy,
    mirror: bool,
    found: Sequence[HeldOut],
    final: Sequence[NDArray[np.uint8]],
) -> CaseDecision:
    """Build the rule for other cases, with the effect of the decision on the study's own cases.

    Args:
      study: name of the study.
      anatomy: label set of the study.
      mirror: whether mirror images were averaged.
      found: all cases of the study.
      final: their label maps after the decision, in the same order.
    """
    smallest = zip(*(p.rule.smallest_mm3 for p in found), strict=True)
    return CaseDecision(
        study=study,
        mirror=mirror,
        pairs=case_decision.pair_names(anatomy),
        min_dice=fit_bounds(found, anatomy.inclusions),
        smallest_mm3=tuple(
            min((v for v in own if v is not None), default=None) for own in smallest
        ),
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
