"""Masses and shares by hand, from volumes of three cases."""

import csv
import io

import numpy as np
import pytest

from jaxseg.anatomy import EMIDEC
from jaxseg.evaluation import score_files
from jaxseg.evaluation.agreement import agreement_statistics, quantities
from jaxseg.evaluation.agreement_files import agreement_csv, agreement_markdown, figures
from jaxseg.evaluation.bootstrap import mean_interval
from jaxseg.evaluation.case_scores import MEASURES, CaseScores
from jaxseg.evaluation.scores import Evaluation
from jaxseg.metrics import agreement

# Reference and prediction in ml of Myocardium, Infarction and NoReflow.
VOLUMES = {
    "A": [(100, 80), (20, 24), (10, 2)],
    "B": [(200, 200), (0, 10), (0, 0)],
    "C": [(100, 0), (40, 0), (0, 0)],  # no heart found
}


@pytest.fixture
def evaluation():
    cases = []
    for name, volumes in VOLUMES.items():
        regions = np.full((3, len(MEASURES)), np.nan)
        for k, (reference, prediction) in enumerate(volumes):
            regions[k, MEASURES.index("reference_mm3")] = 1000 * reference
            regions[k, MEASURES.index("prediction_mm3")] = 1000 * prediction
        nothing = np.full((1, 4), np.nan), regions, np.zeros((2, 2, 3)), np.zeros((1, 4, 3), int)
        cases.append(CaseScores(name, 1, np.arange(1), *nothing))
    return Evaluation("best", "last, step 5", False, EMIDEC, (), tuple(cases))


def test_masses_and_shares(evaluation):
    found = {(q.region, q.unit): q for q in quantities(evaluation)}
    assert list(found) == [
        ("Myocardium", "g"), ("Infarction", "g"), ("Infarction", "%"),
        ("NoReflow", "g"), ("NoReflow", "%"),
    ]  # fmt: skip
    infarct = found["Infarction", "g"]
    np.testing.assert_allclose(infarct.reference, [21, 0, 42])
    np.testing.assert_allclose(infarct.prediction, [25.2, 10.5, 0])
    assert infarct.holds.tolist() == [True, False, True]
    share = found["Infarction", "%"]
    assert share.title == "Infarction, % of Myocardium"
    np.testing.assert_allclose(share.reference, [20, 0, 40])
    np.testing.assert_allclose(share.prediction, [30, 5, np.nan])  # of its own myocardium


def test_statistics_over_all_cases_and_over_those_that_hold_it(evaluation):
    found = {(e["region"], e["unit"], e["cases"]): e for e in agreement_statistics(evaluation)}
    everything = found["Infarction", "g", "all"]
    assert (everything["n"], everything["reference"]) == (3, 21)
    differences = np.array([4.2, 10.5, -42])
    assert everything["bias"] == pytest.approx(differences.mean())
    assert everything["low"] == pytest.approx(differences.mean() - 1.96 * differences.std(ddof=1))
    expected = agreement([25.2, 10.5, 0], [21, 0, 42])
    assert everything["concordance"] == pytest.approx(expected.concordance)
    low, high = mean_interval(differences[:, None], np.arange(3))
    assert (everything["bias_low"], everything["bias_high"]) == pytest.approx((low[0], high[0]))
    holding = found["Infarction", "g", "holding"]
    assert (holding["n"], holding["bias"]) == (2, pytest.approx((4.2 - 42) / 2))
    # A case without predicted myocardium has no share.
    assert found["Infarction", "%", "holding"]["n"] == 1
    assert found["NoReflow", "g", "holding"]["bias"] == pytest.approx(-8.4)


def test_files(evaluation):
    rows = list(csv.DictReader(io.StringIO(agreement_csv(evaluation))))
    assert len(rows) == 5 * 3
    assert rows[8] == {
        "case": "C", "region": "Infarction", "unit": "%", "reference": "40.0", "prediction": "",
    }  # fmt: skip
    text = agreement_markdown(evaluation)
    assert text in score_files.summary_markdown(evaluation)
    lines = [line for line in text.splitlines() if line.startswith("| NoReflow, g ")]
    (line,) = [line for line in lines if "(1)" in line]
    assert [cell.strip() for cell in line.split("|")[3:5]] == ["10.5", "-8.4"]
    assert figures(evaluation)["bland_altman.png"].startswith(b"\x89PNG")


def test_regions_that_no_case_holds(evaluation):
    case = evaluation.cases[1]
    bare = Evaluation("best", "last", False, EMIDEC, (), (case,))
    found = {(e["region"], e["unit"], e["cases"]): e for e in agreement_statistics(bare)}
    assert found["NoReflow", "g", "holding"]["n"] == 0
    assert np.isnan(found["NoReflow", "g", "holding"]["bias_low"])
    assert "| -" in agreement_markdown(bare)
