"""The file `data.json` of a run: what it was trained and validated on."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxseg.data.case import directions_of
from jaxseg.runs.config_file import SETTINGS, check_settings
from jaxseg.runs.files import WorkdirError, read_json, write_atomic

DATA = "data.json"
STARTED_FROM = "started_from"
"""Key of `data.json` for the run that this one was initialized from, and the cases it has seen."""


def read_data(workdir: Path) -> dict[str, Any]:
    """Read what the run in a folder was trained and validated on: cases, digests and slices.

    Raises:
      WorkdirError: as in `read_settings`, or if a part is malformed. A missing part is accepted,
        since older runs recorded less.
    """
    data = read_json(workdir / DATA)
    for name, (test, expected) in _PARTS.items():
        if name in data and not test(data[name]):
            raise WorkdirError(
                f"{workdir / DATA}: {name}: expected {expected}, got {data[name]!r:.80}"
            )
    return data


def _are_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def _are_orientations(value: Any) -> bool:
    """Return whether the value is a list of codes as `directions_of` reads them."""
    if not (_are_names(value) and value):
        return False
    try:
        return all(directions_of(code) is not None for code in value)
    except ValueError:
        return False


def _are_digests(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(found, dict)
        and isinstance(found.get("image"), str)
        and isinstance(found.get("label"), str | None)
        for found in value.values()
    )


def _is_side(value: Any) -> bool:
    """Return whether the value is one side of a split."""
    if not isinstance(value, dict):
        return False
    slices = value.get("slices")
    return (
        type(slices) is int
        and slices >= 0
        and _are_names(value.get("cases"))
        and _are_indices(value.get("held_out", {}))
    )


def _are_indices(value: Any) -> bool:
    """Return whether the value maps cases to slice indices."""
    return isinstance(value, dict) and all(_are_whole(found) for found in value.values())


def _are_whole(value: Any) -> bool:
    """Return whether the value is a list of whole numbers from 0."""
    return isinstance(value, list) and all(type(n) is int and n >= 0 for n in value)


def _is_count_range(value: Any) -> bool:
    """Return whether the value is the smallest, then the largest number of slices of a case."""
    return _are_whole(value) and len(value) == 2 and 0 < value[0] <= value[1]


def _is_range(value: Any) -> bool:
    """Return whether the value is the smallest, then the largest voxel edges."""
    if not (isinstance(value, list) and [type(edges) for edges in value] == [list, list]):
        return False
    return all(
        len(edges) == 3 and all(type(mm) in (int, float) and 0 < mm < 1e6 for mm in edges)
        for edges in value
    )


def _are_label_values(value: Any) -> bool:
    """Return whether the value is None, or the value of each label in written label maps."""
    return value is None or (_are_whole(value) and len(value) >= 2 and max(value) < 2**16)


def _are_volumes(value: Any) -> bool:
    return isinstance(value, list) and all(
        v is None or (type(v) in (int, float) and 0 < v < 1e9) for v in value
    )


def _is_start(value: Any) -> bool:
    return _is_named_checkpoint(value) and _are_names(value.get("seen"))


def _is_named_checkpoint(value: Any) -> bool:
    """Return whether the value names a checkpoint and, recursively, its own initial checkpoint."""
    return (
        isinstance(value, dict)
        and isinstance(value.get("name"), str)
        and isinstance(value.get("checkpoint"), str)
        and type(value.get("step")) is int
        and (STARTED_FROM not in value or _is_named_checkpoint(value[STARTED_FROM]))
    )


_PARTS = {
    "cases": (_are_names, "a list of names"),
    "digests": (_are_digests, "digests of image and label map by case"),
    "training": (
        lambda v: _is_side(v) and v["slices"] > 0,
        "its number of slices and list of cases",
    ),
    "validation": (_is_side, "its number of slices and list of cases"),
    "slices": (_is_count_range, "the smallest and the largest number of slices of a case"),
    "spacing": (_is_range, "two lists of three lengths in mm"),
    "orientations": (_are_orientations, 'a list of codes such as "LP"'),
    "synthetic": (lambda value: isinstance(value, bool), "true or false"),
    "label_values": (_are_label_values, "null, or a whole number from 0 to 65,535 for each label"),
    "smallest_mm3": (_are_volumes, "a list of volumes in mm3"),
    "smallest_heart_mm3": (lambda value: _are_volumes([value]), "a volume in mm3"),
    STARTED_FROM: (_is_start, "name, checkpoint and step of a run and the digests that it saw"),
}


def claim(workdir: Path, settings: Mapping[str, Any], data: Mapping[str, Any]) -> None:
    """Bind a run folder to a config and cohort, or check that it is already bound to them.

    Args:
      workdir: run folder.
      settings: config of the run, JSON-like.
      data: data of the run, JSON-like, as in `read_data`; `check_cases` defines what identifies the
        cohort.

    Raises:
      WorkdirError: as in `check_settings` or `check_cases`.
    """
    check_settings(workdir, settings)
    if (workdir / DATA).exists():
        check_cases(workdir, data)
    # The config comes first: if the process is killed in between, the run is found and completed.
    write_atomic(workdir / SETTINGS, json.dumps(settings, indent=2) + "\n")
    if not (workdir / DATA).exists():
        write_atomic(workdir / DATA, json.dumps(data, indent=2) + "\n")


def check_cases(workdir: Path, data: Mapping[str, Any]) -> None:
    """Check that a run was started with the same cases and the same split.

    Args:
      workdir: folder of a run that has recorded its cases.
      data: the current cases, as in `read_data`. Their digests are compared, as are the sides of
        the split that both name, and the initial run if `data` has it.

    Raises:
      WorkdirError: if cases, images, voxel sizes, label maps, the split or the initial run differ,
        or if the run recorded no digests.
    """
    known = read_data(workdir)
    if "digests" not in known:
        raise WorkdirError(
            f"{workdir / DATA}: expected digests of the cases, got a run of an older version of "
            "jaxseg; pass another --workdir"
        )
    if changes := _changes(known["digests"], data["digests"]):
        shown = ", ".join(changes[:5]) + (f", and {len(changes) - 5} more" if changes[5:] else "")
        raise WorkdirError(
            f"{workdir}: the cases changed since this run began ({shown}); restore them, or pass "
            "another --workdir"
        )
    if STARTED_FROM in data and known.get(STARTED_FROM) != data[STARTED_FROM]:
        raise WorkdirError(
            f"{workdir}: what the run started from changed since it began "
            f"({data[STARTED_FROM]['path']}, now at step {data[STARTED_FROM]['step']}); restore "
            "it, or pass another --workdir"
        )
    for side in ("training", "validation"):
        if side in known and side in data and known[side] != data[side]:
            raise WorkdirError(
                f"{workdir}: the split changed since this run began (its {side} slices "
                "differ); restore it, or pass another --workdir"
            )


def _changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Describe how each changed case differs from before."""
    changes = [f"{name} vanished" for name in sorted(before.keys() - now.keys())]
    changes += [f"{name} is new" for name in sorted(now.keys() - before.keys())]
    for name in sorted(before.keys() & now.keys()):
        if before[name]["image"] != now[name]["image"]:
            changes.append(f"{name} has another image or voxel size")
        elif before[name] != now[name]:
            changes.append(f"{name} has another label map")
    return changes
