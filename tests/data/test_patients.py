"""Patients of cases, and splits of the user's own, as files say."""

import json

import pytest

from jaxseg.data.nifti import DataError
from jaxseg.data.patients import read_held_out, read_patients

CASES = ["pat0_visit0", "pat0_visit1", "pat1_visit0"]


def write(path, text):
    path.write_text(text)
    return str(path)


def test_the_patient_is_the_first_group_of_a_pattern():
    found = read_patients(r"(pat\d+)_", CASES)
    assert found == dict(zip(CASES, ["pat0", "pat0", "pat1"], strict=True))
    with pytest.raises(DataError, match=r"other: data\.patients: "):
        read_patients(r"(pat\d+)_", [*CASES, "other"])


def test_the_patient_is_what_a_table_says(tmp_path):
    rows = [f"{name},{k}" for name, k in zip(CASES, "AAB", strict=True)]
    path = write(tmp_path / "p.csv", "\ufeffcase,patient\r\n" + "\r\n".join(rows))
    assert read_patients(path, CASES) == dict(zip(CASES, "AAB", strict=True))


SPLITS = {
    "s.json": json.dumps([{"train": CASES[:2], "val": CASES[2:]}, {"train": CASES[2:],
                         "val": CASES[:2]}]),
    "fold.csv": "case,fold\npat0_visit0,1\npat0_visit1,1\npat1_visit0,0\n",
}  # fmt: skip


@pytest.mark.parametrize("name", SPLITS)
def test_folds_of_one_s_own(tmp_path, name):
    path = write(tmp_path / name, SPLITS[name])
    assert read_held_out(path, CASES, folds=0, fold=0) == {CASES[2]}
    assert read_held_out(path, CASES, folds=2, fold=1) == set(CASES[:2])
    with pytest.raises(DataError, match=rf"{name}: has 2 folds; expected data.folds = 5"):
        read_held_out(path, CASES, folds=5, fold=0)
    with pytest.raises(DataError, match=rf"{name}: has 2 folds; .*got 2"):
        read_held_out(path, CASES, folds=0, fold=2)


def test_sides_of_one_s_own(tmp_path):
    path = write(tmp_path / "s.csv", "case,side\n" + "\n".join(
        f"{name},{side}" for name, side in zip(CASES, ("train", "val", "training"), strict=True)
    ))  # fmt: skip
    assert read_held_out(path, CASES, folds=0, fold=0) == {CASES[1]}


WRONG = {
    "a.json": ("{", "expected nnU-Net's list"),
    "b.json": ('[{"train": ["pat0_visit0"]}]', "expected nnU-Net's list"),
    "c.json": ('[{"train": [3], "val": []}]', "expected nnU-Net's list"),
    "d.json": (json.dumps([{"train": [*CASES, "gone"], "val": []}]), "'gone' is not the name of"),
    "e.json": (json.dumps([{"train": CASES, "val": CASES[:1]}]), "pat0_visit0 2 times"),
    "f.json": (json.dumps([{"train": CASES[:1], "val": CASES[1:2]}]), "the case pat1_visit0"),
    "g.json": (json.dumps([{"train": CASES, "val": []}]), "no case in val"),
    "h.csv": ("case,fold\n", "expected the columns"),
    "i.csv": ("name,fold\na,0\n", "expected the columns"),
    "j.csv": ("case,fold\npat0_visit0,0\npat0_visit1,2\n", "fold: expected whole numbers"),
    "k.csv": ("case,side\npat0_visit0,test\n", "side: expected train or val, got 'test'"),
    "l.csv": ("case,fold\npat0_visit0\n", "line 2: expected case and fold"),
    "m.csv": ("case,fold\npat0_visit0,0,0\n", "line 2: expected case and fold"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_split_of_these_cases_is_refused_in_a_line(tmp_path, name):
    text, problem = WRONG[name]
    path = write(tmp_path / name, text)
    with pytest.raises(DataError, match=rf"{name}: .*{problem}") as error:
        read_held_out(path, CASES, folds=0, fold=0)
    assert "\n" not in str(error.value)


def test_a_file_that_cannot_be_read_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"gone\.csv: cannot be read"):
        read_patients(str(tmp_path / "gone.csv"), CASES)
    (tmp_path / "bad.csv").write_bytes(b"\xff")
    with pytest.raises(DataError, match=r"bad\.csv: cannot be read as UTF-8"):
        read_patients(str(tmp_path / "bad.csv"), CASES)
