"""What made a result: versions of this project and of its libraries, devices, command and time.

Files that a repeated command must give again to the byte name no command and no time; the run
folder's `provenance.json` does.
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
from jaxseg.runs.workdir import STARTED_FROM, WorkdirError, write_atomic

FILE = "provenance.json"
_PACKAGES = ("jax", "jaxlib", "flax", "orbax-checkpoint", "numpy")
# What identifies a sitting of a run; where these are the same, no new one is noted.
_SAME = ("versions", "devices")


@cache
def versions() -> dict[str, str]:
    """Version by name: of jaxseg with its commit, of its libraries and of Python."""
    own = f"{__version__} ({commit})" if (commit := _commit()) else __version__
    libraries = {name: metadata.version(name) for name in _PACKAGES}
    return {"jaxseg": own, **libraries, "Python": platform.python_version()}


def _commit() -> str | None:
    """Commit of the checkout that this code is in, "+changes" if files differ; None elsewhere."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None
    try:
        commit, changes = (
            subprocess.run(
                ["git", "-C", str(root), *arguments],
                capture_output=True, check=True, text=True, timeout=30,
            ).stdout.strip()
            for arguments in (
                ["rev-parse", "--short=12", "HEAD"],
                ["status", "--porcelain", "--untracked-files=no"],
            )
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):  # no git here, or a checkout of somebody else
        return None
    return f"{commit}+changes" if changes else commit


def sitting() -> dict[str, Any]:
    """What makes results in this process, JSON-like; asks JAX for its devices."""
    return {
        "versions": versions(),
        "devices": sorted({device.device_kind for device in jax.devices()}),
        "command": sys.argv,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def note(folder: Path) -> None:
    """Add this process to a run's `provenance.json`, where versions or devices are others.

    Raises:
      WorkdirError: the file is damaged.
    """
    known, now = read(folder), sitting()
    if known and all(known[-1].get(name) == now[name] for name in _SAME):
        return
    write_atomic(folder / FILE, json.dumps([*known, now], indent=2) + "\n")


def read(folder: Path) -> list[dict[str, Any]]:
    """The sittings of a run or bundle in their order; none where nothing was noted.

    Raises:
      WorkdirError: the file is damaged.
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
        raise WorkdirError(f"{path}: expected a list of sittings with their versions")
    return content


def public(sittings: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Sittings without the command, which names folders of the machine."""
    return [{name: entry[name] for name in entry if name != "command"} for entry in sittings]


def described(sittings: Sequence[Mapping[str, Any]]) -> str:
    """Versions and devices of sittings, each combination once, in words; no command, no time."""
    lines = (
        ", ".join(f"{name} {version}" for name, version in entry["versions"].items())
        + (f" on {', '.join(entry['devices'])}" if entry.get("devices") else "")
        for entry in sittings
    )
    return "; then ".join(dict.fromkeys(lines)) or "unknown versions"


def trained_and_scored(folder: Path) -> str:
    """A sentence on the run in a folder, and on this process, which scores it."""
    trained, scored = described(read(folder)), described([sitting()])
    if trained == scored:
        return f"Trained and scored with {scored}."
    return f"Trained with {trained}; scored with {scored}."


def started_from(data: Mapping[str, Any]) -> list[str]:
    """A sentence on the run whose parameters a run started from; none where these were random.

    Args:
      data: of the run, as `jaxseg.runs.workdir.read_data`.
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
        f"Training started from the parameters of {', which started from '.join(parts)}; they had "
        f"learned from {seen} cases."
    ]


def without_places(data: Mapping[str, Any]) -> dict[str, Any]:
    """A run's data without the folders of the runs that it started from."""
    if STARTED_FROM not in data:
        return dict(data)
    start = without_places(data[STARTED_FROM])
    return {**data, STARTED_FROM: {**start, "path": PurePath(str(start.get("path", ""))).name}}


def differing(made: Mapping[str, str]) -> str | None:
    """A sentence on results that were not all made by the same versions; None where they were.

    Args:
      made: by name of the result, its versions in words.
    """
    groups: dict[str, list[str]] = {}
    for name, text in made.items():
        groups.setdefault(text, []).append(name)
    if len(groups) < 2:
        return None
    parts = "; ".join(f"{', '.join(names)}: {text}" for text, names in groups.items())
    return f"Not all of these results were made with the same versions. {parts}."
