"""Localization of the heart in a stack, first on a scout, then by the network's own label map."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from jaxseg.data import Case, Grid, Preprocessing, most_probable
from jaxseg.data.scout import SPACING_MM, center_of, peak_of, scout_grid, scout_of
from jaxseg.models.segment import Params, Segmenter

# Smallest volume of a heart on a scout; a left ventricle with its wall has about 100 ml or more.
_LEAST_ML = 5.0
# Largest number of crops before the search for the center ends.
_ROUNDS = 8

Number = TypeVar("Number", int, float)


@dataclass(frozen=True)
class View:
    """A symmetry of a slice: a transposition, followed by mirroring along `flips`.

    Attributes:
      flips: axes of (slices, H, W, ...) to mirror, from 1 and 2.
      transposed: whether rows and columns are swapped first.
    """

    flips: tuple[int, ...] = ()
    transposed: bool = False

    def of(self, images: np.ndarray) -> np.ndarray:
        """Apply the view to images (slices, H, W, ...)."""
        return np.flip(images.swapaxes(1, 2) if self.transposed else images, self.flips)

    def back(self, images: np.ndarray) -> np.ndarray:
        """Invert `of`."""
        images = np.flip(images, self.flips)
        return images.swapaxes(1, 2) if self.transposed else images

    def point(self, point: tuple[Number, Number], last: tuple[int, int]) -> tuple[Number, Number]:
        """Apply the view to a point (row, column); `last` is the last point of the view."""
        row, column = point
        return self._mirrored((column, row) if self.transposed else point, last)

    def point_back(
        self, point: tuple[Number, Number], last: tuple[int, int]
    ) -> tuple[Number, Number]:
        """Invert `point`, with the same `last`."""
        row, column = self._mirrored(point, last)
        return (column, row) if self.transposed else (row, column)

    def _mirrored(
        self, point: tuple[Number, Number], last: tuple[int, int]
    ) -> tuple[Number, Number]:
        row, column = point
        return (
            last[0] - row if 1 in self.flips else row,
            last[1] - column if 2 in self.flips else column,
        )


FLIPS = tuple(View(flips) for flips in ((), (1,), (2,), (1, 2)))
TURNS_AND_FLIPS = FLIPS + tuple(View(view.flips, True) for view in FLIPS)


def averaged(
    segment: Segmenter, params: Params, images: np.ndarray, views: Sequence[View]
) -> np.ndarray:
    """Average the probabilities (slices, H, W, L) over views of the images (slices, H, W)."""
    return np.mean([view.back(segment(params, view.of(images))) for view in views], axis=0)


def find_heart(
    case: Case,
    how: Preprocessing,
    localize: Callable[[np.ndarray, Sequence[View]], np.ndarray],
    segment: Callable[[Grid], np.ndarray],
) -> tuple[tuple[int, int], Grid, np.ndarray] | None:
    """Center the crop on the heart and segment the stack there.

    The whole stack has one center. The localizer's peak is accurate to about 15 mm. From there the
    crop follows the heart in the label map, in whole voxels, until a center recurs or eight crops
    are done. In the crop of that cycle whose heart is closest to its center, the heart's position
    between voxels is the center of the last crop. So the result hardly depends on the extent of the
    image, the size of its voxels or the heart's position in it.

    Args:
      case: case on its native grid.
      how: preprocessing of the run; its grid has no center.
      localize: function from scouts (slices, h, w) and views to probabilities (slices, h, w, 2).
      segment: function from a grid to label probabilities (slices, H, W, L) on it.

    Returns:
      The voxel at the heart's center, the grid around that center and the probabilities on the
      grid, or None if no heart is found: less than 5 ml on the scout, or a crop without a label.

    Raises:
      DataError: as `scout_of`.
    """
    scout, shape, spacing = scout_grid(case), case.image.shape, case.spacing
    heart = localize(scout_of(case, how, scout), TURNS_AND_FLIPS)[..., 1]
    heart[~case.tissue.any((0, 1))] = 0
    if (heart > 0.5).sum() * SPACING_MM**2 * spacing[2] < _LEAST_ML * 1000:
        return None
    voxel = _rounded(scout.position(peak_of(heart), shape, spacing))
    crops = {}  # by voxel at the center: distance to the heart in mm, the voxel, the heart's center
    while voxel not in crops and len(crops) < _ROUNDS:
        grid = how.grid.at(voxel, shape)
        pixel = center_of(most_probable(segment(grid)) > 0)
        if pixel is None:
            return None
        center = grid.position(pixel, shape, spacing)
        edges = zip(center, voxel, spacing, strict=False)
        crops[voxel] = math.hypot(*((c - v) * mm for c, v, mm in edges)), voxel, center
        voxel = _rounded(center)
    visited = list(crops)
    resting = visited[visited.index(voxel) :] if voxel in crops else visited[-1:]
    *_, center = min(crops[at] for at in resting)
    grid = how.grid.at(center, shape)
    probabilities = segment(grid)
    if not (most_probable(probabilities) > 0).any():
        return None
    return _rounded(center), grid, probabilities


def _rounded(position: tuple[float, float]) -> tuple[int, int]:
    """The voxel at a position; halves go up, so that padding moves no tie to another voxel."""
    row, column = position
    return math.floor(row + 0.5), math.floor(column + 0.5)


def reaches_border(probabilities: np.ndarray) -> bool:
    """Return whether a label reaches the border of the grid, given (slices, H, W, L)."""
    edges = probabilities[:, [0, -1]], probabilities[:, :, [0, -1]]
    return any((most_probable(edge) > 0).any() for edge in edges)


def off_center_mm(probabilities: np.ndarray, grid: Grid, spacing: tuple[float, ...]) -> float:
    """Compute the distance in mm of the labeled heart from the center of the grid.

    The distance is 0 if nothing is labeled.

    Args:
      probabilities: (slices, H, W, L).
      grid: grid of the probabilities.
      spacing: voxel size of the case in mm, which is the pixel size of a grid without a spacing.
    """
    pixel = center_of(most_probable(probabilities) > 0)
    if pixel is None:
        return 0.0
    edges = (grid.spacing, grid.spacing) if grid.spacing else spacing[:2]
    offsets = [
        (at - (side - 1) / 2) * mm for at, side, mm in zip(pixel, grid.size, edges, strict=True)
    ]
    return math.hypot(*offsets)
