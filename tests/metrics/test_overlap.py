"""Overlap against values counted by hand, and against SimpleITK."""

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from jaxseg import metrics
from tests.metrics.label_maps import SPACINGS, blobs, drawn, sitk_image

REGIONS = (("One", (1,)), ("Either", (1, 2)), ("Four", (4,)))
A, B = np.ones((2, 3), int), np.ones((2, 3), int)


def test_dice_by_hand():
    prediction = drawn("112.", "1334")
    reference = drawn("11..", "1244")
    assert metrics.dice(prediction, reference, 1) == 1.0
    assert metrics.dice(prediction, reference, 4) == pytest.approx(2 * 1 / (1 + 2))
    assert metrics.dice(prediction, reference, 2) == 0.0
    # The union counts a 3 for a 4 as right: 2 * 2 / (3 + 2).
    assert metrics.dice(prediction, reference, (3, 4)) == pytest.approx(0.8)


def test_dice_of_empty_masks():
    some, none = drawn("1."), drawn("..")
    assert np.isnan(metrics.dice(none, none, 1))
    assert metrics.dice(none, none, 1, empty=1.0) == 1.0
    assert metrics.dice(some, none, 1, empty=1.0) == 0.0
    assert metrics.dice(none, some, 1, empty=1.0) == 0.0


@pytest.mark.parametrize("labels", [1, (1, 2)])
@pytest.mark.parametrize("shape", [(11, 9), (5, 11, 9)])
def test_dice_agrees_with_simpleitk(shape, labels):
    prediction, reference = blobs(0, shape), blobs(1, shape)
    overlap = sitk.LabelOverlapMeasuresImageFilter()
    masks = [np.isin(m, labels) for m in (prediction, reference)]
    overlap.Execute(*(sitk_image(mask, SPACINGS[len(shape)]) for mask in masks))
    expected = overlap.GetDiceCoefficient(1)
    assert 0 < expected < 1
    assert metrics.dice(prediction, reference, labels) == pytest.approx(expected, abs=1e-12)
    assert metrics.dice(reference, prediction, labels) == pytest.approx(expected, abs=1e-12)


def test_slice_scores_by_hand():
    prediction = np.stack([drawn("112", "..4"), drawn("...", "..."), drawn("144", "...")])
    reference = np.stack([drawn("122", "..."), drawn("1..", "..."), drawn("..4", "...")])
    nan = np.nan
    expected = [
        # 2*1/(2+1); 3 of 3; a 4 predicted where the slice holds none is not counted.
        [2 / 3, 1.0, nan],
        [0.0, 0.0, nan],
        [nan, nan, 2 / 3],
    ]
    np.testing.assert_allclose(metrics.slice_scores(prediction, reference, REGIONS), expected)


def test_slice_counts_by_hand():
    """Intersection, prediction, reference."""
    prediction = np.stack([drawn("112", "..4"), drawn("144", "...")])
    reference = np.stack([drawn("122", "..."), drawn("..4", "...")])
    counts = metrics.slice_counts(prediction, reference, [("one", (1,)), ("both", (2, 4))])
    assert counts.tolist() == [[[1, 2, 1], [1, 2, 2]], [[0, 1, 0], [1, 2, 1]]]


def test_dice_from_counts_by_hand():
    scores = metrics.dice_from_counts([3, 0, 0], [4, 0, 5], [8, 0, 0])
    np.testing.assert_allclose(scores, [0.5, np.nan, 0.0])
    assert metrics.dice_from_counts(0, 0, 0, empty=1.0) == 1.0


def test_summarize_by_hand():
    nan = np.nan
    mean, std, n = metrics.summarize(
        [[0.2, nan, 0.5, 0.0], [0.6, nan, nan, 0.0], [nan, nan, nan, 3.0]]
    )
    np.testing.assert_allclose(mean, [0.4, nan, 0.5, 1.0])
    # Sample: sqrt((0.04 + 0.04) / 1), sqrt((1 + 1 + 4) / 2).
    np.testing.assert_allclose(std, [np.sqrt(0.08), nan, nan, np.sqrt(3)])
    np.testing.assert_array_equal(n, [2, 0, 1, 3])
    assert [list(v) for v in metrics.summarize(np.zeros((0, 1)))[2:]] == [[0]]


def test_bad_stacks_and_regions_are_refused():
    stack = np.ones((2, 3, 4), np.int32)
    with pytest.raises(ValueError, match=r"expected one shape \(N, H, W\)"):
        metrics.slice_scores(A, B, REGIONS)
    with pytest.raises(ValueError, match=r"^regions: expected at least one"):
        metrics.slice_scores(stack, stack, ())
    with pytest.raises(ValueError, match=r"^scores: expected shape \(N, R\)"):
        metrics.summarize([0.5])
