"""Atomic writing, and reading of JSON, in the folder of a run."""

import errno
import json
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jaxseg.errors import UserError

# Errors of file systems without hard links.
_NO_LINKS = {errno.EPERM, errno.EACCES, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
# Far above the size of a file that lists thousands of cases or parameters.
MAX_JSON_BYTES = 2**24


class WorkdirError(UserError, RuntimeError):
    """A run folder or file that cannot be used; the message gives the reason and the remedy."""


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
def writing(folder: Path, advice: str = "") -> Iterator[None]:
    """Turn any OSError of this block into one line on the folder, with `advice` at its end.

    Raises:
      WorkdirError: in place of an OSError.
    """
    try:
        yield
    except OSError as error:
        raise WorkdirError(f"{folder}: cannot write here ({os_reason(error)}){advice}") from error


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


def check_outputs(folder: Path, files: Sequence[Path], *, overwrite: bool) -> None:
    """Check early that files can be written to a folder, and that none exists.

    Raises:
      WorkdirError: if the folder cannot be written to, or a file exists and may not be replaced.
    """
    check_writable(folder)
    present = [path for path in files if path.exists()]
    if present and not overwrite:
        others = f" and {len(present) - 1} more" if present[1:] else ""
        verb = "exist" if others else "exists"
        raise WorkdirError(f"{present[0]}{others} {verb} already; pass --overwrite to replace")


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
            raise ExistsError(f"{path}: appeared in the meantime; it is not overwritten") from None
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
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            with atomic(folder / name) as temporary:
                if isinstance(content, str):  # file names in the text need not be UTF-8
                    content = content.encode(errors="backslashreplace")
                temporary.write_bytes(content)


def remove_leftovers(workdir: Path) -> None:
    """Remove the temporary files of killed processes; the caller must hold the run folder."""
    for path in (*workdir.glob(".tmp-*"), *workdir.glob("pictures/.tmp-*")):
        if path.is_file():
            path.unlink(missing_ok=True)


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
