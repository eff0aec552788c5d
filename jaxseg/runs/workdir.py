"""The folder of a run: what it remembers of its settings and data, and who may write to it."""

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
"""Of `data.json`: the run whose parameters this one started from, and the cases that it saw."""
# Where the data lies and how a run is watched may change between two sittings of one run; what
# the data is may not, and the cases' digests say so.
_FREE = ("run.", "data.root")
# What a knob stood at, in effect, in the runs that are older than it: such runs are still read.
# A new knob gets its line here, so that no network is lost to it.
_BEFORE = {
    "augment": {"turn": False, "shift": 0.0, "bias": 0.0},
    "intensity": {"even": False},
    "data": {"patients": None, "splits": None, "label_values": None},
    "grid": {"soft_labels": False},
    "loss": {"dice_of": "labels"},
    "run": {"convolution": "xla"},
    "train": {"init_from": None},
}
# Fields that are gone, at the value with which they did nothing; None: whatever they held. Older
# runs have them.
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
# What file systems without hard links say to one.
_NO_LINKS = {errno.EPERM, errno.EACCES, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
# A file that lists thousands of cases or parameters stays far below.
MAX_JSON_BYTES = 2**24


class WorkdirError(UserError, RuntimeError):
    """A workdir that cannot serve this run; the message says why and what to do."""


class InUseError(WorkdirError):
    """A workdir that another process holds."""


class ExistsError(WorkdirError):
    """A file that appeared where one was to be written, and is not to be replaced."""


def os_reason(error: BaseException) -> str:
    """What the operating system said, out of the long words of who passed it on; one line."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = str(error)
    for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EIO):
        if os.strerror(number) in text:
            return os.strerror(number)
    return f"{(text.strip() or type(error).__name__).splitlines()[0]:.200}"


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Tell in one line that a folder cannot be written to, whatever was being written.

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
    """Create the workdir if needed and hold it for this process alone.

    Args:
      workdir: the folder.
      name: of the lock's file; who asks for another name holds something else.
      wait: until another process that holds it lets go.

    Raises:
      InUseError: if another process holds it and nobody waits.
      WorkdirError: if it cannot be written to.
    """
    fresh = [path for path in (workdir, *workdir.parents) if not path.exists()]
    with _lock(workdir, name, wait):
        try:
            yield
        except BaseException:
            _remove_traces(workdir, name, fresh)
            raise


def _lock(workdir: Path, name: str, wait: bool) -> IO[str]:
    """The file that is locked as long as it is open."""
    path = workdir / name
    while True:
        try:
            workdir.mkdir(parents=True, exist_ok=True)
            lock = path.open("w")
        except OSError as error:
            raise WorkdirError(f"{workdir}: cannot write here ({error.strerror})") from error
        try:
            # The kernel drops the lock with the process, however that ends.
            fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            # Its last holder may have removed it before letting go.
            if path.exists() and os.path.samestat(path.stat(), os.fstat(lock.fileno())):
                return lock
        except OSError as error:
            lock.close()
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise
            raise InUseError(f"{workdir}: another process is training in this workdir") from error
        lock.close()


def _remove_traces(workdir: Path, name: str, fresh: Sequence[Path]) -> None:
    """Of a command that failed before it wrote anything: the lock and the folders made for it."""
    with suppress(OSError):
        if {path.name for path in workdir.iterdir()} == {name}:
            (workdir / name).unlink()
            for folder in fresh:
                folder.rmdir()


def remove_leftovers(workdir: Path) -> None:
    """Remove the temporary files of killed writers; for who holds the workdir."""
    for path in workdir.glob(".tmp-*"):
        if path.is_file():
            path.unlink(missing_ok=True)


def check_writable(folder: Path) -> None:
    """Tell early that a folder cannot be written to, or not be made; makes nothing.

    Raises:
      WorkdirError: if so.
    """
    nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not nearest.is_dir():
        raise WorkdirError(f"{folder}: cannot write here ({nearest} is not a folder)")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise WorkdirError(f"{folder}: cannot write here (no permission)")


@contextmanager
def atomic(path: Path, *, overwrite: bool = True) -> Iterator[Path]:
    """A file in one move: a reader, or a run killed here, sees all of it or none.

    Args:
      path: of the file.
      overwrite: whether a file that is there at the end is replaced.

    Yields:
      The path to write to, hidden, of the same suffix, and no other writer's; it becomes `path` at
      the end, and goes on an error.

    Raises:
      ExistsError: `path` is there, whoever wrote it and when, and is not to be replaced.
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
    """Rename, but never over a file: unlike a move, a link is refused where there is one."""
    try:
        path.hardlink_to(temporary)
    except OSError as error:
        if error.errno not in _NO_LINKS | {errno.EEXIST}:
            raise
        try:  # Whoever creates the file first has it; a reader may see it empty for a moment.
            path.open("xb").close()
        except FileExistsError:
            raise ExistsError(f"{path}: appeared meanwhile; it is not overwritten") from None
        os.replace(temporary, path)  # noqa: PTH105


def write_atomic(path: Path, text: str) -> None:
    """Write a text file in one move, as `atomic`; what UTF-8 cannot hold as backslash escapes."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace", newline="")


def write_files(folder: Path, files: Mapping[str, str | bytes]) -> None:
    """Write files by name, each in one move and in order; the folder is made if needed.

    Raises:
      WorkdirError: if it cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            with atomic(folder / name) as temporary:
                if isinstance(content, str):  # the names of files need not be UTF-8
                    content = content.encode(errors="backslashreplace")
                temporary.write_bytes(content)
    except OSError as error:
        raise WorkdirError(f"{folder}: cannot write here ({error.strerror})") from error


def read_settings(workdir: Path) -> dict[str, Any]:
    """The settings of the run in a workdir; of an older one as this version has them.

    Fields that are newer stand at what they were in effect, and fields that are gone are left out.

    Raises:
      WorkdirError: if there is no run, its settings cannot be read, or a field that is gone was in
        use.
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
    """What the run in a workdir was trained and validated on: cases, their digests, slices.

    Raises:
      WorkdirError: as `read_settings`, or if a part of it is not what a run writes there. A part
        that is missing is none of that: older runs noted less.
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
    """Of a split."""
    return (
        isinstance(value, dict) and type(value.get("slices")) is int and value["slices"] > 0
        and _are_names(value.get("cases")) and _are_numbers(value.get("held_out", {}))
    )  # fmt: skip


def _are_numbers(value: Any) -> bool:
    """Of slices, by case."""
    return isinstance(value, dict) and all(
        isinstance(numbers, list) and all(type(n) is int and n >= 0 for n in numbers)
        for numbers in value.values()
    )


def _is_range(value: Any) -> bool:
    """Of voxel edges: the smallest, then the largest."""
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
    """With that which its own run started from, and so on."""
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
    """A JSON object; `missing` says what the folder is without the file.

    Raises:
      WorkdirError: if it is not there, has more than `MAX_JSON_BYTES`, or cannot be read as a JSON
        object.
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
    """Make sure that a workdir holds no run, or a run of these very settings.

    Raises:
      WorkdirError: if the workdir holds a run of other settings; every difference is shown.
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
    """Bind a workdir to settings and cohort, or make sure that it is bound to them already.

    Args:
      workdir: of the run.
      settings: of the run, JSON-like.
      data: JSON-like, as `read_data`; `check_cases` says what identifies the cohort.

    Raises:
      WorkdirError: as `check_settings` or `check_cases`.
    """
    check_settings(workdir, settings)
    if (workdir / DATA).exists():
        check_cases(workdir, data)
    # Settings first: killed between the two, the run is found again and its data written then.
    write_atomic(workdir / SETTINGS, json.dumps(settings, indent=2) + "\n")
    if not (workdir / DATA).exists():
        write_atomic(workdir / DATA, json.dumps(data, indent=2) + "\n")


def check_cases(workdir: Path, data: Mapping[str, Any]) -> None:
    """Make sure that a run was begun with these very cases, and with this split of them.

    Args:
      workdir: of a run that has noted its cases.
      data: the cases there now, as `read_data`; their digests are compared, the sides of the split
        where both name them, and what the run started from where that is read anew.

    Raises:
      WorkdirError: other cases, or other images, voxel sizes or label maps in them; another split;
        other parameters to start from; a run that is older than the digests.
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
    """What became of each case, where it is not the same as before."""
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
