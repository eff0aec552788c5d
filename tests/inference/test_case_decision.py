"""The case decision of a study, which is stored with its networks."""

import json
import math
import shutil
from pathlib import Path

import pytest

from jaxseg.anatomy import EMIDEC
from jaxseg.config.settings import SettingsError
from jaxseg.evaluation.evaluate import evaluate
from jaxseg.evaluation.methods import NETWORK
from jaxseg.inference.case_decision import FILE, CaseDecision, Cost, choose_rule, pair_names
from jaxseg.inference.export import export
from jaxseg.presence import PresenceRule
from jaxseg.runs.files import WorkdirError
from jaxseg.runs.trained import load_run

NAN = math.nan
DECISION = CaseDecision(
    "folds-best", True, pair_names(EMIDEC), (0.25, 1.0), (400.0, None), 0.5,
    (Cost("no-reflow", 0, 0, NAN, NAN, NAN, NAN, NAN, 2, 1),
     Cost("infarct", 13, 3, 0.64, 0.555, -0.085, -0.2, 0.0, 4, 3)),
)  # fmt: skip


@pytest.fixture
def folder(random_run, tmp_path) -> Path:
    """A run of the study."""
    run = shutil.copytree(random_run, tmp_path / "run")
    (run / FILE).write_text(DECISION.json())
    return run


def choose(
    *runs, mirror=True, drop_small=False, min_dice=(), odds=1.0, checkpoint: str | None = "last"
):
    return choose_rule(
        [load_run(run, checkpoint=checkpoint) for run in runs],
        mirror=mirror, drop_small=drop_small, min_dice=min_dice, odds=odds, case_decision=True,
    )  # fmt: skip


def test_the_rule_is_read_from_the_study(folder, tmp_path):
    """That of all networks of the study, and strict JSON."""
    json.loads((folder / FILE).read_text(), parse_constant=pytest.fail)
    other = shutil.copytree(folder, tmp_path / "other")
    rule, sentences = choose(folder, other)
    assert rule == PresenceRule((400.0, None), True, (0.25, 1.0), 0.5)
    assert sentences[:-1] == rule.described(EMIDEC)
    assert all(part in sentences[-1] for part in ("folds-best", "0.640", "0.555", "13"))


def test_a_bundle_keeps_the_rule(folder, tmp_path):
    export(folder, tmp_path / "bundle", checkpoint="last")
    shutil.rmtree(folder)
    assert choose(tmp_path / "bundle", checkpoint=None)[0] == DECISION.rule
    (tmp_path / "bundle" / FILE).write_text(DECISION.json().replace("0.25", "0.35"))
    with pytest.raises(WorkdirError, match=FILE):
        choose(tmp_path / "bundle", checkpoint=None)


def test_evaluate_applies_and_reports_the_rule(folder, tmp_path):
    root = load_run(folder).setup.source.root
    found = evaluate(
        folder, root=root, checkpoint="last", mirror=True, case_decision=True,
        output=tmp_path / "out",
    )[NETWORK]  # fmt: skip
    assert DECISION.described() in found.notes
    assert DECISION.described() in (tmp_path / "out" / "summary.md").read_text()


def test_networks_of_different_studies_are_refused(folder, random_run, tmp_path):
    with pytest.raises(WorkdirError, match=rf"{random_run}: .*{FILE}"):
        choose(folder, random_run)
    other = shutil.copytree(folder, tmp_path / "other")
    (other / FILE).write_text(DECISION.json().replace("folds-best", "folds-awce"))
    with pytest.raises(WorkdirError, match=rf"other/{FILE}: .*folds-awce.*folds-best"):
        choose(folder, other)
    (other / FILE).write_text(DECISION.json().replace("0.25", "0.35"))  # of the same name
    with pytest.raises(WorkdirError, match=rf"other/{FILE}: .*folds-best"):
        choose(folder, other)


@pytest.mark.parametrize(
    "options",
    [
        {"mirror": False},
        {"checkpoint": "best"},
        {"drop_small": True},
        {"min_dice": (0.5,)},
        {"odds": 2.0},
    ],
)
def test_options_that_do_not_fit_the_rule_are_refused(folder, options):
    with pytest.raises(SettingsError, match="--case_decision"):
        choose(folder, **options)


def test_rules_of_earlier_versions_are_refused(folder):
    (folder / FILE).write_text(DECISION.json().replace("odds", "min_confidence"))
    with pytest.raises(WorkdirError, match=rf"run/{FILE}: .*earlier.*repeated"):
        choose(folder)


@pytest.mark.parametrize(
    "changes",
    [
        {"min_dice": [0.5]}, {"min_dice": [0.5, 1.5]}, {"min_dice": [0.5, "x"]},
        {"smallest_mm3": None}, {"pairs": ["a in b", "c in d"]}, {"cost": [{"region": "x"}]},
        {"cost": [1]}, {"odds": 0.0}, {"odds": "x"},
    ],
)  # fmt: skip
def test_a_damaged_file_is_named(folder, changes):
    (folder / FILE).write_text(json.dumps(json.loads(DECISION.json()) | changes))
    with pytest.raises(WorkdirError, match=rf"run/{FILE}: "):
        choose(folder)
