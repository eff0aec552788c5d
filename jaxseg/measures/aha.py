"""The 17 segments of the left ventricle (Cerqueira et al., Circulation 105:539, 2002).

In the standard polar map the base is outside, the anterior wall above and the septum on the left.
Its directions run counterclockwise from the right: anterior 90 degrees, septum 180, inferior 270.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from jaxseg.measures.transmurality import Chords, angles

_SIXTHS = ("anterior", "anteroseptal", "inferoseptal", "inferior", "inferolateral", "anterolateral")
_FOURTHS = ("anterior", "septal", "inferior", "lateral")
# Rings from base to apex: name, names of the segments, direction at which the first one begins.
RINGS = (("basal", _SIXTHS, 60.0), ("mid", _SIXTHS, 60.0), ("apical", _FOURTHS, 45.0))
# A slice with more open wall than this belongs to no segment, as the model takes slices with
# myocardium all around. Smaller gaps are left by contours.
_MOST_OPEN = 0.1
# Direction from base to apex in a typical heart: to the left, to the front, downwards (RAS axes).
_TYPICAL_AXIS = np.array([-0.62, 0.62, -0.48])
# No plane along the body's axes comes as close as this to a typical short axis.
_MOST_OBLIQUE = 40.0
_SEPTUM = 120.0  # two of six segments


@dataclass(frozen=True)
class Septum:
    """Where the septum lies in the picture.

    Attributes:
      anterior: direction from the cavity's center of the anterior insertion of the right ventricle,
        in degrees as in `jaxseg.measures.transmurality`.
      extent: degrees from there to the inferior insertion along the septum, positive if
        counterclockwise in the picture. It is negative in mirror images of the usual view, which
        has the anterior wall above and the septum on the left.
    """

    anterior: float
    extent: float = _SEPTUM

    @classmethod
    def between(cls, anterior: float, inferior: float) -> "Septum":
        """The septum between the directions of both insertions, on the shorter way."""
        return cls(anterior, (inferior - anterior + 180) % 360 - 180)

    def standard(self, directions: ArrayLike) -> NDArray[np.float64]:
        """Turn directions of the picture into those of the standard polar map, 0 to 360 degrees.

        The middle of the septum gets 180 degrees.
        """
        middle = self.anterior + self.extent / 2
        return (180 + np.sign(self.extent) * (np.asarray(directions, float) - middle)) % 360


@dataclass(frozen=True)
class Segment:
    """Chords or, for segment 17, area of a segment; None where nothing is measured.

    Attributes:
      segment: number of the segment, 1 to 17.
      name: such as "basal anterior".
      slices: indices of the slices that it is measured on.
      chords_measured: number of chords.
      transmurality_mean_percent: mean share of the wall that is infarct, over infarcted chords.
      infarct_percent_of_wall: the same over all measured chords; for segment 17 of the wall's area.
      no_reflow_percent_of_wall: the same for no-reflow.
      infarcted_percent_of_chords: share of the chords that are infarcted.
    """

    segment: int
    name: str
    slices: tuple[int, ...]
    chords_measured: int
    transmurality_mean_percent: float | None
    infarct_percent_of_wall: float | None
    no_reflow_percent_of_wall: float | None
    infarcted_percent_of_chords: float | None


def septum_of_affine(affine: ArrayLike, *, apex_first: bool) -> Septum | None:
    """Estimate the septum from the position of a stack in the body.

    The estimate is that of SPECT, whose short-axis views keep the horizontal in the body's axial
    plane: the middle of the septum is where, within the slice, the body's right side and front lie.
    The insertions of the right ventricle may lie some tens of degrees from there, so directions
    that were read off the picture are better.

    Args:
      affine: (4, 4) from voxels to mm, with axes to the right, to the front and upwards (RAS).
      apex_first: whether slice 0 is the apex, else the base.

    Returns:
      The septum, or None if the axis from base to apex is more than 40 degrees from that of a
      typical heart (left, front, down). So are all stacks along the body's axes.
    """
    axes = np.asarray(affine, float)[:3, :3]
    row, column, along = (axes / np.linalg.norm(axes, axis=0)).T
    apex = -along if apex_first else along
    typical = _TYPICAL_AXIS / np.linalg.norm(_TYPICAL_AXIS)
    if apex @ typical < np.cos(np.deg2rad(_MOST_OBLIQUE)):
        return None
    septal = np.cross(apex, (0, 0, 1))
    anterior = np.cross(septal, apex)
    middle, above = (np.rad2deg(np.arctan2(-column @ way, row @ way)) for way in (septal, anterior))
    side = np.sign((middle - above + 180) % 360 - 180)
    return Septum(float((middle - side * _SEPTUM / 2) % 360), float(side * _SEPTUM))


def rings(chords: Chords, *, apex_first: bool) -> list[list[int]] | None:
    """Divide the slices that the model takes among the basal, mid and apical ring.

    The model takes slices with wall around the cavity, of which at most 10 % is open. Their rings
    are the thirds of their number from base to apex; a slice belongs to the third of its middle.

    Returns:
      Three lists of slice indices from base to apex, none empty; None for fewer than three slices.
    """
    whole = chords.measured.any(1) & (chords.open.mean(1) <= _MOST_OPEN)
    ordered = from_base(np.flatnonzero(whole).tolist(), apex_first=apex_first)
    if len(ordered) < 3:
        return None
    found: list[list[int]] = [[], [], []]
    for position, index in enumerate(ordered):
        found[int(3 * (position + 0.5) / len(ordered))].append(index)
    return found


def from_base(slices: Sequence[int], *, apex_first: bool) -> list[int]:
    """Sort slice indices from base to apex."""
    return sorted(slices, reverse=apex_first)


def caps(chords: Chords, *, apex_first: bool) -> list[int]:
    """Slices with wall but without cavity beyond the last cavity toward the apex."""
    cavity = np.flatnonzero(chords.measured.any(1) | chords.open.any(1))
    if not len(cavity):
        return []
    wall = np.flatnonzero(~np.isnan(chords.cap_infarct))
    return [int(k) for k in wall if (k < cavity[0] if apex_first else k > cavity[-1])]


def segments(chords: Chords, septum: Septum, *, apex_first: bool) -> list[Segment] | None:
    """Measure the 17 segments.

    A chord belongs to the segment of its direction; segment borders are those of the standard polar
    map. Segment 17, the apical cap, is the mean over the slices of `caps`, by the wall's area.

    Returns:
      The segments in order; None as in `rings`.
    """
    divided = rings(chords, apex_first=apex_first)
    if divided is None:
        return None
    direction = septum.standard(angles())
    found: list[Segment] = []
    for (ring, names, start), slices in zip(RINGS, divided, strict=True):
        # 1e-9 keeps chords on a border on one side of it, whatever the rounding of directions.
        place = ((direction - start + 1e-9) % 360 // (360 / len(names))).astype(int)
        found += [
            _segment(len(found) + k + 1, f"{ring} {name}", chords, slices, place == k)
            for k, name in enumerate(names)
        ]
    cap = caps(chords, apex_first=apex_first)
    infarct, core = (
        100 * float(values[cap].mean()) if cap else None
        for values in (chords.cap_infarct, chords.cap_no_reflow)
    )
    return [*found, Segment(17, "apex", tuple(cap), 0, None, infarct, core, None)]


def _segment(
    number: int, name: str, chords: Chords, slices: list[int], here: NDArray[np.bool_]
) -> Segment:
    measured, infarcted = chords.measured[slices][:, here], chords.infarcted[slices][:, here]

    def mean(values: NDArray[np.generic], where: NDArray[np.bool_]) -> float | None:
        return 100 * float(values[slices][:, here][where].mean()) if where.any() else None

    return Segment(
        segment=number,
        name=name,
        slices=tuple(slices),
        chords_measured=int(measured.sum()),
        transmurality_mean_percent=mean(chords.infarct, infarcted),
        infarct_percent_of_wall=mean(chords.infarct, measured),
        no_reflow_percent_of_wall=mean(chords.no_reflow, measured),
        infarcted_percent_of_chords=mean(chords.infarcted, measured),
    )
