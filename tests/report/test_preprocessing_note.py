"""What the note says is all that it takes: followed here without the package."""

import json

import jax.export
import numpy as np
import pytest

from jaxseg.anatomy import EMIDEC
from jaxseg.data import (
    Grid,
    Preprocessing,
    load_case,
    most_probable,
    tissue_of,
    to_network,
)
from jaxseg.predictor import make_predictor
from jaxseg.report.preprocessing_note import preprocessing_note
from jaxseg.trained import load_run
from tests.by_hand import picture


def geometry(note, axis, n, edge):
    """Offset and step of one axis, by the formula that the note gives."""
    size, center = note["grid"]["size"][axis], note["grid"]["center"][axis]
    spacing = note["grid"]["spacing_mm"]
    if spacing is None:
        assert note["to_network"][1] == "step = 1; offset = floor(center * n - size / 2 + 0.5)"
        return np.floor(center * n - size / 2 + 0.5), 1.0
    assert note["to_network"][1].startswith("step = spacing_mm / voxel size; offset = center * n +")
    step = spacing / edge
    return center * n + (0.5 - size / 2) * step - 0.5, step


def forward(note, axis, n, edge):
    """(size, n) weights."""
    offset, step = geometry(note, axis, n, edge)
    p = offset + np.arange(note["grid"]["size"][axis])[:, None] * step
    everywhere = np.arange(-1000, n + 1000)
    weights = np.maximum(0, 1 - np.abs(p - everywhere) / max(1, step))
    return (weights / weights.sum(1, keepdims=True))[:, 1000 : 1000 + n]


def backward(note, axis, n, edge):
    """(n, size) weights."""
    offset, step = geometry(note, axis, n, edge)
    size = note["grid"]["size"][axis]
    q = (np.arange(n)[:, None] - offset) / step
    weights = np.maximum(0, 1 - np.abs(q - np.arange(size)))
    return np.where((q < -0.5) | (q > size - 0.5), 0, weights)


def on_grid(note, image, edges):
    """Pixels on the grid, 0 in padding, and which are tissue."""
    rows, columns = (forward(note, k, image.shape[k], edges[k]) for k in (0, 1))
    shown = np.moveaxis(picture(image), -1, 0)
    total = rows @ np.where(shown, np.moveaxis(image.astype(float), -1, 0), 0) @ columns.T
    covered = rows @ shown @ columns.T
    tissue = covered >= 0.5 - 1e-9
    return np.divide(total, covered, out=np.zeros_like(total), where=tissue), tissue


def test_a_stranger_gets_the_label_map_of_predict(bundle_folder, command_line):
    run = load_run(bundle_folder)
    case = load_case(command_line.phantom / "Case_P001")
    note = json.loads((bundle_folder / "preprocessing.json").read_text())
    edges = case.header["pixdim"][1:4].astype(float)
    pixels, tissue = on_grid(note, case.image, edges)
    assert note["intensity"]["method"] == "zscore"
    values = np.clip(
        pixels[tissue], *np.percentile(pixels[tissue], note["intensity"]["percentiles"])
    )
    pixels[tissue] = (values - values.mean()) / values.std()
    artifact = (bundle_folder / "model.stablehlo").read_bytes()
    network = jax.export.deserialize(bytearray(artifact))
    assert list(pixels.shape[1:]) == note["input"]["shape"][1:]
    probabilities = np.asarray(network.call(pixels.astype(note["input"]["dtype"])))
    assert list(probabilities.shape[1:]) == note["output"]["shape"][1:]
    assert probabilities.dtype == note["output"]["dtype"]
    rows, columns = (backward(note, k, case.image.shape[k], edges[k]) for k in (0, 1))
    native = np.einsum("xr,srcl,yc->xysl", rows, probabilities, columns)
    native[..., 0] += 1 - np.outer(rows.sum(1), columns.sum(1))[..., None]
    labels = np.round(native, 5).argmax(-1)
    wanted = most_probable(make_predictor([run])(case).probabilities)
    assert len(np.unique(wanted)) == len(note["labels"]) == 5
    # What the batch rounds otherwise may tip a voxel between two labels.
    assert (labels == wanted).mean() > 0.9999


@pytest.mark.parametrize("spacing", [None, 0.7, 1.3, 2.9])
@pytest.mark.parametrize("center", [(0.5, 0.5), (0.1, 0.83)])
def test_the_formulas_hold_for_any_grid(spacing, center):
    grid = Grid(size=(12, 16), spacing=spacing, center=center)
    note = preprocessing_note(Preprocessing(grid, 5), EMIDEC, spacing=None)
    image = np.random.default_rng(0).integers(0, 4, (21, 18, 2))
    found = on_grid(note, image, (1.1, 1.9))
    wanted = to_network(image, (1.1, 1.9, 8), grid, tissue_of(image))
    for by_note, ours in zip(found, wanted, strict=True):
        np.testing.assert_allclose(by_note, ours, atol=1e-5)


def test_labels_regions_and_the_prior_by_value():
    spacing = [[1.0, 1.25, 8.0], [2.0, 2.5, 13.0]]
    how = Preprocessing(Grid(), 5, "percentile", (2.0, 98.0))
    note = preprocessing_note(how, EMIDEC, spacing=spacing)
    assert note == json.loads(json.dumps(note))
    assert note["labels"]["4"] == "no-reflow"
    assert note["slice_regions"] == {"LV": [1], "Myo": [2], "Inf": [3], "NoR": [4]}
    assert note["case_regions"]["Infarction"] == [3, 4]
    assert note["inclusions"][1] == {"inner": [4, 3], "outer": [4, 3, 2]}
    assert note["voxel_mm_trained_on"] == {"smallest": spacing[0], "largest": spacing[1]}
    assert note["intensity"]["percentiles"] == [2.0, 98.0]
    assert "map these to 0 and 1" in note["intensity"]["meaning"]
    assert note["input"]["shape"] == ["batch", 96, 96]
    assert note["output"]["shape"] == ["batch", 96, 96, 5]
