"""Turn a stack in plane into the orientation of the training data, and its prediction back.

The order of the slices is kept, because the end at which a stack starts has no effect.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from jaxseg.data import Case, Grid
from jaxseg.data.case import directions_of
from jaxseg.inference.locate import TURNS_AND_FLIPS, View
from jaxseg.runs.trained import Trained

# The usual display of a short-axis slice, with the right ventricle on the left and the diaphragm at
# the bottom, as in most EMIDEC cases: rows lead to the left and posterior, columns to posterior and
# inferior. Training data that states no orientation is taken to be stored like this.
_USUAL = np.array([(-1, -1, 0), (0, -1, -1)]) / np.sqrt(2)
# The second best view fits nearly as well as the best: 39 to 51 degrees between the axes.
_NEARLY = 0.8


def view_to_training(run: Trained, case: Case, orientation: str | None = None) -> tuple[View, bool]:
    """Choose the view of a case whose rows and columns lead most closely as in training.

    Of the eight turns and flips it is the one with the largest sum of cosines between its axes and
    those of the training data, which are the most frequent orientation in `data.json`.

    Args:
      run: run whose training data are matched.
      case: case on its native grid.
      orientation: code as in `directions_of` that replaces the statement of the header.

    Returns:
      The view, and whether another fits nearly as well. The view is the stack as stored if nothing
      states its orientation.
    """
    directions = directions_of(orientation) if orientation else case.directions
    if directions is None:
        return View(), False
    known = run.data.get("orientations")
    wanted = directions_of(known[0]) if known else _USUAL
    fits = [float((_turned(directions, view) * wanted).sum()) for view in TURNS_AND_FLIPS]
    second, best = sorted(fits)[-2:]
    return TURNS_AND_FLIPS[fits.index(best)], second > _NEARLY * best


def _turned(directions: NDArray[np.float64], view: View) -> NDArray[np.float64]:
    turned = directions[::-1] if view.transposed else directions
    return turned * [(-1,) if axis in view.flips else (1,) for axis in (1, 2)]


def turned_case(case: Case, view: View) -> Case:
    """Apply a view to the image and the spacing of a case; its label map is left out."""
    return replace(
        case,
        image=np.ascontiguousarray(np.moveaxis(view.of(np.moveaxis(case.image, 2, 0)), 0, 2)),
        label=None,
        spacing=turned_spacing(case.spacing, view),
    )


def turned_spacing(spacing: tuple[float, float, float], view: View) -> tuple[float, float, float]:
    """Apply a view to the voxel size (X, Y, slices) of a case."""
    x, y, z = spacing
    return (y, x, z) if view.transposed else (x, y, z)


def volume_back(volume: np.ndarray, view: View) -> np.ndarray:
    """Invert the view of a volume (X, Y, slices, ...)."""
    return np.moveaxis(view.back(np.moveaxis(volume, 2, 0)), 0, 2)


def grid_back(grid: Grid, view: View) -> Grid:
    """Invert the view of a grid that has a center."""
    assert grid.center is not None
    height, width = grid.size
    size = (width, height) if view.transposed else grid.size
    return replace(grid, size=size, center=view.point_back(grid.center, (1, 1)))
