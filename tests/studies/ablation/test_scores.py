"""Scores of runs: reading the files of an evaluation, and comparability."""

import dataclasses
import math
import re

import numpy as np
import pytest

from jaxseg.anatomy import EMIDEC, Anatomy
from jaxseg.evaluation import score_files
from jaxseg.evaluation.case_scores import MEASURES, CaseScores
from jaxseg.evaluation.scores import Evaluation
from jaxseg.runs.files import WorkdirError
from jaxseg.studies.ablation.scores import RunScores, check_comparable, read_run_scores

NAN = math.nan
RNG = np.random.default_rng(0)


def scores_of_a_case(name, numbers, num_slices):
    """Random ones, with gaps where a score is not defined."""
    dsc, regions = RNG.random((len(numbers), 4)), 100 * RNG.random((3, len(MEASURES)))
    dsc[RNG.random(dsc.shape) < 0.4] = NAN
    regions[RNG.random(regions.shape) < 0.4] = NAN
    areas, pixels = np.zeros((2, 2, 3)), RNG.integers(0, 99, (len(numbers), 4, 3))
    return CaseScores(name, num_slices, np.array(numbers), dsc, regions, areas, pixels)


@pytest.fixture
def written(tmp_path):
    """An evaluation of two cases, the second in part, and the folder of its files."""
    cases = (scores_of_a_case("Case_N001", [0, 1, 2], 3), scores_of_a_case("a, b", [4], 9))
    evaluation = Evaluation("awce", "last, step 5", False, EMIDEC, (), cases)
    for name, text in score_files.files(evaluation).items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    return evaluation, tmp_path


def read(folder, anatomy=EMIDEC):
    return read_run_scores(folder, stage="awce", seed=2, fold=1, anatomy=anatomy)


def test_written_scores_are_read_back_exactly(written):
    evaluation, folder = written
    found = read(folder)
    assert (found.stage, found.seed, found.fold) == ("awce", 2, 1)
    assert found.title == "awce, seed 2, fold 1"
    assert found.slice_regions == ("LV", "Myo", "Inf", "NoR")
    assert found.case_regions == ("Myocardium", "Infarction", "NoReflow")
    assert found.slice_cases == ("Case_N001",) * 3 + ("a, b",)
    assert found.slice_numbers.tolist() == [0, 1, 2, 4]
    assert found.slice_numbers.dtype == np.int64
    first, second = evaluation.cases
    np.testing.assert_array_equal(found.slice_dsc, [*first.slice_dsc, *second.slice_dsc])
    np.testing.assert_array_equal(found.slice_counts, [*first.slice_counts, *second.slice_counts])
    assert found.case_names == ("Case_N001", "a, b")
    assert found.whole.tolist() == [True, False]
    np.testing.assert_array_equal(found.cases, [first.regions, second.regions])


def replaced(old, new):
    return lambda text: text.replace(old, new, 1)


def infinite_cell(text):
    lines = text.splitlines()
    cells = lines[1].split(",")
    lines[1] = ",".join([*cells[:4], "inf", *cells[5:]])
    return "\n".join(lines)


def first_lines(count):
    return lambda text: "".join(text.splitlines(keepends=True)[:count])


@pytest.mark.parametrize(
    ("name", "damage", "found"),
    [
        ("slices.csv", replaced("NoR", "Edema"), "Edema"),
        ("slices.csv", lambda _: "", ""),
        ("slices.csv", first_lines(1), ""),
        ("slices.csv", lambda text: text[: text.rindex(",") - 3], "line 5"),
        ("slices.csv", replaced("Case_N001,0,", "Case_N001,,"), "line 2 .*''"),
        ("slices.csv", replaced("Case_N001,0,", "Case_N001,0.5,"), "line 2 .*'0.5'"),
        ("slices.csv", replaced("Case_N001,2,", "Case_N001,1,"), "slice"),
        ("slices.csv", replaced("Case_N001,0,", f"Case_N001,{10**400},"), "line 2"),
        ("pixels.csv", first_lines(5), "slices.csv"),
        ("pixels.csv", replaced("Case_N001,0,LV,", "Case_N001,0,LV,x"), "line 2 .*'x"),
        ("cases.csv", replaced("hd95_mm", "hd99_mm"), "hd99_mm"),
        ("cases.csv", replaced("Infarction", "Scar"), "Infarction"),
        ("cases.csv", first_lines(6), "Infarction"),
        ("cases.csv", first_lines(4), "slices.csv"),
        ("cases.csv", replaced("Myocardium,3,3,", "Myocardium,3,3,x"), "line 2 .*'x"),
        ("cases.csv", lambda text: text.rstrip("\n") + "\ninf", "line 8"),
        ("cases.csv", replaced('"a, b"', '"a, b'), ""),
        ("cases.csv", infinite_cell, "line 2 .*'inf'"),
    ],
)
def test_damaged_files_are_named(written, name, damage, found):
    path = written[1] / name
    path.write_text(damage(path.read_text()))
    with pytest.raises(WorkdirError, match=rf"^{re.escape(str(path))}: .*{found}") as error:
        read(written[1])
    assert "\n" not in str(error.value)


def test_missing_and_unreadable_files_are_named(written):
    path = written[1] / "cases.csv"
    path.write_bytes(b"\xff\xfe")
    for _ in range(2):
        with pytest.raises(WorkdirError, match=r"cases.csv: "):
            read(written[1])
        path.unlink(missing_ok=True)


def test_scores_of_another_anatomy_are_refused(written):
    regions = (("Scar", (1,)),)
    other = Anatomy(("background", "scar"), (), regions, regions)
    with pytest.raises(WorkdirError, match="Scar"):
        read(written[1], other)


def run(stage="baseline", seed=0, fold=None, **changes):
    """A case of two slices; the second holds one region of two."""
    cases = np.zeros((1, 1, len(MEASURES)))
    cases[..., MEASURES.index("reference_mm3")] = 1000.0
    fields = {
        "slice_regions": ("A", "B"),
        "case_regions": ("AB",),
        "slice_cases": ("P1", "P1"),
        "slice_numbers": np.array([0, 1]),
        "slice_dsc": np.array([[0.5, 0.4], [0.3, NAN]]),
        "slice_counts": np.ones((2, 2, 3), int),
        "case_names": ("P1",),
        "whole": np.array([True]),
        "cases": cases,
    }
    return RunScores(stage=stage, seed=seed, fold=fold, **fields | changes)


def fold(number, case, **changes):
    return run(fold=number, slice_cases=(case, case), case_names=(case,), **changes)


def test_comparable_runs():
    """Other scores of the same references, any order, folds of different cases."""
    better = run().slice_dsc + 0.1
    check_comparable([run()])
    check_comparable([run(seed=1), run("awce"), run(), run("awce", 1, slice_dsc=better)])
    check_comparable([fold(0, "P1"), fold(1, "P2")])


@pytest.mark.parametrize(
    ("runs", "named"),
    [
        ([run(), run("awce", slice_numbers=np.array([0, 2]))], "awce, seed 0"),
        ([run(), run("awce", slice_cases=("P1", "P2"))], "awce, seed 0 and baseline, seed 0"),
        ([run(), run(seed=1, slice_dsc=np.ones((2, 2)))], "baseline, seed 1 and baseline, seed 0"),
        ([run(), run("awce", cases=run().cases * 2)], "awce, seed 0"),
        ([run(), run("awce", whole=np.array([False]))], "awce, seed 0"),
        ([run(fold=0), run(fold=1)], "slice 0 of P1"),
    ],
)
def test_incomparable_runs_are_refused(runs, named):
    with pytest.raises(ValueError, match=named):
        check_comparable(runs)


def test_one_slice_in_two_folds_is_found_among_others():
    other = dataclasses.replace(fold(1, "P2"), slice_cases=("P2", "P1"))
    with pytest.raises(ValueError, match="slice 1 of P1"):
        check_comparable([fold(0, "P1"), other])
