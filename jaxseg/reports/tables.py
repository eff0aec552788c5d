"""Tables of scores as Markdown and CSV."""

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence

from jaxseg.metrics import Summary


def score(value: float) -> str:
    """Format a score with three decimals, or as a dash if it is nan."""
    return fixed(value, 3)


def fixed(value: float, decimals: int) -> str:
    """Format a number with fixed decimals, or as a dash if it is nan."""
    return "-" if math.isnan(value) else f"{value:.{decimals}f}"


def interval(low: float, high: float, decimals: int) -> str:
    """Format bounds as ` [0.8, 0.9]`, to follow a number; empty if they are nan."""
    return "" if math.isnan(low) else f" [{low:.{decimals}f}, {high:.{decimals}f}]"


def mean_and_std(
    mean: float,
    std: float,
    count: object,
    decimals: int = 3,
    *,
    low: float = math.nan,
    high: float = math.nan,
) -> str:
    """Format as `0.912 ± 0.034 [0.905, 0.919] (57)`; the mean is a dash if it is nan."""
    spread = "" if math.isnan(std) else f" ± {fixed(std, decimals)}"
    return f"{fixed(mean, decimals)}{spread}{interval(low, high, decimals)} ({count})"


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Format a Markdown table with aligned columns, legible as plain text, too; | is escaped."""
    cells = [[cell.replace("|", r"\|") for cell in row] for row in (header, *rows)]
    widths = [max(len(row[k]) for row in cells) for k in range(len(header))]
    lines = [
        "| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |"
        for row in cells
    ]
    lines.insert(1, "|" + "|".join("-" * (w + 2) for w in widths) + "|")
    return "\n".join(lines) + "\n"


def number(value: float) -> str:
    """Format a number in full precision; empty if it is nan."""
    return "" if math.isnan(value) else repr(float(value))


def csv_text(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Format comma-separated values, one line per row."""
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows([header, *rows])
    return stream.getvalue()


def score_markdown(first: str, regions: Sequence[str], rows: Mapping[str, Summary]) -> str:
    """Format scores by row and region as a Markdown table.

    Args:
      first: header of the first column, which names the rows.
      regions: R names of the other columns.
      rows: summaries over (N, R) scores, by row name.
    """
    body = [
        [name, *(mean_and_std(*cell) for cell in zip(s.mean, s.std, s.n, strict=True))]
        for name, s in rows.items()
    ]
    return markdown([first, *regions], body)


def score_csv(first: str, regions: Sequence[str], rows: Mapping[str, Summary]) -> str:
    """Format the scores as CSV in long form and full precision, one line per row and region."""
    body = [
        [name, region, repr(float(mean)), repr(float(std)), int(count)]
        for name, s in rows.items()
        for region, mean, std, count in zip(regions, s.mean, s.std, s.n, strict=True)
    ]
    return csv_text([first, "region", "mean", "std", "slices"], body)
