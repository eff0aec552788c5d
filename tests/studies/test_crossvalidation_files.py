"""Files of a cross-validation, from scores made by hand."""

import csv
import json
import math
import re

import numpy as np
import pytest

from jaxseg.anatomy import EMIDEC
from jaxseg.evaluation.case_scores import score_case
from jaxseg.evaluation.scores import Evaluation
from jaxseg.inference.case_decision import CaseDecision, Cost, pair_names
from jaxseg.studies.crossvalidation_files import Decision, files

NAN = math.nan
PAIRS = pair_names(EMIDEC)
DECISIONS = [
    Decision("P2", 1, (0.25, 0.5), (0.25, 0.75), 0.5),
    Decision("N1", 0, (0.0, 0.5), (0.0, 0.5), 0.75),
]


COSTS = (
    Cost("core", 0, 0, NAN, NAN, NAN, NAN, NAN, 2, 1),
    Cost("infarct", 9, 1, 0.7, 0.65, -0.05, -0.09, 0.01, 4, 3),
)


def rule(*bounds, mirror=False, odds=0.625, costs=COSTS):
    return CaseDecision("folds", mirror, PAIRS, bounds, (400.0, 2000.0), odds, costs)


def evaluated(prediction, anatomy=EMIDEC):
    """N1 without an infarct, P2 with two voxels of one; `prediction` is what each is given."""
    references = {"N1": [2, 2, 2, 2], "P2": [3, 3, 2, 2]}
    cases = [
        score_case(name, *(np.array(labels, np.uint8).reshape(4, 1, 1) for labels in pair),
                   (1.0, 1.0, 1.0), anatomy)
        for name, reference in references.items() for pair in [(prediction[name], reference)]
    ]  # fmt: skip
    return Evaluation("best", "last", False, anatomy, ("Where from.",), tuple(cases))


@pytest.fixture(scope="module")
def texts():
    first = evaluated({"N1": [3, 2, 2, 2], "P2": [3, 3, 3, 3]})
    last = evaluated({"N1": [2, 2, 2, 2], "P2": [3, 3, 3, 3]})
    steps = {"as predicted": first, "doubtful dropped": last}
    return files(steps, DECISIONS, rule(0.1, 0.625))


def cells(text, start):
    line = next(line for line in text.splitlines() if line.startswith(f"| {start} "))
    return [cell.strip() for cell in line.split("|")[2:-1]]


def test_presence_csv_has_a_row_for_each_case_and_pair(texts):
    rows = list(csv.DictReader(texts["presence.csv"].splitlines()))
    assert [(row["case"], row["fold"]) for row in rows] == [("N1", "0")] * 2 + [("P2", "1")] * 2
    assert [row["expected_dice"] for row in rows] == ["0.0", "0.5", "0.25", "0.5"]
    assert [row["bound"] for row in rows] == ["0.0", "0.5", "0.25", "0.75"]
    # At the bound it stays.
    assert [row["reached"] for row in rows] == ["True", "True", "True", "False"]


def test_scores_after_each_step(texts):
    """DSC of P2's infarct is 2 * 2 / (2 + 4); N1's is 0, then 1."""
    text = texts["summary.md"]
    assert cells(text, "as predicted")[1] == "0.333 / 0.667 (1)"
    assert cells(text, "doubtful dropped")[1] == "0.833 / 0.667 (1)"
    assert cells(text, "doubtful dropped")[2] == "1.000 / - (0)"
    # The tables before are of the last step.
    assert cells(text, "Infarction")[0].startswith("0.833 ")


def test_bounds_by_fold_and_for_other_cases(texts):
    text = texts["summary.md"]
    assert cells(text, "all but fold 0") == ["0.750", "0.000", "0.500"]
    assert cells(text, "all but fold 1") == ["0.500", "0.250", "0.750"]
    assert cells(text, "all folds, for other cases") == ["0.625", "0.100", "0.625"]
    assert "--checkpoint=last --case_decision" in text


@pytest.fixture(scope="module")
def steps():
    same = {"N1": [2, 2, 2, 2], "P2": [3, 3, 2, 2]}
    return {"as predicted": evaluated(same)}


def test_bounds_with_networks_of_other_studies_are_given_by_hand(steps):
    text = files(steps, DECISIONS, rule(0.1, 0.625, mirror=True), averaged=True)["summary.md"]
    flags = "--pathology_odds=0.62500 --drop_small --min_dice=0.10000 --min_dice=0.62500`"
    assert f"--checkpoint=last --mirror {flags}" in text


def test_bounds_of_0_are_not_recommended(steps):
    for averaged in (False, True):
        text = files(steps, DECISIONS, rule(0.0, 0.0, odds=1.0), averaged=averaged)["summary.md"]
        assert not re.search("--min_dice|--case_decision|--checkpoint", text)


def test_the_cost_of_the_decision(texts):
    row = cells(texts["summary.md"], "infarct")
    assert row == ["9", "1", "0.700", "0.650", "-0.050 [-0.090, +0.010]", "4", "3"]
    assert cells(texts["summary.md"], "core") == ["0", "0", "-", "-", "-", "2", "1"]
    found = json.loads(texts["summary.json"])["presence"]["cost"]
    assert (found[0]["predicted"], found[1]["lost"]) == (None, 1)


def test_summary_json(texts):
    found = json.loads(texts["summary.json"])["presence"]
    assert found["pairs"][0] == "no-reflow in no-reflow + infarct"
    assert found["odds"] == {"without_fold": {"0": 0.75, "1": 0.5}, "for_other_cases": 0.625}
    assert found["min_dice"] == {
        "without_fold": {"0": [0.0, 0.5], "1": [0.25, 0.75]},
        "for_other_cases": [0.1, 0.625],
    }
    means = [
        found["dsc"][step][group]["Infarction"]["mean"]
        for step in ("as predicted", "doubtful dropped")
        for group in ("all", "holding")
    ]
    assert means == pytest.approx([1 / 3, 2 / 3, 5 / 6, 2 / 3])
    assert found["dsc"]["as predicted"]["holding"]["NoReflow"]["mean"] is None


def test_without_a_prior_nothing_is_decided():
    anatomy = type(EMIDEC)(EMIDEC.labels, (), EMIDEC.slice_regions, EMIDEC.case_regions)
    same = {"N1": [2, 2, 2, 2], "P2": [3, 3, 2, 2]}
    decisions = [Decision(name, 0, (), (), 1.0) for name in same]
    nothing = CaseDecision("folds", False, (), (), (), 1.0, ())
    texts = files({"as predicted": evaluated(same, anatomy)}, decisions, nothing)
    assert texts["presence.csv"] == "case,fold,pair,expected_dice,bound,reached\n"
