"""Read the patient of each case, and user-defined splits, from small files."""

import csv
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxseg.data.nifti import DataError
from jaxseg.home import expanded

_MAX_BYTES = 2**24
_SIDES = {"train": "train", "training": "train", "val": "val", "validation": "val"}


def read_patients(source: str, cases: Sequence[str]) -> dict[str, str]:
    """Map each case to its patient.

    Args:
      source: a CSV file with the columns `case` and `patient`; or a regular expression that matches
        in every case name and whose first group is the patient.
      cases: names of all cases.

    Raises:
      DataError: the file cannot be read or its names differ from `cases`; or the expression does
        not match in a name.
    """
    if source.endswith(".csv"):
        path = expanded(source, "data.patients")
        rows = _read_csv(path, ("case", "patient"))
        _check_names(path, [row["case"] for row in rows], cases)
        return {row["case"]: row["patient"] for row in rows}
    found = {name: re.search(source, name) for name in cases}
    for name, match in found.items():
        if not (match and match[1]):
            raise DataError(
                f"{name}: data.patients: expected {source!r} in the name of every case, with the "
                "patient as its first group"
            )
    return {name: str(match[1]) for name, match in found.items() if match}


def read_held_out(source: str, cases: Sequence[str], *, folds: int, fold: int) -> set[str]:
    """Names of the cases that a user-defined split holds out.

    Args:
      source: nnU-Net's `splits_final.json`, a list of `{"train": [...], "val": [...]}`; or a CSV
        file with the columns `case` and `fold` (0, 1 ...), or `case` and `side` (train or val).
      cases: names of all cases; the split must name each of them once.
      folds: expected number of folds; 0 accepts any number.
      fold: index of the held-out fold.

    Raises:
      DataError: the file cannot be read, its names differ from `cases`, it has too few folds or not
        the expected number, or one side is empty.
    """
    path = expanded(source, "data.splits")
    sides = _json_sides(path) if source.endswith(".json") else _csv_sides(path)
    if folds and folds != len(sides):
        raise DataError(f"{path}: has {len(sides)} folds; expected data.folds = {folds}")
    if fold >= len(sides):
        raise DataError(
            f"{path}: expected data.fold less than {len(sides)}, the number of folds, got {fold}"
        )
    train, val = sides[fold]
    _check_names(path, [*train, *val], cases)
    for side, names in (("train", train), ("val", val)):
        if not names:
            raise DataError(f"{path}: fold {fold}: no case in {side}; expected at least one")
    return set(val)


def _json_sides(path: Path) -> list[tuple[list[str], list[str]]]:
    try:
        content: Any = json.loads(_read(path))
        sides = [(list(part["train"]), list(part["val"])) for part in content]
        if not all(isinstance(name, str) for side in sides for part in side for name in part):
            raise TypeError
    except (ValueError, TypeError, KeyError, RecursionError):
        raise DataError(
            f'{path}: expected nnU-Net\'s list of {{"train": [names], "val": [names]}}'
        ) from None
    return sides


def _csv_sides(path: Path) -> list[tuple[list[str], list[str]]]:
    rows = _read_csv(path, ("case", "fold"), ("case", "side"))
    names = [row["case"] for row in rows]
    if "side" in rows[0]:
        unknown = [row["side"] for row in rows if row["side"] not in _SIDES]
        if unknown:
            raise DataError(f"{path}: side: expected train or val, got {unknown[0]!r:.80}")
        held = [[row["case"] for row in rows if _SIDES[row["side"]] == "val"]]
    else:
        folds = {row["fold"] for row in rows}
        if folds != {str(k) for k in range(len(folds))}:
            shown = ", ".join(sorted(folds))
            raise DataError(f"{path}: fold: expected whole numbers 0, 1 ..., got {shown:.80}")
        held = [[row["case"] for row in rows if row["fold"] == str(k)] for k in range(len(folds))]
    return [([name for name in names if name not in set(val)], val) for val in held]


def _check_names(path: Path, names: Iterable[str], cases: Sequence[str]) -> None:
    """Require every case exactly once, and no other name."""
    counts = Counter(names)
    for name in sorted(counts.keys() - set(cases)):
        raise DataError(f"{path}: {name!r:.80} is not the name of a case")
    for name in sorted(set(cases) - counts.keys()):
        raise DataError(f"{path}: does not name the case {name}; expected every case")
    for name, count in counts.items():
        if count > 1:
            raise DataError(f"{path}: names the case {name} {count} times; expected once")


def _read_csv(path: Path, *headers: tuple[str, str]) -> list[Mapping[str, str]]:
    try:
        reader = csv.DictReader(_read(path).splitlines(), strict=True)
        rows, header = list(reader), tuple(reader.fieldnames or ())
    except csv.Error as error:
        raise DataError(f"{path}: cannot be read as CSV ({error})") from None
    if header not in headers or not rows:
        expected = " or ".join(",".join(header) for header in headers)
        raise DataError(f"{path}: expected the columns {expected}, and one line per case")
    for number, row in enumerate(rows, start=2):
        if None in row or not all(row.values()):
            raise DataError(f"{path}: line {number}: expected {' and '.join(header)}")
    return [{name: value.strip() for name, value in row.items()} for row in rows]


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
        if len(content) > _MAX_BYTES:
            raise DataError(f"{path}: expected at most {_MAX_BYTES} bytes")
        return content.decode("utf-8-sig")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise DataError(f"{path}: cannot be read as UTF-8 text") from None
