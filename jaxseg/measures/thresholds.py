"""Infarct by a threshold on the signal within the myocardium, as readers of LGE images set it.

Every threshold holds for a whole stack. A threshold for each slice would mark pixels of slices
without infarct, too: each of them has a half of its own maximum and two classes of its own.
"""

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Mask = NDArray[np.bool_]

# The face neighbors within a slice, and none in adjacent slices.
_IN_SLICE = ndimage.generate_binary_structure(3, 1)
_IN_SLICE[[0, 2]] = False
_SECTORS = 6


def n_sd(
    image: NDArray[np.floating], myocardium: Mask, n: float, *, remote: Mask | None = None
) -> Mask:
    """Infarct as the myocardium more than n standard deviations above the mean of the remote one.

    Usual values of n are 2 to 6 (Flett et al., JACC Cardiovasc Imaging 4:150, 2011). Readers
    outline remote myocardium by hand; without it, `remote_myocardium` selects it.

    Args:
      image: (S, H, W) signal of a short-axis stack, in any unit.
      myocardium: (S, H, W) mask, infarct included.
      n: number of standard deviations, positive.
      remote: (S, H, W) mask of remote myocardium, not empty unless the myocardium is.

    Returns:
      (S, H, W) mask, a subset of the myocardium.

    Raises:
      ValueError: if the arrays are not (S, H, W) of one shape, a mask is not bool, n is not
        positive, or `remote` is empty while the myocardium is not.
    """
    image = _checked(image, myocardium)
    if not n > 0:
        raise ValueError(f"n: expected a positive number of standard deviations, got {n}")
    if remote is None:
        remote = remote_myocardium(image, myocardium)
    _checked(image, remote, "remote")
    if not myocardium.any():
        return np.zeros_like(myocardium)
    if not remote.any():
        raise ValueError("remote: expected at least one voxel of remote myocardium, got none")
    return myocardium & (image > image[remote].mean() + n * image[remote].std())


def remote_myocardium(image: NDArray[np.floating], myocardium: Mask) -> Mask:
    """Remote myocardium by rule: in each slice, of six sectors, the one of lowest mean signal.

    Each sector spans 60 degrees about the centroid of the myocardium of the slice. Pixels at the
    borders of the myocardium are left out, as part of them is blood or fat; they count if there are
    no others in the whole stack. The rule is this library's stand-in for the reader, who outlines a
    normal part of the wall away from the infarct.

    Arguments and errors are as in `n_sd`.

    Returns:
      (S, H, W) mask, empty only if the myocardium is.
    """
    image = _checked(image, myocardium)
    inner = np.asarray(ndimage.binary_erosion(myocardium, structure=_IN_SLICE), bool)
    candidates = inner if inner.any() else myocardium
    remote = np.zeros_like(myocardium)
    for number in np.flatnonzero(candidates.any((1, 2))):
        points = np.argwhere(candidates[number])
        rows, columns = (points - np.argwhere(myocardium[number]).mean(0)).T
        angle = np.arctan2(rows, columns) / (2 * np.pi) % 1.0
        sector = (angle * _SECTORS).astype(int) % _SECTORS
        signal = image[number][tuple(points.T)]
        darkest = min(np.unique(sector), key=lambda k: signal[sector == k].mean())
        remote[number][tuple(points[sector == darkest].T)] = True
    return remote


def full_width_half_maximum(
    image: NDArray[np.floating], myocardium: Mask, *, base: float = 0.0
) -> Mask:
    """Infarct as the myocardium above half of its maximal signal (FWHM).

    The threshold is the middle between `base` and the maximum of the whole myocardium. In Amado et
    al. (J Am Coll Cardiol 44:2383, 2004) and Flett et al. (2011) it is half of the maximum, which
    is the default, for magnitude images of nulled myocardium. They take the maximum of the infarct,
    which is the brightest part of the myocardium. Something is always marked, also in a heart
    without infarct.

    The other arguments, the result and errors are as in `n_sd`.

    Args:
      base: signal without enhancement.
    """
    image = _checked(image, myocardium)
    return myocardium & (image > (base + image[myocardium].max(initial=base)) / 2)


def half_maximum_above_remote(image: NDArray[np.floating], myocardium: Mask) -> Mask:
    """Infarct by FWHM from the mean of remote myocardium, for images whose zero has no meaning.

    Such are phase-sensitive and rescaled images. The variant is that of Hsu et al. (J Magn Reson
    Imaging 23:298, 2006), here with the remote myocardium of `remote_myocardium`.

    Arguments, result and errors are as in `n_sd`.
    """
    remote = remote_myocardium(image, myocardium)
    base = float(image[remote].mean(dtype=np.float64)) if remote.any() else 0.0
    return full_width_half_maximum(image, myocardium, base=base)


def otsu(image: NDArray[np.floating], myocardium: Mask) -> Mask:
    """Infarct as the brighter of the two classes of myocardium that Otsu's threshold separates.

    The threshold maximizes the variance between the classes (Otsu, IEEE Trans Syst Man Cybern 9:62,
    1979), here over every signal value that occurs, without a histogram. Something is always
    marked, unless all signals are equal.

    Arguments, result and errors are as in `n_sd`.
    """
    image = _checked(image, myocardium)
    values, counts = np.unique(image[myocardium], return_counts=True)
    if len(values) < 2:
        return np.zeros_like(myocardium)
    below = np.cumsum(counts)[:-1]
    above = counts.sum() - below
    sums = np.cumsum(counts * values)
    gap = (sums[-1] - sums[:-1]) / above - sums[:-1] / below
    # The product comes first: counts of voxels are exact in float64, and so are their products.
    between = below.astype(np.float64) * above * gap**2
    return myocardium & (image > values[int(np.argmax(between))])


def enclosed(infarct: Mask, myocardium: Mask) -> Mask:
    """Myocardium that the infarct encloses in its slice, alone or together with the cavity.

    No-reflow takes up no contrast agent, so that a threshold misses it. Readers add it to the
    infarct by hand (Flett et al. 2011); this rule does so without a reader. The cavity is what the
    myocardium encloses. Enclosed areas have no path of face neighbors out of the heart.

    Args:
      infarct: (S, H, W) mask, a subset of the myocardium.
      myocardium: (S, H, W) mask.

    Returns:
      (S, H, W) mask: a subset of the myocardium that is not in `infarct`.
    """
    cavity = _filled(myocardium) & ~myocardium
    return _filled(infarct | cavity) & myocardium & ~infarct


Threshold = Callable[[NDArray[np.floating], Mask], Mask]
THRESHOLDS: Mapping[str, Threshold] = {
    **{f"{n}sd": partial(n_sd, n=n) for n in range(2, 7)},
    "fwhm": full_width_half_maximum,
    "fwhm_remote": half_maximum_above_remote,
    "otsu": otsu,
}
"""Functions of an image and its myocardium (S, H, W), by the name of the method."""


def _filled(mask: Mask) -> Mask:
    """Fill what a mask encloses within each slice."""
    return np.asarray(ndimage.binary_fill_holes(mask, structure=_IN_SLICE), bool)


def _checked(
    image: NDArray[np.floating], mask: Mask, name: str = "myocardium"
) -> NDArray[np.float64]:
    """Check the shapes and return the image in float64."""
    if image.ndim != 3 or image.shape != mask.shape:
        raise ValueError(
            f"image and {name}: expected one shape (S, H, W), got {image.shape} and {mask.shape}"
        )
    if mask.dtype != bool:
        raise ValueError(f"{name}: expected a bool mask, got {mask.dtype}")
    return image.astype(np.float64)
