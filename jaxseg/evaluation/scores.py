"""Statistics of an evaluation: means, standard deviations and intervals over cases."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from jaxseg.anatomy import Anatomy, pair_name
from jaxseg.evaluation.bootstrap import mean_interval, ratio_interval
from jaxseg.evaluation.case_scores import MEASURES, SIDES, CaseScores
from jaxseg.metrics import dice_from_counts, summarize


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Scores of a run and what they stand on.

    Attributes:
      name: of the stage.
      checkpoint: which, in words.
      mirror: whether mirror images were averaged.
      anatomy: whose regions and inclusion pairs were scored.
      notes: sentences on where the cases come from.
      cases: at least one.
      centers: voxel (row, column) of a case's own grid at which its heart was found, by name.
      left_out: why others are not scored, by name.
      made_with: a sentence on versions and devices.
    """

    name: str
    checkpoint: str
    mirror: bool
    anatomy: Anatomy
    notes: tuple[str, ...]
    cases: tuple[CaseScores, ...]
    centers: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)
    made_with: str = ""


class Statistic(NamedTuple):
    """Of a number of scores: mean, sample standard deviation, 95 % interval of the mean."""

    mean: float
    std: float
    low: float
    high: float
    n: int


def slice_statistics(evaluation: Evaluation) -> dict[str, Statistic]:
    """DSC over the slices that hold each region, by region; the paper's Table 1."""
    scores = np.concatenate([case.slice_dsc for case in evaluation.cases])
    counts = [len(case.slices) for case in evaluation.cases]
    statistics = _statistics(scores, np.repeat(np.arange(len(counts)), counts))
    names = [name for name, _ in evaluation.anatomy.slice_regions]
    return dict(zip(names, statistics, strict=True))


class Pooled(NamedTuple):
    """DSC over all pixels at once, and its 95 % interval."""

    dsc: float
    low: float
    high: float


def pooled_statistics(evaluation: Evaluation) -> dict[str, Pooled]:
    """DSC of all scored slices taken as one, by region of the paper's Table 1.

    2 |P and R| / (|P| + |R|) with sums over all slices, also over those whose reference lacks the
    region, where what is predicted counts as wrong. Large regions weigh more than in a mean over
    slices, and its spread is smaller. The interval is over cases.
    """
    counts = np.stack([case.slice_counts.sum(0) for case in evaluation.cases])
    overlap, sizes = 2 * counts[..., 0], counts[..., 1] + counts[..., 2]
    low, high = ratio_interval(overlap, sizes)
    dsc = dice_from_counts(*np.moveaxis(counts.sum(0), -1, 0))
    return {
        name: Pooled(float(dsc[k]), float(low[k]), float(high[k]))
        for k, (name, _) in enumerate(evaluation.anatomy.slice_regions)
    }


def case_statistics(evaluation: Evaluation) -> dict[str, dict[str, dict[str, Statistic]]]:
    """Case-wise scores by set of cases, region and measure.

    "all" are all cases by the challenge's rule: two empty regions score a DSC of 1. "holding" are
    the cases whose reference holds the region.
    """
    scores = np.stack([case.regions for case in evaluation.cases])
    numbers = np.arange(len(scores))
    holds = scores[..., MEASURES.index("reference_mm3")] > 0
    found: dict[str, dict[str, dict[str, Statistic]]] = {"all": {}, "holding": {}}
    for k, (region, _) in enumerate(evaluation.anatomy.case_regions):
        for group in found:
            values = scores[:, k] if group == "all" else scores[:, k].copy()
            if group == "holding":
                values[~holds[:, k]] = np.nan
            by_measure = dict(zip(MEASURES, _statistics(values, numbers), strict=True))
            challenge = by_measure.pop("dsc_challenge")
            if group == "all":
                by_measure["dsc"] = challenge
            found[group][region] = by_measure
    return found


def inclusion_statistics(evaluation: Evaluation) -> list[dict[str, Any]]:
    """Violations of the prior over all cases: one entry a pair and side, areas as shares of inner.

    Shares are of areas summed over cases, with the 95 % interval over cases.
    """
    areas = np.stack([case.inclusion for case in evaluation.cases])
    entries = []
    for p, pair in enumerate(evaluation.anatomy.inclusions):
        for s, side in enumerate(SIDES):
            inner, others = areas[:, s, p, :1], areas[:, s, p, 1:]
            low, high = ratio_interval(others, np.broadcast_to(inner, others.shape))
            total = float(inner.sum())
            entry: dict[str, Any] = {"pair": pair_name(evaluation.anatomy, pair), "of": side}
            entry["inner_mm2"] = total
            for k, name in enumerate(("detached_share", "gap_share")):
                share = float(others[:, k].sum()) / total if total else math.nan
                entry[name] = {"share": share, "low": float(low[k]), "high": float(high[k])}
            entries.append(entry)
    return entries


def _statistics(scores: NDArray[np.float64], cases: NDArray[np.integer]) -> list[Statistic]:
    summary = summarize(scores)
    low, high = mean_interval(scores, cases)
    columns = zip(summary.mean, summary.std, low, high, summary.n, strict=True)
    return [
        Statistic(float(mean), float(std), float(lower), float(upper), int(n))
        for mean, std, lower, upper, n in columns
    ]
