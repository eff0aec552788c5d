"""The provenance of results: versions of jaxseg and its libraries, devices, command and time.

Only the run folder's `provenance.json` has command and time. Files that a repeated command must
reproduce to the byte contain neither.
"""

import json
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path, PurePath
from typing import Any

import jax

from jaxseg import __version__
from jaxseg.runs.data_file import STARTED_FROM
from jaxseg.runs.files import WorkdirError, write_atomic

FILE = "provenance.json"
_PACKAGES = ("jax", "jaxlib", "flax", "orbax-checkpoint", "numpy")
# A new entry is recorded only if one of these differs from the last entry.
_SAME = ("versions", "devices")


@cache
def versions() -> dict[str, str]:
    """Return versions by name: jaxseg with its commit, its libraries, and Python."""
    own = f"{__version__} ({commit})" if (commit := _commit()) else __version__
    libraries = {name: metadata.version(name) for name in _PACKAGES}
    return {"jaxseg": own, **libraries, "Python": platform.python_version()}


def _commit() -> str | None:
    """Return the commit of this checkout, with "+changes" if files differ; None outside of one."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None
    try:
        commit, changes = (
            subprocess.run(
                ["git", "-C", str(root), *arguments],
                capture_output=True,
                check=True,
                text=True,
                timeout=30,
            ).stdout.strip()
            for arguments in (
                ["rev-parse", "--short=12", "HEAD"],
                ["status", "--porcelain", "--untracked-files=no"],
            )
        )
    except (OSError, subprocess.SubprocessError):  # git is missing or rejects the checkout's owner
        return None
    return f"{commit}+changes" if changes else commit


def sitting() -> dict[str, Any]:
    """Describe this process, JSON-like; this makes JAX start its devices."""
    return {
        "versions": versions(),
        "devices": sorted({device.device_kind for device in jax.devices()}),
        "command": sys.argv,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def note(folder: Path) -> None:
    """Add this process to a run's `provenance.json` if its versions or devices are new.

    Raises:
      WorkdirError: if the file is damaged.
    """
    known, now = read(folder), sitting()
    if known and all(known[-1].get(name) == now[name] for name in _SAME):
        return
    write_atomic(folder / FILE, json.dumps([*known, now], indent=2) + "\n")


def read(folder: Path) -> list[dict[str, Any]]:
    """Read the entries of a run or bundle in order; there are none if nothing was recorded.

    Raises:
      WorkdirError: if the file is damaged.
    """
    path = folder / FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    except (OSError, ValueError, RecursionError) as error:
        raise WorkdirError(f"{path}: cannot be read as JSON ({error})") from error
    if not isinstance(content, list) or not all(
        isinstance(entry, dict) and isinstance(entry.get("versions"), dict) for entry in content
    ):
        raise WorkdirError(f"{path}: expected a list of entries with their versions")
    return content


def public(entries: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the entries without the command, which contains paths of the machine."""
    return [{name: entry[name] for name in entry if name != "command"} for entry in entries]


def described(entries: Sequence[Mapping[str, Any]]) -> str:
    """Describe versions and devices of the entries, each combination once, without the command."""
    lines = (
        ", ".join(f"{name} {version}" for name, version in entry["versions"].items())
        + (f" on {', '.join(entry['devices'])}" if entry.get("devices") else "")
        for entry in entries
    )
    return "; then ".join(dict.fromkeys(lines)) or "unknown versions"


def trained_and_scored(folder: Path) -> str:
    """Return a sentence on the run in a folder and on this process, which scores it."""
    trained, scored = described(read(folder)), described([sitting()])
    if trained == scored:
        return f"Trained and scored with {scored}."
    return f"Trained with {trained}; scored with {scored}."


def started_from(data: Mapping[str, Any]) -> list[str]:
    """Return a sentence on the run that a run was initialized from; empty for a random start.

    Args:
      data: data of the run, as returned by `jaxseg.runs.data_file.read_data`.
    """
    parts, start = [], data.get(STARTED_FROM)
    seen = len(start["seen"]) if start else 0
    while start:
        version = f", jaxseg {start['jaxseg']}" if start.get("jaxseg") else ""
        parts.append(
            f"{start['name']} ({start['checkpoint']} checkpoint, step {start['step']}{version})"
        )
        start = start.get(STARTED_FROM)
    if not parts:
        return []
    return [
        f"Training started from the parameters of {', which started from '.join(parts)}; they "
        f"had been trained on {seen} cases."
    ]


def without_places(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return a run's data without the paths of the runs that it was initialized from."""
    if STARTED_FROM not in data:
        return dict(data)
    start = without_places(data[STARTED_FROM])
    return {**data, STARTED_FROM: {**start, "path": PurePath(str(start.get("path", ""))).name}}


def differing(made: Mapping[str, str]) -> str | None:
    """Return a sentence on results made with different versions; None if all versions agree.

    Args:
      made: description of the versions by name of the result.
    """
    groups: dict[str, list[str]] = {}
    for name, text in made.items():
        groups.setdefault(text, []).append(name)
    if len(groups) < 2:
        return None
    parts = "; ".join(f"{', '.join(names)}: {text}" for text, names in groups.items())
    return f"Not all of these results were made with the same versions. {parts}."
