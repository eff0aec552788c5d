"""Localization of the heart in a stack, first on a scout, then by the network's own label map."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
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
class _Crop:
    """A crop of the whole stack and the heart in it.

    Attributes:
      grid: grid of the crop.
      probabilities: (slices, H, W, L).
      off_center_mm: distance of the heart from the center of the crop.
      heart: voxel at the heart's center.
      near: voxels within 3/4 voxel of the heart's center, as in `Grid.voxels_near`.
    """

    grid: Grid
    probabilities: np.ndarray
    off_center_mm: float
    heart: tuple[int, int]
    near: set[tuple[int, int]]


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
    crop follows the heart in the label map until it no longer moves. If the heart then lies between
    voxels, the crops around each of them are compared. So the result does not depend on the extent
    of the image or on the heart's position in it.

    Args:
      case: case on its native grid.
      how: preprocessing of the run; its grid has no center.
      localize: function from scouts (slices, h, w) and views to probabilities (slices, h, w, 2).
      segment: function from a grid to label probabilities (slices, H, W, L) on it.

    Returns:
      The voxel at the center, the grid around it and the probabilities on that grid, or None if no
      heart is found.
    """
    scout = scout_grid(case)
    heart = localize(scout_of(case, how, scout), TURNS_AND_FLIPS)[..., 1]
    heart[~case.tissue.any((0, 1))] = 0
    if (heart > 0.5).sum() * SPACING_MM**2 * case.spacing[2] < _LEAST_ML * 1000:
        return None
    voxel = scout.voxel(peak_of(heart), case.image.shape, case.spacing)

    @cache
    def crop_at(voxel: tuple[int, int]) -> _Crop | None:
        grid = how.grid.at(voxel, case.image.shape)
        probabilities = segment(grid)
        pixel = center_of(most_probable(probabilities) > 0)
        if pixel is None:
            return None
        return _Crop(
            grid,
            probabilities,
            _off_center_mm(pixel, grid, case.spacing),
            grid.voxel(pixel, case.image.shape, case.spacing),
            grid.voxels_near(pixel, case.image.shape, case.spacing),
        )

    return _followed(voxel, crop_at)


def _followed(
    voxel: tuple[int, int], crop_at: Callable[[tuple[int, int]], _Crop | None]
) -> tuple[tuple[int, int], Grid, np.ndarray] | None:
    """Move the crop from a voxel to the heart in it until it rests; None if the heart is lost."""
    path: list[tuple[int, int]] = []
    while voxel not in path and len(path) < _ROUNDS:
        crop = crop_at(voxel)
        if crop is None:
            return None
        path.append(voxel)
        voxel = crop.heart
    candidates = set(path[-1:])
    if voxel in path:
        # The crop rests, or alternates between voxels. If the heart lies between voxels, the crop
        # may rest at each of them, depending on where it started; compare all of these.
        rests = path[path.index(voxel) :]
        candidates = {*rests, *(at for rest in rests if (c := crop_at(rest)) for at in c.near)}
    crops = {at: crop for at in candidates if (crop := crop_at(at))}
    best = min(crops, key=lambda at: (crops[at].off_center_mm, at))
    return best, crops[best].grid, crops[best].probabilities


def reaches_border(probabilities: np.ndarray) -> bool:
    """Return whether a label reaches the border of the grid, given (slices, H, W, L)."""
    labeled = most_probable(probabilities) > 0
    return bool(labeled[:, [0, -1]].any() or labeled[:, :, [0, -1]].any())


def off_center_mm(probabilities: np.ndarray, grid: Grid, spacing: tuple[float, ...]) -> float:
    """Compute the distance in mm of the labeled heart from the center of the grid.

    The distance is 0 if nothing is labeled.

    Args:
      probabilities: (slices, H, W, L).
      grid: grid of the probabilities.
      spacing: voxel size of the case in mm, which is the pixel size of a grid without a spacing.
    """
    pixel = center_of(most_probable(probabilities) > 0)
    return 0.0 if pixel is None else _off_center_mm(pixel, grid, spacing)


def _off_center_mm(pixel: tuple[float, float], grid: Grid, spacing: tuple[float, ...]) -> float:
    """Compute the distance in mm of a pixel (row, column) from the center of the grid."""
    edges = (grid.spacing, grid.spacing) if grid.spacing else spacing[:2]
    offsets = [
        (at - (side - 1) / 2) * mm for at, side, mm in zip(pixel, grid.size, edges, strict=True)
    ]
    return math.hypot(*offsets)
