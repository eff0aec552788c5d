"""`preprocessing.json` is sufficient: followed here without the package."""

import json

import numpy as np
import pytest

from jaxseg.anatomy import EMIDEC
from jaxseg.data import Grid, Preprocessing, load_case, most_probable, tissue_of, to_network
from jaxseg.inference.predictor import make_predictor
from jaxseg.reports.preprocessing_note import preprocessing_note
from jaxseg.runs.trained import load_run
from tests import by_note


def test_following_preprocessing_json_gives_the_label_map(bundle_folder, command_line):
    run = load_run(bundle_folder)
    case = load_case(command_line.phantom / "Case_P001")
    edges = case.header["pixdim"][1:4].astype(float)
    note = by_note.read(bundle_folder)
    _, labels = by_note.segment(bundle_folder, note, case.image, edges)
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
    found = by_note.on_grid(note, image, (1.1, 1.9))
    wanted = to_network(image, (1.1, 1.9, 8), grid, tissue_of(image))
    for theirs, ours in zip(found, wanted, strict=True):
        np.testing.assert_allclose(theirs, ours, atol=1e-5)


def test_labels_regions_and_prior():
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
    assert note["input"]["shape"] == ["batch", 96, 96]
    assert note["output"]["shape"] == ["batch", 96, 96, 5]
