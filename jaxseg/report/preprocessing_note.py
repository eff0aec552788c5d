"""What others need to feed an exported network and to read its output, as data.

The formulas restate `jaxseg.data.grid` and `jaxseg.data.preprocess`; a test follows them without
either, to the same label map.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from jaxseg.anatomy import Anatomy, Region
from jaxseg.data import Grid

_AXES = (
    "A stack is the array (X, Y, slices) as stored in the NIfTI file; the affine turns and flips "
    "nothing. Slice k is image[:, :, k], its rows along X and its columns along Y. Voxel size is "
    "pixdim in mm."
)
_STEP = "step = spacing_mm / voxel size; offset = center * n + (0.5 - size / 2) * step - 0.5"
_CROP = "step = 1; offset = floor(center * n - size / 2 + 0.5)"
_TO_NETWORK = (
    "For each in-plane axis, of n voxels counted from 0 at their centers:",
    "network pixel j lies at p = offset + j * step, in voxels",
    "weight of voxel i: max(0, 1 - |p - i| / max(1, step)), over the sum of these for all whole i, "
    "also those outside the stack",
    "a pixel's weights are the products of the two axes'",
    "pixel = sum(weight * value) / sum(weight where value != 0) if the latter sum is at least "
    "0.5 - 1e-9, else 0, which is padding",
)
_INTENSITY = {
    "zscore": "of all pixels of the stack that are not exactly 0: clip at the two percentiles, "
    "subtract their mean, divide by their standard deviation; the others stay 0",
    "percentile": "of all pixels of the stack that are not exactly 0: clip at the two percentiles, "
    "map these to 0 and 1; the others stay 0",
    "none": "as they are",
}
_TO_NATIVE = (
    "For each in-plane axis: voxel i lies at q = (i - offset) / step, in network pixels",
    "weight of pixel j: max(0, 1 - |q - j|); 0 for all where q < -0.5 or q > size - 0.5",
    "probability = sum(weight * probability), weights as products of the two axes'; what the "
    "weights lack to 1 is added to label 0",
    "label = argmax of the probabilities rounded to 5 decimals, ties to the lower label",
)

_NEIGHBORS = (
    "; channel c is slice k - {0} + c of the stack, k being the slice to segment, and the first or "
    "the last slice where there is none"
)


def preprocessing_note(
    *,
    grid: Grid,
    anatomy: Anatomy,
    intensity: Mapping[str, Any],
    spacing: Sequence[Sequence[float]] | None,
    slices: int = 1,
) -> dict[str, Any]:
    """Content of `preprocessing.json`.

    Args:
      grid: the network grid.
      anatomy: the label set.
      intensity: the settings' `method`, `low` and `high`.
      spacing: smallest and largest voxel edges (X, Y, slices) trained on, mm; None if unknown.
      slices: input channels, a slice and its neighbors; odd.

    Returns:
      JSON-like.
    """
    return {
        "axes": _AXES,
        "grid": {
            "size": list(grid.size),
            "spacing_mm": grid.spacing,
            "center": list(grid.center),
            "meaning": "center: where the grid's center lies, as fractions of the field of view; "
            "spacing_mm null: native pixels, cropped or padded",
        },
        "to_network": [*_TO_NETWORK[:1], _STEP if grid.spacing else _CROP, *_TO_NETWORK[1:]],
        "intensity": {
            "method": intensity["method"],
            "percentiles": [intensity["low"], intensity["high"]],
            "meaning": _INTENSITY[intensity["method"]],
        },
        "input": {
            "shape": ["batch", *grid.size, *([slices] if slices > 1 else [])],
            "dtype": "float32",
            "meaning": "slices on the grid, normalized; any number of at least 1"
            + (_NEIGHBORS.format(slices // 2) if slices > 1 else ""),
        },
        "output": {
            "shape": ["batch", *grid.size, anatomy.num_labels],
            "dtype": "float32",
            "meaning": "probabilities of the labels, which sum to 1",
        },
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


def _regions(regions: Sequence[Region]) -> dict[str, list[int]]:
    return {name: list(values) for name, values in regions}
