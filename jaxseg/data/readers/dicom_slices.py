"""The slices of a DICOM series: where each lies, and whether they make up one short-axis stack.

A pixel of column i and row j of slice k lies in mm, towards left, posterior and superior, at
ImagePositionPatient(k) + i PixelSpacing[1] ImageOrientationPatient[:3]
+ j PixelSpacing[0] ImageOrientationPatient[3:] (DICOM PS3.3, C.7.6.2.1.1).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jaxseg.data.nifti import EDGES_MM, DataError

# Distances between slices may differ by this fraction; so may their offset from the normal.
_TOLERANCE = 0.05
_LEAST_SLICES = 3
_PER_FRAME, _SHARED = "PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence"
# Where a frame of an Enhanced MR file keeps a tag that other files keep at the top.
_GROUPS = {
    "ImagePositionPatient": "PlanePositionSequence",
    "ImageOrientationPatient": "PlaneOrientationSequence",
    "PixelSpacing": "PixelMeasuresSequence",
    "RescaleSlope": "PixelValueTransformationSequence",
    "RescaleIntercept": "PixelValueTransformationSequence",
    "NominalCardiacTriggerDelayTime": "CardiacSynchronizationSequence",
}
TAGS = (
    "Modality", "Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "TriggerTime",
    *_GROUPS, _PER_FRAME, _SHARED,
)  # fmt: skip


@dataclass(frozen=True)
class Slice:
    """The header of one slice.

    Attributes:
      path: its file.
      frame: its index in the file.
      position: (3,) center of its first pixel in mm, towards left, posterior and superior.
      directions: (2, 3) unit vectors along a row and along a column of pixels.
      edges: pixel size in mm along a row and along a column.
      shape: number of columns and of rows.
      scaling: slope and intercept from stored to true values.
      time: ms after the R wave, or None.
    """

    path: Path
    frame: int
    position: np.ndarray
    directions: np.ndarray
    edges: tuple[float, float]
    shape: tuple[int, int]
    scaling: tuple[float, float]
    time: float | None


def slices_of(path: Path, header: Any) -> list[Slice]:
    """Check the header of a file, and list its slices: its frames, or the file itself.

    Args:
      path: the file, for messages.
      header: a pydicom data set that holds `TAGS`.

    Raises:
      DataError: the file is no gray MR image, or a slice lacks a tag or has an unusable one.
      ValueError: a value cannot be parsed.
    """
    if "Rows" not in header:
        raise DataError(f"{path}: truncated or damaged DICOM file")
    if (modality := header.get("Modality")) != "MR":
        raise DataError(f"{path}: Modality {modality}; expected MR, a short-axis LGE series")
    kind = header.get("PhotometricInterpretation")
    if header.get("SamplesPerPixel", 1) != 1 or kind != "MONOCHROME2":
        raise DataError(f"{path}: PhotometricInterpretation {kind}; expected gray, MONOCHROME2")
    frames = header.get(_PER_FRAME)
    if not frames:
        return [_slice(path, 0, [header])]
    shared = list(header.get(_SHARED) or [])
    return [_slice(path, k, [frame, *shared, header]) for k, frame in enumerate(frames)]


def _slice(path: Path, frame: int, groups: Sequence[Any]) -> Slice:
    def value(keyword: str) -> Any:
        for group in groups:
            for holder in (*(group.get(_GROUPS.get(keyword, "")) or ()), group):
                if holder.get(keyword) is not None:
                    return holder.get(keyword)
        return None

    def numbers(keyword: str, count: int) -> np.ndarray:
        found = value(keyword)
        array = np.array([] if found is None else found, float).ravel()
        if array.shape != (count,) or not np.isfinite(array).all():
            held = "no" if found is None else f"an unusable {found!s:.60}"
            raise DataError(f"{path}: {held} {keyword}; expected {count} numbers, as MR files have")
        return array

    position = numbers("ImagePositionPatient", 3)
    directions = numbers("ImageOrientationPatient", 6).reshape(2, 3)
    if not np.allclose(directions @ directions.T, np.eye(2), atol=1e-3):
        raise DataError(
            f"{path}: ImageOrientationPatient {directions.ravel().tolist()}; expected two unit "
            "vectors at a right angle"
        )
    down, across = numbers("PixelSpacing", 2)
    low, high = EDGES_MM
    if not low <= min(down, across) <= max(down, across) <= high:
        raise DataError(f"{path}: PixelSpacing {down}, {across} mm; expected {low} to {high} mm")
    slope, intercept = (value(k) for k in ("RescaleSlope", "RescaleIntercept"))
    time = value("NominalCardiacTriggerDelayTime")
    time = value("TriggerTime") if time is None else time
    return Slice(
        path,
        frame,
        position,
        directions,
        (float(across), float(down)),
        (int(value("Columns")), int(value("Rows"))),
        (1.0 if slope is None else float(slope), float(intercept or 0)),
        None if time is None else float(time),
    )


def sorted_slices(folder: Path, slices: Sequence[Slice]) -> list[Slice]:
    """Sort slices along their normal, and check that they are one short-axis stack.

    Raises:
      DataError: they are not parallel, equally spaced, of one size, one per position and at least
        three.
    """
    first = slices[0]
    if not all(np.allclose(s.directions, first.directions, atol=1e-2) for s in slices):
        raise DataError(
            f"{folder}: slices of several orientations, as of a localizer or long-axis views; "
            "expected parallel slices of a short-axis stack"
        )
    for other in slices:
        if other.shape != first.shape or not np.allclose(other.edges, first.edges, rtol=1e-3):
            raise DataError(
                f"{other.path}: {other.shape} pixels of {other.edges} mm, and {first.shape} of "
                f"{first.edges} mm in {first.path}; expected slices of one size"
            )
    normal = np.cross(*first.directions)
    slices = sorted(slices, key=lambda s: (float(normal @ s.position), str(s.path), s.frame))
    heights = np.array([normal @ s.position for s in slices])
    _check_one_per_position(folder, slices, heights)
    if len(slices) < _LEAST_SLICES:
        raise DataError(
            f"{folder}: {len(slices)} parallel slice{'s' * (len(slices) > 1)}, as of a long-axis "
            f"view; expected a short-axis stack of at least {_LEAST_SLICES}"
        )
    gaps = np.diff(heights)
    usual = float(np.median(gaps))
    for k in np.flatnonzero(abs(gaps - usual) > _TOLERANCE * usual):
        raise DataError(
            f"{folder}: {gaps[k]:.4g} mm between {slices[k].path.name} and "
            f"{slices[k + 1].path.name}, {usual:.4g} mm between others; expected equal distances, "
            "without a missing slice"
        )
    for k, one in enumerate(slices):
        beside = one.position - first.position
        beside = beside - (normal @ beside) * normal
        if np.linalg.norm(beside) > _TOLERANCE * usual:
            raise DataError(
                f"{one.path}: slice {k} lies {np.linalg.norm(beside):.3g} mm beside the normal "
                f"through {first.path.name}; expected slices one above the other"
            )
    return slices


def _check_one_per_position(folder: Path, slices: Sequence[Slice], heights: np.ndarray) -> None:
    for one, other, gap in zip(slices, slices[1:], np.diff(heights), strict=False):
        if gap > 1e-2:
            continue
        times = {s.time for s in slices} - {None}
        if len(times) > 1 and one.time != other.time:
            raise DataError(
                f"{folder}: several times at one position ({len(slices)} images, {len(times)} "
                "trigger times), as of a cine; expected one image per slice"
            )
        raise DataError(
            f"{folder}: {one.path.name} and {other.path.name} lie at one position; expected one "
            "image per slice, without duplicates"
        )
