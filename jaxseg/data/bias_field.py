"""Correct the bias field of a stack: smooth changes of its signal, as near a surface coil."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from jaxseg.data.case import Case
from jaxseg.data.padding import field_of_view

SPACING_MM = 8.0
"""Approximate pixel size at which the field is estimated."""
PERCENTILES = (0.05, 99.9)
"""Percentiles of the tissue at which the signal is clipped for the estimate."""
FLOOR = 0.1
"""Lowest signal of the estimate, as a fraction of the clipped range; N4 takes logarithms."""
ITERATIONS = 50
"""Largest number of iterations of N4."""
MIN_SIDE = 8
"""Fewest pixels along a side for an estimate; smaller pictures are not corrected."""


def correct_bias_field(case: Case) -> Case:
    """Divide the signal of a case by a bias field, estimated by N4.

    N4 (N. J. Tustison et al., IEEE Transactions on Medical Imaging 29(6), 2010) is that of
    SimpleITK, with one fitting level, so that the logarithm of the field is a cubic polynomial
    along each axis. The field spans the picture without the padding around it, empty slices
    included. Files store images with any offset, so the signal is measured from the lower
    percentile, about the darkest tissue.

    Args:
      case: the case on its native grid.

    Returns:
      The case with a corrected image; padding keeps its values. The case itself, if it shows
      nothing or its picture is smaller than `MIN_SIDE`.
    """
    if not case.tissue.any():
        return case
    shows = np.flatnonzero(case.tissue.any((0, 1)))
    picture = (*field_of_view(case.tissue), slice(shows[0], shows[-1] + 1))
    tissue, image = case.tissue[picture], case.image[picture]
    low, high = np.percentile(image[tissue], PERCENTILES)
    if not high > low or min(image.shape[:2]) < MIN_SIDE:
        return case
    field = _field((np.clip(image, low, high) - low) / (high - low) + FLOOR, tissue, case.spacing)
    corrected = case.image.copy()
    corrected[picture] = np.where(tissue, low + (image - low) / field, image)
    return replace(case, image=corrected)


def _field(
    signal: np.ndarray, tissue: NDArray[np.bool_], spacing: tuple[float, float, float]
) -> NDArray[np.float32]:
    """Estimate the bias field (X, Y, slices) of a positive signal."""
    # Imported here because SimpleITK occupies 90 MiB and is not needed otherwise.
    import SimpleITK as sitk  # noqa: N813

    def volume(array: np.ndarray) -> sitk.Image:
        """Convert (X, Y, slices) to an image of SimpleITK, with columns along x."""
        dtype = np.uint8 if array.dtype == bool else np.float32
        image = sitk.GetImageFromArray(np.moveaxis(array, 2, 0).astype(dtype))
        image.SetSpacing((spacing[1], spacing[0], spacing[2]))
        return image

    # N4 needs at least two slices.
    count = signal.shape[2]
    stack, mask = (volume(np.repeat(x, 1 + (count == 1), 2)) for x in (signal, tissue))
    factors = [
        max(1, min(round(SPACING_MM / edge), side // MIN_SIDE))
        for edge, side in zip(stack.GetSpacing(), stack.GetSize()[:2], strict=False)
    ]
    n4 = sitk.N4BiasFieldCorrectionImageFilter()
    n4.SetMaximumNumberOfIterations([ITERATIONS])
    n4.Execute(*(sitk.Shrink(x, [*factors, 1]) for x in (stack, mask)))
    field = np.exp(sitk.GetArrayFromImage(n4.GetLogBiasFieldAsImage(stack)))
    return np.moveaxis(field, 0, 2)[..., :count]
