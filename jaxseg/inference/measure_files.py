"""Files of measures: one JSON file a case, and the tables and report made from all of them."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jaxseg.measures.aha import Septum
from jaxseg.measures.case_measures import CaseMeasures
from jaxseg.measures.transmurality import angles
from jaxseg.reports import tables
from jaxseg.reports.measures_page import MeasuredCase, measures_page
from jaxseg.runs.files import WorkdirError, read_json, write_files
from jaxseg.runs.lock import locked

CASES, SLICES, SEGMENTS = "measures.csv", "measures_slices.csv", "measures_segments.csv"
REPORT = "report.html"
MEASURES = "measures"
_DIGITS = 4  # after the decimal point, far beyond what a label map is good for


def case_paths(folder: Path, name: str) -> list[Path]:
    """The files written of a measured case: picture of the polar maps, and all measures."""
    return [folder / "bullseyes" / f"{name}.png", folder / MEASURES / f"{name}.json"]


def overview_path(folder: Path, name: str) -> Path:
    """The picture with the label map of a case."""
    return folder / "overviews" / f"{name}.png"


def record(
    name: str,
    measures: CaseMeasures,
    spacing: Sequence[float],
    *,
    apex_first: bool,
    septum: Septum | None,
    orientation: str,
) -> str:
    """Format the measures of a case as JSON, with units in the names.

    Args:
      name: name of the case.
      measures: its measures.
      spacing: voxel size in mm.
      apex_first: whether slice 0 is the apex, else the base.
      septum: where the septum lies, if that is known.
      orientation: a phrase on how it is known, or why not.
    """
    chords = measures.chords
    content = {
        "case": name.encode(errors="backslashreplace").decode(),
        "voxel_mm": list(spacing),
        "apex_first": apex_first,
        "septum": septum and {"anterior_degrees": septum.anterior, "extent_degrees": septum.extent},
        "orientation": orientation,
        "remarks": measures.remarks,
        "measures": asdict(measures.masses) | asdict(measures.transmurality),
        "slices": [
            {"slice": k, **asdict(mass), **asdict(summary)}
            for k, (mass, summary) in enumerate(measures.slices)
        ],
        "segments": [asdict(one) for one in measures.segments or []],
        "chords": {
            "angle_degrees": angles().tolist(),
            "wall_mm": _listed(chords.wall_mm),
            "infarct_percent_of_wall": _listed(100 * chords.infarct),
            "no_reflow_percent_of_wall": _listed(100 * chords.no_reflow),
        },
    }
    return json.dumps(_rounded(content), allow_nan=False) + "\n"


def _listed(values: NDArray[np.float64]) -> list[list[float | None]]:
    return [[None if np.isnan(one) else one for one in row] for row in values.tolist()]


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, _DIGITS)
    if isinstance(value, dict):
        return {key: _rounded(one) for key, one in value.items()}
    return [_rounded(one) for one in value] if isinstance(value, list | tuple) else value


def write_study(folder: Path) -> None:
    """Write the tables and the report of all cases that have been measured in a folder.

    Other processes may be measuring into the same folder; whoever comes last writes all cases.

    Raises:
      WorkdirError: if a file of measures cannot be read, or the folder cannot be written to.
    """
    with locked(folder, wait=True):
        paths = sorted((folder / MEASURES).glob("*.json"))
        found = {path.stem: _content(path) for path in paths if not path.name.startswith(".")}
        try:
            files = _study(folder, found) if found else {}
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise WorkdirError(
                f"{folder / MEASURES}: expected files of this version of jaxseg ({error!r})"
            ) from error
        write_files(folder, files)
        for name in {CASES, SLICES, SEGMENTS, REPORT} - set(files):  # of earlier cases
            (folder / name).unlink(missing_ok=True)


def _content(path: Path) -> dict[str, Any]:
    content = read_json(path)
    parts = {"case", "measures", "segments", "remarks", "orientation", "slices"}
    if missing := parts - set(content):
        raise WorkdirError(
            f"{path}: lacks {', '.join(sorted(missing))}; expected a file of this version of jaxseg"
        )
    return content


def _study(folder: Path, found: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Format the tables and the report of cases by the stem of their files."""
    cases = [_read(folder, stem, content) for stem, content in found.items()]
    rows = {
        CASES: [[{**c["measures"], "remarks": "; ".join(c["remarks"])}] for c in found.values()],
        SLICES: [content["slices"] for content in found.values()],
        SEGMENTS: [content["segments"] for content in found.values()],
    }
    names = [case.name for case in cases]
    files = {
        file: _csv(zip(names, parts, strict=True)) for file, parts in rows.items() if any(parts)
    }
    return {**files, REPORT: measures_page(cases)}


def _read(folder: Path, stem: str, content: Mapping[str, Any]) -> MeasuredCase:
    overview, (bullseye, _) = overview_path(folder, stem), case_paths(folder, stem)
    return MeasuredCase(
        name=content["case"],
        measures=content["measures"],
        segments=content["segments"],
        remarks=(*content["remarks"], content["orientation"]),
        overview=overview.read_bytes() if overview.exists() else None,
        bullseye=bullseye.read_bytes() if bullseye.exists() else None,
    )


def _csv(cases: Iterable[tuple[str, Sequence[Mapping[str, Any]]]]) -> str:
    """Format rows of cases; what is None is left empty, and lists are separated by spaces."""
    rows = [{"case": name, **row} for name, part in cases for row in part]
    header = list(rows[0])
    return tables.csv_text(header, [[_cell(row[column]) for column in header] for row in rows])


def _cell(value: Any) -> Any:
    return " ".join(map(str, value)) if isinstance(value, list) else value
