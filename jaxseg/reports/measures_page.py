"""Report on the measures of a study: a sortable table of the cases, then each with its pictures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jaxseg.reports.document import Picture, Section, Table
from jaxseg.reports.page import html

_INTRODUCTION = (
    "Measured on label maps, along 100 radial chords a slice. The wall includes infarct and "
    "no-reflow, the infarct includes no-reflow. Transmurality is the share of the wall that is "
    "infarct, averaged over the infarcted chords.\n\n"
    "For research. Check every label map before you use its numbers."
)
_BULLSEYE = (
    "Polar maps: each ring is a slice, with its number, the base outside. Gray chords are not "
    "measured."
)
# Columns of the table of cases, and rows of a case: heading and field.
_COLUMNS = {
    "cavity, ml": "cavity_ml",
    "myocardium, g": "myocardium_g",
    "infarct, g": "infarct_g",
    "infarct, % of myocardium": "infarct_percent_of_myocardium",
    "no-reflow, g": "no_reflow_g",
    "no-reflow, % of infarct": "no_reflow_percent_of_infarct",
    "transmurality, %": "transmurality_mean_percent",
    "endocardium infarcted, %": "subendocardial_extent_percent",
}
_ROWS = {
    **_COLUMNS,
    "no-reflow, % of myocardium": "no_reflow_percent_of_myocardium",
    "wall thickness, mm": "wall_thickness_mm",
    "chords measured": "chords_measured",
    "chords with infarct, %": "infarcted_percent_of_chords",
    "chords over 25 % infarct, %": "transmurality_over_25_percent_of_chords",
    "chords over 50 % infarct, %": "transmurality_over_50_percent_of_chords",
    "chords over 75 % infarct, %": "transmurality_over_75_percent_of_chords",
}
_SEGMENT_COLUMNS = {
    "chords": "chords_measured",
    "transmurality, %": "transmurality_mean_percent",
    "infarct, % of wall": "infarct_percent_of_wall",
    "no-reflow, % of wall": "no_reflow_percent_of_wall",
    "chords with infarct, %": "infarcted_percent_of_chords",
}


@dataclass(frozen=True)
class MeasuredCase:
    """A case in the report.

    Attributes:
      name: name of the case.
      measures: numbers by field, None where there is nothing to measure.
      segments: fields of each AHA segment; empty if they are not known.
      remarks: phrases on what a reader should know.
      overview: PNG of the label map, if there is one.
      bullseye: PNG of the polar maps, if there is one.
    """

    name: str
    measures: Mapping[str, float | None]
    segments: Sequence[Mapping[str, Any]]
    remarks: tuple[str, ...]
    overview: bytes | None
    bullseye: bytes | None


def measures_page(cases: Sequence[MeasuredCase]) -> str:
    """Format the report as one HTML page, the same wherever it is written."""
    rows = tuple(
        (case.name, *(_number(case.measures[field]) for field in _COLUMNS.values()))
        for case in cases
    )
    table = Table(("case", *_COLUMNS), rows, sortable=True)
    overall = Section("Cases", _INTRODUCTION, (table,))
    return html("Measures", [overall, *map(_section, cases)])


def _section(case: MeasuredCase) -> Section:
    content: list[Picture | Table] = []
    if case.overview:
        caption = f"Slices of {case.name} with their labels."
        content.append(Picture(case.overview, f"{case.name}.png", caption))
    if case.bullseye:
        content.append(Picture(case.bullseye, f"{case.name}.png", _BULLSEYE))
    numbers = tuple((name, _number(case.measures[field])) for name, field in _ROWS.items())
    content.append(Table(("measure", "value"), numbers))
    if case.segments:
        rows = tuple(
            (
                f"{one['segment']} {one['name']}",
                *(_number(one[field]) for field in _SEGMENT_COLUMNS.values()),
            )
            for one in case.segments
        )
        content.append(Table(("segment", *_SEGMENT_COLUMNS), rows))
    return Section(
        case.name, "\n\n".join(f"{_sentence(one)}" for one in case.remarks), tuple(content)
    )


def _sentence(phrase: str) -> str:
    return f"{phrase[:1].upper()}{phrase[1:]}."


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.1f}"
