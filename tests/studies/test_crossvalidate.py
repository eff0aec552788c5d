"""Cross-validation: scores by fold, and bounds fitted to the other folds."""

import csv
import json
import shutil
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from jaxseg.config import run_data
from jaxseg.config.settings import SettingsError, replace
from jaxseg.config.setup import build
from jaxseg.data import load_case, most_probable
from jaxseg.inference.predict import predict
from jaxseg.inference.predictor import make_predictor
from jaxseg.presence import presence_bound
from jaxseg.runs.config_file import read_settings
from jaxseg.runs.data_file import claim, read_data
from jaxseg.runs.files import WorkdirError
from jaxseg.runs.trained import load_run
from jaxseg.studies.crossvalidate import crossvalidate
from jaxseg.studies.schedule import plan_runs
from tests.conftest import save_random_network

pytestmark = pytest.mark.slow

FOLDS, SEEDS = 3, (7, 8)
PAIRS = (((4,), 3), ((3, 4), 2))
REGIONS = {"Myocardium": (2, 3, 4), "Infarction": (3, 4), "NoReflow": (4,)}
FILES = [
    "agreement.csv", "bland_altman.png", "case_decision.json", "cases.csv", "inclusion.csv",
    "pixels.csv", "presence.csv", "runs", "slices.csv", "summary.json", "summary.md",
]  # fmt: skip


def table(path):
    return list(csv.DictReader(path.read_text().splitlines()))


def names(folder):
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


@pytest.fixture(scope="module")
def config(random_run):
    """Settings of the tiny runs, on the phantom's folder."""
    changes = {"data.split": "case", "seed": SEEDS[0], "name": "mine"}
    return replace(read_settings(random_run), changes)


def write_runs(config, folder, seeds):
    """Runs that count as done, with random networks, which predict every label."""
    cohort = run_data.load_cohort(build(config))
    stages = {"mine": {"name": "mine"}}
    for run in plan_runs(config, stages, folder, seeds=seeds, folds=FOLDS):
        split = run.setup.split
        parts = run_data.split_cohort(split, cohort)
        held = [sorted({cohort.case_names[k] for k in cohort.case_index[part]}) for part in parts]
        assert held == [cohort.cases_of(part) for part in parts]
        facts = {
            **cohort.facts(),
            **run_data.split_facts(split, cohort, parts),
            # Apart for every fold, and large enough for networks as these.
            "smallest_mm3": [3000.0 + 1000.0 * split.fold, 9000.0],
        }
        if not run.setup.anatomy.inclusions:
            facts["smallest_mm3"] = []
        run.folder.mkdir(parents=True)
        claim(run.folder, run.settings, facts)
        network = run.setup.networks.segmentation
        seed = 16 if run.seed == SEEDS[0] else 175
        save_random_network(run.folder, network, seed=3, step=4, score=0.9)  # the best
        save_random_network(run.folder, network, seed=seed, step=5, score=0.5)  # the last
        run.evaluation.mkdir()
        (run.evaluation / "summary.md").touch()


@pytest.fixture(scope="module")
def study(config, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("folds")
    write_runs(config, folder, len(SEEDS))
    crossvalidate(config, folder, folds=FOLDS, seeds=len(SEEDS), mirror=True)
    return folder


class Case(NamedTuple):
    """A case as predicted by the networks that hold it out, computed apart from the program."""

    fold: int
    voxel: float
    reference: np.ndarray
    probabilities: np.ndarray
    smallest: list[float]

    def decided(self, odds):
        """Labels without small pathology, and expected DSC by pair, with other odds of infarct."""
        both = self.probabilities * np.array([1, 1, 1, odds, 1], np.float32)
        both /= both.sum(-1, keepdims=True)
        labels, expected = most_probable(both), []
        for inner, _ in PAIRS:
            region, mask = sum(both[..., k] for k in inner), np.isin(labels, inner)
            expected.append(2 * float(region[mask].sum() / (region.sum() + mask.sum())))
        for (inner, around), smallest in zip(PAIRS, self.smallest, strict=True):
            mask = np.isin(labels, inner)
            if mask.sum() * self.voxel < smallest:
                labels[mask] = around
        return labels, expected


@pytest.fixture(scope="module")
def by_hand(study, config):
    found = {}
    for fold in range(FOLDS):
        folders = [study / "runs" / f"mine-seed-{s}-fold-{fold}-of-{FOLDS}" for s in SEEDS]
        networks = [load_run(folder, checkpoint="last") for folder in folders]
        predict = make_predictor(networks, mirror=True)
        facts = read_data(folders[0])
        for name in facts["validation"]["cases"]:
            case = load_case(Path(config["data"]["root"]) / name)
            probabilities, voxel = predict(case).probabilities, float(np.prod(case.spacing))
            found[name] = Case(fold, voxel, case.label, probabilities, facts["smallest_mm3"])
    return found


@pytest.fixture(scope="module")
def odds(study):
    """The factor of each fold, and of all of them under None."""
    found = json.loads((study / "summary.json").read_text())["presence"]["odds"]
    return {int(k): v for k, v in found["without_fold"].items()} | {None: found["for_other_cases"]}


def dsc(ours, theirs):
    total = ours.sum() + theirs.sum()
    return 1.0 if total == 0 else 2 * (ours & theirs).sum() / total


def test_every_case_is_scored_once(study, by_hand):
    assert names(study) == FILES
    cases = sorted(by_hand)
    assert len(cases) == 6
    assert [row["case"] for row in table(study / "cases.csv")][::3] == cases
    assert [row["case"] for row in table(study / "presence.csv")][::2] == cases
    summary = json.loads((study / "summary.json").read_text())
    assert (summary["name"], summary["num_cases"], summary["mirror"]) == ("mine", 6, True)
    assert summary["checkpoint"] == "last; 3 folds, networks averaged in each: 2"


def test_the_odds_are_fitted_to_the_volumes_of_the_other_folds(by_hand, odds):
    for fold, factor in odds.items():
        less = more = reference = 0.0
        for case in by_hand.values():
            if case.fold == fold or not (case.reference >= 3).any():
                continue
            reference += case.voxel * (case.reference >= 3).sum()
            for tilt in (0.999, 1.001):
                weights = np.array([1, 1, 1, tilt * factor, 1])
                volume = case.voxel * ((case.probabilities * weights).argmax(-1) >= 3).sum()
                less, more = (less + volume, more) if tilt < 1 else (less, more + volume)
        assert factor == 10 or more >= reference
        assert factor == 0.1 or less <= reference


def test_expected_dsc_is_predicted_by_networks_of_the_own_fold(study, by_hand, odds):
    rows = table(study / "presence.csv")
    for name, case in by_hand.items():
        own = [row for row in rows if row["case"] == name]
        assert {row["fold"] for row in own} == {str(case.fold)}
        expected = case.decided(odds[case.fold])[1]
        assert [float(row["expected_dice"]) for row in own] == pytest.approx(expected, rel=1e-4)


def test_bounds_are_fitted_to_the_other_folds(study, by_hand, odds):
    rows = table(study / "presence.csv")
    differ = 0
    for k, (inner, _) in enumerate(PAIRS):
        for fold in range(FOLDS):
            others = [case for case in by_hand.values() if case.fold != fold]
            assert len(others) == 4
            bounds = {row["bound"] for row in rows[k::2] if row["fold"] == str(fold)}
            assert len(bounds) == 1
            bound = float(bounds.pop())
            assert bound == pytest.approx(fitted(others, k, inner, odds[fold]), abs=1e-4)
            differ += abs(bound - fitted(by_hand.values(), k, inner, odds[fold])) > 1e-3
    assert differ


def fitted(cases, k, inner, odds):
    """The bound of these cases, as far as anything is left to decide."""
    rows = []
    for case in cases:
        labels, expected = case.decided(odds)
        ours, theirs = np.isin(labels, inner), np.isin(case.reference, inner)
        if ours.any():
            rows.append((expected[k], theirs.any(), dsc(ours, theirs)))
    expected, holds, scores = np.array(rows).T
    return presence_bound(expected, holds > 0, scores)


def test_scores_exclude_doubtful_pathology(study, by_hand, odds):
    rows = {(row["case"], row["region"]): row for row in table(study / "cases.csv")}
    bounds = {
        (row["case"], k): row for k in range(2) for row in table(study / "presence.csv")[k::2]
    }
    dropped = 0
    for name, case in by_hand.items():
        labels, own = case.decided(odds[case.fold])
        for k, (inner, around) in enumerate(PAIRS):
            bound = float(bounds[name, k]["bound"])
            assert bounds[name, k]["reached"] == str(own[k] >= bound)
            if own[k] < bound:
                dropped += np.isin(labels, inner).any()
                labels[np.isin(labels, inner)] = around
        for region, values in REGIONS.items():
            ours, theirs = np.isin(labels, values), np.isin(case.reference, values)
            row = rows[name, region]
            assert float(row["prediction_mm3"]) == pytest.approx(ours.sum() * case.voxel)
            assert float(row["dsc_challenge"]) == pytest.approx(dsc(ours, theirs))
    assert dropped  # the rule did something here


def test_the_summary_has_steps_and_bounds(study, by_hand, odds):
    text = (study / "summary.md").read_text()
    scores = [
        [dsc(np.isin(labels, own), np.isin(case.reference, own)) for own in REGIONS.values()]
        for case in by_hand.values()
        for labels in [case.decided(odds[case.fold])[0]]
    ]
    row = next(line for line in text.splitlines() if line.startswith("| smaller than in training"))
    for cell, mean in zip(row.split("|")[2:], np.mean(scores, 0), strict=False):
        assert cell.split("/")[0].strip() == f"{mean:.3f}"
    assert text.count("| all but fold ") == FOLDS
    assert "--checkpoint=last --mirror --case_decision" in text
    found = json.loads((study / "case_decision.json").read_text())
    fitted_to_all = [fitted(by_hand.values(), k, PAIRS[k][0], odds[None]) for k in range(2)]
    assert found["min_dice"] == pytest.approx(fitted_to_all, abs=1e-4)
    assert found["odds"] == odds[None]
    assert found["smallest_mm3"] == [3000.0, 9000.0]  # of the fold that has the smallest


def test_the_cost_of_the_decision_is_measured_by_nested_folds(study, by_hand):
    """From the scores of the last step, and the network's own label maps without any."""
    found = json.loads((study / "case_decision.json").read_text())
    summary = json.loads((study / "summary.json").read_text())
    assert summary["presence"]["cost"] == found["cost"]
    rows = {(row["case"], row["region"]): row for row in table(study / "cases.csv")}
    dropped = 0
    for k, region in enumerate(("NoReflow", "Infarction")):
        cost, own = found["cost"][k], [rows[name, region] for name in sorted(by_hand)]
        held = [row for row in own if float(row["reference_mm3"])]
        scores = [float(row["dsc"]) for row in held]
        assert cost["holding"] == len(held)
        assert cost["decided"] == pytest.approx(np.mean(scores))
        assert cost["difference"] == pytest.approx(cost["decided"] - cost["predicted"])
        # These networks predict every label in every case.
        assert cost["lost"] == sum(not float(row["prediction_mm3"]) for row in held)
        assert cost["false"] == len(own) - len(held)
        dropped += cost["lost"] + cost["removed"]
    assert dropped


def test_the_decision_is_stored_with_every_network(study, config, tmp_path):
    runs = sorted((study / "runs").iterdir())
    assert len(runs) == FOLDS * len(SEEDS)
    text = (study / "case_decision.json").read_text()
    assert {(run / "case_decision.json").read_text() for run in runs} == {text}
    found = json.loads(text)
    fold = [load_run(run, checkpoint="last") for run in runs[::FOLDS]]
    source = Path(config["data"]["root"])
    flags = {"pathology_odds": found["odds"], "drop_small": True, "min_dice": found["min_dice"]}
    for name, options in (
        ("study", {"case_decision": True}),
        ("hand", flags),
    ):
        predict(fold, source, tmp_path / name, mirror=True, **options)
    ours, theirs = ((tmp_path / name / "volumes.csv").read_text() for name in ("study", "hand"))
    assert ours == theirs


def test_each_fold_is_decided_by_what_the_others_give(study, config, tmp_path, monkeypatch):
    copy = shutil.copytree(study, tmp_path / "study")
    for place in ("crossvalidate", "bounds"):
        monkeypatch.setattr(
            f"jaxseg.studies.{place}.fit_odds", lambda found: 1 + sum({p.fold for p in found})
        )
    crossvalidate(config, copy, folds=FOLDS, seeds=len(SEEDS), mirror=True)
    found = json.loads((copy / "summary.json").read_text())["presence"]["odds"]
    assert found == {"without_fold": {"0": 4, "1": 3, "2": 2}, "for_other_cases": 4}


def test_a_rule_that_changes_nothing_is_not_stored(study, config, tmp_path, monkeypatch):
    copy = shutil.copytree(study, tmp_path / "study")
    for place in ("crossvalidate", "bounds"):
        monkeypatch.setattr(f"jaxseg.studies.{place}.fit_bounds", lambda *_: (0.0, 0.0))
        monkeypatch.setattr(f"jaxseg.studies.{place}.fit_odds", lambda *_: 1.0)
    crossvalidate(config, copy, folds=FOLDS, seeds=len(SEEDS), mirror=True)
    assert not list(copy.rglob("case_decision.json"))
    assert "--case_decision" not in (copy / "summary.md").read_text()


def test_moved_cases_are_read_from_their_new_folder(study, config, tmp_path):
    """A study is scored anew from another folder of the same cases, and to the same digits."""
    moved = shutil.copytree(config["data"]["root"], tmp_path / "elsewhere")
    copy = shutil.copytree(study, tmp_path / "study")
    texts = [name for name in FILES if name not in ("runs", "bland_altman.png")]
    before = {name: (copy / name).read_text() for name in texts}
    for name in before:
        (copy / name).unlink()
    here = replace(config, {"data.root": str(moved), "data.phantom_cases": 0})
    crossvalidate(here, copy, folds=FOLDS, seeds=len(SEEDS), mirror=True)
    before["case_decision.json"] = before["case_decision.json"].replace(study.name, "study")
    assert {name: (copy / name).read_text() for name in before} == before


@pytest.fixture(scope="module")
def second(config, tmp_path_factory) -> Path:
    """A study of the second seed alone."""
    folder = tmp_path_factory.mktemp("second")
    write_runs(replace(config, {"seed": SEEDS[1]}), folder, 1)
    return folder


def test_networks_of_two_studies_are_averaged(study, second, config, tmp_path):
    write_runs(config, tmp_path, 1)
    ours = {"folds": FOLDS, "seeds": 1, "mirror": True}
    crossvalidate(config, tmp_path, ensemble=[second], **ours)
    for name in FILES:
        assert not (tmp_path / "case_decision.json").exists()  # of two studies, it is of neither
        if name.endswith(".csv"):
            assert (tmp_path / name).read_text() == (study / name).read_text()
    summaries = [json.loads((folder / "summary.json").read_text()) for folder in (tmp_path, study)]
    assert second.name in summaries[0]["notes"].pop(1)
    assert summaries[0] == summaries[1]


def test_studies_that_cannot_be_averaged_are_refused_before_training(second, config, tmp_path):
    new = tmp_path / "new"

    def refused(*others, error=WorkdirError, name):
        with pytest.raises(error, match=name):
            crossvalidate(config, new, folds=FOLDS, ensemble=[second, *others])
        assert not new.exists()

    def changed(file, folder="*", **fields):
        """A copy of the second study with other fields in a file of some runs."""
        copy = shutil.copytree(second, tmp_path / "-".join(["copy", *fields]))
        for path in copy.glob(f"runs/{folder}/{file}"):
            path.write_text(json.dumps(replace(json.loads(path.read_text()), fields)))
        return copy

    refused(second, name=second.name)
    refused(new, name="new: ")
    refused(tmp_path / "none", name="none: ")
    part = shutil.copytree(second, tmp_path / "part")
    last = part / "runs" / f"mine-seed-{SEEDS[1]}-fold-2-of-3"
    for file in ("evaluation-last/summary.md", "config.json"):
        (last / file).unlink()
        refused(part, name="part: fold 2 of 3")
    refused(changed("config.json", folder="*fold-1*", name="yours"), name="mine, yours")
    deep = changed("config.json", **{"model.width": -1})
    refused(deep, error=SettingsError, name=r"/config.json: model.width: ")
    refused(changed("data.json", smallest_mm3=None), name="smallest")
    swapped = config["anatomy"]["inclusions"][::-1]
    refused(changed("config.json", **{"anatomy.inclusions": swapped}), name="incl")


def test_without_inclusion_pairs_nothing_is_decided(config, tmp_path):
    changes = {"anatomy.inclusions": [], "loss.penalty": 0.0}
    write_runs(replace(config, changes), tmp_path / "study", 1)
    crossvalidate(replace(config, changes), tmp_path / "study", folds=FOLDS)
    found = json.loads((tmp_path / "study" / "summary.json").read_text())["presence"]
    assert list(found["dsc"]) == ["as predicted"]


def test_networks_trained_on_held_out_cases_are_refused(config, tmp_path):
    write_runs(replace(config, {"data.split_seed": 1}), tmp_path / "theirs", 1)
    with pytest.raises(WorkdirError, match=r"theirs/runs/.*: "):
        crossvalidate(config, tmp_path / "new", folds=FOLDS, ensemble=[tmp_path / "theirs"])
    assert not (tmp_path / "new").exists()


def test_the_command_trains_and_scores_once(command_line, finished_run, tmp_path):
    """Trains, scores, and when asked again only scores."""
    assert finished_run.is_dir()  # it wrote the phantom
    flags = ("--mode=crossvalidate", "--folds=2", "--config.data.split=case")
    written = []
    for trains in (True, False):
        process = command_line.start_tiny(tmp_path / "study", *flags, train__epochs=2)
        output, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
        assert ("[2/2] awce_penalty-seed-0-fold-1-of-2" in output) == trains
        written.append((tmp_path / "study" / "summary.md").read_text())
        assert written[-1] in output
    assert written[0] == written[1]
    summary = json.loads((tmp_path / "study" / "summary.json").read_text())
    bounds, odds = (summary["presence"][k]["for_other_cases"] for k in ("min_dice", "odds"))
    stored = any(bounds) or odds != 1
    kept = [file for file in FILES if stored or file != "case_decision.json"]
    assert names(tmp_path / "study") == kept
