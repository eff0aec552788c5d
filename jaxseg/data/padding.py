"""Separate the picture of a stack from the padding around it."""

import numpy as np
from numpy.typing import NDArray


def tissue_of(image: np.ndarray) -> NDArray[np.bool_]:
    """Mask of the voxels that belong to the picture, not to padding.

    Padding consists of

    - slices with a single value;
    - rows and columns at the border that hold a single value in all other slices. The value may be
      any: programs pad with 0, -1 or the value of air;
    - zeros that are connected to the border by zeros along their row or column. A zero surrounded
      by the picture is signal, such as nulled myocardium in a narrow intensity window.

    Args:
      image: (X, Y, slices).

    Returns:
      (X, Y, slices) bool.
    """
    shows = np.ptp(image, axis=(0, 1)) > 0
    tissue = np.broadcast_to(shows, image.shape).copy()
    for axis in (0, 1):
        lines = np.moveaxis(image[..., shows], axis, 0).reshape(image.shape[axis], -1)
        varied = np.flatnonzero(np.ptp(lines, axis=1) > 0) if shows.any() else np.arange(0)
        inside = np.zeros(image.shape[axis], bool)
        if varied.size:
            inside[varied[0] : varied[-1] + 1] = True
        tissue &= np.expand_dims(inside, tuple({0, 1, 2} - {axis}))
    # Start at the border of the remaining picture: other padding may surround the zeros.
    empty = (image == 0) | ~tissue
    for axis in (0, 1):
        for way in (slice(None), slice(None, None, -1)):
            turned = np.moveaxis(empty, axis, 0)[way]
            run = np.moveaxis(np.logical_and.accumulate(turned, axis=0)[way], 0, axis)
            tissue &= ~run
    return tissue


def field_of_view(tissue: NDArray[np.bool_]) -> tuple[slice, slice]:
    """Rows and columns of the smallest rectangle that holds the picture of the whole stack.

    Args:
      tissue: (X, Y, slices) bool, from `tissue_of`. If it is empty, all rows and columns are kept.
    """
    spans = []
    for axis in (0, 1):
        found = np.flatnonzero(tissue.any(axis=(1 - axis, 2)))
        start, stop = (found[0], found[-1] + 1) if found.size else (0, tissue.shape[axis])
        spans.append(slice(int(start), int(stop)))
    return spans[0], spans[1]
