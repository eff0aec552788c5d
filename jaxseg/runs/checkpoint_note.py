"""The note of a checkpoint, with its score, its step and the digests that reveal damage.

The formats of the arrays and of their metadata have no checksum over the numbers, so that a flipped
bit would be read as a different parameter or score.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxseg.runs.files import WorkdirError, read_json

Note = dict[str, Any]


class DamagedError(WorkdirError):
    """A checkpoint that is not what was saved; the message names it and the damage.

    Attributes:
      what: the message without its advice.
    """

    def __init__(self, path: Path, reason: str) -> None:
        self.what = f"{path}: a damaged checkpoint ({reason})"
        super().__init__(f"{self.what}; restore it, or move it away to continue without it")


def digest(tree: Any) -> str:
    """Compute the SHA-256, hexadecimal, of a tree's dtypes, shapes and bytes, in the tree's order.

    Names are not included, but an array restored under another name changes the order.
    """
    sha256 = hashlib.sha256()
    for leaf in jax.tree.leaves(tree):
        array = np.asarray(leaf)
        sha256.update(f"{array.dtype.str}{array.shape}".encode())
        sha256.update(np.ascontiguousarray(array).data)
    return sha256.hexdigest()


def make_note(score: float, step: int, items: Mapping[str, Any]) -> Note:
    """Build the note of a checkpoint: digests by item, and a digest of the note itself."""
    note: Note = {"score": score, "step": step}
    note |= {f"{name}_sha256": digest(tree) for name, tree in items.items()}
    return note | {"sha256": _own(note)}


def _own(note: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(note, sort_keys=True).encode()).hexdigest()


def check_notes(folder: Path) -> None:
    """Check the notes of all checkpoints in a folder.

    Checkpoints from before the digests have notes without them, which are accepted unchecked.

    Raises:
      DamagedError: if a note is missing, cannot be read or is not what was written.
    """
    if not folder.is_dir():
        return
    for path in sorted(folder.iterdir()):
        if not path.name.isdecimal():
            continue
        try:
            note = read_json(path / "metrics" / "metrics", missing="it has no note")
        except WorkdirError as error:
            raise DamagedError(path, str(error)) from error
        known = {name: value for name, value in note.items() if name != "sha256"}
        score, step = note.get("score"), note.get("step", 0)
        if type(score) not in (int, float) or type(step) is not int:
            raise DamagedError(path, "its score is not a number")
        if known.keys() - {"score", "step"} and note.get("sha256") != _own(known):
            raise DamagedError(path, "its score or digests are not those that were written")


def verify(path: Path, note: Note | None, items: Mapping[str, Any]) -> None:
    """Check that items were restored as they were saved.

    Args:
      path: path of the checkpoint.
      note: note of the checkpoint.
      items: restored trees, by item.

    Raises:
      DamagedError: if an item differs.
    """
    for name, tree in items.items():
        expected = (note or {}).get(f"{name}_sha256")
        if expected is not None and digest(tree) != expected:
            raise DamagedError(path, f"its {name} is not what was saved, by SHA-256")
