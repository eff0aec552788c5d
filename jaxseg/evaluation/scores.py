"""Statistics of an evaluation: means, standard deviations and bootstrap intervals over cases."""

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
    """The scores of a run and where they come from.

    Attributes:
      name: name of the stage.
      checkpoint: description of the checkpoint.
      mirror: whether mirror images were averaged.
      anatomy: defines the regions and inclusion pairs that were scored.
      notes: sentences on the origin of the cases.
      cases: scores of each case; at least one case.
      centers: voxel (row, column) of the heart on the native grid, by case name.
      left_out: reason why a case is not scored, by case name.
      made_with: sentence on versions and devices.
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
    """Mean, sample standard deviation, 95 % interval of the mean and number of a set of scores."""

    mean: float
    std: float
    low: float
    high: float
    n: int


def slice_statistics(evaluation: Evaluation) -> dict[str, Statistic]:
    """Summarize the DSC over the slices in which each region is present (the paper's Table 1)."""
    scores = np.concatenate([case.slice_dsc for case in evaluation.cases])
    counts = [len(case.slices) for case in evaluation.cases]
    statistics = _statistics(scores, np.repeat(np.arange(len(counts)), counts))
    names = [name for name, _ in evaluation.anatomy.slice_regions]
    return dict(zip(names, statistics, strict=True))


class Pooled(NamedTuple):
    """DSC pooled over all pixels, with its 95 % interval."""

    dsc: float
    low: float
    high: float


def pooled_statistics(evaluation: Evaluation) -> dict[str, Pooled]:
    """Compute the DSC of all scored slices pooled, by region of the paper's Table 1.

    The pooled DSC is 2 |P and R| / (|P| + |R|), with sums over all slices. Slices whose reference
    lacks the region are included, so predictions in them count as errors. Large regions weigh more
    than in a mean over slices. The interval is over cases.
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
    """Summarize case-wise scores by set of cases, region and measure.

    The set "all" is every case, scored by the challenge's rule: two empty regions have a DSC of 1.
    The set "holding" is the cases in whose reference the region is present.
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
    """Summarize violations of the inclusion prior, one entry per pair and side.

    Areas are summed over all cases and given as shares of the inner region's area, with the 95 %
    interval over cases.
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
