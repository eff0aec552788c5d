"""The content of `preprocessing.json`: how to feed an exported network and read its output.

The formulas restate `jaxseg.data.grid`, `jaxseg.data.preprocess` and `jaxseg.data.bias_field`. A
test implements them without these modules and obtains the same label map.
"""

from collections.abc import Sequence
from typing import Any

from jaxseg.anatomy import Anatomy, Region
from jaxseg.data import Preprocessing
from jaxseg.data.bias_field import FLOOR, ITERATIONS, MIN_SIDE, PERCENTILES, SPACING_MM

_AXES = (
    "A stack is the array (X, Y, slices) as stored in the NIfTI file, flipped and transposed in "
    "plane if its affine says that X and Y lead elsewhere than in training (orientation: nibabel's "
    "axis codes, or null: right ventricle at low X, diaphragm at high Y). Slice k is "
    "image[:, :, k], its rows along X and its columns along Y. Voxel size is pixdim in mm."
)
_STEP = "step = spacing_mm / voxel size; offset = center * n + (0.5 - size / 2) * step - 0.5"
_CROP = "step = 1; offset = floor(center * n - size / 2 + 0.5)"
_PADDING = (
    "A slice of a single value shows nothing: it is padding, and its label map is background",
    "of the other slices together: rows from either end as long as a row holds a single value over "
    "all columns and these slices, and columns from either end likewise",
    "zeros from which, along their row or their column, nothing but zeros and padding leads to the "
    "border of the slice",
    "all other voxels are tissue, zeros too",
)
_TO_NETWORK = (
    "For each in-plane axis, of n voxels counted from 0 at their centers:",
    "network pixel j lies at p = offset + j * step, in voxels",
    "weight of voxel i: max(0, 1 - |p - i| / max(1, step)), over the sum of these for all whole i, "
    "also those outside the stack",
    "a pixel's weights are the products of the two axes'",
    "pixel = sum(weight * value) / sum(weight), both over tissue alone, if the latter sum is at "
    "least 0.5 - 1e-9; else it is padding, and 0",
)
_BIAS_FIELD = (
    "Before all that follows but the padding, correct the stack within the picture, which is the "
    "smallest box of rows, columns and slices around the tissue, first to last",
    f"low and high are the percentiles {PERCENTILES[0]:g} and {PERCENTILES[1]:g} of the tissue, "
    f"signal = (value clipped to low and high - low) / (high - low) + {FLOOR:g}; a stack of a "
    f"single slice is repeated to two; without high > low, or below {MIN_SIDE} rows or columns, "
    "nothing is corrected",
    "field = exp of the log bias field of SimpleITK's N4BiasFieldCorrectionImageFilter on the "
    f"signal in float32 with the tissue as mask, both shrunk in plane by round({SPACING_MM:g} / "
    f"voxel size), at most side / {MIN_SIDE}, rounded down, and at least 1, with maximum number of "
    f"iterations [{ITERATIONS}], all else by default",
    "tissue = low + (value - low) / field; padding stays as it is",
)
_TISSUE = "of the pixels on the grid that are not padding, all slices of the stack together: "
_INTENSITY = {
    "zscore": f"{_TISSUE}clip at the two percentiles, subtract their mean, divide by their "
    "standard deviation; padding stays 0",
    "percentile": f"{_TISSUE}clip at the two percentiles, map these to 0 and 1; padding stays 0",
    "none": "as they are",
}
_HEART = (
    "Find the picture: the smallest rectangle of rows and columns around the tissue of all slices, "
    "first to last",
    "make a scout of the stack: as to_network and intensity say, but on a grid of spacing_mm 8, "
    "centered on the middle of the picture, center = ((first + last) / 2 + 0.5) / n, its sides the "
    "smallest multiples of 8 pixels that hold the picture, at least 48; padding then takes the "
    "least value of the scout's tissue",
    "localizer.stablehlo or localizer.onnx takes scouts (batch, H, W) float32 and gives "
    "probabilities (batch, H, W, 2) of elsewhere and heart; average them over the eight turns and "
    "flips of the scouts",
    "set the latter to 0 in slices that show nothing; if pixels of more than 0.5 make up less than "
    "5 ml (64 mm2 times the slice spacing each), no heart is found",
    "add the slices up and smooth by weights exp(-d^2 / 12.5), d the distance in pixels, 0 beyond "
    "the scout; the voxel at the highest pixel, clipped to the stack and rounded, halves up, is "
    "the center: the grid is centered on its middle, center = (voxel + 0.5) / n",
    "segment the stack on that grid; take the median place on each axis of all pixels of a label "
    "other than 0, each spread evenly over its width (n of N pixels at place k, m before it, the "
    "first with m + n >= N / 2: k - 1/2 + (N / 2 - m) / n), in voxels, clipped to the stack, and "
    "the voxel there, rounded likewise, for the next center; go on until a center comes again, or "
    "eight are done; without a labeled pixel no heart is found",
    "of the segmentations since that center first came, or else the eighth alone, take the one "
    "whose median places lie nearest to the voxel at its center, in mm, ties to the lower row, "
    "then the lower column of that voxel; its median places, not rounded, are the last center, "
    "(place + 0.5) / n, and the stack segmented there counts",
)
_TO_NATIVE = (
    "For each in-plane axis: voxel i lies at q = (i - offset) / step, in network pixels",
    "weight of pixel j: max(0, 1 - |q - j|); 0 for all where q < -0.5 or q > size - 0.5",
    "probability = sum(weight * probability), weights as products of the two axes'; what the "
    "weights lack to 1 is added to label 0",
    "label = argmax of the probabilities rounded to 5 decimals, ties to the lower label",
)


def preprocessing_note(
    how: Preprocessing,
    anatomy: Anatomy,
    *,
    spacing: Sequence[Sequence[float]] | None,
    orientation: str | None = None,
) -> dict[str, Any]:
    """Build the content of `preprocessing.json`.

    Args:
      how: preprocessing of the run.
      anatomy: the label set.
      spacing: smallest and largest training voxel edges (X, Y, slices) in mm; None if unknown.
      orientation: most frequent `Case.orientation` in training; None if unknown.

    Returns:
      A JSON-like dictionary.
    """
    grid = how.grid
    heart = {"heart": list(_HEART)} if grid.center is None else {}
    return {
        "axes": _AXES,
        "orientation": orientation,
        "padding": list(_PADDING),
        "grid": {
            "size": list(grid.size),
            "spacing_mm": grid.spacing,
            "center": grid.center and list(grid.center),
            "meaning": "center: where the grid's center lies, as fractions of the field of view, "
            "or null: at the heart; spacing_mm null: native pixels, cropped or padded",
        },
        **({"bias_field": list(_BIAS_FIELD)} if how.bias_field else {}),
        **heart,
        "to_network": [*_TO_NETWORK[:1], _STEP if grid.spacing else _CROP, *_TO_NETWORK[1:]],
        "intensity": {
            "method": how.normalization,
            "percentiles": list(how.percentiles),
            "meaning": _INTENSITY[how.normalization],
        },
        "input": _tensor(
            *grid.size,
            meaning="the slices of one stack that show something, on the grid and normalized, in "
            "their order along the heart from either end; at least 1",
        ),
        "output": _tensor(
            *grid.size,
            anatomy.num_labels,
            meaning="probabilities of the labels, which sum to 1",
        ),
        "to_native": list(_TO_NATIVE),
        "labels": {str(value): name for value, name in enumerate(anatomy.labels)},
        "slice_regions": _regions(anatomy.slice_regions),
        "case_regions": _regions(anatomy.case_regions),
        "inclusions": [
            {"inner": list(inner), "outer": list(outer)} for inner, outer in anatomy.inclusions
        ],
        "voxel_mm_trained_on": None
        if spacing is None
        else {"smallest": list(spacing[0]), "largest": list(spacing[1])},
    }


def _tensor(*shape: int, meaning: str) -> dict[str, Any]:
    return {"shape": ["batch", *shape], "dtype": "float32", "meaning": meaning}


def _regions(regions: Sequence[Region]) -> dict[str, list[int]]:
    return {name: list(values) for name, values in regions}
