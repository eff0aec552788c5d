"""Polar maps of a left ventricle: slices as rings, the base outside."""

from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.projections.polar import PolarAxes
from numpy.typing import NDArray

from jaxseg.measures.aha import RINGS, Septum, caps, from_base, rings
from jaxseg.measures.transmurality import COUNT, Chords

# A map without an apical cap stays open by this share of a ring.
_HOLE = 0.6
_STANDARD = {0: "lateral", 90: "anterior", 180: "septal", 270: "inferior"}
_PICTURE = {turn: f"{turn}°" for turn in range(0, 360, 45)}
_CIRCLE = np.linspace(0, 2 * np.pi, 200)


def bullseye(
    chords: Chords,
    *,
    apex_first: bool,
    no_reflow: bool = True,
    septum: Septum | None = None,
    note: str = "",
) -> Figure:
    """Draw the shares of infarct and of no-reflow in the wall side by side, in percent.

    With a septum the maps have the standard directions, the anterior wall above, and the borders
    and numbers of the AHA segments. Without one they have the directions of the picture.

    Args:
      chords: chords of all slices; unmeasured ones are gray. Slices without heart have no ring.
      apex_first: whether slice 0 is the apex, else the base.
      no_reflow: whether to draw the map of no-reflow.
      septum: where the septum lies in the picture, if that is known.
      note: a line below the maps.
    """
    maps = {"Infarct": (chords.infarct, chords.cap_infarct)}
    if no_reflow:
        maps["No-reflow"] = (chords.no_reflow, chords.cap_no_reflow)
    radii = _radii(chords, apex_first)
    width = 3.9 * len(maps) + 0.5
    figure = Figure(figsize=(width, 3.9), dpi=110)
    subplots = figure.subplots(1, len(maps), squeeze=False, subplot_kw={"projection": "polar"})
    bars = figure.add_axes((1 - 0.5 / width, 0.22, 0.12 / width, 0.52))
    for axis, (name, (along, cap)) in zip(subplots[0], maps.items(), strict=True):
        axis.set_title(f"{name}, % of the wall", fontsize=10, pad=14)
        values = np.where(np.isnan(cap)[:, None], along, cap[:, None])[list(radii)]
        colors = _draw_rings(axis, values, radii, septum)
        figure.colorbar(colors, cax=bars).ax.tick_params(labelsize=8)
        if septum:
            _draw_segments(axis, chords, radii, apex_first)
    figure.subplots_adjust(
        left=0.3 / width, right=1 - 0.9 / width, top=0.83, bottom=0.14, wspace=0.3
    )
    figure.text(0.01, 0.015, note, fontsize=7, color="dimgray")
    return figure


def _radii(chords: Chords, apex_first: bool) -> dict[int, float]:
    """Inner radius of the ring of each slice, which is 1 wide, from the base inwards."""
    cap = caps(chords, apex_first=apex_first)
    with_cavity = np.flatnonzero(chords.measured.any(1) | chords.open.any(1)).tolist()
    slices = from_base([*with_cavity, *cap], apex_first=apex_first)
    hole = 0 if cap else _HOLE
    return {k: hole + len(slices) - 1 - place for place, k in enumerate(slices)}


def _draw_rings(
    axis: PolarAxes, values: NDArray[np.float64], radii: dict[int, float], septum: Septum | None
) -> QuadMesh:
    """Draw shares (rings, 100) from the base inwards; return what a color bar needs."""
    start, way = (septum.standard(0), np.sign(septum.extent)) if septum else (0, 1)
    turns = np.deg2rad(start + way * (np.arange(COUNT + 1) - 0.5) * 360 / COUNT)
    edges = [*reversed(radii.values()), max(radii.values(), default=0) + 1]
    if not radii:  # a wall without any cavity
        edges, values = [0, 1], np.full((1, COUNT), np.nan)
    axis.grid(False)
    mesh = axis.pcolormesh(
        turns,
        edges,
        100 * np.ma.masked_invalid(values[::-1]),
        cmap=mpl.colormaps["YlOrRd"].with_extremes(bad="0.75"),
        vmin=0,
        vmax=100,
    )
    for edge in edges:
        axis.plot(_CIRCLE, np.full_like(_CIRCLE, edge), color="0.45", linewidth=0.4)
    axis.set_ylim(0, edges[-1])
    directions = _STANDARD if septum else _PICTURE
    axis.set_thetagrids(list(directions), list(directions.values()), fontsize=8)
    axis.tick_params(axis="x", pad=6)
    middles = [radius + 0.5 for radius in radii.values()]
    axis.set_rgrids(middles, [str(k) for k in radii], angle=52, **_text_style(6.5))
    axis.spines["polar"].set_linewidth(0.4)
    return mesh


def _draw_segments(
    axis: PolarAxes, chords: Chords, radii: dict[int, float], apex_first: bool
) -> None:
    number = 0
    for (_, names, start), slices in zip(
        RINGS, rings(chords, apex_first=apex_first) or [], strict=False
    ):
        inner, outer = min(radii[k] for k in slices), max(radii[k] for k in slices) + 1
        for edge in (inner, outer):
            axis.plot(_CIRCLE, np.full_like(_CIRCLE, edge), color="black", linewidth=1)
        for k in range(len(names)):
            border, middle = (np.deg2rad(start + (k + at) * 360 / len(names)) for at in (0, 0.5))
            axis.plot([border, border], [inner, outer], color="black", linewidth=1)
            number += 1
            _write_number(axis, number, middle, (inner + outer) / 2)
    if number and 0 in radii.values():
        _write_number(axis, 17, 0, 0)


def _write_number(axis: PolarAxes, number: int, turn: float, radius: float) -> None:
    axis.text(turn, radius, str(number), fontweight="bold", **_text_style(9))


def _text_style(size: float) -> dict[str, Any]:
    """Black text with a white rim, which is legible on light and dark colors."""
    rim = [withStroke(linewidth=2, foreground="white")]
    return {"ha": "center", "va": "center", "fontsize": size, "path_effects": rim}
