"""Preprocess a case into network images and labels: resampling and intensity normalization."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from jaxseg.data.bias_field import correct_bias_field
from jaxseg.data.case import Case
from jaxseg.data.grid import Grid, labels_to_network, to_network
from jaxseg.data.nifti import MAX_VOXELS, DataError

NORMALIZATIONS = ("zscore", "percentile", "none")


@dataclass(frozen=True)
class Preprocessing:
    """Preprocessing parameters.

    Attributes:
      grid: the network grid. Without a center, each stack's grid is centered on its heart.
      num_labels: size of the label set, background included.
      normalization: one of `NORMALIZATIONS`; see `normalize`.
      percentiles: percentiles at which intensities are clipped; see `normalize`.
      bias_field: whether cases are first corrected by `correct_bias_field`; see `corrected`.
    """

    grid: Grid
    num_labels: int
    normalization: str = "zscore"
    percentiles: tuple[float, float] = (1.0, 99.0)
    bias_field: bool = False


def normalize(
    images: np.ndarray,
    tissue: NDArray[np.bool_],
    *,
    method: str = "zscore",
    percentiles: tuple[float, float] = (1.0, 99.0),
    margin: int = 0,
) -> np.ndarray:
    """Normalize the intensities of one stack.

    Statistics are computed over the tissue of the whole stack, so that more padding changes no
    value. Tissue is clipped at the percentiles and then normalized:

    - "zscore": subtract the mean and divide by the standard deviation.
    - "percentile": map the clipped range to 0..1.
    - "none": keep the values, without clipping.

    Padding is set to 0. With "zscore" this is the mean of the tissue, so that the
    edge of the padding is weaker than edges in the tissue.

    Args:
      images: (slices, H, W) on the network grid.
      tissue: (slices, H, W) bool, the pixels that are not padding.
      method: one of `NORMALIZATIONS`.
      percentiles: lower and upper clip, 0 <= lower < upper <= 100.
      margin: pixels on each side that are excluded from the statistics.

    Returns:
      (slices, H, W) float32.

    Raises:
      DataError: there is no tissue, or it has a single value.
      ValueError: the method is unknown, or the percentiles are out of order.
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
        return np.where(tissue, images, 0).astype(np.float32)
    low, high = np.percentile(values, percentiles)
    if not high > low:
        raise DataError(f"tissue between the percentiles {percentiles} has one value, {low:g}")
    values = np.clip(values, low, high)
    shift, scale = (values.mean(), values.std()) if method == "zscore" else (low, high - low)
    result = np.zeros(images.shape, np.float32)
    result[tissue] = (np.clip(images[tissue].astype(np.float64), low, high) - shift) / scale
    return result


def corrected(case: Case, how: Preprocessing) -> Case:
    """Return the case as all grids see it: without its bias field, if `how` says so."""
    return correct_bias_field(case) if how.bias_field else case


def preprocess_case(
    case: Case, how: Preprocessing, *, margin: int = 0
) -> tuple[np.ndarray, np.ndarray | None]:
    """Resample and normalize one case.

    Args:
      case: the case on its native grid, as returned by `corrected`.
      how: preprocessing parameters; the grid must have a center.
      margin: pixels of surroundings to add to the grid on each side. They do not affect the
        normalization.

    Returns:
      Images (slices, H, W) float32 and labels (slices, H, W) uint8, or None without a reference. H
      and W include the margin.

    Raises:
      DataError: the tissue on the network grid cannot be normalized, or the stack has more than
        `MAX_VOXELS` pixels there.
      ValueError: the normalization is unknown, or the percentiles are out of order.
    """
    images, _ = network_images(case, how, margin=margin)
    if case.label is None:
        return images, None
    grid = how.grid.padded(margin)
    return images, labels_to_network(case.label, case.spacing, grid, how.num_labels)


def network_images(
    case: Case, how: Preprocessing, *, margin: int = 0
) -> tuple[np.ndarray, NDArray[np.bool_]]:
    """Resample and normalize the images of one case; arguments and errors as `preprocess_case`.

    Returns:
      Images (slices, H, W) float32 and their tissue masks (slices, H, W) bool.
    """
    grid = how.grid.padded(margin)
    slices, (height, width) = case.image.shape[-1], grid.size
    if slices * height * width > MAX_VOXELS:
        raise DataError(
            f"{case.name}: {slices} slices on a network grid of {height} x {width}; expected at "
            f"most {MAX_VOXELS // (height * width)}"
        )
    images, tissue = to_network(case.image, case.spacing, grid, case.tissue)
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
