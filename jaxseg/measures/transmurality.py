"""Transmurality of an infarct along radial chords from the cavity's center.

Directions are those of the picture, in which the first array axis leads to the right and the second
one downwards: 0 degrees is to the right, 90 degrees up. Lengths are in mm, so that pixels need not
be square.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from jaxseg.measures.heart import HeartLabels, percent
from jaxseg.metrics.maps import checked_map, checked_spacing, region_mask

COUNT = 100
"""Number of chords in a slice."""

# Samples along a chord in the smaller pixel edge: lengths within a pixel are right to 5 %.
_SAMPLES = 20
# An infarct that reaches this share of the wall's depth, from the endocardium, is subendocardial.
# Contours often leave a rim of one pixel between the cavity and the infarct.
_INNER = 0.25
_WITH_DIAGONALS = np.ones((3, 3), bool)


@dataclass(frozen=True, eq=False)
class Chords:
    """What the chords of N slices cross; the arrays are (N, 100), in the order of the angles.

    Attributes:
      wall_mm: length of the wall along each chord; NaN where a chord is not measured.
      infarct: share of that length which is infarct, 0 to 1; NaN as above.
      no_reflow: share of that length which is no-reflow, 0 to 1; NaN as above.
      open: bool, whether a chord of a slice with cavity and wall is not measured.
      endocardial: bool, whether the infarct reaches the inner quarter of the wall.
      arc_mm: length of the endocardium that belongs to each chord; 0 where it is not measured.
      cap_infarct: (N,) share of the wall's area which is infarct, for slices with wall but without
        cavity; NaN for others.
      cap_no_reflow: (N,) the same for no-reflow.
    """

    wall_mm: NDArray[np.float64]
    infarct: NDArray[np.float64]
    no_reflow: NDArray[np.float64]
    open: NDArray[np.bool_]
    endocardial: NDArray[np.bool_]
    arc_mm: NDArray[np.float64]
    cap_infarct: NDArray[np.float64]
    cap_no_reflow: NDArray[np.float64]

    @property
    def measured(self) -> NDArray[np.bool_]:
        """(N, 100) bool, which chords are measured."""
        return ~np.isnan(self.wall_mm)

    @property
    def infarcted(self) -> NDArray[np.bool_]:
        """(N, 100) bool, which measured chords cross infarct."""
        return np.nan_to_num(self.infarct) > 0

    def of_slice(self, index: int) -> "Chords":
        """The chords of one slice, with N = 1."""
        here = slice(index, index + 1)
        return Chords(**{name: values[here] for name, values in vars(self).items()})


@dataclass(frozen=True)
class Transmurality:
    """Summary over the measured chords; None where there are none to average over.

    Attributes:
      chords_measured: number of chords from endo- to epicardium.
      chords_open: number of chords that leave the cavity without crossing wall, in slices with a
        cavity.
      wall_thickness_mm: mean length of the wall along a chord.
      transmurality_mean_percent: mean share of the wall that is infarct, over infarcted chords.
      infarcted_percent_of_chords: share of the chords that are infarcted.
      transmurality_over_25_percent_of_chords: share of the chords with more than 25 % infarct.
      transmurality_over_50_percent_of_chords: the same above 50 %.
      transmurality_over_75_percent_of_chords: the same above 75 %.
      subendocardial_extent_percent: share of the length of the endocardium beside which infarct
        reaches the inner quarter of the wall.
    """

    chords_measured: int
    chords_open: int
    wall_thickness_mm: float | None
    transmurality_mean_percent: float | None
    infarcted_percent_of_chords: float | None
    transmurality_over_25_percent_of_chords: float | None
    transmurality_over_50_percent_of_chords: float | None
    transmurality_over_75_percent_of_chords: float | None
    subendocardial_extent_percent: float | None


def angles() -> NDArray[np.float64]:
    """Directions of the chords in degrees, (100,), from 0 to 356.4."""
    return np.arange(COUNT) * 360 / COUNT


def measure_chords(label_map: ArrayLike, labels: HeartLabels, spacing: Sequence[float]) -> Chords:
    """Measure 100 radial chords in every slice.

    The center is the centroid of the largest connected part of the cavity; if it lies outside that
    part, the center is the point of the part that is farthest from its border. The wall of a chord
    is its length within wall labels of the connected heart (cavity and wall) around the center.

    - Open wall, such as an outflow tract in a basal slice: a chord that reaches the background
      before the wall, or finds no wall, is not measured. The slice's other chords are.
    - Slice without cavity, such as the tip of the apex: no chord is measured, because there is no
      endocardium. The shares of its wall's area are returned in its place.
    - Slice without wall: nothing is measured.

    Args:
      label_map: (X, Y, slices) integer label map.
      labels: parts of the heart.
      spacing: voxel size in mm along (X, Y, slices).

    Raises:
      ValueError: the label map is not of integers or not 3D, or the spacing is not three positive
        numbers.
    """
    stack = checked_map("label_map", label_map)
    if stack.ndim != 3:
        raise ValueError(f"label_map: expected (X, Y, slices), got shape {stack.shape}")
    pixel = checked_spacing(spacing, 3)[:2]
    found = [_slice_chords(stack[..., k], labels, pixel) for k in range(stack.shape[2])]
    return Chords(**{name: np.stack([vars(one)[name] for one in found]) for name in vars(found[0])})


def summarize(chords: Chords) -> Transmurality:
    """Summarize the chords of one or more slices, which all count the same."""
    measured, infarcted = chords.measured, chords.infarcted
    count = int(measured.sum())
    over = {
        f"transmurality_over_{bound}_percent_of_chords": percent(
            int((np.nan_to_num(chords.infarct) > bound / 100).sum()), count
        )
        for bound in (25, 50, 75)
    }
    endocardium = float(chords.arc_mm.sum())
    return Transmurality(
        chords_measured=count,
        chords_open=int(chords.open.sum()),
        wall_thickness_mm=float(chords.wall_mm[measured].mean()) if count else None,
        transmurality_mean_percent=(
            100 * float(chords.infarct[infarcted].mean()) if infarcted.any() else None
        ),
        infarcted_percent_of_chords=percent(int(infarcted.sum()), count),
        subendocardial_extent_percent=percent(
            float(chords.arc_mm[chords.endocardial].sum()), endocardium
        ),
        **over,
    )


def _slice_chords(
    label_map: NDArray[np.integer], labels: HeartLabels, pixel: NDArray[np.float64]
) -> Chords:
    """The chords of one slice, as arrays without the first axis."""
    cavity, wall = (region_mask(label_map, part) for part in (labels.cavity, labels.myocardium))
    infarct = region_mask(label_map, labels.infarct)
    core = region_mask(label_map, labels.no_reflow) if labels.no_reflow else np.zeros_like(wall)
    if not cavity.any() or not wall.any():
        area = wall.sum() if wall.any() else np.nan
        return _unmeasured(infarct.sum() / area, core.sum() / area)
    box = ndimage.find_objects((cavity | wall).astype(np.int8))[0]
    cavity, wall, infarct, core = (mask[box] for mask in (cavity, wall, infarct, core))
    center, heart = _center(cavity, wall, pixel)
    step, indices = _sample_points(wall.shape, center, pixel)
    inside, on_wall, on_infarct, on_core = (
        _nearest(mask, indices) for mask in (heart, wall & heart, infarct & heart, core & heart)
    )
    length = on_wall.sum(1)
    first = on_wall.argmax(1)
    before = np.arange(on_wall.shape[1]) < first[:, None]
    closed = (length > 0) & (inside | ~before).all(1)
    with np.errstate(invalid="ignore"):
        shares = [np.where(closed, on.sum(1) / length, np.nan) for on in (on_infarct, on_core)]
    inner = on_infarct & (np.cumsum(on_wall, 1) <= _INNER * length[:, None])
    return Chords(
        wall_mm=np.where(closed, step * length, np.nan),
        infarct=shares[0],
        no_reflow=shares[1],
        open=~closed,
        endocardial=closed & inner.any(1),
        arc_mm=_arcs(step * first, closed),
        cap_infarct=np.array(np.nan),
        cap_no_reflow=np.array(np.nan),
    )


def _unmeasured(cap_infarct: float, cap_no_reflow: float) -> Chords:
    nothing = np.full(COUNT, np.nan)
    return Chords(
        wall_mm=nothing,
        infarct=nothing,
        no_reflow=nothing,
        open=np.zeros(COUNT, bool),
        endocardial=np.zeros(COUNT, bool),
        arc_mm=np.zeros(COUNT),
        cap_infarct=np.array(cap_infarct),
        cap_no_reflow=np.array(cap_no_reflow),
    )


def _center(
    cavity: NDArray[np.bool_], wall: NDArray[np.bool_], pixel: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """The center in voxel coordinates, and the connected heart around it."""
    parts, _ = ndimage.label(cavity, _WITH_DIAGONALS)  # pyright: ignore[reportGeneralTypeIssues]
    largest = parts == 1 + np.bincount(parts[cavity] - 1).argmax()
    center = np.argwhere(largest).mean(0)
    if not largest[tuple(np.rint(center).astype(int))]:
        # The outside of the array is no cavity.
        depth = np.asarray(ndimage.distance_transform_edt(np.pad(largest, 1), sampling=pixel))
        center = np.array(np.unravel_index(depth.argmax(), depth.shape), float) - 1
    hearts, _ = ndimage.label(cavity | wall, _WITH_DIAGONALS)  # pyright: ignore[reportGeneralTypeIssues]
    return center, hearts == hearts[tuple(np.rint(center).astype(int))]


def _sample_points(
    shape: tuple[int, ...], center: NDArray[np.float64], pixel: NDArray[np.float64]
) -> tuple[float, NDArray[np.intp]]:
    """Samples along the chords, up to the array's farthest corner.

    Returns:
      The distance of samples in mm, and the pixels (2, 100, samples) that hold them.
    """
    step = float(pixel.min()) / _SAMPLES
    reach = np.linalg.norm(np.maximum(center, np.array(shape) - 1 - center) * pixel + pixel)
    distance = (np.arange(int(reach / step)) + 0.5) * step
    turn = np.deg2rad(angles())[:, None]
    rows = center[0] + np.cos(turn) * distance / pixel[0]
    columns = center[1] - np.sin(turn) * distance / pixel[1]
    return step, np.rint([rows, columns]).astype(np.intp)


def _nearest(mask: NDArray[np.bool_], indices: NDArray[np.intp]) -> NDArray[np.bool_]:
    """The mask at each pixel, False outside the array."""
    limit = np.array(mask.shape)[:, None, None]
    inside = ((indices >= 0) & (indices < limit)).all(0)
    return inside & mask[tuple(np.clip(indices, 0, limit - 1))]


def _arcs(radius: NDArray[np.float64], closed: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Length of the endocardium at each chord: half the way to both neighbors, in mm."""
    points = radius * np.exp(1j * np.deg2rad(angles()))
    circle = radius * 2 * np.pi / COUNT
    halves = [
        # A neighbor that is not measured has no endocardium; the arc is then that of a circle.
        np.where(np.roll(closed, way), np.abs(np.roll(points, way) - points), circle)
        for way in (1, -1)
    ]
    return np.where(closed, (halves[0] + halves[1]) / 2, 0)
