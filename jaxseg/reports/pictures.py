"""Pictures of slices, with image, reference and predictions side by side."""

import io
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from jaxseg.data import Grid, labels_to_network
from jaxseg.runs.files import atomic

# Okabe and Ito's color-blind safe palette, by label value; the background is transparent.
COLORS = ("#000000", "#56B4E9", "#009E73", "#F0E442", "#D55E00", "#CC79A7", "#0072B2", "#E69F00")

# A picture of more slices would be illegible.
_MOST_SLICES = 12
# Of a caption: characters in an inch, and inches from line to line.
_CAPTION_CHARACTERS = 20
_CAPTION_LINE = 0.11


def overlay(
    image: NDArray[np.floating],
    labels: NDArray[np.integer],
    *,
    opacity: float = 0.55,
    window: tuple[float, float] | None = None,
) -> NDArray[np.float32]:
    """Draw a slice in gray with its labels in color.

    Args:
      image: (H, W).
      labels: (H, W) label map; label k has the color `COLORS[k]`, cyclic past the last one.
      opacity: opacity of the labels.
      window: intensities shown black and white; by default the image's 1st and 99th percentiles.

    Returns:
      (H, W, 3) float32 from 0 to 1.
    """
    colored = _palette(256)[labels]
    share = np.where(labels > 0, opacity, 0.0)[..., None]
    return ((1 - share) * _gray(image, window) + share * colored).astype(np.float32)


def soft_overlay(
    image: NDArray[np.floating],
    probabilities: NDArray[np.floating],
    *,
    opacity: float = 0.55,
    window: tuple[float, float] | None = None,
) -> NDArray[np.float32]:
    """Draw a slice in gray with label probabilities in color; certain labels look as in `overlay`.

    Args:
      image: (H, W).
      probabilities: (H, W, L), background first; they weight the labels' colors.
      opacity: opacity of a pixel whose background probability is 0.
      window: as in `overlay`.

    Returns:
      (H, W, 3) float32 from 0 to 1.
    """
    share = opacity * (1 - probabilities[..., :1])
    colored = opacity * (probabilities[..., 1:] @ _palette(probabilities.shape[-1])[1:])
    return np.clip((1 - share) * _gray(image, window) + colored, 0, 1).astype(np.float32)


def _gray(image: NDArray[np.floating], window: tuple[float, float] | None) -> NDArray[np.floating]:
    low, high = np.percentile(image, (1, 99)) if window is None else window
    return np.clip((image - low) / max(high - low, 1e-6), 0, 1)[..., None]


def label_color(value: int) -> str:
    """Return the color of a label value, the same in every picture."""
    return COLORS[1 + (value - 1) % (len(COLORS) - 1)] if value else COLORS[0]


def _palette(size: int) -> NDArray[np.floating]:
    return np.array([to_rgb(label_color(value)) for value in range(size)])


def label_handles(label_names: Sequence[str]) -> list[Artist]:
    """Return the legend entries of all labels except the background."""
    return [
        Patch(color=label_color(value), label=name)
        for value, name in enumerate(label_names)
        if value
    ]


def comparison(
    images: NDArray[np.floating],
    label_maps: Mapping[str, NDArray[np.integer]],
    titles: Sequence[str],
    label_names: Sequence[str],
    *,
    notes: Mapping[str, Sequence[str]] | None = None,
    caption: str = "",
) -> Figure:
    """Draw one column per slice: the image above, then one row for each stack of label maps.

    Args:
      images: (N, H, W).
      label_maps: rows by name, each (N, H, W); for example reference and prediction.
      titles: N titles above the columns.
      label_names: names by label value, background first, for the legend.
      notes: N short texts by row name, for example scores; rows may be missing.
      caption: remarks below the figure.

    Returns:
      A figure, to be saved with `save` or read with `pixels`.
    """
    rows = {"image": np.zeros(images.shape, np.uint8), **label_maps}
    cells = [[overlay(*pair) for pair in zip(images, maps, strict=True)] for maps in rows.values()]
    none = [""] * len(images)
    return panels(
        cells,
        list(rows),
        titles,
        label_handles(label_names),
        notes=[(notes or {}).get(name, none) for name in rows],
        caption=caption,
    )


def label_picture(
    labels: NDArray[np.integer], spacing: tuple[float, ...], label_names: Sequence[str]
) -> Figure:
    """Draw the slices of a label map with square pixels, cut out around its labels.

    Args:
      labels: (X, Y, slices), not all background.
      spacing: voxel size in mm.
      label_names: names by label value, background first, for the legend.
    """
    edge = min(spacing[:2])
    occupied = [np.flatnonzero((labels > 0).any((1 - k, 2))) for k in (0, 1)]
    row, column = (int(one[0] + one[-1]) // 2 for one in occupied)
    widths = [(one[-1] - one[0] + 1) * spacing[k] for k, one in enumerate(occupied)]
    side = int(1.2 * max(widths) / edge) + 2
    grid = Grid((side, side), edge).at((row, column), labels.shape)
    shown = shown_slices(labels.shape[2])
    maps = labels_to_network(labels, spacing, grid, len(label_names))[shown]
    cells = [overlay(np.zeros(one.shape), one, opacity=1.0) for one in maps]
    titles = [f"slice {number}" for number in shown]
    return panels([cells], ["label map"], titles, label_handles(label_names))


def shown_slices(count: int) -> NDArray[np.intp]:
    """Indices of the slices in a picture of a stack: all, or 12 evenly spaced ones."""
    return np.linspace(0, count - 1, min(count, _MOST_SLICES)).round().astype(np.intp)


def panels(
    cells: Sequence[Sequence[NDArray[np.floating]]],
    rows: Sequence[str],
    columns: Sequence[str],
    handles: Sequence[Artist],
    *,
    notes: Sequence[Sequence[str]] | None = None,
    caption: str = "",
) -> Figure:
    """Draw a table of pictures with a legend below; a picture's first axis runs left to right.

    Args:
      cells: R rows of C pictures (H, W, 3) from 0 to 1.
      rows: R names, on the left.
      columns: C names, above.
      handles: entries of the legend.
      notes: R rows of C texts for the lower left corners of the cells.
      caption: text below the legend, wrapped to the width of the figure.

    Returns:
      A figure whose axes are the cells, row by row.
    """
    # A column is as wide as two legend entries.
    entries = max(1, min(len(handles), 2 * len(columns)))
    width = 1.7 * len(columns) + 0.4
    lines = textwrap.wrap(caption, int(_CAPTION_CHARACTERS * width))
    below = _CAPTION_LINE * len(lines)
    foot = 0.15 + 0.15 * -(-len(handles) // entries) + below
    figure = Figure(figsize=(width, 1.75 * len(rows) + 0.2 + foot), dpi=110)
    if lines:
        figure.text(0.01, 0.01, "\n".join(lines), fontsize=6, color="dimgray")
    axes = figure.subplots(len(rows), len(columns), squeeze=False)
    for row, name in enumerate(rows):
        for column, title in enumerate(columns):
            axis = axes[row, column]
            _draw_cell(axis, cells[row][column])
            if row == 0:
                axis.set_title(title, fontsize=8)
            if column == 0:
                axis.set_ylabel(name, fontsize=9)
            if notes is not None and notes[row][column]:
                _write_note(axis, notes[row][column])
    figure.legend(
        handles=list(handles),
        loc="lower center",
        bbox_to_anchor=(0.5, below / figure.get_figheight()),
        ncols=entries,
        fontsize=8,
        frameon=False,
        handlelength=1.2,
        columnspacing=1.2,
    )
    figure.subplots_adjust(
        left=0.3 / figure.get_figwidth(),
        right=0.995,
        top=1 - 0.25 / figure.get_figheight(),
        bottom=foot / figure.get_figheight(),
        wspace=0.03,
        hspace=0.03,
    )
    return figure


def _draw_cell(axis: Axes, picture: NDArray[np.floating]) -> None:
    # The network grid's rows run along the array's first axis, left to right in EMIDEC.
    axis.imshow(picture.transpose(1, 0, 2), interpolation="nearest")
    axis.set_xticks([])
    axis.set_yticks([])
    axis.spines[:].set_visible(False)


def _write_note(axis: Axes, note: str) -> None:
    # White text with a black rim is legible on any tissue.
    rim = [withStroke(linewidth=1.6, foreground="black")]
    axis.text(
        0.03,
        0.03,
        note,
        transform=axis.transAxes,
        color="white",
        fontsize=7,
        linespacing=1.15,
        va="bottom",
        path_effects=rim,
    )


def pixels(figure: Figure) -> NDArray[np.uint8]:
    """Render the figure to an (H, W, 3) uint8 array."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def png(figure: Figure, *, dpi: float = 200) -> bytes:
    """Render the figure to the content of a PNG file; 200 dpi suffice for print."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=dpi)
    return stream.getvalue()


def save(figure: Figure, path: Path, *, overwrite: bool = True) -> None:
    """Write the figure as a PNG atomically, as in `atomic`, and create its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic(path, overwrite=overwrite) as temporary:
        figure.savefig(temporary, format="png")


def representative_slices(
    labels: NDArray[np.integer], case_index: NDArray[np.integer], count: int
) -> NDArray[np.intp]:
    """Select slices with the most labels and the most pixels of the rarest, one per case.

    Args:
      labels: (N, H, W) reference label maps.
      case_index: (N,), the case of each slice.
      count: number of slices; fewer if there are fewer cases.

    Returns:
      Indices, best first; ties go to the earlier slice.
    """
    present = [np.bincount(slice_.ravel(), minlength=256) for slice_ in labels]
    # Ranked by number of labels, then by pixels of the highest label, the next one, and so on.
    ranks = [(int((c > 0).sum()), *(int(n) for n in c[:0:-1])) for c in present]
    order = sorted(range(len(labels)), key=lambda i: ranks[i], reverse=True)
    chosen: list[int] = []
    for i in order:
        if len(chosen) < count and case_index[i] not in case_index[chosen]:
            chosen.append(i)
    return np.array(chosen, np.intp)


def close_up(labels: NDArray[np.integer], *, margin: int) -> list[tuple[slice, slice]]:
    """Find square windows of one size around the labels of each slice.

    Args:
      labels: (N, H, W) label maps.
      margin: pixels on each side of the widest label map.

    Returns:
      N windows (rows, columns) within the slices; for a slice without labels, around its center.
    """
    size = labels.shape[1:]
    boxes = np.array([[_extent((one > 0).any(1 - k)) for k in (0, 1)] for one in labels])
    side = min(int((boxes[..., 1] - boxes[..., 0]).max()) + 2 * margin, *size)
    starts = np.clip(boxes.sum(-1) // 2 - side // 2, 0, np.array(size) - side)
    return [(slice(r, r + side), slice(c, c + side)) for r, c in starts.tolist()]


def _extent(occupied: NDArray[np.bool_]) -> tuple[int, int]:
    """Return the first occupied index and one past the last; the center if there is none."""
    places = np.flatnonzero(occupied)
    if not len(places):
        return len(occupied) // 2, len(occupied) // 2
    return int(places[0]), int(places[-1]) + 1


def cut_out(stack: np.ndarray, windows: Sequence[tuple[slice, slice]]) -> np.ndarray:
    """Cut the windows (N, H', W', ...) out of slices (N, H, W, ...)."""
    return np.stack([one[window] for one, window in zip(stack, windows, strict=True)])
