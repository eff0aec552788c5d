"""Measurements as Markdown tables."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.timing import Spread, ratio

REFERENCE = "jaxseg"
"""The side that ratios refer to."""


@dataclass(frozen=True)
class Table:
    """A titled table.

    Attributes:
      title: heading.
      header: names of the columns.
      rows: cells of each row, one per column.
      notes: paragraphs below the heading.
    """

    title: str
    header: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    notes: tuple[str, ...] = ()

    def markdown(self) -> str:
        """The table with its heading.

        Raises:
          ValueError: the number of cells in a row differs from that in the header.
        """
        for row in self.rows:
            if len(row) != len(self.header):
                raise ValueError(f"{self.title}: {len(self.header)} columns, got the row {row}")
        lines = [f"## {self.title}", ""]
        for note in self.notes:
            lines += [note, ""]
        lines += [_line(self.header), "|---" * len(self.header) + "|"]
        return "\n".join([*lines, *map(_line, self.rows), ""])


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def seconds(value: float) -> str:
    """A duration with three digits and its unit."""
    for factor, unit in ((1.0, "s"), (1e3, "ms")):
        number = value * factor
        if number >= 1:
            return f"{number:.0f} {unit}" if number >= 100 else f"{number:.3g} {unit}"
    return f"{value * 1e6:.3g} µs"


def mebibytes(value: float | None) -> str:
    """Bytes as MiB; a dash if there is no value."""
    return "-" if value is None else f"{value / 2**20:.0f} MiB"


def spread_cells(times: Sequence[float]) -> tuple[str, str, str]:
    """Median, quartiles and extremes of a duration."""
    spread = Spread.of(times)
    return (
        seconds(spread.median),
        " - ".join(map(seconds, spread.quartiles)),
        " - ".join(map(seconds, spread.extremes)),
    )


def ratio_cell(times: Sequence[float], reference: Sequence[float]) -> str:
    """Median of the ratio and its quartiles."""
    spread = ratio(times, reference)
    return f"{spread.median:.2f} ({spread.quartiles[0]:.2f} - {spread.quartiles[1]:.2f})"


COMPARISON = ("median", "quartiles", "extremes", f"over {REFERENCE}")
"""Columns of `comparison_rows`."""


def comparison_rows(
    label: tuple[str, ...], times: Mapping[str, Sequence[float]]
) -> list[tuple[str, ...]]:
    """One row per side: its times, and their ratio to those of the reference."""
    reference = times.get(REFERENCE)

    def over_reference(side: str, values: Sequence[float]) -> str:
        if side == REFERENCE:
            return "1"
        return ratio_cell(values, reference) if reference else "-"

    return [
        (*label, side, *spread_cells(values), over_reference(side, values))
        for side, values in times.items()
    ]
