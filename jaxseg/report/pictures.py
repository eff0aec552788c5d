"""Pictures of slices: image, reference and prediction side by side."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

# Okabe and Ito's palette, told apart with any color vision; by label value, background clear.
COLORS = ("#000000", "#56B4E9", "#009E73", "#F0E442", "#D55E00", "#CC79A7", "#0072B2", "#E69F00")


def overlay(
    image: NDArray[np.floating], labels: NDArray[np.integer], *, opacity: float = 0.55
) -> NDArray[np.float32]:
    """A slice in gray with its labels in color.

    Args:
      image: (H, W), shown from its 1st to its 99th percentile.
      labels: (H, W) label map; label k takes `COLORS[k]`, cyclic past the last.
      opacity: of the labels.

    Returns:
      (H, W, 3) float32 from 0 to 1.
    """
    low, high = np.percentile(image, (1, 99))
    gray = np.clip((image - low) / max(high - low, 1e-6), 0, 1)
    palette = np.array([to_rgb(color) for color in COLORS])
    wheel = np.concatenate([[0], 1 + (np.arange(1, 256) - 1) % (len(COLORS) - 1)])
    colored = palette[wheel[labels]]
    share = np.where(labels > 0, opacity, 0.0)[..., None]
    return ((1 - share) * gray[..., None] + share * colored).astype(np.float32)


def comparison(
    images: NDArray[np.floating],
    label_maps: dict[str, NDArray[np.integer]],
    titles: Sequence[str],
    label_names: Sequence[str],
) -> Figure:
    """One column a slice; the image above, then one row for each named stack of label maps.

    Args:
      images: (N, H, W).
      label_maps: rows by name, each (N, H, W); for example reference and prediction.
      titles: N, above the columns.
      label_names: by label value, background first; the legend.

    Returns:
      A figure, to be saved with `save` or read with `pixels`.
    """
    rows = {"image": np.zeros(images.shape, np.uint8), **label_maps}
    handles = [
        Patch(color=COLORS[1 + (value - 1) % (len(COLORS) - 1)], label=name)
        for value, name in enumerate(label_names)
        if value
    ]
    # A column of slices is as wide as two legend entries.
    entries = min(len(handles), 2 * len(images))
    foot = 0.15 + 0.15 * -(-len(handles) // entries)
    figure = Figure(figsize=(1.7 * len(images) + 0.4, 1.75 * len(rows) + 0.2 + foot), dpi=110)
    axes = figure.subplots(len(rows), len(images), squeeze=False)
    for row, (name, maps) in enumerate(rows.items()):
        for column in range(len(images)):
            axis = axes[row, column]
            # The network grid's rows run along the array's first axis, left to right in EMIDEC.
            pixels = overlay(images[column], maps[column])
            axis.imshow(pixels.transpose(1, 0, 2), interpolation="nearest")
            axis.set_xticks([])
            axis.set_yticks([])
            axis.spines[:].set_visible(False)
            if row == 0:
                axis.set_title(titles[column], fontsize=8)
            if column == 0:
                axis.set_ylabel(name, fontsize=9)
    figure.legend(
        handles=handles, loc="lower center", ncols=entries, fontsize=8, frameon=False,
        handlelength=1.2, columnspacing=1.2,
    )  # fmt: skip
    figure.subplots_adjust(
        left=0.3 / figure.get_figwidth(), right=0.995, top=1 - 0.25 / figure.get_figheight(),
        bottom=foot / figure.get_figheight(), wspace=0.03, hspace=0.03,
    )  # fmt: skip
    return figure


def pixels(figure: Figure) -> NDArray[np.uint8]:
    """The figure as an (H, W, 3) uint8 array."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def save(figure: Figure, path: Path) -> None:
    """Write the figure as a PNG, creating its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png")


def telling_slices(
    labels: NDArray[np.integer], case_index: NDArray[np.integer], count: int
) -> NDArray[np.intp]:
    """Choose slices by rule: one a case, those with the most labels and the most of the rarest.

    Args:
      labels: (N, H, W) reference label maps.
      case_index: (N,), the case of each slice.
      count: how many to choose; fewer where there are fewer cases.

    Returns:
      Indices, best first; ties go to the earlier slice.
    """
    present = [np.bincount(slice_.ravel(), minlength=256) for slice_ in labels]
    # Compared as (number of labels, pixels of the highest, then the next ...).
    ranks = [(int((c > 0).sum()), *(int(n) for n in c[:0:-1])) for c in present]
    order = sorted(range(len(labels)), key=lambda i: ranks[i], reverse=True)
    chosen: list[int] = []
    for i in order:
        if len(chosen) < count and case_index[i] not in case_index[chosen]:
            chosen.append(i)
    return np.array(chosen, np.intp)
