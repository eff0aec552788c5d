"""Resample images, labels and predictions between the native grid and the network grid.

The network sees slices of a fixed size (H, W) with square pixels. Labels and scores stay on the
native grid. Both directions are separable linear maps: a slice X becomes R X C^T with two small
matrices. Rows are array axis 0, columns axis 1, and slices come first on the network's side. Axes
are neither flipped nor swapped.

Positions are in mm from the corner of the field of view; voxel i covers [i d, (i + 1) d].
"""

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from jaxseg.metrics.maps import most_probable

Matrices = tuple[sparse.csr_array, sparse.csr_array]

# A network pixel that holds less tissue than padding counts as padding; 1e-9 allows for rounding.
_MIN_COVERAGE = 0.5 - 1e-9


@dataclass(frozen=True)
class Grid:
    """The network's in-plane grid.

    Attributes:
      size: (H, W) in pixels.
      spacing: pixel size in mm along both axes. None keeps the native pixels, so that the grid
        only crops or pads.
      center: position of the grid's center, as fractions (row, column) of the field of view. None
        means that each stack has its own center, at the heart; see `at`.
    """

    size: tuple[int, int] = (96, 96)
    spacing: float | None = 1.4
    center: tuple[float, float] | None = (0.5, 0.5)

    def __post_init__(self):
        if len(self.size) != 2 or any(int(n) != n or n < 1 for n in self.size):
            raise ValueError(f"size is {self.size}; expected two positive whole numbers (H, W)")
        if self.spacing is not None and not 0 < self.spacing < math.inf:
            raise ValueError(f"spacing is {self.spacing}; expected mm above 0, or None")
        center = self.center
        if center is not None and (len(center) != 2 or any(not 0 <= c <= 1 for c in center)):
            raise ValueError(f"center is {center}; expected two fractions in [0, 1], or None")

    def at(self, position: tuple[float, float], shape: tuple[int, ...]) -> "Grid":
        """The grid centered on a position (row, column), in voxels, of a stack of this shape.

        Raises:
          ValueError: the position is outside the stack.
        """
        row, column = ((i + 0.5) / n for i, n in zip(position, shape, strict=False))
        return replace(self, center=(row, column))

    def padded(self, margin: int) -> "Grid":
        """The grid extended by `margin` pixels on each side."""
        height, width = self.size
        return replace(self, size=(height + 2 * margin, width + 2 * margin))

    def position(
        self, pixel: tuple[float, float], shape: tuple[int, ...], spacing: tuple[float, ...]
    ) -> tuple[float, float]:
        """The position (row, column), in voxels of a stack, of a pixel, clipped to the stack.

        Raises:
          ValueError: the grid has no center.
        """
        found = []
        for k in (0, 1):
            offset, step = _axis(shape[k], spacing[k], self.size[k], self.spacing, self._center[k])
            found.append(min(max(offset + step * pixel[k], 0), shape[k] - 1))
        return found[0], found[1]

    @property
    def _center(self) -> tuple[float, float]:
        if self.center is None:
            raise ValueError("center is None; expected the grid of a stack, from Grid.at")
        return self.center


def to_network(
    image: np.ndarray, spacing: tuple[float, ...], grid: Grid, tissue: NDArray[np.bool_]
) -> tuple[np.ndarray, NDArray[np.bool_]]:
    """Resample an image stack onto the network grid.

    Interpolation is linear, with a wider kernel where pixels get larger (anti-aliasing). Padding
    and everything outside the field of view have no weight (normalized convolution): a pixel is the
    weighted mean of the tissue under its kernel. It is padding if tissue holds less than half the
    kernel weight. Padding therefore never darkens a border.

    Args:
      image: (X, Y, slices).
      spacing: voxel size in mm, of which the first two entries are used.
      grid: the network grid.
      tissue: (X, Y, slices) bool, the voxels that are not padding, from `tissue_of`.

    Returns:
      Images (slices, H, W) float32, 0 in padding, and their tissue masks (slices, H, W) bool.
    """
    matrices = _forward_matrices(image.shape, spacing, grid, antialias=True)
    total = _apply(matrices, np.where(tissue, image, 0))
    coverage = _apply(matrices, tissue)
    covered = coverage >= _MIN_COVERAGE
    images = np.where(covered, total / np.where(covered, coverage, 1), 0).astype(np.float32)
    return images, covered


def labels_to_network(
    label: np.ndarray, spacing: tuple[float, ...], grid: Grid, num_labels: int
) -> np.ndarray:
    """Resample a label map onto the network grid.

    The indicator of each label is interpolated linearly and the largest value wins; ties go to the
    lower label. The outside of the field of view is background. There is no anti-aliasing. For
    the 80 EMIDEC cases, resampled to 1.4 mm and back, the mean DSC of labels 1 to 4 is:

        this function       0.994  0.986  0.974  0.968
        with anti-aliasing  0.994  0.985  0.973  0.967
        nearest neighbor    0.993  0.981  0.966  0.954

    Args:
      label: (X, Y, slices) label map.
      spacing: voxel size in mm, of which the first two entries are used.
      grid: the network grid.
      num_labels: size of the label set, background included.

    Returns:
      (slices, H, W) uint8.
    """
    matrices = _forward_matrices(label.shape, spacing, grid, antialias=False)
    return np.stack([_map_labels(x, matrices, num_labels) for x in np.moveaxis(label, -1, 0)])


def label_shares_to_network(
    label: np.ndarray, spacing: tuple[float, ...], grid: Grid, num_labels: int
) -> np.ndarray:
    """Resample a label map onto the network grid as label fractions, without an argmax.

    Unlike `labels_to_network`, this applies anti-aliasing: a pixel on a border holds the fraction
    covered by each label. With large pixels this keeps detail that a label map loses. For the 80
    EMIDEC cases, resampled to 64 x 64 pixels of 1.6 mm and back, the mean DSC of labels 1 to 4 is:

        fractions   0.999  0.998  0.993  0.991
        label maps  0.990  0.972  0.954  0.944

    Args:
      label: (X, Y, slices) label map.
      spacing: voxel size in mm, of which the first two entries are used.
      grid: the network grid.
      num_labels: L, size of the label set, background included.

    Returns:
      (slices, H, W, L) float32 that sums to 1 over L; all background outside the field of view.
    """
    matrices = _forward_matrices(label.shape, spacing, grid, antialias=True)
    shares = [_label_shares(x, matrices, num_labels) for x in np.moveaxis(label, -1, 0)]
    return np.stack(shares).astype(np.float32)


def probabilities_to_native(
    probabilities: np.ndarray, shape: tuple[int, ...], spacing: tuple[float, ...], grid: Grid
) -> np.ndarray:
    """Resample probabilities onto the native grid, the inverse geometry of `to_network`.

    They are interpolated linearly.

    Args:
      probabilities: (slices, H, W, L) that sum to 1 over L.
      shape: native shape (X, Y, slices).
      spacing: native voxel size in mm.
      grid: the grid of the prediction.

    Returns:
      (X, Y, slices, L) float32 that sums to 1 over L; background has probability 1 outside the
      network grid.

    Raises:
      ValueError: the probabilities do not match the grid or the number of slices, or are not
        finite.
    """
    probabilities = np.asarray(probabilities)
    expected = (shape[2], *grid.size)
    if probabilities.ndim != 4 or probabilities.shape[:3] != expected:
        raise ValueError(f"probabilities are {probabilities.shape}; expected {expected} + L")
    if not np.isfinite(probabilities).all():
        raise ValueError("probabilities hold values that are not finite")
    matrices = _backward_matrices(shape, spacing, grid)
    native = [_map_probabilities(x, matrices).astype(np.float32) for x in probabilities]
    return np.stack(native, axis=2)


def labeled_outside(label: np.ndarray, spacing: tuple[float, ...], grid: Grid) -> int:
    """Count the labeled native voxels whose centers lie outside the network grid."""
    row, column = (matrix.sum(1) > 0 for matrix in _backward_matrices(label.shape, spacing, grid))
    return int(np.count_nonzero(label[~np.outer(row, column)]))


def _axis(
    native: int, edge: float, size: int, spacing: float | None, center: float
) -> tuple[float, float]:
    """Offset and step of the network pixels' centers along one axis, both in native pixels."""
    if spacing is None:  # round to whole pixels, so that nothing is interpolated
        return math.floor(center * native - size / 2 + 0.5), 1.0
    step = spacing / edge
    return center * native + (0.5 - size / 2) * step - 0.5, step


def _forward_matrices(
    shape: tuple[int, ...], spacing: tuple[float, ...], grid: Grid, *, antialias: bool
) -> Matrices:
    matrices = []
    for native, edge, size, center in zip(shape, spacing, grid.size, grid._center, strict=False):
        offset, step = _axis(native, edge, size, grid.spacing, center)
        positions = offset + step * np.arange(size)
        width = max(1.0, step) if antialias else 1.0
        matrices.append(_interpolation_matrix(positions, native, width))
    return matrices[0], matrices[1]


def _backward_matrices(shape: tuple[int, ...], spacing: tuple[float, ...], grid: Grid) -> Matrices:
    matrices = []
    for native, edge, size, center in zip(shape, spacing, grid.size, grid._center, strict=False):
        offset, step = _axis(native, edge, size, grid.spacing, center)
        positions = (np.arange(native) - offset) / step
        positions[(positions < -0.5) | (positions > size - 0.5)] = np.nan
        matrices.append(_interpolation_matrix(positions, size))
    return matrices[0], matrices[1]


def _interpolation_matrix(positions: np.ndarray, size: int, width: float = 1) -> sparse.csr_array:
    """Weights (targets, size) of linear interpolation at `positions`, in source pixels.

    Each row is a triangle of half-width `width` >= 1 around its position, normalized over an
    infinite source. A row that sums to less than 1 extends outside. The row of a NaN is empty.
    """
    reach = math.ceil(width) + 1
    target = np.flatnonzero(~np.isnan(positions))
    position = positions[target, None]
    source = np.floor(position).astype(int) + np.arange(-reach, reach + 1)
    weights = np.maximum(0, 1 - np.abs(position - source) / width)
    weights /= weights.sum(axis=1, keepdims=True)
    kept = (source >= 0) & (source < size) & (weights > 0)
    rows = np.broadcast_to(target[:, None], source.shape)[kept]
    return sparse.csr_array((weights[kept], (rows, source[kept])), shape=(len(positions), size))


def _apply(matrices: Matrices, planes: np.ndarray) -> np.ndarray:
    """Map planes (X, Y, K) to (K, H, W) float64.

    The matrices are sparse because a row holds few weights. This also avoids contention between
    threads and gives the same rounding on every machine.
    """
    rows, columns = matrices
    X, Y, K = planes.shape
    mapped = rows @ planes.astype(np.float64).reshape(X, Y * K)
    mapped = columns @ mapped.reshape(-1, Y, K).transpose(1, 0, 2).reshape(Y, -1)
    return mapped.reshape(len(mapped), -1, K).transpose(2, 1, 0)


def _map_labels(label: np.ndarray, matrices: Matrices, num_labels: int) -> np.ndarray:
    return most_probable(_label_shares(label, matrices, num_labels))


def _label_shares(label: np.ndarray, matrices: Matrices, num_labels: int) -> np.ndarray:
    return _map_probabilities(label[..., None] == np.arange(num_labels), matrices)


def _map_probabilities(probabilities: np.ndarray, matrices: Matrices) -> np.ndarray:
    """Map (X, Y, L) to (H, W, L) float64; the weight outside the source goes to background."""
    mapped = _apply(matrices, probabilities)
    mapped[0] += 1 - np.outer(matrices[0].sum(1), matrices[1].sum(1))
    return np.moveaxis(mapped, 0, -1)
