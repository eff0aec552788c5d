"""The mixup figure: pairs by rule, and panels that show what mixup computes."""

import numpy as np
import pytest

from jaxseg.data import Cohort
from jaxseg.mixup import pathology_mixup
from jaxseg.reports.mixup_figure import caption, choose_pairs, mixup_figure
from jaxseg.reports.pictures import overlay, soft_overlay

NAMES = ("background", "cavity", "myocardium", "infarct")
GRID = np.stack(np.meshgrid(np.arange(24), np.arange(24), indexing="ij"))


def heart(row, column, radius, infarct=False):
    distance = np.hypot(GRID[0] - row, GRID[1] - column)
    label = np.where(distance <= radius, 2, 0)
    label[distance <= radius / 2] = 1
    if infarct:
        label[(label == 2) & (GRID[0] > row)] = 3
    return label.astype(np.uint8)


def cohort(labels, heights, cases):
    labels = np.stack(labels)
    rng = np.random.default_rng(0)
    return Cohort(
        images=rng.normal(size=labels.shape).astype(np.float32),
        labels=labels,
        heights=np.array(heights, np.float32),
        case_index=np.array(cases, np.int32),
        slice_index=np.arange(len(labels), dtype=np.int32),
        case_names=tuple(f"Case_{k}" for k in range(max(cases) + 1)),
    )


def two_hearts():
    """A heart with infarct, and a healthy one of the same size 3 pixels down and 2 left."""
    return cohort([heart(9, 12, 6, infarct=True), heart(12, 10, 6)], [0.5, 0.5], [0, 1])


def panel(figure, row, column, columns=6):
    return np.asarray(figure.axes[row * columns + column].images[0].get_array())


def test_pairs_by_hand():
    healthy, sick, empty = (
        heart(9, 9, 6),
        heart(9, 9, 6, infarct=True),
        np.zeros((24, 24), np.uint8),
    )
    slices = cohort(
        [sick, healthy, sick, healthy, empty, healthy, healthy],
        [0.20, 0.60, 0.90, 0.25, 0.55, 0.65, 0.60],
        [0, 0, 1, 2, 2, 3, 0],
    )
    # Slice 0 (case 0): of heights 0.1 .. 0.3 only slice 3 is of another case. Slice 2 (case 1) has
    # none. Slice 3 (case 2): slice 0. Slice 5 (case 3): 1 or 6, as 4 is empty.
    pairs = choose_pairs(slices, count=9, tolerance=0.1)
    assert pairs[:2] == [(0, 3), (3, 0)]
    assert len(pairs) == 3
    assert pairs[2][0] == 5
    assert choose_pairs(slices, count=2, tolerance=0.1) == pairs[:2]
    assert choose_pairs(slices, count=0, tolerance=0.1) == []
    drawn = {choose_pairs(slices, count=3, tolerance=0.1, seed=seed)[2] for seed in range(12)}
    assert drawn == {(5, 1), (5, 6)}
    assert (2, 5) in choose_pairs(slices, count=9, tolerance=0.25)


def test_empty_slices_are_not_fixed_slices():
    slices = cohort([heart(9, 9, 6), np.zeros((24, 24), np.uint8)], [0.5, 0.5], [0, 1])
    assert choose_pairs(slices, count=2, tolerance=1.0) == []
    with pytest.raises(ValueError, match="pair"):
        mixup_figure(slices, NAMES, tolerance=1.0)


def test_panels_of_a_pure_translation_by_hand():
    slices = two_hearts()
    figure = mixup_figure(slices, NAMES, tolerance=0.1, count=1, lambdas=(0.25,), margin=24)
    fixed, moving = slices.images
    # The moving slice's center must come 3 pixels up and 2 to the right; the rest is 0.
    registered = np.zeros_like(moving)
    registered[:-3, 2:] = moving[3:, :-2]
    inside = slices.labels[0] > 0
    mixed = np.where(inside, 0.75 * registered + 0.25 * fixed, fixed)
    window = tuple(np.percentile(slices.images, (1, 99)))
    nothing = np.zeros((24, 24), np.uint8)
    for column, image in enumerate((fixed, moving, registered, mixed)):
        expected = overlay(image, nothing, window=window).transpose(1, 0, 2)
        np.testing.assert_allclose(panel(figure, 0, column, 4), expected, atol=1e-4)
    # The registered labels are those of the fixed slice, but for the infarct.
    healthy = np.where(slices.labels[0] == 3, 2, slices.labels[0])
    expected = overlay(registered, healthy, window=window).transpose(1, 0, 2)
    np.testing.assert_allclose(panel(figure, 1, 2, 4), expected, atol=1e-4)
    # A quarter of the infarct is left: its color and the myocardium's blend 1 : 3.
    probabilities = 0.75 * np.eye(4)[healthy] + 0.25 * np.eye(4)[slices.labels[0]]
    expected = soft_overlay(mixed, probabilities, window=window).transpose(1, 0, 2)
    np.testing.assert_allclose(panel(figure, 1, 3, 4), expected, atol=1e-4)


def test_panels_show_what_mixup_computes():
    slices = cohort([heart(9, 12, 7, infarct=True), heart(13, 10, 4)], [0.4, 0.5], [0, 1])
    figure = mixup_figure(slices, NAMES, tolerance=0.1, margin=24)
    window = tuple(np.percentile(slices.images, (1, 99)))
    # Two pairs, each slice fixed once; the one of more labels first.
    for row, (fixed, moving) in enumerate([(0, 1), (1, 0)]):
        for column, lam in enumerate((0.25, 0.5, 0.75)):
            image, probabilities = map(np.asarray, pathology_mixup(
                slices.images[fixed], slices.labels[fixed], slices.images[moving],
                slices.labels[moving], lam, num_labels=4,
            ))  # fmt: skip
            expected = soft_overlay(image, probabilities, window=window).transpose(1, 0, 2)
            np.testing.assert_allclose(panel(figure, 2 * row + 1, 3 + column), expected, atol=1e-5)


def test_texts_and_contours():
    assert "0.15" in caption(tolerance=0.15)
    figure = mixup_figure(two_hearts(), NAMES, tolerance=0.1, count=1)
    assert [axis.get_title() for axis in figure.axes[:6]] == [
        "fixed F", "moving M", "registered M∘T",
        "mixed, λ = 0.25", "mixed, λ = 0.5", "mixed, λ = 0.75",
    ]  # fmt: skip
    assert [figure.axes[k].get_ylabel() for k in (0, 6)] == ["image", "labels"]
    notes = [[text.get_text() for text in axis.texts] for axis in figure.axes]
    assert notes[:3] == [
        ["Case_0 slice 0\nheight 0.50"],
        ["Case_1 slice 1\nheight 0.50"],
        ["s = 1.00"],
    ]
    assert notes[3:] == [[]] * 9
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["cavity", "myocardium", "infarct", "foreground of F"]
    # On every image that lies on F's grid, so not on M, nor on the labels.
    expected = [True, False, *[True] * 4, *[False] * 6]
    assert [bool(axis.collections) for axis in figure.axes] == expected


def test_the_contour_surrounds_the_fixed_foreground():
    figure = mixup_figure(two_hearts(), NAMES, tolerance=0.1, count=1, margin=24)
    points = np.concatenate([p.vertices for p in figure.axes[0].collections[0].get_paths()])
    # x along the first axis: center 9 and radius 6, half a pixel beyond the outermost centers.
    np.testing.assert_allclose([points[:, 0].min(), points[:, 0].max()], [2.5, 15.5])
    np.testing.assert_allclose([points[:, 1].min(), points[:, 1].max()], [5.5, 18.5])


def test_the_crop_contains_both_hearts():
    figure = mixup_figure(two_hearts(), NAMES, tolerance=0.1, count=1, margin=1)
    # Rows 3 .. 18, columns 4 .. 18: 16 wide, and a pixel around.
    assert {panel(figure, row, k).shape for row in (0, 1) for k in range(6)} == {(18, 18, 3)}
