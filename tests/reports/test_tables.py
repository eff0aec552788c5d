"""Tables of scores as Markdown and CSV."""

import csv
import io
import math

import numpy as np
import pytest

from jaxseg.metrics import Summary
from jaxseg.reports.tables import markdown, mean_and_std, score, score_csv, score_markdown

ROWS = {
    "best (epoch 8)": Summary(
        np.array([0.9123, 1 / 3, math.nan]), np.array([0.0344, math.nan, math.nan]),
        np.array([57, 1, 0]),
    ),
    "last (epoch 10)": Summary(
        np.array([1.0, 0.0, 0.5]), np.array([0.0, 0.25, 0.125]), np.array([57, 2, 3])
    ),
}  # fmt: skip
REGIONS = ("LV", "Inf", "NoR")


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        ((0.9123, 0.0344, 57), "0.912 ± 0.034 (57)"),
        ((0.0, 0.0, 2), "0.000 ± 0.000 (2)"),
        ((1.0, math.nan, 1), "1.000 (1)"),  # one slice has no spread
        ((math.nan, math.nan, 0), "- (0)"),
        ((np.float64(0.5), np.float64(0.25), np.int64(3)), "0.500 ± 0.250 (3)"),
    ],
)
def test_cells(cell, text):
    assert mean_and_std(*cell) == text


def test_cells_with_bounds():
    assert mean_and_std(12.34, 4.56, 7, 1, low=11.1, high=13.5) == "12.3 ± 4.6 [11.1, 13.5] (7)"


def test_undefined_scores_are_dashes():
    found = [score(value) for value in (0.0, 2 / 3, 1.0, math.nan)]
    assert found == ["0.000", "0.667", "1.000", "-"]


def test_a_bar_in_a_name_does_not_end_its_cell():
    assert markdown(["a|b"], [["1"]]).splitlines()[0] == r"| a\|b |"


def test_markdown_is_aligned():
    assert markdown(["", "long header"], [["first", "1"], ["2nd", "22"]]) == (
        "|       | long header |\n"
        "|-------|-------------|\n"
        "| first | 1           |\n"
        "| 2nd   | 22          |\n"
    )
    assert markdown(["a"], []) == "| a |\n|---|\n"


def test_a_ragged_table_is_refused():
    with pytest.raises((ValueError, IndexError)):
        markdown(["a", "b"], [["1"]])
    with pytest.raises(ValueError, match="argument"):
        markdown(["a"], [["1", "2"]])


def test_scores_as_markdown():
    assert score_markdown("checkpoint", REGIONS, ROWS) == (
        "| checkpoint      | LV                 | Inf               | NoR               |\n"
        "|-----------------|--------------------|-------------------|-------------------|\n"
        "| best (epoch 8)  | 0.912 ± 0.034 (57) | 0.333 (1)         | - (0)             |\n"
        "| last (epoch 10) | 1.000 ± 0.000 (57) | 0.000 ± 0.250 (2) | 0.500 ± 0.125 (3) |\n"
    )


def test_csv_keeps_every_number_exactly():
    rows = {'odd, "name"': ROWS["best (epoch 8)"], "other": ROWS["last (epoch 10)"]}
    text = score_csv("stage", REGIONS, rows)
    assert text.endswith("\n")
    assert "\r" not in text
    read = list(csv.DictReader(io.StringIO(text)))
    assert list(read[0]) == ["stage", "region", "mean", "std", "slices"]
    assert [line["stage"] for line in read] == ['odd, "name"'] * 3 + ["other"] * 3
    assert [line["region"] for line in read] == [*REGIONS] * 2
    for column, field in (("mean", "mean"), ("std", "std"), ("slices", "n")):
        found = [float(line[column]) for line in read]
        wanted = np.concatenate([getattr(summary, field) for summary in rows.values()])
        np.testing.assert_array_equal(found, wanted)
