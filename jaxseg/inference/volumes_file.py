"""volumes.csv: a row of each predicted case, kept when more cases are predicted."""

import csv
from collections.abc import Sequence
from pathlib import Path

from jaxseg.anatomy import Anatomy, enclosing_region
from jaxseg.reports import tables
from jaxseg.runs.files import WorkdirError, write_atomic
from jaxseg.runs.lock import locked

FILE = "volumes.csv"
_HEART = ("heart_row", "heart_column")


def _shares(anatomy: Anatomy) -> list[tuple[int, int]]:
    """Return index pairs of each case region that lies within another one, and that region."""
    around = [enclosing_region(values, anatomy.case_regions) for _, values in anatomy.case_regions]
    by_labels = [values for _, values in anatomy.case_regions]
    return [(k, by_labels.index(whole)) for k, whole in enumerate(around) if whole]


def header_of(anatomy: Anatomy) -> list[str]:
    """Return the columns for an anatomy, with units."""
    names = [name for name, _ in anatomy.case_regions]
    shares = [f"{names[k]}_share" for k, _ in _shares(anatomy)]
    return ["case", *(f"{name}_ml" for name in names), *shares, *_HEART, "remarks"]


def row_of(
    anatomy: Anatomy,
    case: str,
    volumes: Sequence[float],
    heart: tuple[int, int] | None,
    remarks: Sequence[str],
) -> list[object]:
    """Format the row of a case.

    The row has volumes in ml and shares of the enclosing region; a share is empty if that region
    is. The voxel (row, column) of the heart is None if the config states its position.
    """
    milliliters = [value / 1000 for value in volumes]
    shares = [volumes[k] / volumes[w] if volumes[w] else "" for k, w in _shares(anatomy)]
    name = case.encode(errors="backslashreplace").decode()  # the form in which it is read back
    return [name, *milliliters, *shares, *(heart or ("", "")), "; ".join(remarks)]


def read_rows(path: Path, header: list[str], overwrite: bool) -> dict[str, Sequence[object]]:
    """Read the rows of an existing table by case; there are none if there is no such table.

    Raises:
      WorkdirError: if the file is not such a table, and may not be replaced.
    """
    if not path.exists():
        return {}
    try:
        with path.open(encoding="utf-8", newline="") as file:  # names may contain line breaks
            first, *rows = csv.reader(file)
    except (OSError, ValueError, csv.Error):
        first, rows = [], []
    if first == header and all(len(row) == len(header) for row in rows):
        return {row[0]: row for row in rows}
    if overwrite:
        return {}
    raise WorkdirError(f"{path}: not a table of {', '.join(header)}; pass --overwrite to replace")


def add_row(output: Path, header: list[str], row: Sequence[object], overwrite: bool) -> None:
    """Add a case to the table of volumes, which other processes may be writing to as well."""
    path = output / FILE
    with locked(output, wait=True):
        rows = read_rows(path, header, overwrite) | {str(row[0]): row}
        write_atomic(path, tables.csv_text(header, rows.values()))
