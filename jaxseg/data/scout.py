"""The scout, a coarse image of the whole stack on which the heart is located."""

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from jaxseg.data.case import Case
from jaxseg.data.grid import Grid, label_shares_to_network
from jaxseg.data.padding import field_of_view
from jaxseg.data.preprocess import Preprocessing, network_images

SPACING_MM = 8.0
"""Pixel size of a scout; a left ventricle spans about six to eleven pixels."""
SIZE = (48, 48)
"""Size of a scout in training, 384 mm; a wider field of view is cropped."""
# 20 mm; hearts are about 70 mm wide.
_BLUR_PIXELS = 2.5
MULTIPLE = 8
"""Divisor of both sides of a scout, because the localizer halves it three times."""


def scout_grid(case: Case, size: tuple[int, int] | None = None) -> Grid:
    """The grid of a case's scout, centered on the picture.

    Args:
      case: the case on its native grid.
      size: (H, W) in pixels; by default large enough for the whole picture, and at least `SIZE`.
    """
    rows, columns = field_of_view(case.tissue)
    middle = ((rows.start + rows.stop - 1) / 2, (columns.start + columns.stop - 1) / 2)
    if size is None:
        lengths = (rows.stop - rows.start, columns.stop - columns.start)
        edges = [n * mm for n, mm in zip(lengths, case.spacing, strict=False)]
        height, width = (
            max(least, MULTIPLE * math.ceil(mm / SPACING_MM / MULTIPLE))
            for least, mm in zip(SIZE, edges, strict=True)
        )
        size = (height, width)
    return Grid(size, SPACING_MM).at(middle, case.image.shape)


def scout_of(case: Case, how: Preprocessing, grid: Grid) -> np.ndarray:
    """Compute the scout of a case.

    Padding gets the value of the darkest tissue, so that it looks the same whether a file marks it
    by zeros, by another value or by noise.

    Args:
      case: the case on its native grid.
      how: preprocessing whose normalization is applied, with statistics of the whole scout.
      grid: grid from `scout_grid`.

    Returns:
      (slices, H, W) float32.

    Raises:
      DataError: as `preprocess_case`.
    """
    images, tissue = network_images(case, replace(how, grid=grid))
    return np.where(tissue, images, images[tissue].min())


def heart_of(label: NDArray[np.integer], spacing: tuple[float, ...], grid: Grid) -> np.ndarray:
    """Fraction of each scout pixel covered by the heart, (slices, H, W) float32.

    The heart is the union of all labels but the background.
    """
    shares = label_shares_to_network((label > 0).astype(np.uint8), spacing, grid, 2)
    return shares[..., 1]


def peak_of(heart: np.ndarray) -> tuple[int, int]:
    """Peak of a localizer's map after summation over slices and smoothing over a heart's size.

    If the map also marks another region as heart, the median of its pixels lies between the two
    regions. The peak does not.

    Args:
      heart: (slices, H, W) probability of the heart in each pixel of a scout.

    Returns:
      (row, column).
    """
    heat = heart.sum(0)
    rows, columns = (
        np.exp(-(np.subtract.outer(range(n), range(n)) ** 2) / (2 * _BLUR_PIXELS**2))
        for n in heat.shape
    )
    row, column = np.unravel_index((rows @ heat @ columns).argmax(), heat.shape)
    return int(row), int(column)


def center_of(foreground: NDArray[np.bool_]) -> tuple[float, float] | None:
    """Center of a stack's heart: the median row and the median column of its pixels.

    The median is robust against a few slices in which something else is marked as heart. It is
    finer than a pixel, so that a mirrored stack has the mirrored center, to the voxel.

    Args:
      foreground: (slices, H, W) bool mask of the heart.

    Returns:
      (row, column), or None if the mask is empty.
    """
    if not foreground.any():
        return None
    return _median(foreground.sum((0, 2))), _median(foreground.sum((0, 1)))


def _median(counts: NDArray[np.integer]) -> float:
    """Median place of counted pixels (n,), each spread evenly over its own width."""
    total = counts.cumsum()
    k = int(np.searchsorted(total, total[-1] / 2))
    below = total[k] - counts[k]
    return float(k - 0.5 + (total[-1] / 2 - below) / counts[k])
