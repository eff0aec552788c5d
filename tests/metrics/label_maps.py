"""Label maps to score: drawn by hand, or random."""

import numpy as np
import SimpleITK as sitk  # noqa: N813
from scipy import ndimage

# Voxel sizes by rank, no two alike, so that a wrong order of axes shows.
SPACINGS = {1: (1.7,), 2: (1.4, 0.9), 3: (9.5, 1.4, 0.8), 4: (2.0, 9.5, 1.4, 0.8)}


def drawn(*rows: str) -> np.ndarray:
    """A label map of digits, one string a row; a dot is background."""
    return np.array([[int(c) for c in row.replace(".", "0")] for row in rows], np.uint8)


def blobs(seed: int, shape: tuple[int, ...], sigma: float = 1.0) -> np.ndarray:
    """A random label map with labels 0..2 in smooth patches that reach the array's edge."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), sigma)
    return np.digitize(noise, np.quantile(noise, [0.5, 0.8])).astype(np.int16)


def sitk_image(mask: np.ndarray, spacing) -> sitk.Image:
    image = sitk.GetImageFromArray(mask.astype(np.uint8))
    image.SetSpacing([float(s) for s in spacing[::-1]])  # SimpleITK counts axes the other way
    return image
