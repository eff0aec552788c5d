"""Scores of a case by hand."""

import math

import numpy as np
import pytest

from jaxseg.anatomy import EMIDEC, Anatomy, enclosing_region
from jaxseg.evaluation.case_scores import AREAS, MEASURES, SIDES, score_case

SPACING = (2.0, 1.0, 10.0)  # a voxel is 20 mm3, a pixel 2 mm2
REGIONS = [name for name, _ in EMIDEC.case_regions]


def maps():
    """Slice 0 equal; slice 1 off by one row; slice 2 only predicted, no-reflow away from all."""
    reference = np.zeros((8, 6, 3), np.uint8)
    reference[1:5, 1:5, :2] = 2
    reference[2:4, 2:4, 0] = 3
    prediction = reference.copy()
    prediction[..., 1] = np.roll(reference[..., 1], 1, axis=0)
    prediction[6, 2, 2] = 4
    return prediction, reference


def region(scores, name):
    return dict(zip(MEASURES, scores.regions[REGIONS.index(name)].tolist(), strict=True))


@pytest.fixture(scope="module")
def scores():
    return score_case("A", *maps(), SPACING, EMIDEC)


def test_slices(scores):
    assert (scores.name, scores.num_slices, scores.slices.tolist()) == ("A", 3, [0, 1, 2])
    nan = math.nan
    # Columns LV, Myo, Inf, NoR; slice 1 overlaps in 3 of 4 rows.
    wanted = [[nan, 1, 1, nan], [nan, 0.75, nan, nan], [nan, nan, nan, nan]]
    np.testing.assert_allclose(scores.slice_dsc, wanted)


def test_pixels_of_slices(scores):
    """Columns: intersection, prediction, reference."""
    wanted = [[0, 0, 0], [12 + 12, 12 + 16, 12 + 16], [4, 4, 4], [0, 1, 0]]
    assert scores.slice_counts.shape == (3, 4, 3)
    assert scores.slice_counts.sum(0).tolist() == wanted
    assert scores.slice_counts[1, 1].tolist() == [12, 16, 16]


def test_the_myocardium(scores):
    """Reference 32 voxels; prediction 33, of which 16 + 12 overlap."""
    found = region(scores, "Myocardium")
    assert found["dsc"] == found["dsc_challenge"] == pytest.approx(2 * 28 / 65)
    assert (found["reference_mm3"], found["prediction_mm3"]) == (640, 660)
    assert found["volume_difference_mm3"] == 20
    assert math.isnan(found["volume_difference_ratio"])  # nothing encloses it
    # The stray voxel (6, 2, 2): nearest is (4, 2, 1), 2 rows and a slice away.
    assert found["hausdorff_mm"] == pytest.approx(math.hypot(2 * 2, 10))
    assert found["hd95_mm"] < found["hausdorff_mm"]


def test_the_infarct_is_related_to_the_whole_myocardium(scores):
    found = region(scores, "Infarction")
    assert found["dsc"] == pytest.approx(2 * 4 / 9)
    assert found["volume_difference_mm3"] == 20
    assert found["volume_difference_ratio"] == pytest.approx(20 / 640)


def test_a_region_missing_on_one_side_scores_0(scores):
    found = region(scores, "NoReflow")
    assert found["dsc"] == found["dsc_challenge"] == 0
    assert math.isnan(found["hausdorff_mm"])
    assert found["volume_difference_ratio"] == pytest.approx(20 / 640)


def test_a_region_missing_on_both_sides_is_undefined():
    empty = np.zeros((4, 4, 2), np.uint8)
    scores = score_case("A", empty, empty, SPACING, EMIDEC)
    for name in REGIONS:
        found = region(scores, name)
        assert math.isnan(found["dsc"])
        assert found["dsc_challenge"] == 1
        assert found["volume_difference_mm3"] == 0
        assert math.isnan(found["volume_difference_ratio"])  # there is no myocardium


def test_inclusion_areas(scores):
    """The stray no-reflow touches nothing, as no-reflow in infarct and as infarct in the wall."""
    assert (SIDES, AREAS) == (
        ("reference", "prediction"), ("inner_mm2", "detached_mm2", "gap_mm2")
    )  # fmt: skip
    np.testing.assert_array_equal(scores.inclusion[0], [[0, 0, 0], [8, 0, 0]])
    np.testing.assert_array_equal(scores.inclusion[1], [[2, 2, 0], [10, 2, 0]])


def test_a_crack_between_infarct_and_wall_is_found():
    reference = np.zeros((7, 7, 1), np.uint8)
    reference[1:6, 1:6, 0] = 2
    reference[3, 3, 0] = 3
    prediction = reference.copy()
    prediction[2, 3, 0] = 0
    scores = score_case("A", prediction, reference, SPACING, EMIDEC)
    assert scores.inclusion[:, 1, 2].tolist() == [0, 2]


def test_only_held_out_slices_count_and_keep_their_place():
    prediction, reference = maps()
    held = np.array([True, False, True])
    scores = score_case("A", prediction, reference, SPACING, EMIDEC, held_out=held)
    assert (scores.num_slices, scores.slices.tolist()) == (3, [0, 2])
    assert scores.slice_dsc.shape == (2, 4)
    found = region(scores, "Myocardium")
    assert (found["reference_mm3"], found["prediction_mm3"]) == (320, 340)
    assert found["dsc"] == pytest.approx(2 * 16 / 33)
    # From (6, 2, 2) to (4, 2, 0): two slices, not one, although slice 1 is out.
    assert found["hausdorff_mm"] == pytest.approx(math.hypot(2 * 2, 20))
    assert maps()[0].any(axis=(0, 1)).all()
    np.testing.assert_array_equal(prediction, maps()[0])


def test_the_enclosing_region_is_the_largest_that_holds_it():
    assert enclosing_region((4,), EMIDEC.case_regions) == (2, 3, 4)
    assert enclosing_region((3, 4), EMIDEC.case_regions) == (2, 3, 4)
    assert enclosing_region((2, 3, 4), EMIDEC.case_regions) is None
    assert enclosing_region((1,), EMIDEC.case_regions) is None


def test_an_anatomy_without_a_prior():
    anatomy = Anatomy(("background", "scar"), (), (("Scar", (1,)),), (("Scar", (1,)),))
    label = np.ones((3, 3, 2), np.uint8)
    scores = score_case("A", label, label, SPACING, anatomy)
    assert scores.inclusion.shape == (2, 0, 3)
    assert scores.slice_dsc.tolist() == [[1], [1]]
