"""Statistics of an ablation: means and intervals over seeds, tests between neighboring stages."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from jaxseg.evaluation.bootstrap import LEVEL, mean_interval
from jaxseg.evaluation.case_scores import MEASURES
from jaxseg.metrics import Summary, slice_dice, summarize
from jaxseg.studies.ablation.scores import RunScores, check_comparable

# Measures of the case-wise tables; over all cases, "dsc" follows the challenge's rule.
CASE_MEASURES = (
    "dsc",
    "volume_difference_mm3",
    "volume_difference_ratio",
    "hausdorff_mm",
    "hd95_mm",
)
# Slices per batch: the paper's batch size.
BATCH = 16
# With five cases the smallest two-sided p is 2 / 2^5 = 0.0625, so no result could be significant.
FEWEST_CASES = 6


class SeedStatistic(NamedTuple):
    """Statistics of a stage's score over its seeds; nan where undefined.

    Attributes:
      mean: mean over seeds of each seed's mean score.
      std: sample standard deviation within a seed, averaged over seeds.
      low: lower bound of the 95 % Student t interval over the seeds' means; nan with one seed.
      high: upper bound of that interval.
      n: number of defined scores per seed, averaged over seeds; a distance, for example, is
        defined only where the region is predicted.
      seeds: number of seeds with a defined score.
    """

    mean: float
    std: float
    low: float
    high: float
    n: float
    seeds: int


class PairedTest(NamedTuple):
    """Paired test of a region between two stages; nan where undefined.

    The differences are case by case, the later stage's score minus the earlier stage's.

    Attributes:
      earlier: earlier stage.
      later: later stage.
      region: slice region.
      better: number of cases in which the later stage scores higher.
      equal: number of cases with no difference.
      worse: number of cases in which the later stage scores lower.
      mean: mean difference.
      low: lower bound of the 95 % bootstrap interval of the mean, over cases.
      high: upper bound of that interval.
      seeds_low: lower bound of the 95 % Student t interval of the mean, over seeds, paired by seed.
      seeds_high: upper bound of that interval.
      median: median difference.
      p: two-sided p value; nan with fewer than FEWEST_CASES cases.
      p_holm: p value corrected over the family of all tests that have one.
    """

    earlier: str
    later: str
    region: str
    better: int
    equal: int
    worse: int
    mean: float
    low: float
    high: float
    seeds_low: float
    seeds_high: float
    median: float
    p: float
    p_holm: float

    @property
    def cases(self) -> int:
        """Number of cases in which the region is present."""
        return self.better + self.equal + self.worse


@dataclass(frozen=True, eq=False)
class Comparison:
    """The statistics of an ablation.

    Attributes:
      stages: names of the stages, in order.
      seeds: seeds of every stage.
      folds: number of pooled folds; 1 if the split has none.
      slice_regions: names of the slice regions.
      case_regions: names of the case regions.
      num_cases: number of validation cases of a seed, over all folds.
      num_slices: number of their scored slices.
      whole_cases: whether all slices of these cases were scored; otherwise the scores in 3D are of
        parts of cases.
      slices: DSC over the slices in which the region is present, by stage and region (Table 1).
      batches: DSC over batches of `BATCH` slices, whose pixels are pooled, by stage and region.
      cases: scores in 3D by set of cases ("all", or "holding" the region), stage, region and
        measure of CASE_MEASURES. Over all cases, two empty regions have a DSC of 1.
      tests: paired tests, ordered by pair of neighboring stages, then by region.
    """

    stages: tuple[str, ...]
    seeds: tuple[int, ...]
    folds: int
    slice_regions: tuple[str, ...]
    case_regions: tuple[str, ...]
    num_cases: int
    num_slices: int
    whole_cases: bool
    slices: dict[str, dict[str, SeedStatistic]]
    batches: dict[str, dict[str, SeedStatistic]]
    cases: dict[str, dict[str, dict[str, dict[str, SeedStatistic]]]]
    tests: tuple[PairedTest, ...]


def compare(runs: Sequence[RunScores]) -> Comparison:
    """Compute the statistics of an ablation, with stages in the order of their first runs.

    Args:
      runs: as in `jaxseg.studies.ablation.scores.check_comparable`.

    Raises:
      ValueError: as in `check_comparable`.
    """
    check_comparable(runs)
    first = runs[0]
    stages = tuple(dict.fromkeys(run.stage for run in runs))
    one_seed = [run for run in runs if (run.stage, run.seed) == (first.stage, first.seed)]
    return Comparison(
        stages=stages,
        seeds=tuple(sorted({run.seed for run in runs})),
        folds=len(one_seed),
        slice_regions=first.slice_regions,
        case_regions=first.case_regions,
        num_cases=len({name for run in one_seed for name in run.case_names}),
        num_slices=sum(len(run.slice_cases) for run in one_seed),
        whole_cases=all(run.whole.all() for run in one_seed),
        slices={stage: _slice_statistics(_seeds(runs, stage)) for stage in stages},
        batches={stage: _batch_statistics(_seeds(runs, stage)) for stage in stages},
        cases={
            group: {stage: _case_statistics(_seeds(runs, stage), group) for stage in stages}
            for group in ("all", "holding")
        },
        tests=paired_tests(runs),
    )


def paired_tests(runs: Sequence[RunScores]) -> tuple[PairedTest, ...]:
    """Test every slice region between neighboring stages with signed-rank tests.

    The unit is the case: slices of one patient are correlated, and treating them as independent
    pairs would make p too small. A case's score is its mean DSC over the slices in which the region
    is present, averaged over seeds. So p generalizes to other patients, but not to other seeds. A
    stage with a lucky seed gains a little in every patient, which makes p small; the interval over
    seeds reveals this.

    Args:
      runs: comparable runs.

    Returns:
      Tests by pair of stages, then by region, with p values corrected over all of them.
    """
    stages = tuple(dict.fromkeys(run.stage for run in runs))
    scores = {
        stage: np.stack([_mean_by_case(seed) for seed in _seeds(runs, stage)]) for stage in stages
    }
    tests = [
        _paired_test(earlier, later, region, scores[later][..., k] - scores[earlier][..., k])
        for earlier, later in pairwise(stages)
        for k, region in enumerate(runs[0].slice_regions)
    ]
    corrected = holm([test.p for test in tests])
    return tuple(test._replace(p_holm=float(p)) for test, p in zip(tests, corrected, strict=True))


def signed_rank_p(differences: ArrayLike) -> float:
    """Compute the two-sided p value of Wilcoxon's signed-rank test, exact with zeros and ties.

    The null distribution is over all signs of the nonzero differences. A stage that finds no
    no-reflow leaves zeros in most cases, and the normal approximation is then too optimistic: for
    3 gains in 20 cases it yields 0.08, although the smallest possible p is 2 / 2^3 = 0.25. Zeros
    are ranked before their ranks are dropped (J. W. Pratt, JASA 54, 1959). If they were dropped
    first, small differences would receive the lowest ranks regardless of the zeros.

    Args:
      differences: (n,), without nan.
    """
    # Rounding makes values equal that differ by numerical noise, which would break ties.
    differences = np.round(np.asarray(differences, np.float64), 9)
    # Doubling makes the shared ranks of ties integers.
    ranks = np.rint(2 * stats.rankdata(np.abs(differences))).astype(int)
    chance = np.ones(1)  # probability of each sum of the ranks of gains
    for rank in ranks[differences != 0]:
        longer = np.pad(chance, (0, rank)) / 2
        longer[rank:] += chance / 2
        chance = longer
    gains = ranks[differences > 0].sum()
    return float(min(1.0, 2 * min(chance[: gains + 1].sum(), chance[gains:].sum())))


def holm(p: ArrayLike) -> NDArray[np.float64]:
    """Correct p values for multiple testing (S. Holm, Scand. J. Statist. 6, 1979).

    Args:
      p: (n,); nan marks a test that was not made and is not counted.

    Returns:
      (n,) corrected values. A test is significant at the family-wise level a where its value is
      below a.
    """
    p = np.asarray(p, np.float64)
    order = np.argsort(p)[: np.count_nonzero(~np.isnan(p))]  # nan sorts last
    factors = np.arange(len(order), 0, -1)
    corrected = np.full(p.shape, np.nan)
    corrected[order] = np.minimum(np.maximum.accumulate(factors * p[order]), 1.0)
    return corrected


def _seeds(runs: Sequence[RunScores], stage: str) -> list[list[RunScores]]:
    """Return the runs of a stage, one list per seed, ordered by seed."""
    seeds = sorted({run.seed for run in runs})
    return [[run for run in runs if (run.stage, run.seed) == (stage, seed)] for seed in seeds]


def _slice_statistics(seeds: list[list[RunScores]]) -> dict[str, SeedStatistic]:
    summaries = [summarize(np.concatenate([run.slice_dsc for run in runs])) for runs in seeds]
    return dict(zip(seeds[0][0].slice_regions, _over_seeds(summaries), strict=True))


def _batch_statistics(seeds: list[list[RunScores]]) -> dict[str, SeedStatistic]:
    """Summarize batches of consecutive slices within each run; the last batch may be smaller.

    A batch whose reference lacks the region is left out, like a slice.
    """
    summaries = []
    for runs in seeds:
        counts = [run.slice_counts for run in runs]
        pooled = [c[k : k + BATCH].sum(0) for c in counts for k in range(0, len(c), BATCH)]
        summaries.append(summarize(slice_dice(*np.moveaxis(np.stack(pooled), -1, 0))))
    return dict(zip(seeds[0][0].slice_regions, _over_seeds(summaries), strict=True))


def _case_statistics(
    seeds: list[list[RunScores]], group: str
) -> dict[str, dict[str, SeedStatistic]]:
    """Summarize the case-wise scores by region and measure."""
    dsc = "dsc_challenge" if group == "all" else "dsc"
    columns = [MEASURES.index(dsc if name == "dsc" else name) for name in CASE_MEASURES]
    summaries = []
    for runs in seeds:
        scores = np.concatenate([run.cases for run in runs])
        holds = scores[..., MEASURES.index("reference_mm3")] > 0
        counted = holds if group == "holding" else np.ones_like(holds)
        values = np.where(counted[..., None], scores[..., columns], np.nan)
        summaries.append(summarize(values.reshape(len(scores), -1)))
    found = iter(_over_seeds(summaries))
    regions = seeds[0][0].case_regions
    return {region: {name: next(found) for name in CASE_MEASURES} for region in regions}


def _over_seeds(summaries: list[Summary]) -> list[SeedStatistic]:
    """Combine the seeds' summaries into one statistic per column."""
    means = summarize(np.stack([summary.mean for summary in summaries]))
    std = summarize(np.stack([summary.std for summary in summaries])).mean
    n = np.mean([summary.n for summary in summaries], axis=0)
    low, high = _t_interval(means)
    columns = (means.mean, std, low, high, n, means.n)
    return [
        SeedStatistic(*map(float, values), seeds=int(seeds))
        for *values, seeds in zip(*columns, strict=True)
    ]


def _t_interval(summary: Summary) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Compute Student's t interval of the means; nan with fewer than two scores."""
    quantile = stats.t.ppf((1 + LEVEL) / 2, np.maximum(summary.n - 1, 1))
    half = quantile * summary.std / np.sqrt(np.maximum(summary.n, 1))
    return summary.mean - half, summary.mean + half


def _mean_by_case(runs: Sequence[RunScores]) -> NDArray[np.float64]:
    """Average the DSC of each case over slices: (cases, R); nan if the region is in none."""
    names = [name for run in runs for name in run.slice_cases]
    scores = np.concatenate([run.slice_dsc for run in runs])
    cases, rows = np.unique(names, return_inverse=True)
    return np.stack([summarize(scores[rows == case]).mean for case in range(len(cases))])


def _paired_test(
    earlier: str, later: str, region: str, differences: NDArray[np.float64]
) -> PairedTest:
    """Test the differences (seeds, cases), without the correction."""
    # All seeds score the same slices, so a case is nan in all seeds or in none.
    differences = differences[:, ~np.isnan(differences[0])]
    by_case = differences.mean(axis=0)
    low = high = mean = median = math.nan
    seeds_low = seeds_high = np.full(1, math.nan)
    if len(by_case):
        mean, median = float(by_case.mean()), float(np.median(by_case))
        low, high = (float(b[0]) for b in mean_interval(by_case[:, None], np.arange(len(by_case))))
        seeds_low, seeds_high = _t_interval(summarize(differences.mean(axis=1)[:, None]))
    signs = np.sign(np.round(by_case, 9))  # the rounding of `signed_rank_p`
    return PairedTest(
        earlier=earlier,
        later=later,
        region=region,
        better=int((signs > 0).sum()),
        equal=int((signs == 0).sum()),
        worse=int((signs < 0).sum()),
        mean=mean,
        low=low,
        high=high,
        seeds_low=float(seeds_low[0]),
        seeds_high=float(seeds_high[0]),
        median=median,
        p=signed_rank_p(by_case) if len(by_case) >= FEWEST_CASES else math.nan,
        p_holm=math.nan,
    )
