"""A run's folder: one process at a time, one config, one cohort; nothing half-written."""

import errno
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from jaxseg.runs.workdir import (
    ExistsError,
    WorkdirError,
    atomic,
    check_settings,
    check_writable,
    claim,
    locked,
    read_data,
    read_json,
    read_settings,
    remove_leftovers,
    write_atomic,
    write_files,
)

REPOSITORY = Path(__file__).parents[2]
SETTINGS = {
    "name": "baseline",
    "data": {"root": "/a", "split": "slice"},
    "grid": {"soft_labels": False, "size": (96, 96)},
    "run": {"convolution": "auto", "devices": 0, "pictures": 6},
}
NAMES = ["Case_N001", "Case_P002"]
FACTS = {"cases": NAMES, "digests": {name: {"image": name, "label": "f00d"} for name in NAMES}}
HOLDER = """
import sys
from pathlib import Path
from jaxseg.runs.workdir import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def changed(**sections):
    return SETTINGS | {name: SETTINGS[name] | fields for name, fields in sections.items()}


def test_json_that_is_nested_or_long_without_end_is_refused(tmp_path):
    path = tmp_path / "config.json"
    path.write_text('{"a":' + "[" * 100_000 + "]" * 100_000 + "}")
    with pytest.raises(WorkdirError, match=r"config\.json: cannot be read as JSON \(.*recursion"):
        read_json(path)
    with path.open("wb") as file:
        file.truncate(2**40)  # sparse: takes no space, and would take a terabyte of memory
    with pytest.raises(WorkdirError, match=r"JSON \(expected at most 16777216 bytes\)"):
        read_json(path)


@pytest.mark.parametrize(
    ("part", "bad"),
    [
        ("digests", [None, 3, ["f00d"], {"A": "f00d"}, {"A": {"image": 3, "label": None}}]),
        ("cases", [None, "Case_1", {"Case_1": 0}, [1], [["Case_1"]]]),
        ("training", [None, [], {}, {"slices": 3}, {"slices": 3, "cases": "A"}]),
        ("validation", [{"slices": n, "cases": []} for n in (0, -1, 1.5, "3", True, None)]),
        ("spacing", [None, 1.4, [], [[1, 1, 10]], [[1, 1], [2, 2]], [[1, 1, 0], [1, 1, 1]]]),
        (
            "spacing",
            [[["1", 1, 1], [1, 1, 1]], [[1, 1, float("nan")], [1, 1, 1]], {"0": 1, "1": 2}],
        ),
        (
            "started_from",
            [
                None,
                "runs/a",
                {"name": "a", "checkpoint": "last", "step": 3},
                {"name": "a", "checkpoint": "last", "step": "3", "seen": []},
                {"name": "a", "checkpoint": "last", "step": 3, "seen": [7]},
                {"name": "a", "checkpoint": "last", "step": 3, "seen": [], "started_from": {}},
            ],
        ),
        ("smallest_mm3", [None, 3.0, {}, ["3"], [0], [-1.0], [True], [float("nan")], [[1.0]]]),
    ],
)
def test_parts_of_other_types_are_named(tmp_path, part, bad):
    for value in bad:
        (tmp_path / "data.json").write_text(json.dumps(FACTS | {part: value}))
        with pytest.raises(WorkdirError, match=rf"data\.json: {part}: expected .*, got "):
            read_data(tmp_path)


def test_lock_creates_the_folder_and_frees_it_after(tmp_path):
    folder = tmp_path / "runs" / "first"
    for _ in range(2):
        with locked(folder):
            assert folder.is_dir()
    with pytest.raises(KeyError), locked(folder):
        raise KeyError
    with locked(folder):
        pass


def test_lock_is_refused_while_another_process_holds_it_and_dies_with_it(tmp_path):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)],
        cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        message = f"{tmp_path}: another process is training in this workdir"
        with pytest.raises(WorkdirError, match=re.escape(message)), locked(tmp_path):
            pytest.fail("two processes hold one workdir")
        holder.kill()  # no chance to clean up
        holder.wait()
    with locked(tmp_path):
        pass


def test_two_workdirs_do_not_hinder_each_other(tmp_path):
    with locked(tmp_path / "a"), locked(tmp_path / "b"):
        assert names(tmp_path) == ["a", "b"]


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_folder_that_cannot_be_made_is_named(tmp_path, place):
    (tmp_path / "file").write_text("in the way")
    message = re.escape(f"{tmp_path / place}: cannot write here (")
    with pytest.raises(WorkdirError, match=message), locked(tmp_path / place):
        pass


def test_write_atomic_replaces_and_leaves_nothing_behind(tmp_path):
    path = tmp_path / "table.md"
    for text in ("first, longer\n", "µ ± 1\n"):
        write_atomic(path, text)
        assert path.read_bytes() == text.encode()
    assert names(tmp_path) == ["table.md"]


def test_a_write_cut_short_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "table.md"
    write_atomic(path, "old")

    def killed(source, target):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        write_atomic(path, "new")
    assert path.read_text() == "old"


def test_claim_writes_settings_and_data_once(tmp_path):
    claim(tmp_path, SETTINGS, FACTS)
    assert names(tmp_path) == ["config.json", "data.json"]
    newer = {"patients": None, "splits": None, "label_values": None}
    wanted = changed(grid={"size": [96, 96]}, data=newer)
    assert read_settings(tmp_path) == wanted
    assert read_data(tmp_path) == FACTS
    claim(tmp_path, SETTINGS, FACTS)  # resumed, tuples and all
    assert names(tmp_path) == ["config.json", "data.json"]


def test_every_difference_is_listed(tmp_path):
    claim(tmp_path, SETTINGS, FACTS)
    other = changed(data={"split": "case"}, grid={"size": (96, 128)}) | {"seed": 3}
    with pytest.raises(WorkdirError) as error:
        check_settings(tmp_path, other)
    assert str(error.value).splitlines() == [
        f"{tmp_path}: holds a run of another config; pass another --workdir, or undo",
        "  data.split: 'slice' in the workdir, 'case' asked for",
        "  grid.size: [96, 96] in the workdir, [96, 128] asked for",
        "  seed: None in the workdir, 3 asked for",
    ]
    with pytest.raises(WorkdirError, match=r"data\.split"):
        claim(tmp_path, other, FACTS)
    assert read_settings(tmp_path)["data"]["split"] == "slice"


def test_place_of_the_data_and_ways_of_watching_are_free(tmp_path):
    claim(tmp_path, SETTINGS, FACTS)
    moved = changed(data={"root": "/b"}, run={"devices": 2, "pictures": 0})
    check_settings(tmp_path, moved)
    claim(tmp_path, moved, FACTS)
    assert read_settings(tmp_path)["data"]["root"] == "/b"  # a later reader finds the data


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
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("cases", "change"),
    [
        (["Case_P002"], "Case_N001 vanished"),
        (["Case_N001", "Case_P002", "Case_P003"], "Case_P003 is new"),
        (["Case_P002", "Case_N009"], "Case_N001 vanished, Case_N009 is new"),
    ],
)
def test_a_changed_cohort_is_refused(tmp_path, cases, change):
    claim(tmp_path, SETTINGS, FACTS)
    message = f"{tmp_path}: the cases changed since this run began ({change}); restore them"
    with pytest.raises(WorkdirError, match=re.escape(message)):
        claim(tmp_path, SETTINGS, known_as(cases))
    assert read_data(tmp_path) == FACTS


def known_as(names, **changes):
    digests = {name: {"image": name, "label": "f00d"} | changes for name in names}
    return {"cases": names, "digests": digests}


@pytest.mark.parametrize(
    ("changes", "named"),
    [({"image": "beef"}, "image or voxel size"), ({"label": "b"}, "label map")],
)
def test_changed_cases_are_named(tmp_path, changes, named):
    claim(tmp_path, SETTINGS, FACTS)
    with pytest.raises(WorkdirError, match=rf"\(Case_N001 has another {named}, Case_P002 has"):
        claim(tmp_path, SETTINGS, known_as(NAMES, **changes))


def test_another_split_of_the_same_cases_is_refused(tmp_path):
    sides = {"training": {"slices": 1, "cases": NAMES[:1]}}
    claim(tmp_path, SETTINGS, FACTS | sides)
    claim(tmp_path, SETTINGS, FACTS | sides)
    sides = {"training": {"slices": 1, "cases": NAMES[1:]}}
    with pytest.raises(WorkdirError, match=r"the split changed .*training"):
        claim(tmp_path, SETTINGS, FACTS | sides)


def test_a_run_older_than_digests_is_refused_in_a_line(tmp_path):
    claim(tmp_path, SETTINGS, {"fingerprint": "f00d", "cases": NAMES})
    with pytest.raises(WorkdirError, match=r"data\.json: has no digests") as error:
        claim(tmp_path, SETTINGS, FACTS)
    assert "\n" not in str(error.value)


def test_a_claim_cut_short_is_completed(tmp_path, monkeypatch):
    """Killed between its two files, a run must not keep the data of settings it never had."""
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
    with pytest.raises(WorkdirError, match=r"no run here \(it has no config\.json\)"):
        read_settings(tmp_path)
    with pytest.raises(WorkdirError, match=r"no run here \(it has no data\.json\)"):
        read_data(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b'{"name": "base', "cannot be read as JSON"),
        (b"", "cannot be read as JSON"),
        (b"\xff\xfe", "cannot be read as JSON"),
        (b"[1, 2]", "expected a JSON object, got list"),
    ],
)
def test_broken_files_are_named(tmp_path, content, complaint):
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(WorkdirError, match=re.escape(f"{path}: {complaint}")):
        read_settings(tmp_path)
    with pytest.raises(WorkdirError, match=re.escape(f"{path}: {complaint}")):
        claim(tmp_path, SETTINGS, FACTS)
    assert path.read_bytes() == content
    path.unlink()
    path.mkdir()
    with pytest.raises(WorkdirError, match=re.escape(f"{path}: cannot be read as JSON")):
        read_settings(tmp_path)


def test_written_files_are_plain_json(tmp_path):
    claim(tmp_path, SETTINGS, FACTS)
    text = (tmp_path / "config.json").read_text()
    assert text.endswith("}\n")
    assert json.loads(text)["run"] == SETTINGS["run"]


def test_an_atomic_file_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "scores.csv"
    with atomic(path) as temporary:
        temporary.write_text("new")
        assert not path.exists()
        assert temporary.suffix == ".csv"
    assert path.read_text() == "new"

    def fail_halfway():
        with atomic(path) as temporary:
            temporary.write_text("half")
            raise KeyError

    with pytest.raises(KeyError):
        fail_halfway()
    assert path.read_text() == "new"
    assert names(tmp_path) == ["scores.csv"]


def test_two_writers_of_one_file_do_not_meet(tmp_path):
    path = tmp_path / ("a" * 240 + ".nii.gz")
    with atomic(path) as first, atomic(path) as second:
        assert first != second
        assert first.name.startswith(".")
        assert first.name.endswith(".nii.gz")
        first.write_text("first")
        second.write_text("second")
    assert path.read_text() == "first"
    assert path.stat().st_nlink == 1
    umask = os.umask(0)
    os.umask(umask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask
    assert names(tmp_path) == [path.name]


@pytest.mark.parametrize("links", [True, False])
def test_a_file_that_appears_meanwhile_is_kept(tmp_path, monkeypatch, links):
    if not links:  # as on FAT
        error = OSError(errno.EPERM, "Operation not permitted")
        monkeypatch.setattr(Path, "hardlink_to", lambda *_: (_ for _ in ()).throw(error))
    path = tmp_path / "a.csv"
    with atomic(path, overwrite=False) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "new"

    def late():
        with atomic(path, overwrite=False) as temporary:
            temporary.write_text("late")

    with pytest.raises(ExistsError, match=r"a\.csv"):
        late()
    assert path.read_text() == "new"
    assert names(tmp_path) == ["a.csv"]


def test_text_that_is_not_utf_8_is_written_escaped(tmp_path):
    name = os.fsdecode(b"cas\xe9")
    write_atomic(tmp_path / "a.csv", f"{name}\r\n")
    write_files(tmp_path, {"b.csv": name})
    assert (tmp_path / "a.csv").read_bytes() == rb"cas\udce9" + b"\r\n"
    assert (tmp_path / "b.csv").read_bytes() == rb"cas\udce9"


def test_a_lock_of_a_command_that_wrote_nothing_goes_with_it(tmp_path):
    def fail(folder, *, write=False):
        with locked(folder):
            if write:
                (folder / "a").touch()
            raise KeyError

    with pytest.raises(KeyError):
        fail(tmp_path / "new" / "run")
    assert names(tmp_path) == []
    with pytest.raises(KeyError):
        fail(tmp_path / "run", write=True)
    assert names(tmp_path / "run") == [".lock", "a"]


def test_leftovers_are_files_of_writers_alone(tmp_path):
    for name in (".tmp-0a.csv", "a.csv", ".lock"):
        (tmp_path / name).touch()
    (tmp_path / ".tmp-bundle-cafe0000").mkdir()
    remove_leftovers(tmp_path)
    assert names(tmp_path) == [".lock", ".tmp-bundle-cafe0000", "a.csv"]


def test_what_cannot_be_written_to_is_told_and_nothing_made(tmp_path, monkeypatch):
    check_writable(tmp_path / "a" / "b")
    (tmp_path / "file").touch()
    with pytest.raises(WorkdirError, match=r"b: cannot write here \(.*file is not a folder\)"):
        check_writable(tmp_path / "file" / "b")
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(WorkdirError, match=r"b: cannot write here \(no permission\)"):
        check_writable(tmp_path / "b")
    assert names(tmp_path) == ["file"]


def test_write_files_makes_the_folder_and_takes_text_and_bytes(tmp_path):
    folder = tmp_path / "new" / "folder"
    write_files(folder, {"a.md": "±\n", "b.png": b"\x89"})
    assert (folder / "a.md").read_bytes() == "±\n".encode()
    assert (folder / "b.png").read_bytes() == b"\x89"
    assert len(list(folder.iterdir())) == 2


def test_write_files_says_where_it_cannot_write(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(WorkdirError, match="file/x: cannot write here"):
        write_files(tmp_path / "file" / "x", {"a.md": ""})
