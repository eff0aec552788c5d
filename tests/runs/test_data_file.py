"""The data of a run: one cohort and one split, and validation of data.json."""

import json
import math
import os

import pytest

from jaxseg.runs.config_file import check_settings, read_settings
from jaxseg.runs.data_file import claim, read_data
from jaxseg.runs.files import WorkdirError

SETTINGS = {
    "name": "baseline",
    "data": {"root": "/a", "split": "slice"},
    "grid": {"soft_labels": False, "size": (96, 96)},
    "run": {"convolution": "auto", "devices": 0, "pictures": 6},
}
NAMES = ["Case_N001", "Case_P002"]
START = {"name": "a", "checkpoint": "last", "step": 3}
FACTS = {"cases": NAMES, "digests": {name: {"image": name, "label": "f00d"} for name in NAMES}}


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def known_as(names, **changes):
    digests = {name: {"image": name, "label": "f00d"} | changes for name in names}
    return {"cases": names, "digests": digests}


def changed(**sections):
    return SETTINGS | {name: SETTINGS[name] | fields for name, fields in sections.items()}


@pytest.mark.parametrize(
    ("part", "bad"),
    [
        ("digests", [None, 3, ["f00d"], {"A": "f00d"}, {"A": {"image": 3, "label": None}}]),
        ("cases", [None, "Case_1", {"Case_1": 0}, [1], [["Case_1"]]]),
        ("training", [None, [], {}, {"slices": 3}, {"slices": 3, "cases": "A"}]),
        ("training", [{"slices": 0, "cases": []}]),
        ("validation", [{"slices": n, "cases": []} for n in (-1, 1.5, "3", True, None)]),
        ("spacing", [None, 1.4, [], [[1, 1, 10]], [[1, 1], [2, 2]], [[1, 1, 0], [1, 1, 1]]]),
        ("spacing", [[["1", 1, 1], [1, 1, 1]], [[1, 1, math.nan], [1, 1, 1]], {"0": 1, "1": 2}]),
        (
            "started_from",
            [
                None,
                "runs/a",
                START,
                START | {"step": "3", "seen": []},
                START | {"seen": [7]},
                START | {"seen": [], "started_from": {}},
            ],
        ),
        ("orientations", [None, "LP", [], ["XX"], ["L"], ["LR"], ["LPS"], [3]]),
        ("slices", [None, 7, [], [7], [7, 8, 9], [0, 7], [8, 7], ["7", 8], [True, 8], [7, 8.0]]),
        ("label_values", [0, {}, [], [0], [0, -1], [0, 2**16], [0, 1.5], ["0", "1"], [False, 1]]),
        ("smallest_heart_mm3", [0, -1.0, "3", [3.0], True, math.nan]),
        ("smallest_mm3", [None, 3.0, {}, ["3"], [0], [-1.0], [True], [math.nan], [[1.0]]]),
    ],
)
def test_invalid_parts_are_named(tmp_path, part, bad):
    for value in bad:
        (tmp_path / "data.json").write_text(json.dumps(FACTS | {part: value}))
        with pytest.raises(WorkdirError, match=rf"data\.json: {part}: "):
            read_data(tmp_path)


def test_valid_parts_are_read(tmp_path):
    for values in (None, [0, 500, 200, 2221, 65535]):
        facts = FACTS | {"slices": [5, 5], "label_values": values, "orientations": ["LP", "AS"]}
        (tmp_path / "data.json").write_text(json.dumps(facts))
        assert read_data(tmp_path) == facts


def test_claim_writes_settings_and_data_once(tmp_path):
    claim(tmp_path, SETTINGS, FACTS)
    assert names(tmp_path) == ["config.json", "data.json"]
    newer = {"patients": None, "splits": None, "label_values": None}
    wanted = changed(grid={"size": [96, 96]}, data=newer)
    assert read_settings(tmp_path) == wanted
    assert read_data(tmp_path) == FACTS
    text = (tmp_path / "config.json").read_text()
    assert text.endswith("}\n")
    assert json.loads(text)["run"] == SETTINGS["run"]
    claim(tmp_path, SETTINGS, FACTS)  # resumed, with tuples
    assert names(tmp_path) == ["config.json", "data.json"]


def test_a_claim_of_another_config_changes_nothing(tmp_path):
    claim(tmp_path, SETTINGS, FACTS)
    with pytest.raises(WorkdirError, match=r"data\.split"):
        claim(tmp_path, changed(data={"split": "case"}), FACTS)
    assert read_settings(tmp_path)["data"]["split"] == "slice"


def test_data_root_and_logging_may_change(tmp_path):
    claim(tmp_path, SETTINGS, FACTS)
    moved = changed(data={"root": "/b"}, run={"devices": 2, "pictures": 0})
    check_settings(tmp_path, moved)
    claim(tmp_path, moved, FACTS)
    assert read_settings(tmp_path)["data"]["root"] == "/b"  # a later reader finds the data


@pytest.mark.parametrize(
    ("facts", "named"),
    [
        (known_as(["Case_P002"]), "Case_N001"),
        (known_as([*NAMES, "Case_P003"]), "Case_P003"),
        (known_as(["Case_P002", "Case_N009"]), "Case_N001.*Case_N009"),
        (known_as(NAMES, image="beef"), "Case_N001.*image.*Case_P002"),
        (known_as(NAMES, label="b"), "Case_N001.*label map.*Case_P002"),
    ],
)
def test_changed_cases_are_refused_and_named(tmp_path, facts, named):
    claim(tmp_path, SETTINGS, FACTS)
    with pytest.raises(WorkdirError, match=rf"{tmp_path}: .*\(.*{named}"):
        claim(tmp_path, SETTINGS, facts)
    assert read_data(tmp_path) == FACTS


def test_another_split_of_the_same_cases_is_refused(tmp_path):
    sides = {"training": {"slices": 1, "cases": NAMES[:1]}}
    claim(tmp_path, SETTINGS, FACTS | sides)
    claim(tmp_path, SETTINGS, FACTS | sides)
    sides = {"training": {"slices": 1, "cases": NAMES[1:]}}
    with pytest.raises(WorkdirError, match="training"):
        claim(tmp_path, SETTINGS, FACTS | sides)


def test_a_run_without_digests_is_refused(tmp_path):
    claim(tmp_path, SETTINGS, {"fingerprint": "f00d", "cases": NAMES})
    with pytest.raises(WorkdirError, match=r"data\.json: .*digests") as error:
        claim(tmp_path, SETTINGS, FACTS)
    assert "\n" not in str(error.value)


def test_an_interrupted_claim_is_completed(tmp_path, monkeypatch):
    """A run killed between its two files must not keep the data of another config."""
    replace, done = os.replace, []

    def once(source, target):
        if done:
            raise KeyboardInterrupt
        done.append(target)
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", once)
        with pytest.raises(KeyboardInterrupt):
            claim(tmp_path, SETTINGS, FACTS)
    with pytest.raises(WorkdirError, match=r"data\.split"):
        claim(tmp_path, changed(data={"split": "case"}), FACTS)
    claim(tmp_path, SETTINGS, FACTS)
    assert read_data(tmp_path) == FACTS


def test_a_folder_without_a_run_is_named(tmp_path):
    with pytest.raises(WorkdirError, match=r"data\.json"):
        read_data(tmp_path / "nowhere")
