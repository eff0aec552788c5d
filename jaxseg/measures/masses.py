"""Volume of the cavity, and masses of the myocardium and its pathology."""

from collections.abc import Sequence
from dataclasses import dataclass

from numpy.typing import ArrayLike

from jaxseg.measures.heart import HeartLabels, percent
from jaxseg.metrics import volume

# Of myocardium, in g/ml; Schulz-Menger et al., J Cardiovasc Magn Reson 22:19, 2020.
DENSITY = 1.05


@dataclass(frozen=True)
class Masses:
    """Volume and masses of a label map; a share of nothing is None, as is what is not labeled.

    Attributes:
      cavity_ml: volume of the cavity.
      myocardium_g: mass of the whole wall, pathology included.
      infarct_g: mass of the infarct, no-reflow included.
      infarct_percent_of_myocardium: infarct over the whole wall.
      no_reflow_g: mass of no-reflow; None if the anatomy does not know it.
      no_reflow_percent_of_myocardium: no-reflow over the whole wall.
      no_reflow_percent_of_infarct: no-reflow over the whole infarct.
    """

    cavity_ml: float
    myocardium_g: float
    infarct_g: float
    infarct_percent_of_myocardium: float | None
    no_reflow_g: float | None
    no_reflow_percent_of_myocardium: float | None
    no_reflow_percent_of_infarct: float | None


def masses(label_map: ArrayLike, labels: HeartLabels, spacing: Sequence[float]) -> Masses:
    """Measure volume and masses: voxel count times voxel size, times 1.05 g/ml for the wall.

    The voxel size along the slices is their distance, so that gaps between slices count as well.

    Args:
      label_map: (X, Y, slices) integer label map.
      labels: parts of the heart.
      spacing: voxel size in mm along (X, Y, slices).

    Raises:
      ValueError: as `jaxseg.metrics.volume`.
    """
    wall = DENSITY / 1000 * volume(label_map, labels.myocardium, spacing)
    infarct = DENSITY / 1000 * volume(label_map, labels.infarct, spacing)
    core = None
    if labels.no_reflow:
        core = DENSITY / 1000 * volume(label_map, labels.no_reflow, spacing)
    return Masses(
        cavity_ml=volume(label_map, labels.cavity, spacing) / 1000,
        myocardium_g=wall,
        infarct_g=infarct,
        infarct_percent_of_myocardium=percent(infarct, wall),
        no_reflow_g=core,
        no_reflow_percent_of_myocardium=percent(core, wall),
        no_reflow_percent_of_infarct=percent(core, infarct),
    )
