"""Trees of parameters on disk: written, checked and read without a run around them."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from numpy.typing import DTypeLike


def save_params(folder: Path, params: Any, precision: DTypeLike = np.float32) -> None:
    """Write bare parameters as NumPy arrays, which any machine restores without a template.

    Args:
      folder: folder to create; its parent must exist.
      params: a tree of arrays.
      precision: dtype in which they are stored.

    Raises:
      OSError, ValueError: if a file cannot be written.
    """
    with ocp.StandardCheckpointer() as writer:
        arrays = jax.tree.map(lambda x: np.asarray(x, precision), jax.device_get(params))
        writer.save(folder.resolve(), arrays)
    # Orbax records the absolute path, which should not be passed on with a bundle.
    note = folder / "commit_success.txt"
    if note.exists():
        note.write_text("Checkpoint commit was successful\n", encoding="utf-8")


def load_params(folder: Path, template: Any) -> Any:
    """Read parameters written by `save_params`.

    Args:
      folder: folder of the parameters.
      template: a tree of arrays or `jax.ShapeDtypeStruct`s.

    Returns:
      The parameters, on the first local device and with the dtypes of the template.

    Raises:
      ValueError: if the names or shapes of the parameters differ from the template's.
      OSError, KeyError: if a file cannot be read.
    """
    folder = folder.resolve()
    stored = stored_tree(folder)
    if stored is None:
        raise ValueError("no parameters")
    check_shapes(stored, template)
    with ocp.StandardCheckpointer() as reader:
        return reader.restore(folder, abstract(template))


def stored_tree(folder: Path) -> Any:
    """Read names and shapes of the arrays that Orbax stored in a folder; None if there are none."""
    with ocp.StandardCheckpointer() as reader:
        metadata: Any = reader.metadata(folder)
    return None if metadata.item_metadata is None else metadata.item_metadata.tree


def check_shapes(stored: Any, template: Any) -> None:
    """Check names and shapes before reading: Orbax would fail while other reads are under way.

    Raises:
      ValueError: if names or shapes of the stored tree differ from the template's.
    """
    found, expected = _shapes(stored), _shapes(template)
    for name in sorted(found.keys() | expected.keys()):
        if found.get(name) != expected.get(name):
            raise ValueError(
                f"its network has {name} of shape {found.get(name)}, its config describes "
                f"{expected.get(name)}"
            )


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    pairs = jax.tree.leaves_with_path(tree)
    return {jax.tree_util.keystr(path): tuple(getattr(leaf, "shape", ())) for path, leaf in pairs}


def abstract(tree: Any) -> Any:
    """Return shapes, dtypes and placement of a tree; the default is the first local device."""
    first = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])

    def leaf(x: Any) -> jax.ShapeDtypeStruct:
        sharding = getattr(x, "sharding", None) or first
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)

    return jax.tree.map(leaf, tree)
