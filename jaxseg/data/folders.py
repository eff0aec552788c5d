"""Search folders at any depth for NIfTI files."""

import os
from collections.abc import Iterator
from pathlib import Path

from jaxseg.data.nifti import DataError, is_nifti


def walk(root: Path) -> Iterator[tuple[Path, list[str], list[str]]]:
    """Walk the folders below `root`, following links and entering no folder twice.

    Yields:
      A folder, the sorted names of its subfolders, and the names of its files. Subfolders that the
      caller removes from the list are skipped.

    Raises:
      DataError: a folder cannot be read.
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
            if target not in seen:  # a link may point to a parent
                seen.add(target)
                deeper.append(name)
        names[:] = deeper


def volumes(folder: Path) -> list[Path]:
    """The NIfTI files in a folder, sorted.

    Raises:
      DataError: the folder does not exist or cannot be read.
    """
    try:
        return sorted(path for path in folder.iterdir() if is_volume(path.name))
    except FileNotFoundError:
        raise DataError(f"{folder}: no such folder") from None
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({error.strerror})") from None


def is_volume(name: str) -> bool:
    """Whether a file name is that of a NIfTI file and not hidden, such as macOS's ._NAME.nii.gz."""
    return is_nifti(name) and not name.startswith(".")
