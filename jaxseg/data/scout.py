"""The scout: a whole stack at a glance, on which its heart is found, and where the heart lies."""

import math
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from jaxseg.data.case import Case
from jaxseg.data.grid import Grid, label_shares_to_network
from jaxseg.data.padding import field_of_view
from jaxseg.data.preprocess import Preprocessing, network_images

SPACING_MM = 8.0
"""Of a scout's pixels: a left ventricle measures some six to eleven of them."""
SIZE = (48, 48)
"""Of a scout in training, 384 mm; what a wider field of view holds beyond is cut off there."""
# 20 mm: hearts measure some 70.
_BLUR_PIXELS = 2.5
MULTIPLE = 8
"""Of both sides of a scout, as the localizer halves it three times."""


def scout_grid(case: Case, size: tuple[int, int] | None = None) -> Grid:
    """The grid of a case's scout, around the middle of its picture.

    Args:
      case: on its own grid.
      size: (H, W) in pixels; default as many as hold the whole picture, at least `SIZE`.
    """
    rows, columns = field_of_view(case.tissue)
    middle = ((rows.start + rows.stop - 1) // 2, (columns.start + columns.stop - 1) // 2)
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
    """A case's scout.

    Padding is as dark as the darkest tissue, so that it looks the same whether a file marks it by
    zeros, by another value or by noise.

    Args:
      case: on its own grid.
      how: whose normalization is done, with the statistics of the whole picture.
      grid: from `scout_grid`.

    Returns:
      (slices, H, W) float32.

    Raises:
      DataError: as `preprocess_case`.
    """
    images, tissue = network_images(case, replace(how, grid=grid))
    return np.where(tissue, images, images[tissue].min())


def heart_of(label: NDArray[np.integer], spacing: tuple[float, ...], grid: Grid) -> np.ndarray:
    """The heart's share of every pixel of a scout, (slices, H, W) float32.

    The heart is whatever is labeled.
    """
    shares = label_shares_to_network((label > 0).astype(np.uint8), spacing, grid, 2)
    return shares[..., 1]


def peak_of(heart: np.ndarray) -> tuple[int, int]:
    """Where a localizer's map is highest, all slices added up and smoothed over a heart's size.

    The median of what it takes for the heart lies between the heart and whatever else it takes for
    one; the peak does not.

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
    """Where a stack's heart lies: the medians of the rows and of the columns of its pixels.

    A median, so that a few slices in which something else is taken for the heart do not move it.

    Args:
      foreground: (slices, H, W) bool, the heart.

    Returns:
      (row, column); None where there is no heart.
    """
    if not foreground.any():
        return None
    _, rows, columns = np.nonzero(foreground)
    return float(np.median(rows)), float(np.median(columns))
