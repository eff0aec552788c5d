"""Finding the heart, with functions that segment a bright disk in place of networks."""

import nibabel as nib
import numpy as np
import pytest

from jaxseg.data import Case, Grid, Preprocessing, preprocess_case
from jaxseg.inference.locate import (
    FLIPS,
    TURNS_AND_FLIPS,
    View,
    averaged,
    find_heart,
    reaches_border,
)

SHAPE, SPACING = (120, 100, 4), (2.0, 2.5, 8.0)
HOW = Preprocessing(Grid((40, 40), 2.0, None), num_labels=2, normalization="none")


def disk_case(row, column, radius_mm=25.0):
    """A bright disk in noise, and the disk."""
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    disk = np.hypot((y - row) * SPACING[0], (x - column) * SPACING[1]) < radius_mm
    image = np.random.default_rng(0).uniform(1, 2, SHAPE) + 10 * disk[..., None]
    return Case("Case_X", image.astype(np.float32), None, SPACING, nib.Nifti1Header())


def two(heart):
    """Probabilities (..., 2) of a mask."""
    return np.stack([~heart, heart], -1).astype(np.float32)


def localize(scouts, views):
    return two(scouts > 6)


def segmenter(case, calls=None):
    def segment(grid):
        if calls is not None:
            calls.append(grid)
        return two(preprocess_case(case, Preprocessing(grid, 2, "none"))[0] > 6)

    return segment


@pytest.mark.parametrize("view", TURNS_AND_FLIPS)
def test_views_are_inverted(view):
    images = np.random.default_rng(0).normal(size=(2, 5, 7, 3))
    np.testing.assert_array_equal(view.back(view.of(images)), images)
    np.testing.assert_array_equal(view.of(view.back(images)), images)
    np.testing.assert_array_equal(view.of(images)[..., 1], view.of(images[..., 1]))


def test_views_are_the_eight_symmetries_of_a_square():
    square = np.arange(9.0).reshape(1, 3, 3)
    wanted = {
        np.rot90(way, turns).tobytes() for way in (square[0], square[0].T) for turns in range(4)
    }
    assert {np.ascontiguousarray(view.of(square)).tobytes() for view in TURNS_AND_FLIPS} == wanted
    assert len(wanted) == 8
    assert set(FLIPS) < set(TURNS_AND_FLIPS)
    np.testing.assert_array_equal(View((1,), True).of(square)[0], square[0].T[::-1])


def test_averages_over_views_are_turned_back():
    images = np.random.default_rng(0).normal(size=(2, 6, 6))

    def segment(params, seen):
        # What depends on the place in what is seen, averages to the middle.
        return seen[..., None] + params * np.linspace(-1, 1, 6)[None, :, None, None]

    found = averaged(segment, 3.0, images, TURNS_AND_FLIPS)
    np.testing.assert_allclose(found[..., 0], images, atol=1e-12)


@pytest.mark.parametrize(("row", "column"), [(60, 50), (20, 15), (100, 85), (35, 80)])
def test_a_disk_is_found_at_any_position(row, column):
    case = disk_case(row, column)
    found = find_heart(case, HOW, localize, segmenter(case))
    assert found is not None
    voxel, grid, probabilities = found
    assert voxel == (row, column)
    # The disk's center lies between voxels, as the pixels of the crop show it.
    assert np.abs(np.multiply(grid.center, SHAPE[:2]) - 0.5 - voxel).max() < 0.5
    np.testing.assert_array_equal(probabilities, segmenter(case)(grid))
    assert not reaches_border(probabilities)


@pytest.mark.parametrize("offset", [(-3, -3), (0, 4), (4, 0), (3, -3)])
def test_the_crop_corrects_a_wrong_scout(offset):
    """By up to 34 mm of a disk of 50 mm, in a crop of 80 mm."""
    case = disk_case(60, 50)
    found = find_heart(
        case, HOW, lambda scouts, views: np.roll(localize(scouts, views), offset, (1, 2)),
        segmenter(case),
    )  # fmt: skip
    assert found is not None
    assert np.abs(np.subtract(found[0], (60, 50))).max() <= 1


def test_other_structures_in_some_slices_are_ignored():
    """Of twice the heart's size on the scout, in two of four slices, at the picture's border."""
    case, grids = disk_case(60, 70), []

    def misled(scouts, views):
        heart = localize(scouts, views)
        heart[:2, 16:32, 8:18] = (0, 1)
        return heart

    found = find_heart(case, HOW, misled, segmenter(case, grids))
    assert found is not None
    assert np.abs(np.subtract(found[0], (60, 70))).max() <= 1
    assert len(grids) <= 4


def test_the_search_ends():
    case, grids = disk_case(60, 50), []

    def running(grid):
        grids.append(grid)
        heart = np.zeros((SHAPE[2], 40, 40), bool)
        heart[:, 10:31, 22:25] = True  # always to the right of the middle
        return two(heart)

    found = find_heart(case, HOW, localize, running)
    assert found is not None
    assert len(grids) == len(set(grids)) == 9
    assert found[1] == grids[-1]


def test_an_oscillating_search_ends_at_the_nearest_crop():
    """A heart that looks 3 rows lower in one crop and 6 rows higher in the next."""
    case, grids = disk_case(60, 50), []

    def jumping(grid):
        grids.append(grid)
        middle = 23 if len(grids) % 2 else 14
        heart = np.zeros((SHAPE[2], 40, 40), bool)
        heart[:, middle - 4 : middle + 4, 15:25] = True
        return two(heart)

    found = find_heart(case, HOW, localize, jumping)
    assert found is not None
    assert found[1] == grids[-1]
    rows = [grid.center[0] * SHAPE[0] for grid in grids]
    assert any(rows[-1] == pytest.approx(row + 3) for row in rows[:-1:2])


def test_a_stable_crop_is_segmented_at_most_four_times():
    case, grids = disk_case(60, 50), []
    assert find_heart(case, HOW, localize, segmenter(case, grids)) is not None
    assert 1 <= len(grids) <= 4


@pytest.mark.parametrize("start", [(-3, 2), (0, 0), (1, -1)])
@pytest.mark.parametrize("place", [(60, 50), (60.5, 50.25), (59.75, 49.5)])
def test_the_last_crop_is_centered_between_voxels_from_any_start(start, place):
    case = disk_case(60, 50)

    def segment(grid):
        pixels = [
            (c * n - 0.5 - at) * edge + (np.arange(40) - 19.5) * 2.0
            for c, n, at, edge in zip(grid.center, SHAPE, place, SPACING, strict=False)
        ]  # mm from the disk's center
        disk = np.hypot(pixels[0][:, None], pixels[1]) < 25
        return two(np.broadcast_to(disk, (SHAPE[2], 40, 40)))

    def moved(scouts, views):
        return np.roll(localize(scouts, views), start, (1, 2))

    found = find_heart(case, HOW, moved, segment)
    assert found is not None
    center = np.multiply(found[1].center, SHAPE[:2]) - 0.5
    assert np.abs(center - place).max() < 0.1
    assert found[0] == tuple(np.floor(center + 0.5))


def test_without_a_heart_nothing_is_found():
    case = disk_case(60, 50)

    def nowhere(images):
        return two(np.zeros(images.shape, bool))

    def fail(grid):
        raise AssertionError("nothing to segment")

    assert find_heart(case, HOW, lambda scouts, views: nowhere(scouts), fail) is None
    blind = lambda grid: nowhere(np.zeros((SHAPE[2], *grid.size)))  # noqa: E731
    assert find_heart(case, HOW, localize, blind) is None


def test_a_heart_that_the_last_crop_loses_is_not_found():
    """Seen 0.4 rows below the middle of every crop at a whole voxel, and in no other."""

    def segment(grid):
        row = grid.center[0] * SHAPE[0] - 0.5
        heart = np.zeros((SHAPE[2], 40, 40), bool)
        if abs(row - round(row)) < 1e-6:
            # The median of 10 rows of 10 pixels from row 15 on and 8 more lies at 19.5 + 0.4.
            heart[:, 15:25, 15:25] = True
            heart[:, 25, 15:23] = True
        return two(heart)

    assert find_heart(disk_case(60, 50), HOW, localize, segment) is None


def test_a_few_pixels_are_not_a_heart():
    """One pixel of 8 x 8 x 8 mm in four slices is 2 ml."""

    def speck(scouts, views):
        heart = np.zeros(scouts.shape, bool)
        heart[:, 20, 20] = True
        return two(heart)

    case = disk_case(60, 50)
    assert find_heart(case, HOW, speck, segmenter(case)) is None


def test_empty_slices_are_ignored():
    case = disk_case(60, 50)
    case.image[..., 1:] = 3

    def localize_there(scouts, views):
        heart = np.zeros(scouts.shape, bool)
        heart[1:, 5:15, 5:15] = True
        return two(heart)

    assert find_heart(case, HOW, localize_there, segmenter(case)) is None


@pytest.mark.parametrize("place", [(0, 0, 3), (1, 7, 3), (1, 3, 0), (0, 3, 7)])
def test_labels_at_the_border_are_detected(place):
    heart = np.zeros((2, 8, 8), bool)
    heart[:, 1:7, 1:7] = True
    assert not reaches_border(two(heart))
    heart[place] = True
    assert reaches_border(two(heart))
