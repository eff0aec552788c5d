"""Statistics and files of an evaluation, from scores made by hand."""

import csv
import io
import json
import math

import numpy as np
import pytest

from jaxseg.anatomy import EMIDEC, pair_name
from jaxseg.evaluation import score_files as report
from jaxseg.evaluation.bootstrap import mean_interval
from jaxseg.evaluation.case_scores import MEASURES, CaseScores
from jaxseg.evaluation.scores import (
    Evaluation,
    case_statistics,
    inclusion_statistics,
    pooled_statistics,
    slice_statistics,
)

NAN = math.nan
PAIRS = [
    "no-reflow in no-reflow + infarct",
    "no-reflow + infarct in no-reflow + infarct + myocardium",
]


def measures(dsc, challenge, difference, ratio, hausdorff, hd95, reference, prediction):
    surface = dsc  # any number of the same cases will do
    return [dsc, challenge, difference, ratio, hausdorff, hd95, surface, reference, prediction]


EMPTY = measures(NAN, 1.0, 0.0, 0.0, NAN, NAN, 0.0, 0.0)
FALSE = measures(0.0, 0.0, 50.0, 0.1, NAN, NAN, 0.0, 50.0)  # predicted, but not there


# Pixels of LV, Myo, Inf and NoR: of the intersection, the prediction, the reference.
COUNTS = {
    "N1": [[80, 100, 90], [50, 70, 60], [0, 0, 0], [0, 0, 0]],
    "P1": [[10, 20, 30], [10, 30, 20], [5, 6, 10], [0, 4, 0]],
    "P2": [[10, 30, 20], [0, 0, 20], [5, 20, 4], [0, 0, 0]],
}


def case(name, slice_dsc, regions, inclusion, num_slices=2):
    counts = np.zeros((len(slice_dsc), 4, 3), int)
    counts[0] += COUNTS[name]
    return CaseScores(
        name, num_slices, np.arange(len(slice_dsc)), np.array(slice_dsc, float),
        np.array(regions, float), np.array(inclusion, float), counts,
    )  # fmt: skip


def wall(dsc, hausdorff):
    return measures(dsc, dsc, 100.0, NAN, hausdorff, hausdorff / 2, 1000.0, 900.0)


@pytest.fixture(scope="module")
def evaluation():
    scar = measures(0.5, 0.5, 30.0, 0.03, 8.0, 4.0, 100.0, 70.0)
    cases = (
        case("N1", [[0.9, 0.8, NAN, NAN], [0.7, 0.6, NAN, NAN]], [wall(0.9, 6.0), EMPTY, EMPTY],
             [[[0, 0, 0], [0, 0, 0]], [[0, 0, 0], [0, 0, 0]]]),
        case("P1", [[0.5, 0.4, 0.3, NAN]], [wall(0.7, 10.0), scar, FALSE],
             [[[0, 0, 0], [40, 0, 2]], [[5, 5, 0], [30, 6, 3]]], num_slices=3),
        case("P2", [[0.1, NAN, 0.5, 0.2]], [wall(0.8, 8.0), scar, scar],
             [[[10, 0, 0], [60, 0, 0]], [[15, 0, 2], [70, 0, 2]]]),
    )  # fmt: skip
    return Evaluation("awce", "best, step 5", True, EMIDEC, ("Where from.", "How fair."), cases)


def test_slice_scores_are_averaged_and_resampled_by_case(evaluation):
    found = slice_statistics(evaluation)
    assert list(found) == ["LV", "Myo", "Inf", "NoR"]
    assert (found["LV"].mean, found["LV"].n) == (pytest.approx(0.55), 4)
    assert found["LV"].std == pytest.approx(np.std([0.9, 0.7, 0.5, 0.1], ddof=1))
    low, high = mean_interval([[0.9], [0.7], [0.5], [0.1]], [0, 0, 1, 2])
    assert (found["LV"].low, found["LV"].high) == (low[0], high[0])
    assert (found["Inf"].mean, found["Inf"].n) == (pytest.approx(0.4), 2)
    assert (found["NoR"].mean, found["NoR"].n) == (0.2, 1)
    assert math.isnan(found["NoR"].std)
    assert math.isnan(found["NoR"].low)


def test_pooled_scores_are_computed_from_summed_pixels(evaluation):
    """Two cases hold an infarct; no-reflow is predicted in one, and there in none."""
    found = pooled_statistics(evaluation)
    assert found["LV"].dsc == pytest.approx(2 * 100 / (150 + 140))
    assert found["Myo"].dsc == pytest.approx(2 * 60 / (100 + 100))
    assert found["Inf"].dsc == pytest.approx(2 * 10 / (26 + 14))
    assert found["NoR"].dsc == 0
    # Drawn by case: the extremes are one case drawn thrice.
    assert 2 * 10 / 50 <= found["LV"].low < found["LV"].dsc < found["LV"].high <= 2 * 80 / 190
    assert math.isnan(found["NoR"].low)


def test_all_cases_follow_the_challenge_s_rule(evaluation):
    found = case_statistics(evaluation)["all"]
    assert list(found) == ["Myocardium", "Infarction", "NoReflow"]
    assert found["Infarction"]["dsc"].mean == pytest.approx((1 + 0.5 + 0.5) / 3)
    assert found["NoReflow"]["dsc"].mean == pytest.approx((1 + 0 + 0.5) / 3)
    assert found["NoReflow"]["dsc"].n == 3
    assert found["NoReflow"]["volume_difference_mm3"].mean == pytest.approx(80 / 3)
    assert found["NoReflow"]["volume_difference_ratio"].mean == pytest.approx(0.13 / 3)
    assert found["NoReflow"]["hausdorff_mm"].n == 1
    assert found["Myocardium"]["hausdorff_mm"].mean == 8
    assert found["Myocardium"]["volume_difference_ratio"].n == 0


def test_scores_of_cases_that_hold_the_label(evaluation):
    """The false no-reflow of P1 counts above, not here."""
    found = case_statistics(evaluation)["holding"]
    assert (found["NoReflow"]["dsc"].mean, found["NoReflow"]["dsc"].n) == (0.5, 1)
    assert (found["Infarction"]["dsc"].mean, found["Infarction"]["dsc"].n) == (0.5, 2)
    assert found["NoReflow"]["volume_difference_mm3"].mean == 30
    assert found["Myocardium"]["dsc"].n == 3
    assert "dsc_challenge" not in found["NoReflow"]


def test_inclusion_is_a_ratio_of_sums(evaluation):
    found = {(entry["pair"], entry["of"]): entry for entry in inclusion_statistics(evaluation)}
    assert [pair_name(EMIDEC, pair) for pair in EMIDEC.inclusions] == PAIRS
    assert list(found) == [(pair, of) for pair in PAIRS for of in ("reference", "prediction")]
    predicted = found[PAIRS[0], "prediction"]
    assert predicted["inner_mm2"] == 20
    assert predicted["detached_share"]["share"] == 5 / 20
    assert predicted["gap_share"]["share"] == 2 / 20
    assert (predicted["detached_share"]["low"], predicted["detached_share"]["high"]) == (0, 1)
    wall_side = found[PAIRS[1], "reference"]
    assert wall_side["gap_share"]["share"] == pytest.approx(2 / 100)
    assert math.isnan(found[PAIRS[0], "reference"]["gap_share"]["low"])  # one case holds any


def rows(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_the_tables_hold_every_number(evaluation):
    slices = rows(report.slices_csv(evaluation))
    assert [(row["case"], row["slice"]) for row in slices] == [
        ("N1", "0"), ("N1", "1"), ("P1", "0"), ("P2", "0"),
    ]  # fmt: skip
    assert [slices[2][name] for name in ("LV", "Myo", "Inf", "NoR")] == ["0.5", "0.4", "0.3", ""]
    cases = rows(report.cases_csv(evaluation))
    assert len(cases) == 9
    assert (cases[3]["case"], cases[3]["region"]) == ("P1", "Myocardium")
    assert (cases[3]["slices_scored"], cases[3]["slices"]) == ("1", "3")
    scores_of_all = np.concatenate([c.regions for c in evaluation.cases])
    for line, scores in zip(cases, scores_of_all, strict=True):
        found = [float(line[name] or "nan") for name in MEASURES]
        np.testing.assert_array_equal(found, scores)
    inclusion = rows(report.inclusion_csv(evaluation))
    assert len(inclusion) == 3 * 2 * 2
    assert inclusion[5] == {
        "case": "P1", "pair": PAIRS[0], "of": "prediction",
        "inner_mm2": "5.0", "detached_mm2": "5.0", "gap_mm2": "0.0",
    }  # fmt: skip


def test_json_is_strict_and_complete(evaluation):
    def refuse(constant):
        pytest.fail(f"JSON knows no {constant}")

    found = json.loads(report.summary_json(evaluation), parse_constant=refuse)
    assert (found["num_cases"], found["num_slices"]) == (3, 4)
    assert (found["name"], found["checkpoint"], found["mirror"]) == ("awce", "best, step 5", True)
    assert found["notes"] == ["Where from.", "How fair."]
    undefined = dict.fromkeys(("std", "low", "high"))
    assert found["slice_dsc"]["NoR"] == {"mean": 0.2, "n": 1} | undefined
    assert found["pooled_dsc"]["NoR"] == {"dsc": 0.0, "low": None, "high": None}
    assert found["case_scores"]["holding"]["NoReflow"]["dsc"]["mean"] == 0.5
    assert found["inclusion"][1]["detached_share"]["share"] == 0.25


def test_markdown_shows_mean_spread_interval_and_count(evaluation):
    text = report.summary_markdown(evaluation)
    head = text[: text.index("|")]
    assert all(part in head for part in ("awce", "best, step 5", "Where from.\nHow fair.\n"))
    lines = [line for line in text.splitlines() if line.startswith("|")]
    statistic = slice_statistics(evaluation)["LV"]
    cell = f"0.550 ± 0.342 [{statistic.low:.3f}, {statistic.high:.3f}] (4)"
    assert lines[2].split("|")[2].strip() == cell
    assert lines[2].split("|")[5].strip() == "0.200 (1)"
    pooled = pooled_statistics(evaluation)["LV"]
    cell = f"0.690 [{pooled.low:.3f}, {pooled.high:.3f}]"
    assert lines[3].split("|")[2].strip() == cell
    assert lines[3].split("|")[5].strip() == "0.000"
    regions = [line.split("|")[1].strip() for line in lines]
    assert regions.count("Myocardium") == regions.count("NoReflow") == 2
    assert max(line.count("(1)") for line in lines if line.startswith("| NoReflow")) == 6
    assert len([line for line in lines if line.startswith(f"| {PAIRS[0]} ")]) == 2


def test_without_a_prior_its_table_is_left_out(evaluation):
    anatomy = type(EMIDEC)(EMIDEC.labels, (), EMIDEC.slice_regions, EMIDEC.case_regions)
    cases = tuple(
        case(c.name, c.slice_dsc, c.regions, np.zeros((2, 0, 3))) for c in evaluation.cases
    )
    bare = Evaluation("awce", "last, step 5", False, anatomy, (), cases)
    assert not any(pair in report.summary_markdown(bare) for pair in PAIRS)
    assert json.loads(report.summary_json(bare))["inclusion"] == []
