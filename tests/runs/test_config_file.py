"""The config of a run: differences are listed, and older versions are still read."""

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
    assert str(error.value).splitlines() == [
        f"{tmp_path}: holds a run of another config; pass another --workdir, or undo",
        "  data.split: 'slice' in the workdir, 'case' asked for",
        "  grid.size: [96, 96] in the workdir, [96, 128] asked for",
        "  seed: None in the workdir, 3 asked for",
    ]


def test_a_run_older_than_a_knob_is_read_with_what_it_stood_at(tmp_path):
    old = {"grid": {"size": [64, 64]}, "loss": {"dice": 0.0}, "run": {"devices": 0}}
    (tmp_path / "config.json").write_text(json.dumps(old))
    now = {
        "grid": {"soft_labels": False, "size": [64, 64]},
        "loss": {"dice_of": "labels", "dice": 0.0},
        "run": {"convolution": "xla", "devices": 0},
    }
    assert read_settings(tmp_path) == now
    check_settings(tmp_path, now)
    with pytest.raises(WorkdirError, match=r"grid\.soft_labels: False in the workdir, True asked"):
        check_settings(tmp_path, now | {"grid": {"soft_labels": True, "size": [64, 64]}})
    newer = {"grid": {"soft_labels": True}, "run": 3}
    (tmp_path / "config.json").write_text(json.dumps(newer))
    assert read_settings(tmp_path) == newer


def test_fields_that_are_gone_are_left_out_where_they_did_nothing(tmp_path):
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
    now |= {"optimizer": {}, "model": {}, "train": {"init_from": None}}
    now |= {"run": {"convolution": "xla"}}
    assert read_settings(tmp_path) == now
    check_settings(tmp_path, now)  # and the run can go on


@pytest.mark.parametrize(
    ("name", "value"),
    [("loss.deep", 0.5), ("loss.dice_over", "batch"), ("model.slices", 3)],
)
def test_a_run_that_used_a_field_that_is_gone_is_refused_in_a_line(tmp_path, name, value):
    section, field = name.split(".")
    (tmp_path / "config.json").write_text(json.dumps({section: {field: value}}))
    with pytest.raises(WorkdirError, match=rf"{name}: .*got {value!r}; f458d8a is") as error:
        read_settings(tmp_path)
    assert "\n" not in str(error.value)


def test_an_empty_workdir_suits_any_settings(tmp_path):
    check_settings(tmp_path, SETTINGS)
    assert not list(tmp_path.iterdir())


def test_a_folder_without_a_run_is_named(tmp_path):
    with pytest.raises(WorkdirError, match=r"no run here \(it has no config\.json\)"):
        read_settings(tmp_path)
