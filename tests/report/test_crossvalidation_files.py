"""Files of a cross-validation, from scores made by hand."""

import csv
import json
import math

import numpy as np
import pytest

from jaxseg.anatomy import EMIDEC
from jaxseg.case_scores import score_case
from jaxseg.evaluation import Evaluation
from jaxseg.report.crossvalidation_files import Decision, files

NAN = math.nan
DECISIONS = [
    Decision("P2", 1, (0.25, 0.5), (0.25, 0.75)),
    Decision("N1", 0, (NAN, 0.5), (0.0, 0.5)),
]


def evaluated(prediction, anatomy=EMIDEC):
    """N1 without an infarct, P2 with two voxels of one; `prediction` is what each is given."""
    references = {"N1": [2, 2, 2, 2], "P2": [3, 3, 2, 2]}
    cases = [
        score_case(
            name,
            np.array(prediction[name], np.uint8).reshape(4, 1, 1),
            np.array(reference, np.uint8).reshape(4, 1, 1),
            (1.0, 1.0, 1.0),
            anatomy,
        )
        for name, reference in references.items()
    ]
    return Evaluation("best", "last", False, anatomy, ("Where from.",), tuple(cases))


@pytest.fixture(scope="module")
def texts():
    first = evaluated({"N1": [3, 2, 2, 2], "P2": [3, 3, 3, 3]})
    last = evaluated({"N1": [2, 2, 2, 2], "P2": [3, 3, 3, 3]})
    return files({"as predicted": first, "doubtful dropped": last}, DECISIONS, (0.1, 0.99977))


def cells(text, start):
    line = next(line for line in text.splitlines() if line.startswith(f"| {start} "))
    return [cell.strip() for cell in line.split("|")[2:-1]]


def test_presence_is_told_case_by_case(texts):
    rows = list(csv.DictReader(texts["presence.csv"].splitlines()))
    assert [(row["case"], row["fold"]) for row in rows] == [("N1", "0")] * 2 + [("P2", "1")] * 2
    assert [row["confidence"] for row in rows] == ["", "0.5", "0.25", "0.5"]
    assert [row["bound"] for row in rows] == ["0.0", "0.5", "0.25", "0.75"]
    # Without a confidence it stays, at the bound too.
    assert [row["sure"] for row in rows] == ["True", "True", "True", "False"]


def test_what_each_step_is_worth(texts):
    """DSC of P2's infarct is 2 * 2 / (2 + 4); N1's is 0, then 1."""
    text = texts["summary.md"]
    assert cells(text, "as predicted")[1] == "0.333 / 0.667 (1)"
    assert cells(text, "doubtful dropped")[1] == "0.833 / 0.667 (1)"
    assert cells(text, "doubtful dropped")[2] == "1.000 / - (0)"
    # The tables before are of the last step.
    assert cells(text, "Infarction")[0].startswith("0.833 ")


def test_bounds_by_fold_and_for_other_cases(texts):
    text = texts["summary.md"]
    assert cells(text, "all but fold 0") == ["0.00000", "0.50000"]
    assert cells(text, "all but fold 1") == ["0.25000", "0.75000"]
    assert cells(text, "all folds, for other cases") == ["0.10000", "0.99977"]
    flags = "--drop_small --min_confidence=0.10000 --min_confidence=0.99977"
    assert f"`--checkpoint=last {flags}`" in text


def test_summary_json_tells_them_too(texts):
    told = json.loads(texts["summary.json"])["presence"]
    assert told["pairs"][0] == "no-reflow in no-reflow + infarct"
    assert told["min_confidence"] == {
        "without_fold": {"0": [0.0, 0.5], "1": [0.25, 0.75]},
        "for_other_cases": [0.1, 0.99977],
    }
    means = [
        told["dsc"][step][group]["Infarction"]["mean"]
        for step in ("as predicted", "doubtful dropped")
        for group in ("all", "holding")
    ]
    assert means == pytest.approx([1 / 3, 2 / 3, 5 / 6, 2 / 3])
    assert told["dsc"]["as predicted"]["holding"]["NoReflow"]["mean"] is None


def test_without_a_prior_there_is_nothing_to_decide():
    anatomy = type(EMIDEC)(EMIDEC.labels, (), EMIDEC.slice_regions, EMIDEC.case_regions)
    same = {"N1": [2, 2, 2, 2], "P2": [3, 3, 2, 2]}
    decisions = [Decision(name, 0, (), ()) for name in same]
    texts = files({"as predicted": evaluated(same, anatomy)}, decisions, ())
    assert "Whether a case holds it" not in texts["summary.md"]
    assert texts["presence.csv"] == "case,fold,pair,confidence,bound,sure\n"
