"""The folder of a run: its config and data records, its lock, and atomic writing of files."""

import errno
import fcntl
import json
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from jaxseg.config.settings import flatten
from jaxseg.errors import UserError

SETTINGS = "config.json"
DATA = "data.json"
STARTED_FROM = "started_from"
"""Key of `data.json` for the run that this one was initialized from, and the cases it has seen."""
# Fields that may change when a run is resumed: how it is run, and the path of the data set. The
# data set itself may not change, which is checked by the digests of the cases.
_FREE = ("run.", "data.root")
# Values that fields had in effect before they existed, so that older runs can still be read. Every
# new field needs an entry here.
_BEFORE = {
    "augment": {"turn": False, "shift": 0.0, "bias": 0.0},
    "intensity": {"even": False},
    "data": {"patients": None, "splits": None, "label_values": None},
    "grid": {"soft_labels": False},
    "loss": {"dice_of": "labels"},
    "run": {"convolution": "xla"},
    "train": {"init_from": None},
}
# Removed fields, with the value at which they had no effect; None if no value had any. Older runs
# have these fields.
_REMOVED: dict[str, Any] = {
    "balance.difficulty": "image",
    "balance.prevalence_power": 0.0,
    "loss.deep": 0.0,
    "loss.dice_over": "image",
    "loss.dice_smooth": 0.0,
    "loss.support": 0.0,
    "model.slices": 1,
    "optimizer.average": 0.0,
    "run.cpu_devices": None,
    "train.pathology": 0.0,
}
_LAST_WITH_REMOVED = "f458d8a"
# Errors of file systems without hard links.
_NO_LINKS = {errno.EPERM, errno.EACCES, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
# Far above the size of a file that lists thousands of cases or parameters.
MAX_JSON_BYTES = 2**24


class WorkdirError(UserError, RuntimeError):
    """A run folder or file that cannot be used; the message gives the reason and the remedy."""


class InUseError(WorkdirError):
    """A run folder that another process holds."""


class ExistsError(WorkdirError):
    """A file that appeared where another was to be written, and must not be replaced."""


def os_reason(error: BaseException) -> str:
    """Extract the operating system's reason from an error of any library, as one line."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = str(error)
    for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EIO):
        if os.strerror(number) in text:
            return os.strerror(number)
    return f"{(text.strip() or type(error).__name__).splitlines()[0]:.200}"


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn any OSError of this block into one line on the folder.

    Raises:
      WorkdirError: in place of an OSError.
    """
    try:
        yield
    except OSError as error:
        raise WorkdirError(
            f"{folder}: cannot write here ({os_reason(error)}); what is saved is kept, and the "
            "same command resumes"
        ) from error


@contextmanager
def locked(workdir: Path, *, name: str = ".lock", wait: bool = False) -> Iterator[None]:
    """Create the run folder if needed, and hold it for this process alone.

    Args:
      workdir: run folder.
      name: name of the lock file; locks of different names are independent.
      wait: whether to wait until another process releases the lock.

    Raises:
      InUseError: if another process holds the lock and `wait` is False.
      WorkdirError: if the folder cannot be written to.
    """
    fresh = [path for path in (workdir, *workdir.parents) if not path.exists()]
    with _lock(workdir, name, wait):
        try:
            yield
        except BaseException:
            _remove_traces(workdir, name, fresh)
            raise


def _lock(workdir: Path, name: str, wait: bool) -> IO[str]:
    """Open and lock a file; the lock lasts as long as the file is open."""
    path = workdir / name
    while True:
        try:
            workdir.mkdir(parents=True, exist_ok=True)
            lock = path.open("w")
        except OSError as error:
            raise WorkdirError(f"{workdir}: cannot write here ({error.strerror})") from error
        try:
            # The kernel releases the lock when the process ends, for whatever reason.
            fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            # The previous holder may have removed the file before releasing the lock.
            if path.exists() and os.path.samestat(path.stat(), os.fstat(lock.fileno())):
                return lock
        except OSError as error:
            lock.close()
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise
            raise InUseError(f"{workdir}: another process is training in this workdir") from error
        lock.close()


def _remove_traces(workdir: Path, name: str, fresh: Sequence[Path]) -> None:
    """Remove the lock and the new folders of a command that failed before it wrote anything."""
    with suppress(OSError):
        if {path.name for path in workdir.iterdir()} == {name}:
            (workdir / name).unlink()
            for folder in fresh:
                folder.rmdir()


def remove_leftovers(workdir: Path) -> None:
    """Remove the temporary files of killed processes; the caller must hold the run folder."""
    for path in workdir.glob(".tmp-*"):
        if path.is_file():
            path.unlink(missing_ok=True)


def check_writable(folder: Path) -> None:
    """Check early, without creating anything, that a folder can be written to or created.

    Raises:
      WorkdirError: if it cannot.
    """
    nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not nearest.is_dir():
        raise WorkdirError(f"{folder}: cannot write here ({nearest} is not a folder)")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise WorkdirError(f"{folder}: cannot write here (no permission)")


@contextmanager
def atomic(path: Path, *, overwrite: bool = True) -> Iterator[Path]:
    """Write a file atomically: readers see all of it or nothing, even if the process is killed.

    Args:
      path: path of the file.
      overwrite: whether to replace a file that exists at the end.

    Yields:
      A unique hidden path with the same suffix to write to. It becomes `path` at the end, and is
      removed on an error.

    Raises:
      ExistsError: if `path` exists at the end and must not be replaced.
    """
    suffix = ".nii.gz" if path.name.endswith(".nii.gz") else path.suffix
    temporary = path.with_name(f".tmp-{secrets.token_hex(8)}{suffix}")
    try:
        yield temporary
        if overwrite:
            os.replace(temporary, path)  # noqa: PTH105
        else:
            _move_new(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _move_new(temporary: Path, path: Path) -> None:
    """Rename without replacing: unlike a rename, a hard link fails if the target exists."""
    try:
        path.hardlink_to(temporary)
    except OSError as error:
        if error.errno not in _NO_LINKS | {errno.EEXIST}:
            raise
        try:  # Creating the file claims it; a reader may briefly see it empty.
            path.open("xb").close()
        except FileExistsError:
            raise ExistsError(f"{path}: appeared meanwhile; it is not overwritten") from None
        os.replace(temporary, path)  # noqa: PTH105


def write_atomic(path: Path, text: str) -> None:
    """Write a text file as in `atomic`; what UTF-8 cannot encode becomes backslash escapes."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace", newline="")


def write_files(folder: Path, files: Mapping[str, str | bytes]) -> None:
    """Write files by name, each atomically and in order; the folder is created if needed.

    Raises:
      WorkdirError: if the folder cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            with atomic(folder / name) as temporary:
                if isinstance(content, str):  # file names in the text need not be UTF-8
                    content = content.encode(errors="backslashreplace")
                temporary.write_bytes(content)
    except OSError as error:
        raise WorkdirError(f"{folder}: cannot write here ({error.strerror})") from error


def read_settings(workdir: Path) -> dict[str, Any]:
    """Read the config of the run in a folder, converted from older versions if necessary.

    Newer fields are set to the values that were in effect, and removed fields are left out.

    Raises:
      WorkdirError: if there is no run, its config cannot be read, or a removed field was in use.
    """
    settings = read_json(workdir / SETTINGS)
    for name, before in _BEFORE.items():
        if isinstance(settings.get(name), dict):
            settings[name] = before | settings[name]
    for name, unused in _REMOVED.items():
        section, _, field = name.partition(".")
        if not isinstance(settings.get(section), dict) or field not in settings[section]:
            continue
        value = settings[section].pop(field)
        if unused is not None and value != unused:
            raise WorkdirError(
                f"{workdir / SETTINGS}: {name}: expected {unused!r}, as the field was removed, got "
                f"{value!r:.80}; {_LAST_WITH_REMOVED} is the last commit that reads this run"
            )
    return settings


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


def _are_digests(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(found, dict)
        and isinstance(found.get("image"), str)
        and isinstance(found.get("label"), str | None)
        for found in value.values()
    )


def _is_side(value: Any) -> bool:
    """Return whether the value is one side of a split."""
    return (
        isinstance(value, dict) and type(value.get("slices")) is int and value["slices"] > 0
        and _are_names(value.get("cases")) and _are_numbers(value.get("held_out", {}))
    )  # fmt: skip


def _are_numbers(value: Any) -> bool:
    """Return whether the value maps cases to slice indices."""
    return isinstance(value, dict) and all(
        isinstance(numbers, list) and all(type(n) is int and n >= 0 for n in numbers)
        for numbers in value.values()
    )


def _is_range(value: Any) -> bool:
    """Return whether the value is the smallest, then the largest voxel edges."""
    if not (isinstance(value, list) and [type(edges) for edges in value] == [list, list]):
        return False
    return all(
        len(edges) == 3 and all(type(mm) in (int, float) and 0 < mm < 1e6 for mm in edges)
        for edges in value
    )


def _are_volumes(value: Any) -> bool:
    return isinstance(value, list) and all(
        v is None or (type(v) in (int, float) and 0 < v < 1e9) for v in value
    )


def _is_start(value: Any) -> bool:
    return _is_named_checkpoint(value) and _are_names(value.get("seen"))


def _is_named_checkpoint(value: Any) -> bool:
    """Return whether the value names a checkpoint and, recursively, its own initial checkpoint."""
    return (
        isinstance(value, dict) and isinstance(value.get("name"), str)
        and isinstance(value.get("checkpoint"), str) and type(value.get("step")) is int
        and (STARTED_FROM not in value or _is_named_checkpoint(value[STARTED_FROM]))
    )  # fmt: skip


_PARTS = {
    "cases": (_are_names, "a list of names"),
    "digests": (_are_digests, "digests of image and label map by case"),
    "training": (_is_side, "its number of slices and list of cases"),
    "validation": (_is_side, "its number of slices and list of cases"),
    "spacing": (_is_range, "two lists of three lengths in mm"),
    "orientations": (_are_names, "a list of names"),
    "synthetic": (lambda value: isinstance(value, bool), "true or false"),
    "smallest_mm3": (_are_volumes, "a list of volumes in mm3"),
    STARTED_FROM: (_is_start, "name, checkpoint and step of a run and the digests that it saw"),
}


def read_json(path: Path, *, missing: str = "no run here") -> dict[str, Any]:
    """Read a JSON object.

    Args:
      path: path of the file.
      missing: describes a folder that lacks the file.

    Raises:
      WorkdirError: if the file is missing, is larger than `MAX_JSON_BYTES`, or cannot be read as a
        JSON object.
    """
    try:
        with path.open("rb") as file:
            text = file.read(MAX_JSON_BYTES + 1)
        if len(text) > MAX_JSON_BYTES:
            raise ValueError(f"expected at most {MAX_JSON_BYTES} bytes")
        content = json.loads(text.decode("utf-8"))
    except FileNotFoundError:
        raise WorkdirError(f"{path.parent}: {missing} (it has no {path.name})") from None
    except (OSError, ValueError, RecursionError) as error:
        raise WorkdirError(f"{path}: cannot be read as JSON ({error})") from error
    if not isinstance(content, dict):
        raise WorkdirError(f"{path}: expected a JSON object, got {type(content).__name__}")
    return content


def check_settings(workdir: Path, settings: Mapping[str, Any]) -> None:
    """Check that a folder has no run, or a run of the same config.

    Raises:
      WorkdirError: if the folder has a run of another config; the message lists all differences.
    """
    if not (workdir / SETTINGS).exists():
        return
    known, wanted = read_settings(workdir), json.loads(json.dumps(settings))
    if differences := _differences(known, wanted):
        if _epochs(wanted) > _epochs(known):
            differences.append(
                "  to train its network further, pass another --workdir, the number of further "
                f"epochs, and --init_from={workdir}"
            )
        raise WorkdirError(
            f"{workdir}: holds a run of another config; pass another --workdir, or undo\n"
            + "\n".join(differences)
        )


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
            f"{workdir / DATA}: has no digests of the cases; expected a run of this version of "
            "jaxseg, so pass another --workdir"
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
                f"{workdir}: the split changed since this run began (its {side} slices are "
                "others); restore it, or pass another --workdir"
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


def _epochs(settings: Mapping[str, Any]) -> int:
    found = flatten(settings).get("train.epochs")
    return found if isinstance(found, int) else 0


def _differences(known: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    old, new = flatten(known), flatten(wanted)
    lines = []
    for name in sorted(old.keys() | new.keys()):
        if name.startswith(_FREE) or old.get(name) == new.get(name):
            continue
        lines.append(f"  {name}: {old.get(name)!r} in the workdir, {new.get(name)!r} asked for")
    return lines
