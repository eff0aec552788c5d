"""One patient's short-axis stack: image, optional label map, voxel spacing and header."""

import dataclasses
import functools
import itertools
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from jaxseg.data.label_values import LabelValues
from jaxseg.data.nifti import DataError, read_volume, voxel_spacing
from jaxseg.data.padding import tissue_of

# Three unit axes that span less than this volume count as coplanar.
_FLAT = 1e-3

# Unit vectors towards right, anterior and superior, by nibabel's axis code.
_CODES = {
    "L": (-1, 0, 0), "R": (1, 0, 0), "P": (0, -1, 0), "A": (0, 1, 0), "I": (0, 0, -1),
    "S": (0, 0, 1),
}  # fmt: skip


@dataclasses.dataclass(frozen=True, eq=False)
class Case:
    """A short-axis stack in memory.

    Attributes:
      name: case name, unique within its data set.
      image: (X, Y, slices) float32, finite and not constant.
      label: (X, Y, slices) uint8 label map, or None if the case has no reference.
      spacing: voxel size in mm along (X, Y, slices).
      header: NIfTI header of the image. Predictions are written with its geometry.
    """

    name: str
    image: np.ndarray
    label: np.ndarray | None
    spacing: tuple[float, float, float]
    header: nib.Nifti1Header

    @functools.cached_property
    def tissue(self) -> NDArray[np.bool_]:
        """(X, Y, slices) bool mask of the voxels that are not padding; see `tissue_of`."""
        return tissue_of(self.image)

    @property
    def has_affine(self) -> bool:
        """Whether the header has an affine, be it for voxels of another size."""
        return _position(self.header) is not None

    @property
    def orientation(self) -> str | None:
        """Directions of increasing row and column, such as "LP"; None if the header states none.

        These are the first two of nibabel's axis codes. Each code is the anatomical direction (left
        or right, anterior or posterior, superior or inferior) closest to the axis.
        """
        affine = stated_affine(self.header)
        return None if affine is None else "".join(map(str, nib.aff2axcodes(affine)[:2]))

    @property
    def directions(self) -> NDArray[np.float64] | None:
        """(2, 3) unit vectors of increasing row and column, towards right, anterior and superior.

        None if the header states none.
        """
        affine = stated_affine(self.header)
        return (
            None if affine is None else (affine[:3, :2] / np.linalg.norm(affine[:3, :2], axis=0)).T
        )


def directions_of(code: str) -> NDArray[np.float64]:
    """Unit vectors (2, 3) of increasing row and column, as `Case.directions`.

    Args:
      code: two of the letters L, R, P, A, I, S, of different axes, such as "LP": the anatomical
        directions of increasing row (first axis of the file) and column (second axis).

    Raises:
      ValueError: the code is not such a pair.
    """
    vectors = np.array([_CODES.get(letter, (0, 0, 0)) for letter in code], float)
    if vectors.shape != (2, 3) or abs(vectors).sum() != 2 or abs(vectors).sum(0).max() > 1:
        raise ValueError(
            f"expected two of L or R, P or A, I or S, where rows and columns lead, such as LP; got "
            f"{code!r}"
        )
    return vectors


def read_case(
    name: str, image_path: Path, label_path: Path | None = None, values: LabelValues | None = None
) -> Case:
    """Read and check one case from its image file and, if given, its label file.

    Args:
      name: case name, used in messages.
      image_path: NIfTI stack (X, Y, slices).
      label_path: label map on the same grid.
      values: mapping from the values in the label file to labels; required with `label_path`.

    Returns:
      The case, with a float32 image and a uint8 label map.

    Raises:
      DataError: `read_volume` rejects a file; the image is constant or exceeds float32; the largest
        spacing is not along the last axis; image and label map are on different grids; the label
        map holds a value that stands for no label.
    """
    pixels, header = read_volume(image_path)
    case = checked_case(name, image_path, pixels, header)
    if label_path is None:
        return case
    if values is None:
        raise TypeError("values: expected with label_path, got None")
    stored, label_header = read_volume(label_path)
    label = values.to_labels(stored, label_path)
    _check_same_grid(image_path, header, label_path, label_header)
    return dataclasses.replace(case, label=label)


def checked_case(name: str, path: Path, pixels: np.ndarray, header: nib.Nifti1Header) -> Case:
    """Build a case without a label map from pixels (X, Y, slices) and a header of their geometry.

    Raises:
      DataError: as in `read_case`; the message names `path`.
    """
    with np.errstate(over="ignore"):
        image = pixels.astype(np.float32)
    if not np.isfinite(image).all():
        raise DataError(f"{path}: values up to {np.abs(pixels).max()} do not fit float32")
    if image.min() == image.max():
        raise DataError(f"{path}: every voxel is {image.min()}; expected an image")
    _check_slice_axis(path, image.shape, voxel_spacing(header))
    return Case(name, image, None, voxel_spacing(header), header)


def _check_slice_axis(
    path: Path, shape: tuple[int, ...], spacing: tuple[float, float, float]
) -> None:
    """Require slices along the last axis; the header does not identify the slice axis."""
    # The 1 % allows for rounding. Writers often leave the slice spacing of a single slice unset.
    if shape[2] > 1 and spacing[2] < 0.99 * max(spacing):
        edges = " x ".join(f"{edge:g}" for edge in spacing)
        raise DataError(
            f"{path}: spacing {edges} mm; expected the largest spacing, that between slices, along"
            " the last axis; transpose the stack"
        )


def _check_same_grid(
    image_path: Path, image: nib.Nifti1Header, label_path: Path, label: nib.Nifti1Header
) -> None:
    shape = image.get_data_shape()[:3]
    if label.get_data_shape()[:3] != shape:
        raise DataError(
            f"{label_path}: label grid {label.get_data_shape()[:3]} differs from the grid {shape}"
            f" of {image_path}"
        )
    spacings = voxel_spacing(image), voxel_spacing(label)
    if not np.allclose(*spacings, rtol=1e-2, atol=0):
        raise DataError(
            f"{label_path}: label spacing {spacings[1]} mm differs from the spacing {spacings[0]}"
            f" mm of {image_path}"
        )
    affine, other = _position(image), _position(label)
    if affine is not None and other is not None and _corner_gap(shape, affine, other) > 0.5:
        raise DataError(
            f"{label_path}: label affine differs from that of {image_path} by more than half a"
            " voxel; expected both on one grid"
        )


def stated_affine(header: nib.Nifti1Header) -> np.ndarray | None:
    """The (4, 4) affine that a header states; None if it states no orientation of its voxels.

    An affine whose voxels have another size than those of the stack was not made for the stack.
    EMIDEC's is diag(-1, -1, 1) for every case.
    """
    affine = _position(header)
    if affine is None:
        return None
    edges = np.linalg.norm(affine[:3, :3], axis=0)
    return affine if np.allclose(edges, header["pixdim"][1:4], rtol=1e-2) else None


def _position(header: nib.Nifti1Header) -> np.ndarray | None:
    """The (4, 4) affine of a header; None if it is missing or degenerate."""
    if not any(float(header[code]) > 0 for code in ("sform_code", "qform_code")):
        return None
    affine = np.asarray(header.get_best_affine(), float)
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    # Some writers set a code but leave the affine at zero; coplanar axes give no position either.
    if not lengths.all() or abs(np.linalg.det(affine[:3, :3] / lengths)) < _FLAT:
        return None
    return affine


def _corner_gap(shape: tuple[int, ...], affine: np.ndarray, other: np.ndarray) -> float:
    """Largest offset between the corners of two stacks, in smallest voxel edges of the first."""
    corners = np.array([(*c, 1) for c in itertools.product(*((0, n - 1) for n in shape))], float)
    gap = np.abs(corners @ (affine - other).T).max()
    return float(gap / np.linalg.norm(affine[:3, :3], axis=0).min())
