"""The config of a run: differences, and configs of earlier versions."""

import json

import pytest

from jaxseg.runs.config_file import check_settings, read_settings
from jaxseg.runs.files import WorkdirError

SETTINGS = {
    "name": "baseline",
    "data": {"root": "/a", "split": "slice"},
    "grid": {"soft_labels": False, "size": (96, 96)},
    "run": {"convolution": "auto", "devices": 0, "pictures": 6},
}


def changed(**sections):
    return SETTINGS | {name: SETTINGS[name] | fields for name, fields in sections.items()}


def test_every_difference_is_listed(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(SETTINGS))
    other = changed(data={"split": "case"}, grid={"size": (96, 128)}) | {"seed": 3}
    with pytest.raises(WorkdirError) as error:
        check_settings(tmp_path, other)
    first, *lines = str(error.value).splitlines()
    assert first.startswith(f"{tmp_path}: ")
    differences = [("data.split", "'slice'", "'case'"), ("grid.size", "[96, 96]", "[96, 128]"),
                   ("seed", "None", "3")]  # fmt: skip
    for line, parts in zip(lines, differences, strict=True):
        assert all(part in line for part in parts)


def test_missing_new_fields_get_their_former_value(tmp_path):
    old = {"grid": {"size": [64, 64]}, "loss": {"dice": 0.0}, "run": {"devices": 0}}
    (tmp_path / "config.json").write_text(json.dumps(old))
    now = {
        "grid": {"soft_labels": False, "size": [64, 64]},
        "loss": {"dice_of": "labels", "dice": 0.0},
        "run": {"convolution": "xla", "devices": 0},
    }
    assert read_settings(tmp_path) == now
    check_settings(tmp_path, now)
    with pytest.raises(WorkdirError, match=r"grid\.soft_labels: .*False.*True"):
        check_settings(tmp_path, now | {"grid": {"soft_labels": True, "size": [64, 64]}})
    newer = {"grid": {"soft_labels": True}, "run": 3}
    (tmp_path / "config.json").write_text(json.dumps(newer))
    assert read_settings(tmp_path) == newer


def test_removed_fields_are_dropped_where_they_were_off(tmp_path):
    old = {
        "balance": {"difficulty": "image", "prevalence_power": 0.0, "width": 16},
        "loss": {"deep": 0.0, "support": 0, "dice_smooth": 0.0, "dice_over": "image", "dice": 1.0},
        "model": {"slices": 1},
        "optimizer": {"average": 0.0},
        "train": {"pathology": 0.0},
        "grid": {"soft_labels": False},
        "run": {"convolution": "xla", "cpu_devices": 2},
    }
    (tmp_path / "config.json").write_text(json.dumps(old))
    now = old | {"loss": {"dice": 1.0, "dice_of": "labels"}, "balance": {"width": 16}}
    now |= {
        "optimizer": {"method": "adam"},
        "model": {"context": False},
        "train": {"init_from": None},
    }
    now |= {"run": {"convolution": "xla"}}
    assert read_settings(tmp_path) == now
    check_settings(tmp_path, now)  # and the run can go on


@pytest.mark.parametrize(
    ("name", "value"), [("loss.deep", 0.5), ("loss.dice_over", "batch"), ("model.slices", 3)]
)
def test_a_run_that_used_a_removed_field_is_refused(tmp_path, name, value):
    section, field = name.split(".")
    (tmp_path / "config.json").write_text(json.dumps({section: {field: value}}))
    with pytest.raises(WorkdirError, match=rf"{name}: .*{value!r}") as error:
        read_settings(tmp_path)
    assert "\n" not in str(error.value)


def test_an_empty_folder_accepts_any_config(tmp_path):
    check_settings(tmp_path, SETTINGS)
    assert not list(tmp_path.iterdir())


def test_a_folder_without_a_run_is_named(tmp_path):
    with pytest.raises(WorkdirError, match=r"config\.json"):
        read_settings(tmp_path)
