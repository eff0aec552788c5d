"""Folders of NIfTI files at any depth, as the readers and `predict` look through them."""

import os
from collections.abc import Iterator
from pathlib import Path

from jaxseg.data.nifti import DataError, is_nifti


def walk(root: Path) -> Iterator[tuple[Path, list[str], list[str]]]:
    """Folders from `root` down, links followed, none entered twice.

    Yields:
      A folder and the names of its folders, sorted, and files. Folders that the caller takes out of
      the list are not entered.

    Raises:
      DataError: a folder that cannot be read.
    """

    def fail(error: OSError) -> None:
        raise DataError(f"{error.filename}: cannot be read ({error.strerror})")

    seen = {root.resolve()}
    for parent, names, files in os.walk(root, onerror=fail, followlinks=True):
        names.sort()
        yield Path(parent), names, files
        deeper = []
        for name in names:
            target = Path(parent, name).resolve()
            if target not in seen:  # a link may lead back up
                seen.add(target)
                deeper.append(name)
        names[:] = deeper


def volumes(folder: Path) -> list[Path]:
    """The NIfTI files in a folder, sorted.

    Raises:
      DataError: no such folder, or one that cannot be read.
    """
    try:
        return sorted(path for path in folder.iterdir() if is_volume(path.name))
    except FileNotFoundError:
        raise DataError(f"{folder}: no such folder") from None
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({error.strerror})") from None


def is_volume(name: str) -> bool:
    """Whether a file's name is one of NIfTI; not of a hidden one, such as macOS's ._NAME.nii.gz."""
    return is_nifti(name) and not name.startswith(".")
