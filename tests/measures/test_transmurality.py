"""Chords through hearts whose answer is known, to 1 % of what is measured."""

import numpy as np
import pytest

from jaxseg.anatomy import EMIDEC
from jaxseg.measures.heart import HeartLabels
from jaxseg.measures.transmurality import Chords, angles, measure_chords, summarize
from tests.measures.shapes import plane, ring

HEART = HeartLabels.of(EMIDEC)
FINE = (0.25, 0.25)
PIXELS = [FINE, (0.2, 0.5), (0.5, 0.25)]


def chords(label_map, pixel=FINE) -> Chords:
    return measure_chords(label_map[..., None], HEART, (*pixel, 8.0))


def measured(label_map, pixel=FINE):
    return summarize(chords(label_map, pixel))


@pytest.mark.parametrize("pixel", [*PIXELS, (1.4, 1.4), (1.5, 0.75)])
@pytest.mark.parametrize("shift", [(0, 0), (0.3, -0.2), (-0.45, 0.15)])
def test_a_subendocardial_annulus(pixel, shift):
    found = measured(ring(pixel, infarct=(0, 0.5, 0, 360), shift=shift), pixel)
    assert (found.chords_measured, found.chords_open) == (100, 0)
    assert found.wall_thickness_mm == pytest.approx(10, rel=0.01)
    assert found.transmurality_mean_percent == pytest.approx(50, abs=2 if pixel[0] > 1 else 1)
    assert found.infarcted_percent_of_chords == 100
    assert found.transmurality_over_25_percent_of_chords == 100
    assert found.transmurality_over_75_percent_of_chords == 0
    assert found.subendocardial_extent_percent == pytest.approx(100)


@pytest.mark.parametrize("pixel", PIXELS)
@pytest.mark.parametrize(
    ("depth", "width", "over"),
    [(1.0, 90, (25, 25, 25)), (0.3, 198, (55, 0, 0)), (0.6, 252, (70, 70, 0))],
)
def test_sectors(pixel, depth, width, over):
    """They begin between two chords, so that a whole number of chords crosses them."""
    found = measured(ring(pixel, infarct=(0, depth, 8.9, width)), pixel)
    share = 100 * width / 360
    assert found.infarcted_percent_of_chords == pytest.approx(share, abs=1)
    assert found.subendocardial_extent_percent == pytest.approx(share, abs=1)
    assert found.transmurality_mean_percent == pytest.approx(100 * depth, abs=1)
    counts = [
        found.transmurality_over_25_percent_of_chords,
        found.transmurality_over_50_percent_of_chords,
        found.transmurality_over_75_percent_of_chords,
    ]
    assert counts == pytest.approx(over, abs=1)


def test_a_subepicardial_infarct_has_no_subendocardial_extent():
    found = measured(ring(FINE, infarct=(0.5, 1, 8.9, 90)))
    assert found.transmurality_mean_percent == pytest.approx(50, abs=1)
    assert found.subendocardial_extent_percent == 0
    rim = measured(ring(FINE, infarct=(0.15, 1, 8.9, 90)))  # as contours leave it
    assert rim.subendocardial_extent_percent == pytest.approx(25, abs=1)


def test_directions_follow_the_displayed_image():
    """An infarct to the upper right: along the first axis, against the second."""
    label_map = ring(FINE, infarct=(0, 1, 28, 34))
    x, y = (label_map == 3).nonzero()
    assert x.mean() > label_map.shape[0] / 2
    assert y.mean() < label_map.shape[1] / 2
    found = angles()[chords(label_map).infarcted[0]]
    assert (found.min(), found.max()) == pytest.approx((28.8, 61.2))


@pytest.mark.parametrize("pixel", PIXELS)
def test_an_epicardium_off_the_center(pixel):
    """Distance from a point to a circle around another one, by the law of cosines."""
    off = 6.0
    radius, direction = plane(pixel)
    turn = np.deg2rad(direction)
    from_epi = np.hypot(radius * np.cos(turn) - off, radius * np.sin(turn))
    label_map = np.where(radius < 20, 1, np.where(radius < 26, 3, 2)).astype(np.uint8)
    label_map[from_epi >= 35] = 0
    turn = np.deg2rad(angles())
    wall = off * np.cos(turn) + np.sqrt(35**2 - (off * np.sin(turn)) ** 2) - 20
    found = chords(label_map, pixel)
    np.testing.assert_allclose(found.wall_mm[0], wall, atol=0.5)
    assert found.wall_mm.mean() == pytest.approx(wall.mean(), rel=0.01)
    assert found.infarct.mean() == pytest.approx((6 / wall).mean(), rel=0.01)


@pytest.mark.parametrize("pixel", PIXELS)
def test_the_endocardium_of_an_ellipse_is_measured_along_its_length(pixel):
    radius, direction = plane(pixel)
    turn = np.deg2rad(direction)
    right, up = radius * np.cos(turn), radius * np.sin(turn)
    label_map = (np.hypot(right / 38, up / 26) < 1) * np.uint8(2)
    label_map[np.hypot(right / 30, up / 15) < 1] = 1
    label_map[(label_map == 2) & (np.abs((direction + 180) % 360 - 180) < 30)] = 3
    t = np.linspace(-np.pi, np.pi, 100_000)
    length = np.hypot(30 * np.sin(t), 15 * np.cos(t))
    inside = np.abs(np.degrees(np.arctan2(15 * np.sin(t), 30 * np.cos(t)))) < 30
    share = 100 * length[inside].sum() / length.sum()
    found = measured(label_map, pixel).subendocardial_extent_percent
    assert abs(share - 100 / 6) > 4  # chords alone would be wrong
    assert found == pytest.approx(share, abs=1)


def test_no_reflow_within_the_infarct():
    found = chords(ring(FINE, infarct=(0, 0.8, 8.9, 180), no_reflow=(0, 0.4, 8.9, 90)))
    assert found.infarct[0, 10] == pytest.approx(0.8, abs=0.03)
    assert found.no_reflow[0, 10] == pytest.approx(0.4, abs=0.03)
    assert found.no_reflow[0, 40] == 0
    alone = HeartLabels((1,), (2, 3, 4), (3, 4), ())
    label_map = ring(FINE, infarct=(0, 0.8, 0, 90))[..., None]
    assert (measure_chords(label_map, alone, (*FINE, 8)).no_reflow == 0).all()


def test_an_open_wall_leaves_the_other_chords():
    """As with an outflow tract: cavity and background meet over 72 degrees."""
    whole, opened = (
        chords(ring(FINE, infarct=(0, 0.5, 190, 90), gap=gap)) for gap in (None, (8.9, 72))
    )
    assert opened.open[0].sum() == pytest.approx(20, abs=1)
    there = opened.measured[0]
    np.testing.assert_array_equal(there, ~opened.open[0])
    np.testing.assert_array_equal(opened.infarct[0, there], whole.infarct[0, there])
    assert np.isnan(opened.infarct[0, ~there]).all()
    found = summarize(opened)
    assert found.subendocardial_extent_percent == pytest.approx(90 / 288 * 100, abs=1)
    assert found.infarcted_percent_of_chords == pytest.approx(90 / 288 * 100, abs=1)


def test_a_slice_without_cavity_has_shares_of_its_area():
    label_map = ring(FINE, endo=0, epi=12, infarct=(0, 1, 0, 90), no_reflow=(0, 1, 0, 45))
    label_map[label_map == 1] = 2
    found = chords(label_map)
    assert not found.measured.any()
    assert not found.open.any()
    assert found.cap_infarct == pytest.approx([0.25], abs=0.01)
    assert found.cap_no_reflow == pytest.approx([0.125], abs=0.01)
    assert summarize(found).transmurality_mean_percent is None


def test_slices_without_wall_or_without_anything():
    stack = np.stack([ring(FINE), np.zeros_like(ring(FINE)), ring(FINE, epi=25)], -1)
    found = measure_chords(stack, HEART, (*FINE, 8))
    np.testing.assert_array_equal(found.measured.sum(1), [100, 0, 0])
    assert not found.open.any()
    assert np.isnan(found.cap_infarct).all()
    assert summarize(found) == summarize(found.of_slice(0))


def test_components_outside_the_heart_are_ignored():
    label_map = ring(FINE, infarct=(0, 0.5, 0, 360))
    alone = chords(label_map)
    label_map[5:15, 100:200] = 3
    label_map[20:40, 5:15] = 1
    np.testing.assert_array_equal(chords(label_map).wall_mm, alone.wall_mm)
    np.testing.assert_array_equal(chords(label_map).infarct, alone.infarct)


def test_a_cavity_around_its_centroid():
    """A papillary muscle in the middle, drawn as wall: the center moves into the cavity."""
    label_map = ring(FINE)
    label_map[plane(FINE, (0.3, -0.2))[0] < 8] = 2
    assert chords(label_map).measured.all()


def test_a_heart_that_fills_the_picture():
    label_map = np.full((40, 30), 2, np.uint8)
    label_map[10:30, 10:20] = 1
    found = measured(label_map, (1.0, 2.0))
    assert found.chords_measured == 100


def test_any_label_map_is_measured():
    rng = np.random.default_rng(0)
    for labels in (5, 3):
        stack = rng.integers(0, labels, (20, 17, 6)).astype(np.uint8)
        found = measure_chords(stack, HEART, (1.2, 0.9, 8))
        assert (found.no_reflow <= found.infarct)[found.measured].all()
        assert (found.measured != found.open).all()
        summarize(found)


@pytest.mark.parametrize(
    ("label_map", "spacing"),
    [
        (np.zeros((4, 4), np.uint8), (1, 1, 1)),
        (np.zeros((4, 4, 2)), (1, 1, 1)),
        (np.zeros((4, 4, 2), np.uint8), (1, 1)),
        (np.zeros((4, 4, 2), np.uint8), (1, 0, 1)),
    ],
)
def test_invalid_label_maps_are_refused(label_map, spacing):
    with pytest.raises(ValueError, match=r"label_map|spacing"):
        measure_chords(label_map, HEART, spacing)
