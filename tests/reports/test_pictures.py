"""Pictures: colors by hand, slices chosen by rule, sizes, orientation, legend."""

import io

import matplotlib.image
import numpy as np
import pytest

from jaxseg.reports.pictures import (
    COLORS,
    close_up,
    comparison,
    cut_out,
    label_color,
    label_picture,
    overlay,
    pixels,
    png,
    representative_slices,
    save,
    soft_overlay,
)

# 0 .. 100: the 1st percentile is 1, the 99th 99.
RAMP = np.arange(101, dtype=np.float32)[None]
SKY_BLUE, BLUISH_GREEN = np.array([86, 180, 233]) / 255, np.array([0, 158, 115]) / 255
NAMES = ("background", "cavity", "myocardium", "infarct", "no-reflow")


def test_gray_runs_from_the_1st_to_the_99th_percentile():
    picture = overlay(RAMP, np.zeros(RAMP.shape, np.uint8))
    assert picture.shape == (1, 101, 3)
    assert picture.dtype == np.float32
    expected = np.clip((RAMP - 1) / 98, 0, 1)
    np.testing.assert_allclose(picture, np.repeat(expected[..., None], 3, -1), atol=1e-6)


def test_labels_tint_by_hand():
    labels = np.zeros(RAMP.shape, np.uint8)
    labels[0, 50], labels[0, 99], labels[0, 0] = 2, 1, 8
    picture = overlay(RAMP, labels)
    np.testing.assert_allclose(picture[0, 50], 0.45 * 0.5 + 0.55 * BLUISH_GREEN, atol=1e-6)
    np.testing.assert_allclose(picture[0, 99], 0.45 + 0.55 * SKY_BLUE, atol=1e-6)
    np.testing.assert_allclose(picture[0, 0], 0.55 * SKY_BLUE, atol=1e-6)  # 8 wraps to label 1's
    np.testing.assert_allclose(picture[0, 51], (51 - 1) / 98, atol=1e-6)
    opaque = overlay(RAMP, labels, opacity=1.0)
    np.testing.assert_allclose(opaque[0, [50, 99]], [BLUISH_GREEN, SKY_BLUE], atol=1e-6)
    np.testing.assert_allclose(opaque[0, 49], (49 - 1) / 98, atol=1e-6)


def test_labels_of_the_palette_have_distinct_colors():
    labels = np.arange(1, len(COLORS), dtype=np.uint8)[None]
    colors = overlay(np.zeros(labels.shape), labels, opacity=1.0)[0]
    assert len(np.unique(colors, axis=0)) == len(COLORS) - 1 == 7
    # The last value of uint8 is a label as any other: 255 = 7 * 36 + 3.
    last = overlay(np.zeros((1, 1)), np.array([[255]], np.uint8), opacity=1.0)[0, 0]
    np.testing.assert_array_equal(last, colors[2])


def test_constant_slices_are_black_and_windows_are_given():
    assert not overlay(np.full((4, 4), 7.0), np.zeros((4, 4), np.uint8)).any()
    picture = overlay(np.array([[0.0, 4.0, 9.0]]), np.zeros((1, 3), np.uint8), window=(2, 6))
    np.testing.assert_allclose(picture[0, :, 0], [0, 0.5, 1])


def test_one_hot_probabilities_look_like_labels():
    image = np.random.default_rng(0).normal(size=(4, 5))
    labels = np.arange(20).reshape(4, 5) % 5
    for window in (None, (-1.0, 1.0)):
        found = soft_overlay(image, np.eye(5)[labels], window=window)
        np.testing.assert_allclose(found, overlay(image, labels, window=window), atol=1e-6)


def test_soft_labels_blend_by_hand():
    probabilities = np.array([[[0.2, 0.3, 0.5], [1.0, 0.0, 0.0]]])
    picture = soft_overlay(np.full((1, 2), 0.5), probabilities, window=(0, 1))
    expected = (1 - 0.55 * 0.8) * 0.5 + 0.55 * (0.3 * SKY_BLUE + 0.5 * BLUISH_GREEN)
    np.testing.assert_allclose(picture[0, 0], expected, atol=1e-6)
    np.testing.assert_allclose(picture[0, 1], 0.5, atol=1e-6)
    assert picture.dtype == np.float32


def test_label_colors_cycle_past_the_background():
    assert [label_color(value) for value in (0, 1, 7, 8)] == [*COLORS[:2], COLORS[7], COLORS[1]]


def test_close_up_by_hand():
    labels = np.zeros((3, 10, 12), np.uint8)
    labels[0, 4:7, 5:7] = 1  # 3 x 2: the widest extent is 3, so squares of 5
    labels[1, 0, 11] = 4  # in a corner
    windows = close_up(labels, margin=1)
    assert windows == [
        (slice(3, 8), slice(4, 9)),
        (slice(0, 5), slice(7, 12)),
        (slice(3, 8), slice(4, 9)),  # nothing: around the center (5, 6)
    ]
    assert cut_out(labels, windows).shape == (3, 5, 5)
    assert [int((cut > 0).sum()) for cut in cut_out(labels, windows)] == [6, 1, 0]
    # As large as the slices' shorter side at most.
    assert close_up(labels, margin=9)[0] == (slice(0, 10), slice(1, 11))


def test_choice_of_slices():
    labels = np.zeros((7, 2, 3), np.uint8)
    labels[0] = [[1, 2, 3], [0, 0, 0]]  # case 0: four labels with the background
    labels[1] = [[1, 2, 3], [4, 0, 0]]  # case 0: five
    labels[2] = [[1, 2, 3], [4, 4, 0]]  # case 1: five, more of label 4
    labels[3] = [[1, 2, 3], [3, 4, 0]]  # case 2: as slice 1, but more of label 3
    labels[4] = [[1, 2, 2], [2, 0, 0]]  # case 3
    labels[5] = [[1, 2, 2], [2, 0, 0]]  # case 4: the same; the earlier goes first
    labels[6] = 4  # case 5: one label only
    case = np.array([0, 0, 1, 2, 3, 4, 5])
    assert representative_slices(labels, case, 10).tolist() == [2, 3, 1, 4, 5, 6]
    assert representative_slices(labels, case, 2).tolist() == [2, 3]
    chosen = representative_slices(labels, case, 0)
    assert chosen.tolist() == []
    assert labels[chosen].shape == (0, 2, 3)


def figure(count, **maps):
    images = np.zeros((count, 16, 16), np.float32)
    maps = {name: np.broadcast_to(m, images.shape) for name, m in maps.items()}
    titles = [f"Case_P{k:03d} slice {k}" for k in range(count)]
    return comparison(images, maps, titles, NAMES)


def test_the_size_in_pixels():
    empty = np.zeros((16, 16), np.uint8)
    # 110 dpi: a column 1.7 inches, a row 1.75, margins 0.4 and 0.5.
    array = pixels(figure(2, reference=empty, prediction=empty))
    assert array.shape == (int((1.75 * 3 + 0.5) * 110), int(1.7 * 2 * 110 + 44), 3)
    assert array.dtype == np.uint8
    assert pixels(figure(3, prediction=empty)).shape == (440, 605, 3)


def test_the_first_axis_runs_left_to_right():
    labels = np.zeros((16, 16), np.uint8)
    labels[:8, :4] = 2  # first half of the first axis, first quarter of the second
    shown = figure(1, reference=labels, prediction=np.zeros_like(labels))
    drawn = pixels(shown)
    wanted = np.round(0.55 * BLUISH_GREEN * 255)
    rows, columns = np.nonzero((np.abs(drawn - wanted) < 2).all(-1))
    assert len(rows) == (np.ptp(rows) + 1) * (np.ptp(columns) + 1)  # one rectangle
    # Left half and top quarter of the second panel, whose extent counts rows from below.
    panel = shown.axes[1].get_window_extent()
    top = len(drawn) - panel.y1
    found = [columns.min(), columns.max() + 1, rows.min(), rows.max() + 1]
    wanted = [panel.x0, panel.x0 + panel.width / 2, top, top + panel.height / 4]
    np.testing.assert_allclose(found, wanted, atol=1.5)


def test_titles_names_and_legend():
    drawn = figure(2, reference=np.zeros((16, 16), np.uint8))
    axes = drawn.axes
    assert [axis.get_title() for axis in axes] == [
        "Case_P000 slice 0", "Case_P001 slice 1", "", "",
    ]  # fmt: skip
    assert [axis.get_ylabel() for axis in axes] == ["image", "", "reference", ""]
    assert [text.get_text() for text in drawn.legends[0].get_texts()] == list(NAMES[1:])


@pytest.mark.parametrize("count", [1, 2])
def test_the_legend_fits_into_the_picture(count):
    drawn = figure(count, reference=np.zeros((16, 16), np.uint8))
    array = pixels(drawn)
    box = drawn.legends[0].get_window_extent()
    assert box.x0 >= 0
    assert box.y0 >= 0
    assert box.x1 <= array.shape[1]
    panels = min(axis.get_window_extent().y0 for axis in drawn.axes)
    text = max(text.get_window_extent().y1 for text in drawn.legends[0].get_texts())
    assert text <= panels


def test_save_writes_a_png_of_the_same_pixels(tmp_path):
    drawn = figure(1, prediction=np.ones((16, 16), np.uint8))
    path = tmp_path / "pictures" / "epoch-0002.png"
    save(drawn, path)
    read = matplotlib.image.imread(path)
    np.testing.assert_array_equal(np.rint(read[..., :3] * 255).astype(np.uint8), pixels(drawn))
    save(drawn, path)  # again, over the old one


def test_png_holds_the_figure_at_the_asked_resolution():
    drawn = figure(1, prediction=np.ones((16, 16), np.uint8))
    read = matplotlib.image.imread(io.BytesIO(png(drawn, dpi=110)))
    np.testing.assert_array_equal(np.rint(read[..., :3] * 255).astype(np.uint8), pixels(drawn))
    assert matplotlib.image.imread(io.BytesIO(png(drawn))).shape[1] == int(2.1 * 200)


def test_notes_are_drawn_in_their_cells():
    maps = np.zeros((2, 16, 16), np.uint8)
    drawn = comparison(
        maps.astype(np.float32), {"reference": maps, "mine": maps}, ["a", "b"], NAMES,
        notes={"mine": ["LV 0.9\nInf 0.5", ""]},
    )  # fmt: skip
    assert [len(axis.texts) for axis in drawn.axes] == [0, 0, 0, 0, 1, 0]
    (note,) = drawn.axes[4].texts
    assert note.get_text() == "LV 0.9\nInf 0.5"
    pixels(drawn)
    cell, text = drawn.axes[4].get_window_extent(), note.get_window_extent()
    assert cell.x0 <= text.x0 < text.x1 <= cell.x1
    assert cell.y0 <= text.y0 < text.y1 <= (cell.y0 + cell.y1) / 2


def test_label_maps_are_cropped_and_drawn_with_square_pixels():
    labels = np.zeros((40, 80, 14), np.uint8)
    labels[10:20, 30:50] = 2  # 20 x 20 mm
    figure = label_picture(labels, (2.0, 1.0, 8.0), ("background", "a", "b"))
    assert len(figure.axes) == 12
    shown = np.asarray(figure.axes[0].images[0].get_array())
    inside = (shown > 0).any(-1)
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    assert np.ptp(rows) == pytest.approx(np.ptp(columns), abs=1)
    assert 0.6 < len(rows) / inside.shape[0] < 0.95
    assert [axis.get_title() for axis in figure.axes][-1] == "slice 13"


@pytest.mark.parametrize("count", [1, 3])
def test_long_captions_stay_below_the_legend(count):
    maps = np.zeros((count, 16, 16), np.uint8)
    caption = "network trained on synthetic cases; labels reach the border of the crop; " * 3
    titles = ["slice"] * count
    drawn = comparison(maps.astype(np.float32), {"a": maps}, titles, NAMES, caption=caption)
    array = pixels(drawn)
    (text,) = drawn.texts
    assert text.get_text().split() == caption.split()
    box, legend = text.get_window_extent(), drawn.legends[0]
    assert 0 <= box.x0 < box.x1 <= array.shape[1]
    lowest = min(entry.get_window_extent().y0 for entry in legend.get_texts())
    assert 0 <= box.y0 < box.y1 <= lowest
    highest = max(entry.get_window_extent().y1 for entry in legend.get_texts())
    assert highest <= min(axis.get_window_extent().y0 for axis in drawn.axes)
