"""Read NIfTI volumes into checked arrays, and write results under the same header.

All readers use `read_volume`, so that broken files give the same errors everywhere. Single-file
NIfTI-1 and NIfTI-2 are supported, with the suffix `.nii` or `.nii.gz` in any case. Compression is
detected from the first bytes, because files get renamed by hand.
"""

import gzip
import re
import zlib
from pathlib import Path
from typing import BinaryIO, cast

import nibabel as nib
import numpy as np
from nibabel.spatialimages import HeaderDataError
from nibabel.volumeutils import apply_read_scaling

from jaxseg.errors import UserError

SUFFIXES = (".nii", ".nii.gz")

# 512 x 512 x 512, a hundred times the largest short-axis stack and 1 GiB as float64. A header with
# more voxels is damaged or hostile; it is rejected before any memory is allocated.
MAX_VOXELS = 2**27
EDGES_MM = (0.01, 1000)  # range of voxel edges
# Limit for the header extensions before the data, and for the bytes after it.
MAX_EXTRA_BYTES = 2**24
_CHUNK_BYTES = 2**20
_GZIP_MAGIC = b"\x1f\x8b"

_HEADERS = {348: nib.Nifti1Header, 540: nib.Nifti2Header}
# uint8, int16, int32, float32, float64, int8, uint16, uint32, int64, uint64
_REAL_TYPES = frozenset((2, 4, 8, 16, 64, 256, 512, 768, 1024, 1280))
# Code of the spatial unit (the low bits of xyzt_units): unknown, m, mm, um. Most writers leave it
# at "unknown" and mean millimeters.
_MILLIMETERS = {0: 1.0, 1: 1e3, 2: 1.0, 3: 1e-3}


class DataError(UserError, ValueError):
    """Raised for an unusable file, folder or case; the message names it and states the problem.

    The message is one printable line: line breaks, tabs and bytes that are not UTF-8 are escaped.
    """

    def __init__(self, message: str):
        super().__init__(printable(message))


def printable(text: str) -> str:
    """Replace unprintable characters, such as line breaks, by backslash escapes."""
    escaped = (c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return "".join(escaped)


def is_nifti(name: str) -> bool:
    """Whether a file name has a NIfTI suffix."""
    return name.lower().endswith(SUFFIXES)


def without_suffix(name: str) -> str:
    """Strip a NIfTI suffix: `scan.nii.gz` and `scan.NII` become `scan`; other names are kept."""
    return re.sub(r"\.nii(\.gz)?\Z", "", name, flags=re.IGNORECASE)


def read_volume(path: Path | str) -> tuple[np.ndarray, nib.Nifti1Header]:
    """Read one 3D volume.

    Args:
      path: a `.nii` or `.nii.gz` file, compressed or not. Trailing axes of length 1 are dropped.

    Returns:
      The array (X, Y, slices) and the header. The array has the storage type, or float64 if the
      header's intensity scaling applies (it does not if scl_slope is 0 or NaN, as the format says).

    Raises:
      DataError: the file is unreadable, truncated or not NIfTI; the volume is not 3D or has more
        than `MAX_VOXELS` voxels; a spacing is not positive and finite, or is outside `EDGES_MM`;
        the code of the spatial unit is invalid; the affine is not finite; scl_slope is infinite;
        the data offset lies within the header; pixels are complex, colored or not finite; or more
        than `MAX_EXTRA_BYTES` bytes precede or follow the data.
    """
    path = Path(path)
    if not is_nifti(path.name):
        raise DataError(f"{path}: expected a file ending in .nii or .nii.gz")
    try:
        if path.exists() and not path.is_file():  # reading a pipe or a device may never end
            raise DataError(f"{path}: expected a regular file")
        with _open(path) as file:
            array, header = _read_stream(path, file)
    except FileNotFoundError:
        target = f" (a link to {path.readlink()})" if path.is_symlink() else ""
        raise DataError(f"{path}: no such file{target}") from None
    except PermissionError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    except DataError:
        raise
    except (OSError, EOFError, zlib.error, HeaderDataError, ValueError, OverflowError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path}: truncated or damaged NIfTI file ({reason})") from None
    if not np.isfinite(array).all():
        bad = np.argwhere(~np.isfinite(array))[0].tolist()
        raise DataError(f"{path}: voxel {bad} is not finite; expected finite values everywhere")
    return array, header


def voxel_spacing(header: nib.Nifti1Header) -> tuple[float, float, float]:
    """Voxel size in mm along (X, Y, slices).

    It is read from `pixdim`, because every affine in EMIDEC is diag(-1, -1, 1), without spacing.
    """
    scale = _MILLIMETERS[_space_unit(header)]
    x, y, z = (float(zoom) * scale for zoom in header.get_zooms()[:3])
    return x, y, z


def write_like(path: Path | str, array: np.ndarray, source: Path | str | nib.Nifti1Header) -> None:
    """Write a result with the header of the image from which it was computed.

    The header's bytes are copied, so that all its geometry (pixdim, units, qform, sform and their
    codes) also describes the result. Only the pixels' type and scaling, the display range, the data
    offset and, for probabilities, the fourth axis change. Header extensions are dropped. The same
    input gives the same bytes.

    Args:
      path: a `.nii` or `.nii.gz` file.
      array: (X, Y, slices) integer label map, written as uint8, or as uint16 if a value exceeds
        255; or (X, Y, slices, L) floating point probabilities, written as float32.
      source: file of the image, readable by `read_volume`; or a header, of an image that is not
        a NIfTI file.

    Raises:
      DataError: the array is not on the grid of `source`, or holds a label outside 0 to 65,535.
      OSError: the file cannot be written.
    """
    path = Path(path)
    header = source.copy() if isinstance(source, nib.Nifti1Header) else _read_header(Path(source))
    grid = header.get_data_shape()[:3]
    if array.shape[:3] != grid:
        raise DataError(f"{path}: array is {array.shape}; the grid of its image is {grid}")
    if array.ndim == 4:
        header["dim"][:] = (4, *array.shape, 1, 1, 1)
        header["pixdim"][4] = 1
        data = array.astype(f"{header.endianness}f4")
    elif array.min() < 0 or array.max() >= 2**16:
        raise DataError(f"{path}: labels {array.min()} to {array.max()}; expected 0 to 65535")
    else:
        data = array.astype("u1" if array.max() < 256 else f"{header.endianness}u2")
    header.set_data_dtype(data.dtype)
    header["scl_slope"], header["scl_inter"] = 1, 0
    header["cal_min"] = header["cal_max"] = 0
    header["vox_offset"] = header.sizeof_hdr + 4
    # The four zero bytes mean that there are no header extensions.
    content = header.binaryblock + bytes(4) + data.tobytes(order="F")
    compressed = path.name.lower().endswith(".gz")
    path.write_bytes(gzip.compress(content, mtime=0) if compressed else content)


def _read_header(path: Path) -> nib.Nifti1Header:
    """Read a header without nibabel's check, which would change it."""
    with _open(path) as file:
        start = file.read(540)
    size = min(int.from_bytes(start[:4], "little"), int.from_bytes(start[:4], "big"))
    return _HEADERS[size](start[:size], None, False)


def _open(path: Path) -> BinaryIO:
    with path.open("rb") as file:
        compressed = file.read(2) == _GZIP_MAGIC
    return cast(BinaryIO, gzip.open(path) if compressed else path.open("rb"))


def _read_stream(path: Path, file: BinaryIO) -> tuple[np.ndarray, nib.Nifti1Header]:
    start = file.read(540)
    if len(start) < 348:
        raise DataError(f"{path}: expected a NIfTI header of at least 348 bytes, got {len(start)}")
    size = min(int.from_bytes(start[:4], "little"), int.from_bytes(start[:4], "big"))
    if size not in _HEADERS or len(start) < size:
        raise DataError(f"{path}: not a NIfTI file (header size {size}, expected 348 or 540)")
    # Skip nibabel's check, which would silently turn a spacing of 0 into 1 and -2 into 2.
    _check_header(path, _HEADERS[size](start[:size], None, False))
    header = cast(nib.Nifti1Header, _HEADERS[size](start[:size]))
    # This raises an error if the quaternion is not that of a rotation.
    if not np.isfinite(np.asarray(header.get_best_affine(), float)).all():
        form = "sform" if int(header["sform_code"]) > 0 else "qform"
        raise DataError(f"{path}: affine ({form}) is not finite; expected finite numbers")
    array = _read_array(file, header)
    extra = 0
    while chunk := file.read(_CHUNK_BYTES):  # read to the end, where gzip stores its checksum
        extra += len(chunk)
        if extra > MAX_EXTRA_BYTES:
            raise DataError(
                f"{path}: more than {MAX_EXTRA_BYTES} bytes after the data of the volume"
            )
    return array.reshape(array.shape[:3]), header


def _read_array(file: BinaryIO, header: nib.Nifti1Header) -> np.ndarray:
    """Read the scaled data and skip the bytes before them, such as header extensions.

    nibabel's own reader is not used: it allocates the memory that a header or an extension declares
    before it checks that the file is long enough.
    """
    shape, dtype = header.get_data_shape(), header.get_data_dtype()
    expected = int(np.prod(shape, dtype=object)) * dtype.itemsize
    file.seek(header.get_data_offset())
    data = bytearray()
    while chunk := file.read(min(_CHUNK_BYTES, expected - len(data))):
        data += chunk
    if len(data) < expected:
        raise OSError(f"expected {expected} bytes of data, got {len(data)}")
    array = np.ndarray(shape, dtype, data, order="F")
    slope, inter = header.get_slope_inter()
    if slope is None or inter is None:
        return array
    with np.errstate(over="ignore", invalid="ignore"):  # the caller rejects non-finite values
        return apply_read_scaling(array, np.float64(slope), np.float64(inter))


def _space_unit(header: nib.Nifti1Header) -> int:
    return int(header["xyzt_units"]) & 7


def _check_header(path: Path, header: nib.Nifti1Header) -> None:
    if header["magic"].item() != header.single_magic:
        raise DataError(f"{path}: not a single-file NIfTI (magic {header['magic'].item()!r})")
    shape = header.get_data_shape()
    if len(shape) < 3 or any(length != 1 for length in shape[3:]):
        raise DataError(
            f"{path}: {len(shape)}D with shape {shape}; expected a 3D stack (X, Y, slices)"
        )
    if min(shape) < 1:
        raise DataError(f"{path}: shape {shape} has an empty axis")
    voxels = int(np.prod([int(length) for length in shape], dtype=object))
    if voxels > MAX_VOXELS:
        raise DataError(f"{path}: shape {shape} is {voxels} voxels; at most {MAX_VOXELS} are read")
    offset, least = float(header["vox_offset"]), header.single_vox_offset
    if not least <= offset <= MAX_EXTRA_BYTES:  # an offset of 0 would read the header as pixels
        raise DataError(f"{path}: data offset {offset:g}; expected {least} to {MAX_EXTRA_BYTES}")
    spacing = header["pixdim"][1:4].tolist()
    if not (np.isfinite(spacing).all() and min(spacing) > 0):
        raise DataError(f"{path}: voxel spacing (pixdim) {spacing}; expected three positive sizes")
    unit = _space_unit(header)
    if unit not in _MILLIMETERS:
        raise DataError(f"{path}: unit code {unit}; expected 1 m, 2 mm, 3 um or 0 unknown (mm)")
    edges = [edge * _MILLIMETERS[unit] for edge in spacing]
    low, high = EDGES_MM  # resampling needs memory in proportion to the ratio of two grids' edges
    if not low * (1 - 1e-6) <= min(edges) <= max(edges) <= high:  # 0.01 in float32 is below 0.01
        raise DataError(f"{path}: voxel edges of {edges} mm; expected {low} to {high} mm")
    if np.isinf(slope := float(header["scl_slope"])):
        raise DataError(f"{path}: scl_slope {slope}; expected a number, or 0 or NaN for no scaling")
    if int(header["datatype"]) not in _REAL_TYPES:
        raise DataError(
            f"{path}: data type code {header['datatype']}; expected real numbers, one of"
            f" {sorted(_REAL_TYPES)}"
        )
