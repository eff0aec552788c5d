"""The checks of a config: types, limits and contradictions, all reported at once."""

import json
import math

import pytest

from configs import default
from jaxseg.config.settings import SettingsError, check, flatten, replace, without_places

ALL_INSIDE = [[["cavity"], ["cavity", "myocardium"]], [["myocardium"], ["cavity", "myocardium"]]]
NATIVE = {"grid.spacing": 0.0, "augment.probability": 0.5}
# Values at the limits, at least one field for each kind of rule.
BAD = {
    "name": ("", " ", "../../x", "/x", "a\\b", "c:", "..", "a\nb", "\ud800"),
    "seed": (2**32, -1, 2.5, True, "3", None),
    "data.phantom_cases": (10**5, -1),
    "data.validation_fraction": (1.0, -0.1, "1", True, 10**400),
    "data.folds": (1, -1),
    "data.patients": ("pat", "(", ""),
    "data.splits": ("folds.txt", ""),
    "grid.size": ((96, 4097), (96,), (96, 96, 96), (96, 0), (96, 96.5), 96, "96", (True, True)),
    "grid.spacing": (101.0, -0.1),
    "grid.center": ((0.5,), (0.5, 1.5), (0.5, math.nan), "heart", ("a", "b")),
    "mixup.probability": (1.1, -0.1),
    "mixup.transplant": (1.1, -0.1),
    "model.context": (1, None),
    "augment.flip": ("yes", 1, None),
    "model.width": (0, -1),
    "model.depth": (13, 10**9, -1),
    "loss.penalty": (-0.1, math.inf),
    "optimizer.learning_rate": (0.0, -0.1),
    "optimizer.schedule": ("mean", "", None, 3),
    "train.init_from": ("", " "),
    "run.compilation_cache": (None, 3),
}


def with_changes(changes, variant="phantom"):
    settings = default.get_config(variant).to_dict()
    for name, value in changes.items():
        *sections, field = name.split(".")
        section = settings
        for part in sections:
            section = section[part]
        section[field] = value
    return settings


FIELDS = {name for name in flatten(with_changes({})) if not name.startswith("anatomy.")}


def problems(settings):
    with pytest.raises(SettingsError) as error:
        check(settings)
    return str(error.value).splitlines()


@pytest.mark.parametrize("name", BAD)
def test_values_beyond_the_limits_are_refused(name):
    for value in BAD[name]:
        (line,) = problems(with_changes({name: value}))
        assert line.startswith(f"{name}: ")
        assert repr(value) in line


@pytest.mark.parametrize("name", sorted(FIELDS))
def test_every_field_but_the_variant_is_required_and_has_a_type(name):
    for value in (math.nan, [1.0], 3j):
        (line,) = problems(with_changes({name: value}))
        assert line.startswith(f"{name}: ")
    settings = with_changes({})
    *sections, field = name.split(".")
    del (settings[sections[0]] if sections else settings)[field]
    if name == "variant":
        check(settings)
    else:
        (line,) = problems(settings)
        assert line.startswith(f"{name}: ")


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("grid.size", {"grid.size": (96, 100)}),
        ("grid.size", {"model.depth": 7}),
        ("model.width", {"model.width": 12}),
        ("model.width", {"model.width": 6}),  # 6, 12: not by 8
        ("balance.width", {"balance.width": 12}),
        ("balance.width", {"balance.width": 3}),  # 3, 6, 12
        ("intensity.low", {"intensity.low": 99.0}),
        ("optimizer.final_learning_rate", {"optimizer.final_learning_rate": 0.1}),
        ("data.fold", {"data.fold": 1}),
        ("data.fold", {"data.folds": 5, "data.fold": 5}),
        ("train.batch_size", {"run.devices": 3}),
        ("data.root", {"data.phantom_cases": 0}),
        ("data.root", {"data.phantom_cases": 0, "data.root": ""}),
        ("loss.penalty", {"loss.penalty": 0.01, "anatomy.inclusions": []}),
        ("mixup.transplant", {"mixup.transplant": 0.5, "anatomy.inclusions": []}),
        ("mixup.transplant", {"mixup.transplant": 0.5, "anatomy.inclusions": ALL_INSIDE}),
        ("balance.strength", {"balance.strength": 0.0}),
        ("model.groups", {"model.groups": 0, "loss.weighted": True, "grid.size": (32, 16)}),
        ("model.groups", {"balance.width": 2, "loss.weighted": True, "grid.size": (32, 16)}),
        ("model.groups", {"model.groups": 0, "grid.size": (16, 16)}),
        ("model.groups", {"model.groups": 128, "grid.size": (16, 16)}),
        ("data.patients", {"data.patients": "(a)", "data.split": "slice"}),
        ("data.label_values", {"data.label_values": "0=background"}),
        ("data.splits", {"data.splits": "s.csv", "data.split": "slice"}),
        ("augment.turn", {"grid.size": [32, 48], "augment.turn": True}),
        ("augment.rotation", NATIVE | {"augment.rotation": 30.0}),
        ("augment.shift", NATIVE | {"augment.shift": 5.0}),
    ],
)
def test_contradictions_name_the_field_to_change(field, changes):
    (line,) = problems(with_changes(changes))
    assert line.startswith(f"{field}: ")


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"grid.spacing": 0.0, "grid.size": [32, 48], "augment.rotation": 30.0},
        {"grid.center": None},
        {"grid.spacing": 0.0, "augment.shift": 5.0},  # nothing is augmented
        {"model.depth": 0, "grid.size": (7, 5)},
        {"model.width": 4, "model.depth": 1},  # 4 channels, instance norm; 8 channels, 8 groups
        {"model.width": 24, "balance.width": 1},
        {"model.groups": 0, "model.width": 6, "grid.size": (32, 16)},
        {"model.groups": 64, "grid.size": (16, 16)},  # two channels a group at the deepest level
        {"balance.width": 2, "grid.size": (32, 16)},  # no weights, no generator
        {"model.groups": 0, "loss.weighted": True, "grid.size": (32, 64)},
        {"data.folds": 5, "data.fold": 4},
        {"data.phantom_cases": 0, "data.root": "cases"},
        {"run.devices": 8, "run.compilation_cache": "", "run.pictures": 0},
        {"optimizer.warmup_epochs": 40.0, "train.epochs": 4},
        {"seed": 2**32 - 1, "optimizer.clip_norm": 0, "optimizer.warmup_epochs": 0},
        {"optimizer.final_learning_rate": 1e-2, "optimizer.schedule": "constant"},
        {"loss.penalty": 0.0, "anatomy.inclusions": []},
    ],
)
def test_valid_settings_pass(changes):
    settings = with_changes(changes)
    check(settings)
    check(json.loads(json.dumps(settings)))  # as a workdir gives them back


def test_all_problems_are_reported_at_once():
    lines = problems(
        with_changes({"seed": -1, "data.split": "patient", "anatomy.inclusions": [["scar"]]})
    )
    assert [line.split(":")[0] for line in lines] == ["seed", "data.split", "anatomy"]
    # Several contradictions come together too.
    lines = problems(with_changes({"data.fold": 2, "run.devices": 5, "intensity.low": 100}))
    assert {line.split(":")[0] for line in lines} == {
        "data.fold", "train.batch_size", "intensity.low",
    }  # fmt: skip


def test_an_unreadable_anatomy_is_reported_once():
    settings = with_changes({"loss.penalty": 0.01})
    settings["anatomy"] = None
    (line,) = problems(settings)
    assert line.startswith("anatomy: ")
    del settings["anatomy"]
    (line,) = problems(settings)
    assert line.startswith("anatomy: ")


def test_unknown_fields_and_dotted_names_are_refused():
    lines = problems(with_changes({"extra": 3, "loss.penalti": 0.1}))
    assert [line.split(":")[0] for line in lines] == ["'extra'", "'loss.penalti'"]
    settings = with_changes({})
    del settings["data"]["fold"]
    (line,) = problems({**settings, "data.fold": 0})
    assert line.startswith("'data.fold': ")


def test_a_value_in_place_of_a_section_lists_the_missing_fields():
    lines = problems(with_changes({"intensity": 3}))
    assert [line.split(":")[0] for line in lines] == [
        "intensity.method", "intensity.low", "intensity.high", "intensity.bias_field",
    ]  # fmt: skip


def test_deeply_nested_settings_are_refused():
    nested = {}
    for _ in range(2000):
        nested = {"a": nested}
    assert len(problems({**with_changes({}), "extra": nested})) == 1


def test_flatten():
    nested = {"a": 1, "b": {"c": 2, "d": {"e": [3]}}, "f": {}}
    assert flatten(nested) == {"a": 1, "b.c": 2, "b.d.e": [3]}


def test_replace_copies_and_adds_no_field():
    settings = {"seed": 0, "data": {"fold": 0, "folds": 5}}
    changed = replace(settings, {"data.fold": 2, "seed": 1})
    assert changed == {"seed": 1, "data": {"fold": 2, "folds": 5}}
    assert settings == {"seed": 0, "data": {"fold": 0, "folds": 5}}
    for name in ("sede", "data.flod", "dta.fold"):
        with pytest.raises(KeyError):
            replace(settings, {name: 1})


def test_without_places_removes_only_paths():
    data = {"root": "/home/me", "fold": 1, "patients": "/home/me/p.csv", "splits": None}
    settings = {"seed": 3, "data": data, "run": {"devices": 2}}
    settings["train"] = {"epochs": 4, "init_from": "/home/me/first"}
    settings["run"]["compilation_cache"] = "~/cache"
    before = json.dumps(settings)
    assert without_places(settings) == {
        "seed": 3,
        "data": {"root": None, "fold": 1, "patients": "p.csv", "splits": None},
        "run": {"devices": 2, "compilation_cache": ""},
        "train": {"epochs": 4, "init_from": "first"},
    }
    assert json.dumps(settings) == before
