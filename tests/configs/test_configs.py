"""The stages differ in the documented fields alone; the paper's numbers are pinned."""

import itertools
import json
from typing import Any

import pytest

from configs import attention, awce, awce_penalty, baseline, best, default
from jaxseg.anatomy import EMIDEC, Anatomy
from jaxseg.config.settings import SettingsError, check, flatten, replace

STAGES = {"baseline": baseline, "attention": attention, "awce": awce, "awce_penalty": awce_penalty}
VARIANTS = ("phantom", "emidec")
# Table 1 of the paper.
PAPER = {
    "baseline": "LV 0.955, Myo 0.871, Inf 0.622, NoR 0.246",
    "attention": "LV 0.962, Myo 0.900, Inf 0.718, NoR 0.354",
    "awce": "LV 0.971, Myo 0.926, Inf 0.769, NoR 0.535",
    "awce_penalty": "LV 0.970, Myo 0.916, Inf 0.747, NoR 0.538",
}


def flat(module, variant):
    return flatten(module.get_config(variant).to_dict())


def difference(first, second):
    assert first.keys() == second.keys()
    return {name: value for name, value in second.items() if value != first[name]}


@pytest.mark.parametrize("variant", VARIANTS)
def test_each_stage_changes_one_setting(variant):
    steps = [flat(module, variant) for module in (default, *STAGES.values())]
    assert [difference(a, b) for a, b in itertools.pairwise(steps)] == [
        {},
        {"name": "attention", "model.attention": True},
        {"name": "awce", "loss.weighted": True},
        {"name": "awce_penalty", "loss.penalty": 0.01},
    ]


@pytest.mark.parametrize("variant", VARIANTS)
def test_additions_to_the_paper_are_off_in_every_stage(variant):
    """Off in all four, on in `best`, which is the full method in all else."""
    off = {
        "augment.probability": 0.0, "augment.flip": False, "augment.rotation": 0.0,
        "augment.zoom": 0.0, "augment.gamma": 0.0, "augment.contrast": 0.0,
        "augment.brightness": 0.0, "augment.noise": 0.0, "loss.dice": 0.0,
        "model.groups": 8, "grid.soft_labels": False,
        "loss.dice_of": "labels", "grid.center": (0.5, 0.5), "augment.shift": 0.0,
        "augment.turn": False, "augment.bias": 0.0, "optimizer.method": "adam",
        "intensity.bias_field": False, "mixup.transplant": 0.0, "model.context": False,
    }  # fmt: skip
    for module in STAGES.values():
        settings = flat(module, variant)
        assert {name: settings[name] for name in off} == off
    added = difference(flat(awce_penalty, variant), flat(best, variant))
    assert added == {"name": "best", **best.ADDITIONS}
    assert set(best.ADDITIONS) <= off.keys()
    settings = best.get_config(variant).to_dict()
    settings["data"]["root"] = "cases"
    check(settings)


@pytest.mark.parametrize("stage", STAGES)
def test_stages_are_valid_configs(stage):
    module = STAGES[stage]
    assert module.get_config()["variant"] == "phantom"  # the default
    check(module.get_config().to_dict())
    settings = module.get_config("emidec").to_dict()
    with pytest.raises(SettingsError, match=r"^data\.root: "):
        check(settings)
    settings["data"]["root"] = "cases"
    check(settings)
    assert json.loads(json.dumps(settings))["name"] == stage


@pytest.mark.parametrize("stage", STAGES)
def test_docstrings_quote_table_1(stage):
    assert PAPER[stage] in (STAGES[stage].__doc__ or "")


def test_the_protocol_of_the_paper():
    settings = flat(baseline, "emidec")
    paper = {
        "data.phantom_cases": 0,
        "data.split": "slice",
        "data.validation_fraction": 0.1,
        "data.folds": 0,
        "optimizer.learning_rate": 1e-2,
        "optimizer.final_learning_rate": 1e-6,
        "train.batch_size": 16,
        "train.epochs": 400,
        "model.attention": False,
        "model.dense": False,
        "loss.weighted": False,
        "loss.penalty": 0.0,
    }
    assert {name: settings[name] for name in paper} == paper
    assert flat(awce_penalty, "emidec")["loss.penalty"] == 0.01


def test_the_phantom_variant_only_changes_sizes():
    changed = difference(flat(default, "emidec"), flat(default, "phantom"))
    assert set(changed) == {
        "variant", "data.phantom_cases", "data.split", "data.validation_fraction", "grid.size",
        "grid.spacing", "model.width", "train.epochs", "train.validate_every",
    }  # fmt: skip


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_anatomy_is_emidec(variant):
    assert Anatomy.from_dict(default.get_config(variant).to_dict()["anatomy"]) == EMIDEC


@pytest.mark.parametrize("module", [default, *STAGES.values(), best])
def test_an_unknown_variant_is_refused(module):
    with pytest.raises(ValueError, match=r"variant: .*'acdc'"):
        module.get_config("acdc")


def test_configs_are_locked_and_made_anew_each_time():
    config: Any = awce.get_config()
    with pytest.raises(AttributeError):
        config.optimizer.learning_rte = 1.0
    with pytest.raises(KeyError):
        config["seeds"] = 1
    config.optimizer.learning_rate = 0.5
    assert flat(awce, "phantom")["optimizer.learning_rate"] == 1e-2


def test_defaults_are_whole_numbers_only_where_fractions_are_refused():
    """The command line refuses fractions for a field whose default is an integer."""
    settings = baseline.get_config().to_dict()
    whole = {name for name, value in flatten(settings).items() if type(value) is int}
    assert {"seed", "train.epochs", "run.devices"} < whole
    for name in whole:
        value = flatten(settings)[name] + 0.5
        with pytest.raises(SettingsError, match=f"{name}: expected .*whole number"):
            check(replace(settings, {name: value}))
