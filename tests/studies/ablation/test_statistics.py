"""Statistics of an ablation by hand, by enumeration, by scipy and by published examples."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from jaxseg.evaluation.bootstrap import mean_interval
from jaxseg.evaluation.case_scores import MEASURES
from jaxseg.studies.ablation.scores import RunScores
from jaxseg.studies.ablation.statistics import compare, holm, paired_tests, signed_rank_p

NAN = math.nan
T1, T2 = 12.7062047, 4.3026527  # 97.5 % quantiles of Student's t, from a table


def case_row(dsc, reference, *, hausdorff=NAN):
    row = dict.fromkeys(MEASURES, 0.0)
    challenge = 1.0 if math.isnan(dsc) else dsc
    row |= {"dsc": dsc, "dsc_challenge": challenge, "reference_mm3": reference}
    row |= {"hausdorff_mm": hausdorff, "hd95_mm": NAN, "volume_difference_ratio": NAN}
    return [row[name] for name in MEASURES]


def run(stage, seed, by_case, *, fold=None, cases=None, whole=True, counts=None):
    """From the slices' DSC by case, each a number or one for each region, as the cases' scores."""
    dsc = [np.array(rows, float).reshape(len(rows), -1) for rows in by_case.values()]
    rows = cases or [[case_row(0.5, 10.0)]] * len(by_case)
    return RunScores(
        stage=stage, seed=seed, fold=fold, case_regions=("AB",),
        slice_regions=("A", "B")[: dsc[0].shape[1]],
        slice_cases=tuple(name for name, rows in by_case.items() for _ in rows),
        slice_numbers=np.concatenate([np.arange(len(rows)) for rows in dsc]),
        slice_dsc=np.concatenate(dsc),
        slice_counts=np.ones((*np.concatenate(dsc).shape, 3), int) if counts is None else counts,
        case_names=tuple(by_case),
        whole=np.full(len(by_case), whole), cases=np.array(rows, float),
    )  # fmt: skip


def test_two_seeds_by_hand():
    """Means 0.5 and 0.7: 0.6 +- t * 0.1; standard deviations 0.1 and 0.3."""
    runs = [run("s", 0, {"P1": [0.4, 0.5, 0.6]}), run("s", 1, {"P1": [0.4, 0.7, 1.0]})]
    found = compare(runs).slices["s"]["A"]
    assert found.mean == pytest.approx(0.6)
    assert found.std == pytest.approx(0.2)
    assert (found.low, found.high) == pytest.approx((0.6 - 0.1 * T1, 0.6 + 0.1 * T1))
    assert (found.n, found.seeds) == (3, 2)


def test_three_seeds_by_hand():
    """Means 0.1, 0.2, 0.3: standard deviation 0.1, standard error 0.1 / sqrt(3)."""
    runs = [run("s", seed, {"P1": [0.1 + 0.1 * seed]}) for seed in range(3)]
    found = compare(runs).slices["s"]["A"]
    single = compare(runs[:1])
    assert single.tests == ()  # one stage has no pairs
    assert (single.slices["s"]["A"].mean, single.slices["s"]["A"].seeds) == (pytest.approx(0.1), 1)
    assert math.isnan(single.slices["s"]["A"].low)  # one seed has no interval
    half = T2 * 0.1 / math.sqrt(3)
    assert (found.mean, found.low, found.high) == pytest.approx((0.2, 0.2 - half, 0.2 + half))
    assert math.isnan(found.std)  # one slice has no spread


def test_batches_of_16_slices_by_hand():
    """19 slices of a run: 16 of them pooled, then 3; and a run whose reference lacks the region."""
    counts = np.zeros((19, 1, 3), int)
    counts[:, 0] = [1, 2, 2]  # a DSC of 0.5 each
    counts[0, 0] = [40, 40, 50]
    counts[18, 0] = [0, 6, 0]
    runs = [
        run("s", 0, {"P1": [0.5] * 19}, fold=0, counts=counts),
        run("s", 0, {"P2": [NAN]}, fold=1, counts=np.array([[[0, 5, 0]]])),
    ]
    found = compare(runs).batches["s"]["A"]
    batches = [2 * 55 / (70 + 80), 2 * 2 / (10 + 4)]
    assert (found.mean, found.std) == pytest.approx((np.mean(batches), np.std(batches, ddof=1)))
    assert (found.n, found.seeds) == (2, 1)


def test_folds_are_pooled_slice_by_slice():
    """(0.2 + 0.4 + 0.9) / 3, not the mean 0.6 of the folds' means."""
    runs = [run("s", 0, {"P1": [0.2, 0.4]}, fold=0), run("s", 0, {"P2": [0.9]}, fold=1)]
    found = compare(runs)
    assert found.slices["s"]["A"].mean == pytest.approx(0.5)
    assert found.slices["s"]["A"].std == pytest.approx(np.std([0.2, 0.4, 0.9], ddof=1))
    assert (found.folds, found.num_cases, found.num_slices, found.seeds) == (2, 2, 3, (0,))


def test_slices_without_the_region_are_ignored():
    runs = [run("s", seed, {"P1": [[0.2, NAN], [0.4, NAN]], "P2": [[NAN, NAN]]}) for seed in (0, 1)]
    found = compare(runs).slices["s"]
    assert (found["A"].mean, found["A"].n) == (pytest.approx(0.3), 2)
    assert (found["B"].n, found["B"].seeds) == (0, 0)
    assert all(math.isnan(value) for value in found["B"][:4])


def test_description_of_the_comparison():
    """Stages keep their order, seeds are sorted; a case in part makes scores in 3D partial."""
    runs = [
        run(stage, seed, {"P1": [0.5], "P2": [0.5]}, whole=stage == "")
        for stage, seed in itertools.product(("late", "early"), (7, 3))
    ]
    found = compare(runs)
    assert (found.stages, found.seeds, found.folds) == (("late", "early"), (3, 7), 1)
    assert (found.slice_regions, found.case_regions) == (("A",), ("AB",))
    assert not found.whole_cases
    assert compare([run("s", 0, {"P1": [0.5]})]).whole_cases
    with pytest.raises(ValueError, match="different slices"):
        compare([runs[0], run("early", 7, {"P1": [0.5]})])


def test_all_cases_and_cases_that_hold_the_region():
    """P1 is empty in both maps, P2 held; seed 1 misses it, so that it has no distance there."""
    names = {"P1": [0.5], "P2": [0.5]}
    empty = [case_row(NAN, 0.0)]
    runs = [
        run("s", 0, names, cases=[empty, [case_row(0.6, 90.0, hausdorff=8.0)]]),
        run("s", 1, names, cases=[empty, [case_row(0.0, 90.0)]]),
    ]
    found = compare(runs).cases
    everyone, holding = (found[group]["s"]["AB"] for group in ("all", "holding"))
    assert everyone["dsc"].mean == pytest.approx((0.8 + 0.5) / 2)
    assert everyone["dsc"].n == 2
    assert holding["dsc"].mean == pytest.approx(0.3)
    assert holding["dsc"].n == 1
    assert (holding["dsc"].low, holding["dsc"].high) == pytest.approx(
        (0.3 - 0.3 * T1, 0.3 + 0.3 * T1)
    )
    distance = everyone["hausdorff_mm"]
    assert (distance.mean, distance.n, distance.seeds) == (8.0, 0.5, 1)
    assert math.isnan(distance.low)
    assert everyone["volume_difference_ratio"].seeds == 0


GAINS = (0.01, 0.02, 0.03, 0.04, 0.05, 0.06)
DARWIN = [49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48]


def test_signed_rank_test_on_darwin_s_maize():
    """Fisher, The Design of Experiments, 1935: rank sums 24 and 96; exact p 0.041."""
    assert signed_rank_p(DARWIN) == 0.041259765625
    assert signed_rank_p(np.negative(DARWIN)) == 0.041259765625


@pytest.mark.parametrize("n", [1, 6, 20, 50])
def test_signed_rank_test_agrees_with_scipy(n):
    differences = np.random.default_rng(n).normal(0.4, 1, n)
    expected = stats.wilcoxon(differences, method="exact").pvalue
    assert signed_rank_p(differences) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("seed", range(8))
def test_zeros_and_ties_agree_with_enumeration(seed):
    differences = np.random.default_rng(seed).integers(-3, 5, 11)
    ranks = stats.rankdata(np.abs(differences))
    used = ranks[differences != 0]
    gains = used[differences[differences != 0] > 0].sum()
    sums = [sum(used[list(s)]) for s in itertools.product([False, True], repeat=len(used))]
    tails = np.mean(np.array(sums) >= gains), np.mean(np.array(sums) <= gains)
    expected = min(1, 2 * min(tails))
    assert signed_rank_p(differences) == pytest.approx(expected, rel=1e-9)
    scipy_s = stats.wilcoxon(differences, zero_method="pratt", method="auto").pvalue
    assert signed_rank_p(differences) == pytest.approx(scipy_s, rel=1e-9)


def test_many_differences_follow_the_normal_approximation():
    differences = np.round(np.random.default_rng(3).normal(0.1, 1, 300), 1)
    expected = stats.wilcoxon(differences, zero_method="pratt", method="asymptotic").pvalue
    assert signed_rank_p(differences) == pytest.approx(expected, rel=0.02)


def test_few_gains_among_zeros_have_a_large_p():
    """The least p of three signs is 2 / 2^3; the normal approximation says 0.08."""
    differences = np.array([0.1, 0.2, 0.3] + [0.0] * 17)
    assert signed_rank_p(differences) == 0.25
    assert stats.wilcoxon(differences, zero_method="pratt", method="asymptotic").pvalue < 0.09


def test_zeros_only_and_noise_only():
    assert signed_rank_p(np.zeros(9)) == 1
    assert signed_rank_p([0.3 - 0.2 - 0.1, 0.1 + 0.2 - 0.3]) == 1


def test_rounding_makes_no_loss_and_breaks_no_tie():
    """Six gains stay 2 / 2^6 beside noise; 0.3 - 0.2 = 0.09999... ties with 0.1."""
    assert signed_rank_p([*GAINS, 0.3 - 0.2 - 0.1, 0.2 + 0.1 - 0.3 - 1e-16]) == 0.03125
    near = [0.3 - 0.2, -0.1, 0.1, 0.2, 0.2]
    assert near[0] != 0.1
    assert signed_rank_p(near) == signed_rank_p([1, -1, 1, 2, 2])


def test_holm_by_hand():
    """Sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1; 0.04 may not fall below 0.06."""
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm([0.01, 0.02, 0.03, 0.04, 0.05]), [0.05, 0.08, 0.09, 0.09, 0.09])
    assert holm([0.6, 0.7]).tolist() == [1, 1]
    assert holm([]).shape == (0,)


def test_holm_on_a_published_example():
    """Benjamini and Hochberg, JRSS B 57, 1995, section 4: three of 15 stay significant."""
    p = [
        0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.3240, 0.4262,
        0.5719, 0.6528, 0.7590, 1.0,
    ]  # fmt: skip
    found = holm(p)
    np.testing.assert_allclose(found[:4], [0.0015, 0.0056, 0.0247, 0.1140])
    assert np.count_nonzero(found < 0.05) == 3


def test_missing_tests_do_not_count():
    found = holm([NAN, 0.02, NAN, 0.01])
    assert np.isnan(found[[0, 2]]).all()
    np.testing.assert_allclose(found[[1, 3]], [0.02, 0.02])


def cohort(gains, *, base=0.5):
    """One slice a case."""
    return {f"P{k}": [base + gain] for k, gain in enumerate(gains)}


def test_a_pair_of_stages_by_hand():
    """Six gains in six cases: p = 2 / 2^6. Seeds gain 0.035 +- 0.01: +- T1 * 0.01."""
    runs = [run("old", seed, cohort([0.0] * 6)) for seed in (0, 1)]
    runs += [run("new", seed, cohort(np.add(GAINS, d))) for seed, d in enumerate((0.01, -0.01))]
    (found,) = paired_tests(runs)
    assert (found.earlier, found.later, found.region) == ("old", "new", "A")
    assert (found.better, found.equal, found.worse, found.cases) == (6, 0, 0, 6)
    assert (found.mean, found.median) == pytest.approx((0.035, 0.035))
    low, high = mean_interval(np.array(GAINS)[:, None], np.arange(6))
    assert (found.low, found.high) == pytest.approx((low[0], high[0]))
    expected = (0.035 - 0.01 * T1, 0.035 + 0.01 * T1)
    assert (found.seeds_low, found.seeds_high) == pytest.approx(expected)
    assert (found.p, found.p_holm) == (0.03125, 0.03125)


def test_the_unit_is_the_patient():
    """Ten equal slices of a patient weigh no more than one, wherever folds put the patients."""
    old = run("old", 0, {f"P{k}": [0.5] * 10 for k in range(6)})
    (many,) = paired_tests([old, run("new", 0, {n: r * 10 for n, r in cohort(GAINS).items()})])
    (one,) = paired_tests([run("old", 0, cohort([0.0] * 6)), run("new", 0, cohort(GAINS))])
    assert many == pytest.approx(one, nan_ok=True)

    def folds(stage, gains):
        names = list(cohort(gains).items())
        return [run(stage, 0, dict(names[k::2]), fold=k) for k in (1, 0)]

    (folded,) = paired_tests([*folds("old", [0.0] * 6), *folds("new", GAINS)])
    assert folded == pytest.approx(one, nan_ok=True)
    assert (one.p, one.mean) == (0.03125, pytest.approx(0.035))
    assert math.isnan(one.seeds_low)  # one seed


def test_cases_are_paired_by_name():
    """Each case keeps its score, so that the order of the cases does not matter."""
    forward, backward = cohort(GAINS), dict(reversed(cohort(GAINS).items()))
    (found,) = paired_tests([run("old", 0, forward), run("new", 0, backward)])
    assert (found.equal, found.mean, found.p) == (6, 0, 1)


def test_regions_of_few_patients_are_not_tested():
    """B is held by five patients; of three stages, A has two tests."""
    stages = {"one": 0.0, "two": 0.1, "three": 0.1}
    runs = [
        run(stage, 0, {f"P{k}": [[0.5 + s, 0.5 + s if k else NAN]] for k in range(6)})
        for stage, s in stages.items()
    ]
    found = paired_tests(runs)
    assert [(t.earlier, t.later, t.region) for t in found] == [
        ("one", "two", "A"), ("one", "two", "B"), ("two", "three", "A"), ("two", "three", "B"),
    ]  # fmt: skip
    assert (found[0].p, found[0].p_holm) == (0.03125, 0.0625)
    assert (found[1].cases, found[1].mean) == (5, pytest.approx(0.1))
    assert all(math.isnan(p) for p in (found[1].p, found[1].p_holm, found[3].p))
    assert (found[2].equal, found[2].p, found[2].p_holm) == (6, 1, 1)


def test_a_region_without_slices():
    by_case = {f"P{k}": [[0.5, NAN]] for k in range(6)}
    found = compare([run("old", 0, by_case), run("new", 0, by_case)]).tests[1]
    assert (found.region, found.cases) == ("B", 0)
    assert all(math.isnan(v) for v in (found.mean, found.low, found.median, found.p))
