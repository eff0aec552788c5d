"""Building blocks of the phantom's images: smooth noise, soft edges, tables over angle and slice.

Images are (X, Y, slices) float32. A table is (ANGLES, slices), with one value for each direction
seen from the center of the left ventricle. A closed contour is then a periodic table.
"""

import numpy as np
from scipy import ndimage

ANGLES = 96
DIRECTIONS = np.arange(ANGLES) * (2 * np.pi / ANGLES)


def smooth_noise(
    rng: np.random.Generator, shape: tuple[int, ...], sigma: tuple[float, ...]
) -> np.ndarray:
    """White noise blurred periodically by `sigma`, in samples along each axis.

    Returns:
      Float32 array of `shape` with root mean square 1.
    """
    white = rng.standard_normal(shape, dtype=np.float32)
    smooth = ndimage.gaussian_filter(white, sigma, mode="wrap", truncate=3.0)
    return smooth / np.sqrt(np.mean(smooth**2))


def slow_noise(
    rng: np.random.Generator, shape: tuple[int, int, int], nodes: int, along: float
) -> np.ndarray:
    """Noise on `nodes` x `nodes` points across the plane, interpolated to the full grid.

    This costs far less than a wide blur of noise on the full grid.

    Args:
      rng: random generator.
      shape: (X, Y, slices) of the grid.
      nodes: number of points on each side.
      along: standard deviation of the blur across slices, in slices; 0 means no blur.

    Returns:
      Floating point array of `shape` with root mean square about 1.
    """
    coarse = rng.standard_normal((nodes, nodes, shape[2]), dtype=np.float32)
    coarse = ndimage.gaussian_filter1d(coarse, along, axis=2) if along > 0 else coarse
    coarse = coarse / np.sqrt(np.mean(coarse**2))
    rows, columns = (_spline_weights(size, nodes) for size in shape[:2])
    return np.einsum("xa,yb,abz->xyz", rows, columns, coarse, optimize=True)


def _spline_weights(size: int, nodes: int) -> np.ndarray:
    """Weights (size, nodes) float32 that interpolate `nodes` values by a cubic spline."""
    at = np.linspace(0, nodes - 1, size)
    unit = np.eye(nodes)
    columns = [ndimage.map_coordinates(row, at[None], order=3, mode="nearest") for row in unit]
    return np.stack(columns, axis=1).astype(np.float32)


def look_up(table: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """Interpolate a table (ANGLES, slices) linearly at `angle` (X, Y, slices) in [-pi, pi]."""
    num_slices = table.shape[1]
    # One and a half turns, so that no index has to be wrapped.
    turns = np.concatenate([table, table[: ANGLES // 2 + 2]]).ravel()
    position = angle.astype(np.float32) * np.float32(ANGLES / (2 * np.pi)) + ANGLES
    low = position.astype(np.int32)
    fraction = position - low
    at = low * num_slices + np.arange(num_slices, dtype=np.int32)
    first = turns.take(at)
    return first + fraction * (turns.take(at + num_slices) - first)


def cover(distance: np.ndarray, width: float) -> np.ndarray:
    """Partial volume of a region, 0 to 1, with the shape of `distance`.

    Args:
      distance: distance to the region's edge, negative inside.
      width: width of the ramp from 1 to 0 across the edge, in units of `distance`.
    """
    return np.clip(0.5 - distance / np.float32(width), 0, 1)


def paint(image: np.ndarray, share: np.ndarray, level: float | np.ndarray) -> np.ndarray:
    """Replace the fraction `share` (0 to 1) of each voxel by tissue of signal `level`.

    The three arguments are broadcast together. The result has the units of the image.
    """
    return image + share * (np.asarray(level, np.float32) - image)


def ellipse_distance(
    x: np.ndarray, y: np.ndarray, semi: tuple[np.ndarray | float, np.ndarray | float], power: float
) -> np.ndarray:
    """Approximate signed distance to the superellipse |x/a|^p + |y/b|^p = 1, in units of x."""
    a, b = semi
    rho = (np.abs(x / a) ** power + np.abs(y / b) ** power) ** (1 / power)
    return ((rho - 1) * np.minimum(a, b)).astype(np.float32)
