"""Figure of the stages of an ablation on the same slices (the paper's Fig. 3)."""

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from jaxseg.anatomy import Anatomy
from jaxseg.metrics import slice_scores
from jaxseg.reports import pictures

CAPTION = (
    "Image, reference and the prediction of each stage, one column a slice, cut out around the "
    "reference at one scale. The slices follow from a rule: one a case, those whose reference "
    "holds the most labels and, among these, the most pixels of the rarest. Numbers: DSC of the "
    "slice for each region that its reference holds; predicted pixels beyond the cut-out, if any, "
    "are counted as outside."
)
_NOTE_WIDTH = 24  # characters per line of a cell


def stage_figure(
    images: NDArray[np.floating],
    reference: NDArray[np.integer],
    predictions: Mapping[str, NDArray[np.integer]],
    titles: Sequence[str],
    anatomy: Anatomy,
    *,
    margin: int = 12,
) -> Figure:
    """Draw one row each for the image, the reference and every stage, with scores in the corners.

    Args:
      images: (N, H, W).
      reference: (N, H, W) label maps.
      predictions: (N, H, W) label maps by stage, in the order of the rows.
      titles: N titles above the columns.
      anatomy: names the labels and defines the scored slice regions.
      margin: pixels of the network grid shown around the reference.

    Returns:
      A figure, to be written with `pictures.png` or `pictures.save`.

    Raises:
      ValueError: if there are no slices, or a stage is named "image" or "reference".
    """
    if not len(images):
        raise ValueError("no slice to show; expected at least one")
    taken = {"image", "reference"} & predictions.keys()
    if taken:
        raise ValueError(f"a stage is named {taken.pop()!r}; the figure has a row of that name")
    windows = pictures.close_up(reference, margin=margin)
    notes = {name: _notes(maps, reference, windows, anatomy) for name, maps in predictions.items()}
    label_maps = {"reference": reference, **predictions}
    return pictures.comparison(
        pictures.cut_out(images, windows),
        {name: pictures.cut_out(maps, windows) for name, maps in label_maps.items()},
        titles,
        anatomy.labels,
        notes=notes,
    )


def _notes(
    maps: NDArray[np.integer],
    reference: NDArray[np.integer],
    windows: Sequence[tuple[slice, slice]],
    anatomy: Anatomy,
) -> list[str]:
    """List each slice's DSC of the regions present in the reference, and the pixels cut off."""
    names = [name for name, _ in anatomy.slice_regions]
    notes = []
    scores = slice_scores(maps, reference, anatomy.slice_regions)
    for one, window, row in zip(maps, windows, scores, strict=True):
        # A no-break space keeps a name and its score together on a line.
        held = [f"{n}\u00a0{v:.2f}" for n, v in zip(names, row, strict=True) if not np.isnan(v)]
        lines = textwrap.wrap("  ".join(held), _NOTE_WIDTH)
        outside = int((one > 0).sum() - (one[window] > 0).sum())
        notes.append("\n".join([*lines, f"{outside} px outside"] if outside else lines))
    return notes
