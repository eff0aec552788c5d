"""NIfTI volumes to checked arrays and back.

Every reader of the library goes through `read_volume`, so that a broken file is refused in the same
words everywhere. Both NIfTI-1 and NIfTI-2 single files are read, `.nii` and `.nii.gz` in capitals
or not. Whether a file is compressed is read off its first bytes: names are changed by hand.
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

# 512 x 512 x 512: a hundred times the largest short-axis stack, 1 GiB as float64. A header that
# asks for more is damaged or hostile, and is refused before any memory is taken.
MAX_VOXELS = 2**27
EDGES_MM = (0.01, 1000)  # of voxels
# Header extensions before the data, and bytes behind it.
MAX_EXTRA_BYTES = 2**24
_CHUNK_BYTES = 2**20
_GZIP_MAGIC = b"\x1f\x8b"

_HEADERS = {348: nib.Nifti1Header, 540: nib.Nifti2Header}
# uint8, int16, int32, float32, float64, int8, uint16, uint32, int64, uint64
_REAL_TYPES = frozenset((2, 4, 8, 16, 64, 256, 512, 768, 1024, 1280))
# Code of the spatial unit (the low bits of xyzt_units): unknown, m, mm, um. Most writers leave
# "unknown" behind and mean millimeters.
_MILLIMETERS = {0: 1.0, 1: 1e3, 2: 1.0, 3: 1e-3}


class DataError(UserError, ValueError):
    """A file, folder or case that cannot be used; the message names it and says what is wrong.

    One line that can be printed, whatever the file is called: line breaks, tabs and bytes that are
    not UTF-8 are escaped.
    """

    def __init__(self, message: str):
        super().__init__(printable(message))


def printable(text: str) -> str:
    """The text with what would break a line or cannot be encoded as backslash escapes."""
    escaped = (c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return "".join(escaped)


def is_nifti(name: str) -> bool:
    """Whether a file's name ends as those of NIfTI."""
    return name.lower().endswith(SUFFIXES)


def without_suffix(name: str) -> str:
    """`scan` of `scan.nii.gz`, of `scan.nii` and of `scan.NII.GZ`; other names as they are."""
    return re.sub(r"\.nii(\.gz)?\Z", "", name, flags=re.IGNORECASE)


def read_volume(path: Path | str) -> tuple[np.ndarray, nib.Nifti1Header]:
    """Reads one 3D volume.

    Args:
      path: a `.nii` or `.nii.gz` file, compressed or not; trailing axes of length 1 are dropped.

    Returns:
      The array (X, Y, slices) with the header's intensity scaling applied (none where scl_slope
      is 0 or nan, as the format says), in the storage type or float64; and the header.

    Raises:
      DataError: unreadable, truncated or not NIfTI; not 3D; more than `MAX_VOXELS` voxels; a
        zero, negative or non-finite spacing; an affine that is not finite; data that begin within
        the header; complex or color pixels; non-finite pixels.
    """
    path = Path(path)
    if not is_nifti(path.name):
        raise DataError(f"{path}: expected a file ending in .nii or .nii.gz")
    try:
        if path.exists() and not path.is_file():  # a pipe or a device may never end
            raise DataError(f"{path}: no regular file")
        with _open(path) as file:
            array, header = _read_stream(path, file)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except PermissionError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    except DataError:
        raise
    except (
        OSError, EOFError, zlib.error, HeaderDataError, ValueError, OverflowError
    ) as error:  # fmt: skip
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path}: truncated or damaged NIfTI file ({reason})") from None
    if not np.isfinite(array).all():
        bad = np.argwhere(~np.isfinite(array))[0].tolist()
        raise DataError(f"{path}: voxel {bad} is not finite; expected finite values everywhere")
    return array, header


def voxel_spacing(header: nib.Nifti1Header) -> tuple[float, float, float]:
    """Voxel size in mm along (X, Y, slices).

    Read from `pixdim`: in EMIDEC the affine is diag(-1, -1, 1) for every case and holds no spacing.
    """
    scale = _MILLIMETERS[_space_unit(header)]
    x, y, z = (float(zoom) * scale for zoom in header.get_zooms()[:3])
    return x, y, z


def write_like(path: Path | str, array: np.ndarray, source: Path | str) -> None:
    """Writes a result under the very header of the image that it was made from.

    The header's bytes are copied, not read and composed anew: whatever it says of the geometry
    (pixdim, units, qform, sform and their codes) says the result too. Only type and scaling of the
    pixels change, and the fourth axis of probabilities. The same input gives the same bytes.

    Args:
      path: a `.nii` or `.nii.gz` file.
      array: (X, Y, slices) integer label map, written as uint8, or as uint16 where a value is
        above 255; or (X, Y, slices, L) floating point probabilities, written as float32.
      source: the image's file, one that `read_volume` takes.

    Raises:
      DataError: the array is not on the grid of `source`, or holds a label outside 0 to 65,535.
      OSError: the file cannot be written.
    """
    path = Path(path)
    with _open(Path(source)) as file:
        start = file.read(540)
    size = min(int.from_bytes(start[:4], "little"), int.from_bytes(start[:4], "big"))
    header = _HEADERS[size](start[:size], None, False)
    grid = header.get_data_shape()[:3]
    if array.shape[:3] != grid:
        raise DataError(f"{path}: array is {array.shape}; the grid of {source} is {grid}")
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
    header["vox_offset"] = size + 4
    # Four zero bytes: no header extensions.
    content = header.binaryblock + bytes(4) + data.tobytes(order="F")
    compressed = path.name.lower().endswith(".gz")
    path.write_bytes(gzip.compress(content, mtime=0) if compressed else content)


def _open(path: Path) -> BinaryIO:
    with path.open("rb") as file:
        compressed = file.read(2) == _GZIP_MAGIC
    return cast(BinaryIO, gzip.open(path) if compressed else path.open("rb"))


def _read_stream(path: Path, file: BinaryIO) -> tuple[np.ndarray, nib.Nifti1Header]:
    start = file.read(540)
    if len(start) < 348:
        raise DataError(f"{path}: {len(start)} bytes; a NIfTI header alone has 348")
    size = min(int.from_bytes(start[:4], "little"), int.from_bytes(start[:4], "big"))
    if size not in _HEADERS or len(start) < size:
        raise DataError(f"{path}: not a NIfTI file (header size {size}, expected 348 or 540)")
    # Unchecked: nibabel's own check would quietly turn a spacing of 0 into 1 and -2 into 2.
    _check_header(path, _HEADERS[size](start[:size], None, False))
    header = cast(nib.Nifti1Header, _HEADERS[size](start[:size]))
    # Fails where the quaternion is not one of a rotation.
    if not np.isfinite(np.asarray(header.get_best_affine(), float)).all():
        form = "sform" if int(header["sform_code"]) > 0 else "qform"
        raise DataError(f"{path}: affine ({form}) is not finite; expected finite numbers")
    array = _read_array(file, header)
    extra = 0
    while chunk := file.read(_CHUNK_BYTES):  # to the end, where gzip keeps its checksum
        extra += len(chunk)
        if extra > MAX_EXTRA_BYTES:
            raise DataError(f"{path}: more than {MAX_EXTRA_BYTES} bytes behind the volume's data")
    return array.reshape(array.shape[:3]), header


def _read_array(file: BinaryIO, header: nib.Nifti1Header) -> np.ndarray:
    """The scaled data; what lies before them, such as header extensions, is passed over.

    Not nibabel's own reader: that takes the memory which the header, or an extension of it, asks
    for before it looks whether the file has as much.
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
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused
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
    if not least <= offset <= MAX_EXTRA_BYTES:  # at 0 the header itself would be the pixels
        raise DataError(f"{path}: data offset {offset:g}; expected {least} to {MAX_EXTRA_BYTES}")
    spacing = header["pixdim"][1:4].tolist()
    if not (np.isfinite(spacing).all() and min(spacing) > 0):
        raise DataError(f"{path}: voxel spacing (pixdim) {spacing}; expected three positive sizes")
    unit = _space_unit(header)
    if unit not in _MILLIMETERS:
        raise DataError(f"{path}: unit code {unit}; expected 1 m, 2 mm, 3 um or 0 unknown (mm)")
    edges = [edge * _MILLIMETERS[unit] for edge in spacing]
    low, high = EDGES_MM  # resampling takes memory as the ratio of two grids' edges
    if not low * (1 - 1e-6) <= min(edges) <= max(edges) <= high:  # float32 rounds 0.01 down
        raise DataError(f"{path}: voxel edges of {edges} mm; expected {low} to {high} mm")
    if int(header["datatype"]) not in _REAL_TYPES:
        raise DataError(
            f"{path}: data type code {header['datatype']}; expected real numbers, one of"
            f" {sorted(_REAL_TYPES)}"
        )
