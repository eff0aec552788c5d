"""Patients of cases and own splits, read from files."""

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


def test_the_patient_is_read_from_a_table(tmp_path):
    rows = [f"{name},{k}" for name, k in zip(CASES, "AAB", strict=True)]
    path = write(tmp_path / "p.csv", "\ufeffcase,patient\r\n" + "\r\n".join(rows))
    assert read_patients(path, CASES) == dict(zip(CASES, "AAB", strict=True))


SPLITS = {
    "s.json": json.dumps([{"train": CASES[:2], "val": CASES[2:]}, {"train": CASES[2:],
                         "val": CASES[:2]}]),
    "fold.csv": "case,fold\npat0_visit0,1\npat0_visit1,1\npat1_visit0,0\n",
}  # fmt: skip


@pytest.mark.parametrize("name", SPLITS)
def test_own_folds(tmp_path, name):
    path = write(tmp_path / name, SPLITS[name])
    assert read_held_out(path, CASES, folds=0, fold=0) == {CASES[2]}
    assert read_held_out(path, CASES, folds=2, fold=1) == set(CASES[:2])
    with pytest.raises(DataError, match=rf"{name}: .*5"):
        read_held_out(path, CASES, folds=5, fold=0)
    with pytest.raises(DataError, match=rf"{name}: .*2"):
        read_held_out(path, CASES, folds=0, fold=2)


def test_own_sides(tmp_path):
    path = write(tmp_path / "s.csv", "case,side\n" + "\n".join(
        f"{name},{side}" for name, side in zip(CASES, ("train", "val", "training"), strict=True)
    ))  # fmt: skip
    assert read_held_out(path, CASES, folds=0, fold=0) == {CASES[1]}


WRONG = {
    "a.json": "{",
    "b.json": '[{"train": ["pat0_visit0"]}]',
    "c.json": '[{"train": [3], "val": []}]',
    "d.json": json.dumps([{"train": [*CASES, "gone"], "val": []}]),
    "e.json": json.dumps([{"train": CASES, "val": CASES[:1]}]),
    "f.json": json.dumps([{"train": CASES[:1], "val": CASES[1:2]}]),
    "g.json": json.dumps([{"train": CASES, "val": []}]),
    "h.csv": "case,fold\n",
    "i.csv": "name,fold\na,0\n",
    "j.csv": "case,fold\npat0_visit0,0\npat0_visit1,2\n",
    "k.csv": "case,side\npat0_visit0,test\n",
    "l.csv": "case,fold\npat0_visit0\n",
    "m.csv": "case,fold\npat0_visit0,0,0\n",
}


@pytest.mark.parametrize("name", WRONG)
def test_files_that_are_not_a_split_of_these_cases_are_refused(tmp_path, name):
    path = write(tmp_path / name, WRONG[name])
    with pytest.raises(DataError, match=name) as error:
        read_held_out(path, CASES, folds=0, fold=0)
    assert "\n" not in str(error.value)


def test_files_that_cannot_be_read_are_refused(tmp_path):
    (tmp_path / "bad.csv").write_bytes(b"\xff")
    for name in ("gone.csv", "bad.csv"):
        with pytest.raises(DataError, match=name):
            read_patients(str(tmp_path / name), CASES)
