"""Every knob refuses bad values, knobs that contradict each other are found, all at once."""

import json
import math

import pytest

from configs import default
from jaxseg.config.settings import SettingsError, check, flatten, replace, without_places

WHOLE_FROM_0 = (-1, 2.5, True, math.nan, math.inf, "3", None)
WHOLE_FROM_1 = (0, *WHOLE_FROM_0)
FROM_0 = (-0.1, math.nan, math.inf, "1", True, None, [1.0], 10**400)
ABOVE_0 = (0.0, *FROM_0)
SHARE = (1.1, *FROM_0)
BELOW_1 = (1, 1.0, *FROM_0)
PERCENTILE = (100.5, *FROM_0)
SEED = (2**32, *WHOLE_FROM_0)
SWITCH = ("yes", 1, None, math.nan)
NAME = ("mean", "", None, 3, math.nan, ["cosine"])
PAIR_OF_SIZES = (
    (96, 4097),
    (30000, 30000),
    (96,),
    (96, 96, 96),
    (96, 0),
    (96, 96.5),
    96,
    "96",
    (True, True),
    None,
)
PAIR_OF_SHARES = ((0.5,), (0.5, 1.5), (0.5, math.nan), 0.5, "heart", ("a", "b"))

BAD = {
    "name": ("", " ", None, 3, "../../x", "/x", "a\\b", "c:", "..", "a\nb", "\ud800"),
    "seed": SEED,
    "data.root": (3, True, ["a"]),
    "data.layout": NAME,
    "data.apex_first": SWITCH,
    "data.phantom_cases": (10**5, *WHOLE_FROM_0),
    "data.phantom_seed": SEED,
    "data.split": NAME,
    "data.validation_fraction": BELOW_1,
    "data.folds": (1, *WHOLE_FROM_0),
    "data.fold": WHOLE_FROM_0,
    "data.split_seed": SEED,
    "data.patients": ("pat", "(", "", 3, True, ["(a)"]),
    "data.label_values": (3, True, ["0=background"]),
    "data.splits": ("folds.txt", "", 3, True, ["s.json"]),
    "grid.size": PAIR_OF_SIZES,
    "grid.spacing": (101.0, *FROM_0),
    "grid.center": PAIR_OF_SHARES,
    "grid.allow_outside": SWITCH,
    "grid.soft_labels": SWITCH,
    "intensity.method": NAME,
    "intensity.low": PERCENTILE,
    "intensity.high": PERCENTILE,
    "intensity.even": SWITCH,
    "mixup.probability": SHARE,
    "mixup.tolerance": SHARE,
    "augment.probability": SHARE,
    "augment.flip": SWITCH,
    "augment.turn": SWITCH,
    "augment.rotation": (180.5, *FROM_0),
    "augment.zoom": (9.5, *FROM_0),
    "augment.shift": (1001.0, *FROM_0),
    "augment.gamma": (9.5, *FROM_0),
    "augment.contrast": (9.5, *FROM_0),
    "augment.brightness": FROM_0,
    "augment.noise": FROM_0,
    "augment.bias": (9.5, *FROM_0),
    "model.width": WHOLE_FROM_1,
    "model.depth": (13, 10**9, *WHOLE_FROM_0),
    "model.attention": SWITCH,
    "model.dense": SWITCH,
    "model.groups": WHOLE_FROM_0,
    "model.precision": ("float16", *NAME),
    "loss.weighted": SWITCH,
    "loss.penalty": FROM_0,
    "loss.dice": FROM_0,
    "loss.dice_of": NAME,
    "loss.epsilon": BELOW_1,
    "balance.method": NAME,
    "balance.strength": FROM_0,
    "balance.width": WHOLE_FROM_1,
    "optimizer.method": NAME,
    "optimizer.learning_rate": ABOVE_0,
    "optimizer.final_learning_rate": ABOVE_0,
    "optimizer.schedule": NAME,
    "optimizer.warmup_epochs": FROM_0,
    "optimizer.clip_norm": FROM_0,
    "train.batch_size": (10**6, *WHOLE_FROM_1),
    "train.epochs": (10**7, *WHOLE_FROM_1),
    "train.validate_every": WHOLE_FROM_1,
    "train.init_from": ("", " ", 3, True, ["runs/a"]),
    "run.devices": WHOLE_FROM_0,
    "run.convolution": NAME,
    "run.log_every": WHOLE_FROM_1,
    "run.pictures": WHOLE_FROM_0,
    "run.compilation_cache": (None, 3, True),
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


def problems(settings):
    with pytest.raises(SettingsError) as error:
        check(settings)
    return str(error.value).splitlines()


def test_every_knob_has_a_bad_value_here():
    knobs = {name for name in flatten(with_changes({})) if not name.startswith("anatomy.")}
    assert knobs - {"variant"} == set(BAD)


@pytest.mark.parametrize("name", BAD)
def test_bad_values_are_refused(name):
    for value in BAD[name]:
        (line,) = problems(with_changes({name: value}))
        assert line.startswith(f"{name}: expected "), value
        assert line.endswith(f", got {value!r}")


@pytest.mark.parametrize("name", BAD)
def test_missing_fields_are_named(name):
    settings = with_changes({})
    *sections, field = name.split(".")
    del (settings[sections[0]] if sections else settings)[field]
    (line,) = problems(settings)
    assert line.startswith(f"{name}: missing, expected ")


@pytest.mark.parametrize(
    ("changes", "start"),
    [
        ({"grid.size": (96, 100)}, "grid.size: expected sides divisible by 2^model.depth = 16"),
        ({"model.depth": 7}, "grid.size: expected sides divisible by 2^model.depth = 128"),
        ({"model.width": 12}, "model.width: expected layers of fewer channels"),
        ({"model.width": 6}, "model.width: expected layers of fewer channels"),  # 6, 12: not by 8
        ({"balance.width": 12}, "balance.width: expected layers of fewer channels"),
        ({"balance.width": 3}, "balance.width: expected layers of fewer channels"),  # 3, 6, 12
        ({"intensity.low": 99.0}, "intensity.low: expected less than intensity.high = 99.0"),
        (
            {"optimizer.final_learning_rate": 0.1},
            "optimizer.final_learning_rate: expected at most optimizer.learning_rate = 0.01",
        ),
        ({"data.fold": 1}, "data.fold: expected 0 without folds; set data.folds, got 1"),
        ({"data.folds": 5, "data.fold": 5}, "data.fold: expected less than data.folds = 5, got 5"),
        ({"run.devices": 3}, "train.batch_size: expected a multiple of run.devices = 3, got 16"),
        ({"data.phantom_cases": 0}, "data.root: expected the folder of the cases"),
        ({"data.phantom_cases": 0, "data.root": ""}, "data.root: expected the folder of the cases"),
        (
            {"loss.penalty": 0.01, "anatomy.inclusions": []},
            "loss.penalty: expected 0 where anatomy.inclusions names no pair",
        ),
        ({"balance.strength": 0.0}, "balance.strength: expected more than 0 with balance.method"),
        (
            {"model.groups": 0, "loss.weighted": True, "grid.size": (32, 16)},
            "model.groups: expected at least 1 and fewer than 64, the deepest channels by "
            "balance.width, with a grid of (32, 16)",
        ),
        (
            {"balance.width": 2, "loss.weighted": True, "grid.size": (32, 16)},  # 8 channels
            "model.groups: expected at least 1 and fewer than 8, the deepest channels by balance",
        ),
        (
            {"model.groups": 0, "grid.size": (16, 16)},
            "model.groups: expected at least 1 and fewer than 128, the deepest channels by model",
        ),
        (
            {"model.groups": 128, "grid.size": (16, 16)},
            "model.groups: expected at least 1 and fewer than 128, the deepest channels by model",
        ),
        (
            {"data.patients": "(a)", "data.split": "slice"},
            "data.patients: expected None with data.",
        ),
        ({"data.label_values": "0=background"}, "data.label_values: expected a value for every"),
        ({"data.splits": "s.csv", "data.split": "slice"}, "data.splits: expected None with data."),
        ({"grid.size": [32, 48], "augment.turn": True}, "augment.turn: expected False"),
        (
            {"grid.spacing": 0.0, "augment.probability": 0.5, "augment.rotation": 30.0},
            "augment.rotation: expected 0 with grid.spacing = 0, whose pixels ",
        ),
        (
            {"grid.spacing": 0.0, "augment.probability": 0.5, "augment.shift": 5.0},
            "augment.shift: expected 0 with grid.spacing = 0, whose pixels ",
        ),
    ],
)
def test_contradictions(changes, start):
    (line,) = problems(with_changes(changes))
    assert line.startswith(start)


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
def test_good_settings_pass(changes):
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


def test_an_anatomy_that_cannot_be_read_is_named_once():
    settings = with_changes({"loss.penalty": 0.01})
    settings["anatomy"] = None
    assert problems(settings) == ["anatomy: expected a mapping of fields, got None"]
    del settings["anatomy"]
    (line,) = problems(settings)
    assert line.startswith("anatomy: missing")


@pytest.mark.parametrize("variant", ["", None, 3, "../../x"])
def test_a_variant_is_a_name_or_is_not_there(variant):
    (line,) = problems(with_changes({"variant": variant}))
    assert (
        line == f"variant: expected a name without slashes, backslashes and colons, got {variant!r}"
    )
    settings = with_changes({})
    del settings["variant"]
    check(settings)


def test_a_field_that_is_none_is_not_passed_over():
    settings = with_changes({"extra": 3, "loss.penalti": 0.1})
    assert problems(settings) == ["'extra': no such setting", "'loss.penalti': no such setting"]


def test_a_value_in_place_of_a_section_is_told_by_what_is_missing():
    lines = problems(with_changes({"intensity": 3}))
    assert [line.split(":")[0] for line in lines] == [
        "intensity.method", "intensity.low", "intensity.high", "intensity.even",
    ]  # fmt: skip
    assert all(": missing, expected " in line for line in lines)


def test_a_dotted_name_does_not_stand_in_for_a_nested_one():
    settings = with_changes({})
    del settings["data"]["fold"]
    assert problems({**settings, "data.fold": 0}) == ["'data.fold': expected a name without a dot"]


def test_settings_nested_without_end_are_refused():
    nested = {}
    for _ in range(2000):
        nested = {"a": nested}
    assert problems({**with_changes({}), "extra": nested}) == [
        "expected settings of two levels, got many more"
    ]


def test_settings_errors_are_value_errors():
    assert issubclass(SettingsError, ValueError)


def test_flatten():
    nested = {"a": 1, "b": {"c": 2, "d": {"e": [3]}}, "f": {}}
    assert flatten(nested) == {"a": 1, "b.c": 2, "b.d.e": [3]}


def test_replace_leaves_the_original_alone():
    settings = {"seed": 0, "data": {"fold": 0, "folds": 5}}
    assert replace(settings, {"data.fold": 2, "seed": 1}) == {
        "seed": 1,
        "data": {"fold": 2, "folds": 5},
    }
    assert settings == {"seed": 0, "data": {"fold": 0, "folds": 5}}


@pytest.mark.parametrize("name", ["sede", "data.flod", "dta.fold"])
def test_replace_invents_no_field(name):
    with pytest.raises(KeyError):
        replace({"seed": 0, "data": {"fold": 0}}, {name: 1})


def test_places_are_left_out_of_settings_and_nothing_else():
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
