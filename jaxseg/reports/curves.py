"""Learning curves: reading a run's metrics and drawing the stages of an ablation together."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import LogLocator, NullLocator
from numpy.typing import NDArray

from jaxseg.reports.pictures import label_color
from jaxseg.runs.files import WorkdirError
from jaxseg.runs.logbook import read_metrics

CAPTION = (
    "Top: the loss that each stage minimizes, the plain cross-entropy of the same training batches "
    "(comparable between stages), and the label weights of Eq. 3 as the network sees them. Bottom: "
    "mean DSC over the validation slices that hold the label. Lines are means over a stage's runs, "
    "bands reach from the lowest to the highest run, over the epochs that all its runs cover."
)

# Tol's high-contrast and vibrant palettes: distinct in gray, too, and different from label colors.
_STAGE_COLORS = ("#000000", "#DDAA33", "#BB5566", "#004488", "#33BBEE", "#AA3377", "#777777")
_STYLES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))
_LOSSES = {"train/loss": "training loss", "train/cross_entropy": "training cross-entropy"}
_WEIGHTS = "train/label_weights/"
_DSC = "validation/dsc/"


@dataclass(frozen=True, eq=False)
class Curve:
    """A metric of a run over its epochs.

    Attributes:
      epochs: (N,) float64, ascending; fractional where a batch extends into the next epoch.
      values: (N,) float64; NaN where the run wrote null, such as a DSC of a region in no slice.
    """

    epochs: NDArray[np.float64]
    values: NDArray[np.float64]


History = Mapping[str, Curve]
"""Curves by group and name as in TensorBoard: "train/loss", "validation/dsc/LV"."""


def read_history(path: Path) -> dict[str, Curve]:
    """Read a run's `metrics.jsonl`, without a last line that was cut off.

    If several lines have the same group and step, the last one counts.

    Raises:
      WorkdirError: as in `jaxseg.runs.logbook.read_metrics`; if there are no lines; or if a line
        has no epoch.
    """
    lines = read_metrics(path)
    if not lines:
        raise WorkdirError(f"{path}: no complete line; expected one JSON object a line")
    points: dict[str, dict[int, tuple[float, float]]] = {}
    for number, line in enumerate(lines, 1):
        epoch = _number(line.get("epoch"))
        if not math.isfinite(epoch):
            raise WorkdirError(
                f"{path}, line {number}: epoch: expected a number, got {line.get('epoch')!r}"
            )
        for name in [name for name in line if name not in ("step", "group", "epoch")]:
            curve = points.setdefault(f"{line['group']}/{name}", {})
            curve[line["step"]] = (epoch, _number(line[name]))
    return {name: _curve(by_step) for name, by_step in points.items()}


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _curve(by_step: Mapping[int, tuple[float, float]]) -> Curve:
    epochs, values = zip(*(by_step[step] for step in sorted(by_step)), strict=True)
    return Curve(np.array(epochs, np.float64), np.array(values, np.float64))


def spread(curves: Sequence[Curve]) -> NDArray[np.float64]:
    """Compute the mean, minimum and maximum of several runs' curves.

    Runs may log at different epochs, for example folds of different sizes. Each curve is therefore
    interpolated linearly at the epochs of all runs, within the range that all of them cover. NaN
    values are left out.

    Returns:
      (4, K): epochs, mean, minimum and maximum; K is 0 if the runs share no epoch.
    """
    finite = [(curve, ~np.isnan(curve.values)) for curve in curves]
    kept = [(curve.epochs[f], curve.values[f]) for curve, f in finite if f.any()]
    if not kept:
        return np.empty((4, 0))
    first = max(epochs[0] for epochs, _ in kept)
    last = min(epochs[-1] for epochs, _ in kept)
    grid = np.unique(np.concatenate([epochs for epochs, _ in kept]))
    grid = grid[(grid >= first) & (grid <= last)]
    stack = np.stack([np.interp(grid, epochs, values) for epochs, values in kept])
    return np.stack([grid, stack.mean(0), stack.min(0), stack.max(0)])


def curves(histories: Mapping[str, Sequence[History]], regions: Sequence[str]) -> Figure:
    """Draw losses and label weights above, validation DSC by region below, in one color per stage.

    Args:
      histories: the runs (seeds, folds) of each stage, at least one, by stage name.
      regions: names of the scored regions, one panel each.

    Returns:
      A figure, to be written with `pictures.png` or `pictures.save`.

    Raises:
      ValueError: if a run lacks a curve.
    """
    series = {**_LOSSES, **{_DSC + region: f"validation DSC, {region}" for region in regions}}
    _check(histories, list(series))
    weighted = [stage for stage, runs in histories.items() if _weights(runs)]
    top, bottom = len(_LOSSES) + len(weighted), len(regions)
    figure = Figure(figsize=(2.9 * max(top, bottom), 5.8), dpi=110, layout="constrained")
    grid = figure.subplots(2, max(top, bottom), squeeze=False)
    for axis in (*grid[0, top:], *grid[1, bottom:]):
        axis.remove()
    for axis, name in zip((*grid[0, : len(_LOSSES)], *grid[1, :bottom]), series, strict=True):
        _draw_stages(axis, histories, name)
        axis.set_title(series[name], fontsize=10)
    for axis in grid[0, : len(_LOSSES)]:
        _set_log_scale(axis)
    for axis in grid[1, :bottom]:
        axis.set_ylim(0, 1)
    for axis, stage in zip(grid[0, len(_LOSSES) : top], weighted, strict=True):
        _draw_weights(axis, stage, histories[stage])
    for axis in figure.axes:
        axis.set_xlabel("epoch", fontsize=9)
        axis.tick_params(labelsize=8)
        axis.grid(alpha=0.25, linewidth=0.6)
        axis.spines[["top", "right"]].set_visible(False)
    _add_legends(figure, histories, [_weights(histories[stage]) for stage in weighted])
    return figure


def _add_legends(
    figure: Figure, histories: Mapping[str, Sequence[History]], weights: Sequence[Sequence[str]]
) -> None:
    """Add a legend of the stages below and, if there are weights, of the labels above."""
    handles = [
        Line2D([], [], label=f"{stage} ({len(runs)} run{'s' * (len(runs) > 1)})", **_style(k))
        for k, (stage, runs) in enumerate(histories.items())
    ]
    figure.legend(
        handles=handles,
        loc="outside lower center",
        fontsize=10,
        frameon=False,
        handlelength=3,
        ncols=min(len(handles), 4),
    )
    if weights:
        labels = [
            Line2D([], [], label=name.removeprefix(_WEIGHTS), **_label_style(value))
            for value, name in enumerate(max(weights, key=len))
        ]
        figure.legend(
            handles=labels,
            loc="outside upper right",
            fontsize=9,
            frameon=False,
            handlelength=1.5,
            ncols=len(labels),
            columnspacing=1.2,
        )


def _check(histories: Mapping[str, Sequence[History]], names: Sequence[str]) -> None:
    for stage, runs in histories.items():
        for number, run in enumerate(runs, 1):
            missing = [name for name in names if name not in run]
            if missing:
                raise ValueError(f"{stage}, run {number}: no {', '.join(missing)} in its metrics")


def _weights(runs: Sequence[History]) -> list[str]:
    """Return the names of the labels, background first, whose weights every run logs."""
    names = [name for name in runs[0] if name.startswith(_WEIGHTS)]
    return [name for name in names if all(name in run for run in runs)]


def _style(number: int) -> dict[str, Any]:
    color = _STAGE_COLORS[number % len(_STAGE_COLORS)]
    return {"color": color, "linestyle": _STYLES[number % len(_STYLES)], "linewidth": 1.6}


def _draw_stages(axis: Axes, histories: Mapping[str, Sequence[History]], name: str) -> None:
    for number, runs in enumerate(histories.values()):
        _draw(axis, [run[name] for run in runs], _style(number), alpha=0.15)


def _draw(axis: Axes, curves: Sequence[Curve], style: Mapping[str, Any], *, alpha: float) -> None:
    """Draw the mean and, of several curves, the band from the lowest to the highest."""
    epochs, mean, low, high = spread(curves)
    # A line through a single point would be invisible.
    axis.plot(epochs, mean, marker="o" if len(epochs) == 1 else None, markersize=4, **style)
    if len(curves) > 1:
        axis.fill_between(epochs, low, high, color=style["color"], alpha=alpha, linewidth=0)


def _set_log_scale(axis: Axes) -> None:
    """Use a logarithmic axis if all values are positive; Eq. 4 may be negative."""
    values = np.concatenate([np.asarray(line.get_ydata()) for line in axis.lines])
    if (values <= 0).any() or not len(values):
        return
    axis.set_yscale("log")
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.yaxis.set_minor_locator(NullLocator())
    axis.yaxis.set_major_formatter("{x:g}")


def _label_style(value: int) -> dict[str, Any]:
    # The label colors suit gray images; a thin dark rim makes the light ones visible on white.
    rim = [withStroke(linewidth=2.4, foreground="#555555")]
    return {"color": label_color(value), "linewidth": 1.6, "path_effects": rim}


def _draw_weights(axis: Axes, stage: str, runs: Sequence[History]) -> None:
    for value, name in enumerate(_weights(runs)):
        _draw(axis, [run[name] for run in runs], _label_style(value), alpha=0.2)
    axis.set_ylim(bottom=0)
    axis.set_title(f"label weights\n{stage}", fontsize=10)  # too wide for one line
