"""All measures of one case, as a whole and slice by slice."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from jaxseg.measures.aha import Segment, Septum, from_base, segments
from jaxseg.measures.heart import HeartLabels, MeasureError
from jaxseg.measures.masses import Masses, masses
from jaxseg.measures.transmurality import Chords, Transmurality, measure_chords, summarize


@dataclass(frozen=True, eq=False)
class CaseMeasures:
    """Measures of a label map of N slices.

    Attributes:
      masses: volume of the cavity and masses.
      transmurality: summary over the chords of all slices.
      slices: the same two of each slice, in the order of the stack.
      chords: the chords of all slices.
      segments: the 17 segments; None if the septum is unknown, or as in `jaxseg.measures.aha`.
      remarks: phrases on what a reader should check.
    """

    masses: Masses
    transmurality: Transmurality
    slices: tuple[tuple[Masses, Transmurality], ...]
    chords: Chords
    segments: list[Segment] | None
    remarks: tuple[str, ...]


def measure_case(
    label_map: NDArray[np.integer],
    labels: HeartLabels,
    spacing: Sequence[float],
    *,
    apex_first: bool,
    septum: Septum | None = None,
) -> CaseMeasures:
    """Measure a label map.

    Args:
      label_map: (X, Y, slices) integer label map.
      labels: parts of the heart.
      spacing: voxel size in mm along (X, Y, slices).
      apex_first: whether slice 0 is the apex, else the base.
      septum: where the septum lies in the picture, if that is known.

    Raises:
      MeasureError: if there is no myocardium.
      ValueError: as `measure_chords`.
    """
    chords = measure_chords(label_map, labels, spacing)
    whole = masses(label_map, labels, spacing)
    if not whole.myocardium_g:
        raise MeasureError("no myocardium in any slice; expected a label map of the left ventricle")
    slices = tuple(
        (masses(label_map[..., k : k + 1], labels, spacing), summarize(chords.of_slice(k)))
        for k in range(label_map.shape[2])
    )
    return CaseMeasures(
        masses=whole,
        transmurality=summarize(chords),
        slices=slices,
        chords=chords,
        segments=segments(chords, septum, apex_first=apex_first) if septum else None,
        remarks=_remarks(chords, [one for one, _ in slices], apex_first),
    )


def _remarks(chords: Chords, slices: list[Masses], apex_first: bool) -> tuple[str, ...]:
    phrases = []
    if opened := np.flatnonzero(chords.open.any(1)).tolist():
        count = int(chords.open.sum())
        phrases.append(f"open wall, {count} chords not measured, in {_listed(opened)}")
    if solid := np.flatnonzero(~np.isnan(chords.cap_infarct)).tolist():
        phrases.append(f"no cavity, so no chords, in {_listed(solid)}")
    with_cavity = [k for k, one in enumerate(slices) if one.cavity_ml]
    ends = from_base(with_cavity, apex_first=apex_first)
    if ends and slices[ends[0]].cavity_ml < slices[ends[-1]].cavity_ml:
        phrases.append("the cavity is larger at the apex than at the base; check the slices' order")
    return tuple(phrases)


def _listed(slices: list[int]) -> str:
    return f"slice{'s' * (len(slices) > 1)} {', '.join(map(str, slices))}"
