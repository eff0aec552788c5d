"""Tables as a reader sees them."""

import pytest

from benchmarks.table import Table, comparison_rows, mebibytes, ratio_cell, seconds


def test_markdown():
    table = Table("Step", ("side", "time"), [("ours", "1 s"), ("theirs", "2 s")], ("A note.",))
    assert table.markdown() == (
        "## Step\n\nA note.\n\n| side | time |\n|---|---|\n| ours | 1 s |\n| theirs | 2 s |\n"
    )


def test_a_row_of_another_length_is_refused():
    with pytest.raises(ValueError, match="Step: "):
        Table("Step", ("side", "time"), [("ours",)]).markdown()


@pytest.mark.parametrize(
    ("value", "text"),
    [(123.4, "123 s"), (1.234, "1.23 s"), (0.2345, "234 ms"), (0.01234, "12.3 ms"), (5e-6, "5 µs")],
)
def test_durations(value: float, text: str):
    assert seconds(value) == text


def test_bytes():
    assert mebibytes(3 * 2**20) == "3 MiB"
    assert mebibytes(None) == "-"


def test_ratios_are_over_jaxseg_turn_by_turn():
    times = {"jaxseg": [1.0, 2.0, 1.0], "torch eager": [3.0, 4.0, 2.0]}
    assert ratio_cell(times["torch eager"], times["jaxseg"]) == "2.00 (2.00 - 2.50)"
    ours, theirs = comparison_rows(("step",), times)
    assert ours == ("step", "jaxseg", "1 s", "1 s - 1.5 s", "1 s - 2 s", "1")
    assert theirs[:3] == ("step", "torch eager", "3 s")
    assert theirs[-1] == "2.00 (2.00 - 2.50)"


def test_a_side_without_its_reference_has_no_ratio():
    ((*_, last),) = comparison_rows((), {"torch eager": [1.0]})
    assert last == "-"
