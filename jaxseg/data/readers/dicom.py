"""Read a short-axis series of DICOM files as one stack, with pydicom.

The files of a series need no suffix, order or names: slices are sorted by their positions. A file
holds one slice, or all slices as frames (Enhanced MR). The names of patients and their IDs are
compared with the folder's name, and neither printed nor passed on.
"""

import re
import struct
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from jaxseg.data.case import Case, checked_case
from jaxseg.data.folders import walk
from jaxseg.data.nifti import MAX_VOXELS, DataError
from jaxseg.data.readers.dicom_slices import TAGS, Slice, slices_of, sorted_slices

_PATIENT = ("PatientName", "PatientID")
_TAGS = ["SeriesInstanceUID", "SeriesDescription", *_PATIENT, *TAGS]


@dataclass(frozen=True)
class Series:
    """The files of one series, of which only the headers were read.

    Attributes:
      folder: folder or file that was searched, for messages.
      headers: header of each file by path.
    """

    folder: Path
    headers: dict[Path, Any]

    @property
    def uid(self) -> str:
        """The series' SeriesInstanceUID, or an empty string."""
        return str(self._first.get("SeriesInstanceUID", ""))

    @property
    def description(self) -> str:
        """The series' SeriesDescription, or an empty string."""
        return str(self._first.get("SeriesDescription") or "")

    @property
    def name(self) -> str:
        """Name for outputs: folder and description, each unless it holds the patient's name or ID.

        Characters other than letters, digits, points and hyphens become underscores.
        """
        with _quiet():
            private = " ".join(str(self._first.get(tag, "")) for tag in _PATIENT)
        parts = (self.folder.resolve().name, self.description)
        kept = [part for part in parts if not _shares_word(part, private)]
        name = "_".join(re.sub(r"[^\w.-]+", "_", part, flags=re.ASCII) for part in kept)
        return name.strip("._") or "series"

    @property
    def _first(self) -> Any:
        return next(iter(self.headers.values()))

    def __str__(self) -> str:
        tail = self.uid.rpartition(".")[2][-8:]
        return f"{self.description!r} ({len(self.headers)} files, UID ...{tail})"

    def read(self, name: str) -> Case:
        """Read the stack as a case of a given name.

        Returns:
          The case, with increasing columns along the first axis of the image, rows along the second
          and slices along the cross product of these directions. The header holds the geometry.

        Raises:
          DataError: the series is no MR; a tag is missing; the slices are not parallel, equally
            spaced, at least three and one per position; they differ in size; or pixels cannot be
            decoded or are not gray.
        """
        slices = sorted_slices(self.folder, self._slices())
        columns, rows = slices[0].shape
        if columns * rows * len(slices) > MAX_VOXELS:
            raise DataError(f"{self.folder}: more than {MAX_VOXELS} voxels; expected one heart")
        image = np.stack(list(_pixels(slices)), axis=-1)
        header = _nifti_header(slices)
        return checked_case(name, self.folder, image, header)

    def _slices(self) -> list[Slice]:
        found = []
        for path, header in self.headers.items():
            try:
                with _quiet():
                    found += slices_of(path, header)
            except DataError:
                raise
            except (ValueError, TypeError, NotImplementedError):  # values are parsed on access
                raise DataError(f"{path}: a tag that is no number; damaged DICOM file") from None
        return found


def is_dicom(path: Path) -> bool:
    """Whether a file begins like a DICOM file, whatever its name."""
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def dicom_files(source: Path) -> list[Path]:
    """The DICOM files in a folder at any depth, following links; or the file itself."""
    if source.is_file():
        return [source] if is_dicom(source) else []
    files = (parent / name for parent, _, names in walk(source) for name in names)
    return sorted(path for path in files if path.is_file() and is_dicom(path))


def find_series(source: Path, files: Sequence[Path], choice: str | None = None) -> Series:
    """Find the only series of images, or the one that is chosen.

    Args:
      source: folder or file that was searched, for messages.
      files: DICOM files, from `dicom_files`. Those without an image are skipped.
      choice: description of a series, or the end of its SeriesInstanceUID.

    Raises:
      DataError: pydicom is not installed; a file cannot be read; there is no series of images; or
        not exactly one is chosen.
    """
    found: dict[str, dict[Path, Any]] = {}
    for path in files:
        header = _read(path, specific_tags=_TAGS, stop_before_pixels=True)
        kind = header.file_meta.get("MediaStorageSOPClassUID")
        # A DICOMDIR, a report or a presentation state is skipped; a damaged image is not.
        if "Rows" in header or kind is None or "Image" in kind.name:
            found.setdefault(str(header.get("SeriesInstanceUID", "")), {})[path] = header
    series = [Series(source, headers) for headers in found.values()]
    if not series:
        raise DataError(f"{source}: DICOM files without an image; expected a short-axis LGE series")
    chosen = series
    if choice is not None:
        chosen = [s for s in series if choice == s.description or s.uid.endswith(choice)]
    if len(chosen) != 1:
        listed = "; ".join(map(str, series))
        asked = "" if choice is None else f", {len(chosen)} of them for --series={choice}"
        raise DataError(
            f"{source}: {len(series)} series{asked}; expected one, chosen by --series=DESCRIPTION "
            f"or by the end of its UID: {listed}"
        )
    return chosen[0]


def _shares_word(text: str, private: str) -> bool:
    """Whether a text holds a word, or a part of three or more characters, of a private text."""
    words, own = (set(re.split(r"[\W_]+", t.lower())) - {""} for t in (private, text))
    return bool(words & own) or any(w in text.lower() for w in words if len(w) > 2)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence pydicom, whose warnings may quote a patient's name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _read(path: Path, **options: Any) -> Any:
    try:
        import pydicom
    except ImportError:
        raise DataError(
            f"{path}: a DICOM file, which needs pydicom; expected it installed: pip install "
            "pydicom python-gdcm"
        ) from None
    try:
        with _quiet():
            return pydicom.dcmread(path, **options)
    except PermissionError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    except (OSError, EOFError, ValueError, KeyError, struct.error, NotImplementedError):
        raise DataError(f"{path}: truncated or damaged DICOM file") from None


def _pixels(slices: Sequence[Slice]) -> Iterator[np.ndarray]:
    """Decode the slices, each (columns, rows) float64 and scaled."""
    path, frames = None, np.empty(0)
    for one in slices:
        if one.path != path:
            path, frames = one.path, _decoded(one.path)
            frames = frames[None] if frames.ndim == 2 else frames
        pixels = frames[one.frame] if one.frame < len(frames) else np.empty(0)
        if pixels.shape != one.shape[::-1]:
            raise DataError(
                f"{path}: pixels {frames.shape}; expected frame {one.frame} of {one.shape[::-1]}"
            )
        yield pixels.T * one.scaling[0] + one.scaling[1]


def _decoded(path: Path) -> np.ndarray:
    data = _read(path)
    try:
        with _quiet():
            return data.pixel_array.astype(np.float64)
    except MemoryError:
        raise
    except Exception as error:  # each plugin of pydicom has exceptions of its own
        syntax = data.file_meta.get("TransferSyntaxUID", "unknown")
        reason = " ".join(str(error).split()) or type(error).__name__  # lines that list plugins
        raise DataError(
            f"{path}: pixels cannot be decoded ({getattr(syntax, 'name', syntax)}: {reason:.300}); "
            "expected whole pixels of a syntax that pydicom or GDCM decodes: pip install "
            "python-gdcm, or decompress the series"
        ) from None


def _nifti_header(slices: Sequence[Slice]) -> nib.Nifti1Header:
    """A header with the geometry of the stack, as sform and as qform of scanner coordinates."""
    first, last = slices[0], slices[-1]
    affine = np.eye(4)
    affine[:3, :2] = (first.directions * np.array(first.edges)[:, None]).T
    normal = np.cross(*first.directions)
    distance = float(normal @ (last.position - first.position)) / (len(slices) - 1)
    affine[:3, 2] = distance * normal
    affine[:3, 3] = first.position
    affine[:2] *= -1  # from left and posterior to right and anterior
    header = nib.Nifti1Header()
    header.set_data_shape((*first.shape, len(slices)))
    header.set_zooms((*first.edges, distance))
    header.set_qform(affine, code=1)
    header.set_sform(affine, code=1)
    header.set_xyzt_units("mm")
    return header
