"""The runs of a study and their settings."""

from pathlib import Path

import pytest

from configs import default
from jaxseg.config.settings import SettingsError, replace
from jaxseg.studies.schedule import plan_runs

CHANGES = {
    "plain": {"name": "plain", "loss.weighted": False, "loss.penalty": 0.0},
    "weighted": {"name": "weighted", "loss.weighted": True, "loss.penalty": 0.01},
}


@pytest.fixture
def config():
    return default.get_config("phantom").to_dict()


def test_own_settings_reach_every_run(config):
    shared = replace(config, {"model.width": 4, "train.epochs": 30, "optimizer.clip_norm": 0.5})
    for run in plan_runs(shared, CHANGES, Path("study"), seeds=2):
        assert run.setup.architecture.width == 4
        assert run.setup.course.epochs == 30
        assert run.setup.optimization.clip_norm == 0.5


def test_runs_are_ordered_by_seed(config):
    runs = plan_runs(replace(config, {"seed": 7}), CHANGES, Path("study"), seeds=2)
    stages = list(CHANGES)
    assert [(run.stage, run.seed) for run in runs] == [(s, 7) for s in stages] + [
        (s, 8) for s in stages
    ]
    assert [run.setup.seed for run in runs] == [7] * 2 + [8] * 2
    assert runs[0].folder == Path("study/runs/plain-seed-7")
    assert len({run.folder for run in runs}) == 4


def test_all_folds_of_one_split(config):
    runs = plan_runs(config, CHANGES, Path("study"), seeds=2, folds=3)
    assert len(runs) == 2 * 3 * 2
    assert {(run.setup.split.folds, run.setup.split.seed) for run in runs} == {(3, 0)}
    assert [r.fold for r in runs if (r.stage, r.seed) == ("weighted", 1)] == [0, 1, 2]
    assert runs[2].folder == Path("study/runs/plain-seed-0-fold-1-of-3")
    assert all(run.setup.split.fold == run.fold for run in runs)


def test_the_fold_of_the_config_is_kept(config):
    shared = replace(config, {"data.folds": 5, "data.fold": 3})
    runs = plan_runs(shared, CHANGES, Path("study"), seeds=1)
    assert [run.fold for run in runs] == [3] * 2
    assert runs[0].folder.name == "plain-seed-0-fold-3-of-5"


def test_runs_start_from_those_of_another_study(config, tmp_path):
    shared = replace(config, {"train.init_from": str(tmp_path)})
    runs = plan_runs(shared, CHANGES, Path("study"), seeds=2, folds=3)
    assert {run.setup.course.init_from for run in runs} == {tmp_path}  # a run or bundle
    (tmp_path / "runs").mkdir()
    runs = plan_runs(shared, CHANGES, Path("study"), seeds=2, folds=3)
    for run in runs:
        assert run.setup.course.init_from == tmp_path / "runs" / run.folder.name
    assert len({run.setup.course.init_from for run in runs}) == 2 * 3 * 2


def test_a_study_needs_held_out_cases(config):
    nothing = replace(config, {"data.validation_fraction": 0.0})
    with pytest.raises(SettingsError, match=r"data\.validation_fraction"):
        plan_runs(nothing, CHANGES, Path("study"), seeds=1)
    assert len(plan_runs(nothing, CHANGES, Path("study"), seeds=1, folds=3)) == 6


@pytest.mark.parametrize(
    ("name", "changes", "numbers"),
    [
        ("--seeds", {}, {"seeds": 0}),
        ("--folds", {}, {"folds": 1}),
        ("--folds", {}, {"folds": -2}),
        ("--folds", {"data.folds": 5}, {"folds": 3}),
        ("data.fold", {"data.folds": 5, "data.fold": 3}, {"folds": 5}),
        ("loss.penalty", {"loss.penalty": 0.5}, {}),  # which the stages set
        ("model.width", {"model.width": -1}, {}),
    ],
)
def test_flags_and_fields_that_do_not_fit_are_named(config, name, changes, numbers):
    with pytest.raises(SettingsError, match=f"^{name}: "):
        plan_runs(replace(config, changes), CHANGES, Path("study"), **{"seeds": 1} | numbers)


def test_a_missing_section_is_named_and_equal_folds_are_accepted(config):
    assert plan_runs(replace(config, {"data.folds": 3}), CHANGES, Path("s"), seeds=1, folds=3)
    del config["loss"]
    with pytest.raises(SettingsError, match="loss"):
        plan_runs(config, CHANGES, Path("study"), seeds=1)


def test_a_run_is_done_when_its_scores_are_complete(config, tmp_path):
    run = plan_runs(config, CHANGES, tmp_path, seeds=1)[0]
    run.evaluation.mkdir(parents=True)
    (run.evaluation / "slices.csv").touch()
    assert not run.done
    (run.evaluation / "summary.md").touch()
    assert run.done
