"""Which runs a study is made of, and what each of them changes."""

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


def test_settings_of_the_user_reach_every_run(config):
    shared = replace(config, {"model.width": 4, "train.epochs": 30, "optimizer.clip_norm": 0.5})
    for run in plan_runs(shared, CHANGES, Path("study"), seeds=2):
        assert run.setup.architecture.width == 4
        assert run.setup.course.epochs == 30
        assert run.setup.optimization.clip_norm == 0.5


def test_seeds_are_whole_comparisons_one_after_the_other(config):
    runs = plan_runs(replace(config, {"seed": 7}), CHANGES, Path("study"), seeds=2)
    stages = list(CHANGES)
    assert [(run.stage, run.seed) for run in runs] == [(s, 7) for s in stages] + [
        (s, 8) for s in stages
    ]
    assert [run.setup.seed for run in runs] == [7] * 2 + [8] * 2
    assert runs[0].folder == Path("study/runs/plain-seed-7")
    assert len({run.folder for run in runs}) == 4


def test_folds_are_all_folds_of_one_split(config):
    runs = plan_runs(config, CHANGES, Path("study"), seeds=2, folds=3)
    assert len(runs) == 2 * 3 * 2
    assert {(run.setup.split.folds, run.setup.split.seed) for run in runs} == {(3, 0)}
    assert [r.fold for r in runs if (r.stage, r.seed) == ("weighted", 1)] == [0, 1, 2]
    assert runs[2].folder == Path("study/runs/plain-seed-0-fold-1-of-3")
    assert all(run.setup.split.fold == run.fold for run in runs)


def test_one_fold_of_the_config_is_kept(config):
    shared = replace(config, {"data.folds": 5, "data.fold": 3})
    runs = plan_runs(shared, CHANGES, Path("study"), seeds=1)
    assert [run.fold for run in runs] == [3] * 2
    assert runs[0].folder.name == "plain-seed-0-fold-3-of-5"


def test_one_fold_is_not_lost_where_every_fold_is_asked_for(config):
    shared = replace(config, {"data.folds": 5, "data.fold": 3})
    with pytest.raises(SettingsError) as error:
        plan_runs(shared, CHANGES, Path("study"), seeds=1, folds=5)
    assert str(error.value) == "data.fold: every fold is trained; expected 0, got 3"


def test_two_numbers_of_folds(config):
    with pytest.raises(SettingsError) as error:
        plan_runs(replace(config, {"data.folds": 5}), CHANGES, Path("study"), seeds=1, folds=3)
    assert str(error.value) == "--folds: expected 5 as data.folds says, got 3"
    assert len(plan_runs(replace(config, {"data.folds": 3}), CHANGES, Path("s"), seeds=1, folds=3))


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"seeds": 0}, "--seeds: expected at least 1, got 0"),
        ({"seeds": 1, "folds": 1}, "--folds: expected 0 (no folds) or at least 2, got 1"),
        ({"seeds": 1, "folds": -2}, "--folds: expected 0 (no folds) or at least 2, got -2"),
    ],
)
def test_numbers_that_are_none(config, numbers, message):
    with pytest.raises(SettingsError) as error:
        plan_runs(config, CHANGES, Path("study"), **numbers)
    assert str(error.value) == message


def test_a_study_holds_something_out(config):
    nothing = replace(config, {"data.validation_fraction": 0.0})
    with pytest.raises(SettingsError, match=r"data\.validation_fraction"):
        plan_runs(nothing, CHANGES, Path("study"), seeds=1)
    assert len(plan_runs(nothing, CHANGES, Path("study"), seeds=1, folds=3)) == 6


def test_a_field_of_the_stages_is_not_lost_without_a_word(config):
    with pytest.raises(SettingsError) as error:
        plan_runs(replace(config, {"loss.penalty": 0.5}), CHANGES, Path("study"), seeds=1)
    assert str(error.value) == "loss.penalty: the stages set it, to 0.0 or 0.01; got 0.5"


def test_settings_with_a_group_missing(config):
    del config["loss"]
    with pytest.raises(SettingsError, match="loss"):
        plan_runs(config, CHANGES, Path("study"), seeds=1)


def test_settings_that_cannot_be_run(config):
    config["model"]["width"] = -1
    with pytest.raises(SettingsError, match=r"model\.width"):
        plan_runs(config, CHANGES, Path("study"), seeds=1)


def test_a_run_is_done_when_its_scores_are_whole(config, tmp_path):
    run = plan_runs(config, CHANGES, tmp_path, seeds=1)[0]
    run.evaluation.mkdir(parents=True)
    (run.evaluation / "slices.csv").touch()
    assert not run.done
    (run.evaluation / "summary.md").touch()
    assert run.done
