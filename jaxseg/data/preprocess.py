"""A case to the network's images and labels: resampling and intensity normalization."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from jaxseg.data.case import Case
from jaxseg.data.grid import Grid, labels_to_network, to_network
from jaxseg.data.nifti import MAX_VOXELS, DataError

NORMALIZATIONS = ("zscore", "percentile", "none")


@dataclass(frozen=True)
class Preprocessing:
    """What is done to a case on its way to the network.

    Attributes:
      grid: the network grid; without a center, each stack's own is around its heart.
      num_labels: size of the label set, background included.
      normalization: one of `NORMALIZATIONS`, as in `normalize`.
      percentiles: that intensities are clipped at, as in `normalize`.
      even: whether a slope of the signal through the picture is taken out first, as in `even_out`.
    """

    grid: Grid
    num_labels: int
    normalization: str = "zscore"
    percentiles: tuple[float, float] = (1.0, 99.0)
    even: bool = False


def normalize(
    images: np.ndarray,
    tissue: NDArray[np.bool_],
    *,
    method: str = "zscore",
    percentiles: tuple[float, float] = (1.0, 99.0),
    margin: int = 0,
) -> np.ndarray:
    """Normalizes the intensities of one case's stack.

    Statistics come from the tissue of the whole stack, so that more padding changes no value.
    Tissue is clipped at the percentiles, then
    "zscore": minus its mean, over its standard deviation; "percentile": mapped to 0..1;
    "none": nothing, not even clipping. Padding is 0 afterwards: for "zscore" the mean of tissue, so
    that its edge is weaker than edges in the tissue.

    Args:
      images: (slices, H, W) on the network grid.
      tissue: (slices, H, W) bool, the pixels that are not padding.
      method: one of `NORMALIZATIONS`.
      percentiles: lower and upper clip, 0 <= lower < upper <= 100.
      margin: pixels on each side that take no part in the statistics.

    Returns:
      (slices, H, W) float32.

    Raises:
      DataError: no tissue, or tissue of one value.
      ValueError: unknown method; percentiles out of order.
    """
    if method not in NORMALIZATIONS:
        raise ValueError(f"normalization is {method!r}; expected one of {NORMALIZATIONS}")
    if not 0 <= percentiles[0] < percentiles[1] <= 100:
        raise ValueError(f"percentiles are {percentiles}; expected 0 <= lower < upper <= 100")
    inner = (slice(None), *(slice(margin, side - margin) for side in images.shape[1:]))
    values = images[inner][tissue[inner]].astype(np.float64)
    if not values.size:
        raise DataError("no tissue on the network grid: every pixel is padding")
    if method == "none":
        return images.astype(np.float32)
    low, high = np.percentile(values, percentiles)
    if not high > low:
        raise DataError(f"tissue between the percentiles {percentiles} has one value, {low:g}")
    values = np.clip(values, low, high)
    shift, scale = (values.mean(), values.std()) if method == "zscore" else (low, high - low)
    result = np.zeros(images.shape, np.float32)
    result[tissue] = (np.clip(images[tissue].astype(np.float64), low, high) - shift) / scale
    return result


def even_out(images: np.ndarray, tissue: NDArray[np.bool_], *, margin: int = 0) -> np.ndarray:
    """Takes the slope of the signal out of a stack, such as a surface coil leaves.

    Subtracts a row + b column, one plane for the whole stack, fitted to its tissue by least
    squares. Whatever plane was added to a stack before, the result is the same.

    Args:
      images: (slices, H, W) on the network grid.
      tissue: (slices, H, W) bool, the pixels that are not padding.
      margin: pixels on each side that take no part in the fit.

    Returns:
      (slices, H, W) float32.
    """
    _, height, width = images.shape
    plane = np.stack(
        [
            np.broadcast_to(np.arange(height)[:, None] - (height - 1) / 2, (height, width)),
            np.broadcast_to(np.arange(width)[None, :] - (width - 1) / 2, (height, width)),
            np.ones((height, width)),
        ]
    )
    inner = (slice(margin, height - margin), slice(margin, width - margin))
    _, rows, columns = np.nonzero(tissue[:, *inner])
    terms = plane[:, *inner][:, rows, columns]
    # Normal equations: three unknowns, and a stack has some ten thousand pixels.
    values = images[:, *inner][tissue[:, *inner]].astype(np.float64)
    slopes = np.linalg.lstsq(terms @ terms.T, terms @ values, rcond=None)[0]
    slopes[2] = 0
    return (images - np.tensordot(slopes, plane, 1)).astype(np.float32)


def preprocess_case(
    case: Case, how: Preprocessing, *, margin: int = 0
) -> tuple[np.ndarray, np.ndarray | None]:
    """Resamples and normalizes one case.

    Args:
      case: on its own grid.
      how: what is done; its grid has a center.
      margin: pixels of surroundings beyond the grid, on each side; intensities are normalized as
        without them.

    Returns:
      Images (slices, H, W) float32 and labels (slices, H, W) uint8, None without a reference; H
      and W of the grid with its margin.

    Raises:
      DataError: the case's tissue on the network grid cannot be normalized, or the stack has more
        than `MAX_VOXELS` pixels there.
      ValueError: unknown normalization or percentiles out of order.
    """
    images, _ = network_images(case, how, margin=margin)
    if case.label is None:
        return images, None
    grid = how.grid.padded(margin)
    return images, labels_to_network(case.label, case.spacing, grid, how.num_labels)


def network_images(
    case: Case, how: Preprocessing, *, margin: int = 0
) -> tuple[np.ndarray, NDArray[np.bool_]]:
    """Resamples and normalizes the images of one case; arguments and errors of `preprocess_case`.

    Returns:
      Images (slices, H, W) float32, 0 in padding, and their tissue (slices, H, W) bool.
    """
    grid = how.grid.padded(margin)
    slices, (height, width) = case.image.shape[-1], grid.size
    if slices * height * width > MAX_VOXELS:
        raise DataError(
            f"{case.name}: {slices} slices on a network grid of {height} x {width}; expected at "
            f"most {MAX_VOXELS // (height * width)}"
        )
    images, tissue = to_network(case.image, case.spacing, grid, case.tissue)
    if how.even:
        images = even_out(images, tissue, margin=margin)
    try:
        images = normalize(
            images,
            tissue,
            method=how.normalization,
            percentiles=how.percentiles,
            margin=margin,
        )
    except DataError as error:
        raise DataError(f"{case.name}: {error}") from None
    return images, tissue
