"""Small pathology: volumes and relabeling worked out by hand."""

import numpy as np
import pytest

from jaxseg.anatomy import EMIDEC
from jaxseg.small_lesions import described, smallest_volumes, without_small

PAIRS = EMIDEC.inclusions
SPACING = (2.0, 1.0, 5.0)  # voxels of 10 mm3


@pytest.fixture
def labels():
    """Two slices: 3 voxels of no-reflow and 5 of infarct in myocardium, 80 mm3 of pathology."""
    volume = np.full((4, 4, 2), 2, np.uint8)
    volume[0, :, 0] = 0
    volume[1, :3, 0] = 4
    volume[2:, :, 1] = np.array([[3, 3, 3, 3], [3, 1, 1, 1]])
    return volume


def test_smallest_volumes_by_hand():
    labels = np.zeros((4, 2, 3), np.uint8)
    labels[0, 0] = [3, 3, 4]  # case 0: 2 infarct and 1 no-reflow here,
    labels[1, 1] = [0, 3, 2]  # 1 infarct there: 4 voxels of 10 mm3 with no-reflow, 1 without
    labels[2, 0] = [4, 4, 2]  # case 1: 2 voxels of 7 mm3, all of them no-reflow
    labels[3] = 2  # case 2 holds none
    found = smallest_volumes(labels, np.array([0, 0, 1, 2]), [10.0, 7.0, 1.0], PAIRS)
    assert found == [10.0, 14.0]
    assert smallest_volumes(labels[3:], np.array([2]), [10.0, 7.0, 1.0], PAIRS) == [None, None]
    # No-reflow is measured alone where infarct is held without it.
    assert smallest_volumes(labels[1:2], np.array([0]), [10.0], PAIRS) == [None, 10.0]


def test_what_is_large_enough_stays(labels):
    for smallest in ([30.0, 80.0], [None, None], [0.5, 80.0]):
        np.testing.assert_array_equal(without_small(labels, SPACING, PAIRS, smallest), labels)


def test_small_no_reflow_becomes_infarct_and_counts_as_such(labels):
    found = without_small(labels, SPACING, PAIRS, [31.0, 80.0])
    assert found.dtype == np.uint8
    expected = np.where(labels == 4, 3, labels)
    np.testing.assert_array_equal(found, expected)


def test_a_small_infarct_becomes_myocardium_with_its_no_reflow(labels):
    expected = np.where(labels >= 3, 2, labels)
    for smallest in ([31.0, 80.5], [30.0, 81.0], [None, 81.0]):
        before = labels.copy()
        np.testing.assert_array_equal(without_small(labels, SPACING, PAIRS, smallest), expected)
        np.testing.assert_array_equal(labels, before)


def test_a_pair_without_a_surrounding_label_is_left_alone(labels):
    pairs = (((3, 4), (3, 4)),)
    np.testing.assert_array_equal(without_small(labels, SPACING, pairs, [1e6]), labels)


def test_it_is_said_in_milliliters():
    sentence = described(EMIDEC, [390.0, 2417.0])
    assert sentence.endswith(
        "surrounds it: no-reflow below 0.39 ml, no-reflow + infarct below 2.42 ml."
    )
    assert described(EMIDEC, [None, 2417.0]).endswith("it: no-reflow + infarct below 2.42 ml.")
    assert described(EMIDEC, [None, None]).endswith("nothing, as no training case holds any.")
