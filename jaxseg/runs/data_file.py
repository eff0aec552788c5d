"""The file `data.json` of a run: what it was trained and validated on."""

import json
from collections.abc import Callable, Mapping
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


_Test = Callable[[Any], bool]


def _list_of(test: _Test) -> _Test:
    return lambda value: isinstance(value, list) and all(map(test, value))


def _dict_of(test: _Test) -> _Test:
    return lambda value: isinstance(value, dict) and all(map(test, value.values()))


def _record(required: Mapping[str, _Test], optional: Mapping[str, _Test]) -> _Test:
    tests = {**required, **optional}
    return lambda value: (
        isinstance(value, dict)
        and required.keys() <= value.keys()
        and all(test(value[name]) for name, test in tests.items() if name in value)
    )


def _or_none(test: _Test) -> _Test:
    return lambda value: value is None or test(value)


def _positive(limit: float) -> _Test:
    return lambda value: type(value) in (int, float) and 0 < value < limit


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_whole(value: Any) -> bool:
    return type(value) is int and value >= 0


def _is_code(value: Any) -> bool:
    """Return whether the value is an orientation as `directions_of` reads it."""
    try:
        return _is_text(value) and directions_of(value) is not None
    except ValueError:
        return False


def _is_checkpoint(value: Any) -> bool:
    """Return whether the value names a checkpoint and, recursively, its own initial checkpoint."""
    required = {"name": _is_text, "checkpoint": _is_text, "step": lambda v: type(v) is int}
    return _record(required, {STARTED_FROM: _is_checkpoint})(value)


_are_names, _are_whole, _are_codes = map(_list_of, (_is_text, _is_whole, _is_code))
_are_edges = _list_of(_list_of(_positive(1e6)))
_is_volume = _or_none(_positive(1e9))
_is_side = _record({"slices": _is_whole, "cases": _are_names}, {"held_out": _dict_of(_are_whole)})
_PARTS: dict[str, tuple[_Test, str]] = {
    "cases": (_are_names, "a list of names"),
    "digests": (
        _dict_of(_record({"image": _is_text}, {"label": _or_none(_is_text)})),
        "digests of image and label map by case",
    ),
    "training": (
        lambda v: _is_side(v) and v["slices"] > 0,
        "its number of slices and list of cases",
    ),
    "validation": (_is_side, "its number of slices and list of cases"),
    "slices": (
        lambda v: _are_whole(v) and len(v) == 2 and 0 < v[0] <= v[1],
        "the smallest and the largest number of slices of a case",
    ),
    "spacing": (
        lambda v: _are_edges(v) and [len(edges) for edges in v] == [3, 3],
        "two lists of three lengths in mm",
    ),
    "orientations": (lambda v: v != [] and _are_codes(v), 'a list of codes such as "LP"'),
    "synthetic": (lambda v: isinstance(v, bool), "true or false"),
    "label_values": (
        _or_none(lambda v: _are_whole(v) and len(v) >= 2 and max(v) < 2**16),
        "null, or a whole number from 0 to 65,535 for each label",
    ),
    "smallest_mm3": (_list_of(_is_volume), "a list of volumes in mm3"),
    "smallest_heart_mm3": (_is_volume, "a volume in mm3"),
    STARTED_FROM: (
        lambda v: _is_checkpoint(v) and _are_names(v.get("seen")),
        "name, checkpoint and step of a run and the digests that it saw",
    ),
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
