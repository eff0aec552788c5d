"""Bland-Altman figure: differences between two measurements over their mean."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from jaxseg.metrics import agreement

_PANELS_PER_ROW = 3


def bland_altman(
    pairs: Mapping[str, tuple[NDArray[np.floating], NDArray[np.floating]]],
) -> Figure:
    """Draw a panel for each quantity, with a point for each case, the bias and 95 % limits.

    The lines are those of `jaxseg.metrics.agreement`, over all cases of the panel.

    Args:
      pairs: (prediction, reference), each (n,), by title with unit; pairs with a nan are left out.

    Returns:
      A figure, to be written with `jaxseg.reports.pictures.png`.

    Raises:
      ValueError: if there is nothing to draw.
    """
    if not pairs:
        raise ValueError("no quantity to draw; expected at least one")
    columns = min(len(pairs), _PANELS_PER_ROW)
    rows = -(-len(pairs) // columns)
    figure = Figure(figsize=(3.4 * columns, 2.8 * rows), dpi=110, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes[len(pairs) :]:
        axis.remove()
    for axis, (title, (prediction, reference)) in zip(axes, pairs.items(), strict=False):
        found = agreement(prediction, reference)
        axis.scatter((prediction + reference) / 2, prediction - reference, s=12, color="#004488")
        for value, style in ((found.bias, "-"), (found.low, "--"), (found.high, "--")):
            if np.isfinite(value):
                axis.axhline(value, color="#BB5566", linestyle=style, linewidth=1.2)
        axis.axhline(0, color="#777777", linewidth=0.6)
        axis.set_title(f"{title} (n = {found.n})", fontsize=10)
        axis.set_xlabel("mean of prediction and reference", fontsize=8)
        axis.set_ylabel("prediction - reference", fontsize=8)
        axis.tick_params(labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    return figure
