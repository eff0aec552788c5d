"""Resampling: against scipy, against numbers derived by hand, and there and back."""

import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from jaxseg.data.grid import (
    Grid,
    label_shares_to_network,
    labeled_outside,
    labels_to_network,
    most_probable,
    probabilities_to_native,
)
from jaxseg.data.grid import to_network as with_tissue
from jaxseg.data.readers.emidec import find_cases, load_case
from tests.by_hand import labels_back


def noise(shape, seed=0):
    return np.random.default_rng(seed).uniform(1, 2, shape).astype(np.float32)


def to_network(image, spacing, grid):
    """Images of a stack whose tissue is every voxel but 0."""
    return with_tissue(image, spacing, grid, image != 0)[0]


def blobs(shape, num_labels=5, seed=0):
    """Labels in chunks of about 5 pixels."""
    coarse = np.random.default_rng(seed).integers(0, num_labels, [n // 5 + 1 for n in shape[:2]])
    label = coarse.repeat(5, 0).repeat(5, 1)[: shape[0], : shape[1], None]
    return np.repeat(label, shape[2], axis=2).astype(np.uint8)


def test_upsampling_equals_scipy():
    """Network pixel (i, j) lies at (i + 0.5 - H/2) 1.0 mm from the field of view's center."""
    image, spacing, grid = noise((20, 14, 2)), (1.25, 1.75, 9.0), Grid((16, 18), 1.0)
    rows = (10 * 1.25 + np.arange(16) + 0.5 - 8) / 1.25 - 0.5
    columns = (7 * 1.75 + np.arange(18) + 0.5 - 9) / 1.75 - 0.5
    where = np.meshgrid(rows, columns, indexing="ij")
    result = to_network(image, spacing, grid)
    assert result.shape == (2, 16, 18)
    assert result.dtype == np.float32
    for k in range(2):
        np.testing.assert_allclose(
            result[k], map_coordinates(image[..., k], where, order=1), rtol=1e-6
        )


def test_downsampling_is_anti_aliased():
    """Twice the pixel: the triangle of half-width 2 centered between two voxels weighs
    1, 3, 3, 1 eighths."""
    image = np.zeros((8, 8, 1))
    image[:] = np.array([10, 20, 30, 50, 70, 20, 40, 80.0])[:, None, None]
    result = to_network(image, (1.0, 1.0, 8.0), Grid((2, 4), 2.0))
    inner = [(20 + 3 * 30 + 3 * 50 + 70) / 8, (50 + 3 * 70 + 3 * 20 + 40) / 8]
    np.testing.assert_allclose(result[0, :, 1], inner, rtol=1e-6)


def test_constants_are_kept_and_the_outside_is_zero():
    image = np.full((10, 10, 1), 7.0)
    result = to_network(image, (1.0, 1.0, 8.0), Grid((30, 8), 0.5))[0]
    np.testing.assert_allclose(result[5:25], 7, rtol=1e-6)
    # 20 rows cover the field of view; one more may reach into it by less than half its kernel
    np.testing.assert_array_equal(result[:4], 0)
    np.testing.assert_array_equal(result[-4:], 0)


def test_padding_does_not_darken_the_border():
    """Normalized convolution: a border pixel is the mean of the tissue alone."""
    image = np.zeros((12, 12, 1))
    image[4:] = 100
    result = to_network(image, (1.0, 1.0, 8.0), Grid((9, 9), 1.3))[0]
    assert set(np.round(np.unique(result), 3)) == {0, 100}


def test_center_moves_the_grid():
    image = noise((20, 20, 1))
    grid = Grid((4, 6), 1.0, center=(0.25, 0.6))
    # center (5, 12) in voxels, so rows 3 to 6 and columns 9 to 14
    expected = image[3:7, 9:15, 0]
    np.testing.assert_allclose(to_network(image, (1.0, 1.0, 8.0), grid)[0], expected, rtol=1e-6)


@pytest.mark.parametrize("spacing", [1.4, 0.8, 3.0])
@pytest.mark.parametrize("way", [np.s_[:], np.s_[::-1], np.s_[:, ::-1], np.s_[::-1, ::-1]])
def test_a_grid_at_a_voxel_does_not_depend_on_flips_and_padding(spacing, way):
    image, edges = noise((40, 33, 2)), (1.25, 1.75, 9.0)
    grid = Grid((16, 18), spacing, None)
    rows, columns = np.indices((40, 33))
    there = np.argwhere((rows == 14)[way] & (columns == 20)[way])[0]
    wanted = to_network(image, edges, grid.at((14, 20), image.shape))
    padded = np.pad(image[way], ((5, 0), (2, 7), (0, 0)))
    voxel = int(there[0]) + 5, int(there[1]) + 2
    found = to_network(padded, edges, grid.at(voxel, padded.shape))
    flipped = np.moveaxis(np.moveaxis(wanted, 0, -1)[way], -1, 0)
    np.testing.assert_allclose(found, flipped, rtol=1e-5)


@pytest.mark.parametrize("size", [(16, 18), (15, 21)])
def test_the_middle_of_a_grid_at_a_position_is_that_position(size):
    shape, edges = (40, 33, 2), (1.25, 1.75, 9.0)
    middle = (size[0] - 1) / 2, (size[1] - 1) / 2
    for place in ((0, 0), (14, 20.3), (39, 32), (20.75, 7)):
        grid = Grid(size, 1.4, None).at(place, shape)
        assert grid.position(middle, shape, edges) == pytest.approx(place)
        # 5 pixels of 1.4 mm are 5.6 and 4 voxels.
        moved = grid.position((middle[0] + 5, middle[1] - 5), shape, edges)
        assert moved == pytest.approx((min(place[0] + 5.6, 39), max(place[1] - 4, 0)))


def test_a_pixel_of_native_size_is_a_voxel():
    shape = (40, 33, 2)
    for size in ((8, 8), (9, 7)):
        for voxel in ((20, 16), (21, 17)):
            grid = Grid(size, None, None).at(voxel, shape)
            marked = np.zeros(shape, np.uint8)
            marked[19, 15] = 1
            (pixel,) = np.argwhere(labels_to_network(marked, (1, 1, 1), grid, 2)[0])
            assert grid.position(tuple(pixel), shape, (1, 1, 1)) == pytest.approx((19, 15))


def test_a_padded_grid_holds_the_grid_in_its_middle():
    image, edges, grid = noise((40, 33, 2)), (1.25, 1.75, 9.0), Grid((16, 18), 1.4, (0.4, 0.6))
    wide = to_network(image, edges, grid.padded(3))
    assert wide.shape == (2, 22, 24)
    np.testing.assert_allclose(wide[:, 3:-3, 3:-3], to_network(image, edges, grid), rtol=1e-6)


def test_a_grid_without_a_center_is_refused():
    with pytest.raises(ValueError, match="center"):
        to_network(noise((9, 9, 1)), (1.0, 1.0, 8.0), Grid((4, 4), 1.4, None))


def test_native_spacing_is_a_pure_crop_and_pad():
    image = noise((7, 10, 3))
    result = to_network(image, (1.3, 0.7, 8.0), Grid((10, 6), None))
    # rows: pad of 3, 1 before (3.5 - 5 + 0.5 = -1); columns: crop from 2
    np.testing.assert_array_equal(result[:, 1:8], np.moveaxis(image[:, 2:8], -1, 0))
    np.testing.assert_array_equal(result[:, [0, 8, 9]], 0)


@pytest.mark.parametrize("size", [(8, 8), (9, 7), (40, 40)])
def test_native_spacing_loses_nothing_inside_the_crop(size):
    label = blobs((15, 12, 3))
    grid, spacing = Grid(size, None), (1.3, 0.7, 8.0)
    result = labels_back(labels_to_network(label, spacing, grid, 5), label.shape, spacing, grid)
    covered = np.pad(np.ones(size, np.uint8)[..., None], ((0, 0), (0, 0), (0, 2)))
    inside = labels_back(
        np.moveaxis(np.ones_like(covered), -1, 0), label.shape, spacing, grid
    ).astype(bool)
    assert inside.sum() == min(size[0], 15) * min(size[1], 12) * 3
    np.testing.assert_array_equal(result, np.where(inside, label, 0))


def test_labels_agree_with_nearest_neighbor_away_from_borders():
    """An independent check of the geometry: inside a blob both must give the blob's label."""
    label, spacing, grid = blobs((40, 60, 1)), (1.2, 0.7, 8.0), Grid((36, 30), 1.0)
    rows = (20 * 1.2 + np.arange(36) + 0.5 - 18) / 1.2 - 0.5
    columns = (30 * 0.7 + np.arange(30) + 0.5 - 15) / 0.7 - 0.5
    i, j = np.round(rows).astype(int), np.round(columns).astype(int)
    nearest = label[np.ix_(i, j)][..., 0]
    around = [label[np.ix_(i + a, j + b)][..., 0] for a in (-1, 0, 1) for b in (-1, 0, 1)]
    pure = np.all([x == nearest for x in around], axis=0)
    result = labels_to_network(label, spacing, grid, 5)[0]
    assert result.dtype == np.uint8
    assert 0.3 < pure.mean() < 0.9
    np.testing.assert_array_equal(result[pure], nearest[pure])


def test_shares_on_a_border_by_hand():
    """Pixels of 2 on voxels of 1, all columns alike: of the rows around a pixel's center, those at
    1/2 have 3/8 of the triangle's weight each and those at 3/2 1/8."""
    label = np.array([0, 0, 1, 2, 2, 2], np.uint8)[:, None, None].repeat(6, 1)
    shares = label_shares_to_network(label, (1.0, 1.0, 8.0), Grid((3, 3), 2.0), 3)
    assert shares.dtype == np.float32
    np.testing.assert_allclose(shares[0, 1, 1], [1 / 8, 3 / 8, 4 / 8])
    # Below the first row is nothing: its eighth is background, as all outside.
    np.testing.assert_allclose(shares[0, 0, 1], [7 / 8, 1 / 8, 0])


def test_shares_sum_to_one_and_agree_with_the_labels():
    label, spacing = blobs((30, 25, 2)), (1.9, 1.7, 8.0)
    for grid in (Grid((40, 60), 1.4), Grid((20, 30), None)):  # beyond the field of view, too
        shares = label_shares_to_network(label, spacing, grid, 5)
        np.testing.assert_allclose(shares.sum(-1), 1, atol=1e-6)
        np.testing.assert_array_equal(
            most_probable(shares), labels_to_network(label, spacing, grid, 5)
        )


def test_ties_go_to_the_lower_label():
    """Half a pixel off: every network pixel lies midway between two voxels."""
    label = np.array([3, 1, 2, 4], np.uint8)[:, None, None].repeat(3, 1)
    grid = Grid((3, 3), 1.0)
    assert labels_to_network(label, (1.0, 1.0, 8.0), grid, 5)[0, :, 1].tolist() == [1, 1, 2]


def test_probabilities_decide_between_pixels():
    """A pixel of p = (0.1, 0.9) beside one of (0.8, 0.2): at 0.25 from the first, label 1 has
    0.75 * 0.9 + 0.25 * 0.2 = 0.725; at 0.75 it has 0.375, so background wins."""
    probabilities = np.array([[0.1, 0.9], [0.8, 0.2]])[None, :, None].repeat(2, 2)
    result = labels_back(probabilities, (4, 4, 1), (0.5, 0.5, 8.0), Grid((2, 2), 1.0))
    assert result.dtype == np.uint8
    assert result[:, 1, 0].tolist() == [1, 1, 0, 0]


def test_the_round_trip_has_no_shift():
    """Over 40 discs at random places the centroid moves by less than 0.03 voxels on average."""
    y, x = np.mgrid[:60, :80]
    spacing, grid, shifts = (1.3, 0.8, 8.0), Grid((48, 48), 1.4), []
    for row, column in np.random.default_rng(0).uniform((25, 35), (35, 45), (40, 2)):
        disc = ((y - row) * 1.3) ** 2 + ((x - column) * 0.8) ** 2 < 18**2
        label = disc[..., None].astype(np.uint8)
        back = labels_back(labels_to_network(label, spacing, grid, 2), label.shape, spacing, grid)
        assert 2 * np.sum(back * label) / (back.sum() + label.sum()) > 0.98
        shifts.append(np.argwhere(back[..., 0]).mean(0) - np.argwhere(disc).mean(0))
    np.testing.assert_allclose(np.mean(shifts, axis=0), 0, atol=0.03)


def test_labeled_voxels_outside_the_grid_are_counted():
    label = np.zeros((20, 20, 2), np.uint8)
    label[10, 10] = 4
    grid = Grid((8, 10), 1.0)  # rows 6 to 13, columns 5 to 14
    assert labeled_outside(label, (1.0, 1.0, 8.0), grid) == 0
    label[[5, 14, 10, 10], [10, 10, 4, 15], 0] = 1
    label[[6, 13, 10, 10], [10, 10, 5, 14], 1] = 1
    assert labeled_outside(label, (1.0, 1.0, 8.0), grid) == 4
    assert labeled_outside(label, (1.0, 1.0, 8.0), Grid((8, 10), None)) == 4


@pytest.mark.parametrize(
    ("shape", "value"),
    [((2, 4, 4, 3), 0.0), ((1, 4, 5, 3), 0.0), ((1, 4, 4), 0.0), ((1, 4, 4, 3), np.nan)],
)
def test_refuses_predictions_that_do_not_fit(shape, value):
    array = np.full(shape, value)
    with pytest.raises(ValueError, match="probabilities"):
        probabilities_to_native(array, (6, 6, 1), (1.0, 1.0, 8.0), Grid((4, 4), 1.0))


def test_grid_refuses_invalid_fields():
    for name, values in (
        ("size", [(0, 4), (4.5, 4), (4,)]), ("spacing", [0.0, float("nan")]),
        ("center", [(0.5, 1.1)]),
    ):  # fmt: skip
        for value in values:
            with pytest.raises(ValueError, match=f"{name} is"):
                Grid(**{name: value})


def test_real_labels_survive_the_round_trip(emidec_root):
    """Pooled DSC over every eighth case; over all 80 it is 0.994, 0.983, 0.972, 0.975."""
    grid, overlap, size = Grid(), np.zeros(5), np.zeros(5)
    for folder in find_cases(emidec_root)[::8]:
        case = load_case(folder)
        assert case.label is not None
        assert labeled_outside(case.label, case.spacing, grid) == 0
        network = labels_to_network(case.label, case.spacing, grid, 5)
        back = labels_back(network, case.label.shape, case.spacing, grid)
        for label in range(1, 5):
            a, b = back == label, case.label == label
            overlap[label] += 2 * np.sum(a & b)
            size[label] += a.sum() + b.sum()
    assert (overlap[1:] / size[1:] >= (0.992, 0.980, 0.965, 0.965)).all(), overlap / size


def test_native_probabilities_equal_scipy_inside_the_grid():
    """Native voxel i lies at network pixel (i - 9.5) 1.5 / 1.0 + 7.5 where both centers meet."""
    odds = np.random.default_rng(4).random((1, 16, 16, 3))
    native = probabilities_to_native(odds, (20, 20, 1), (1.5, 1.5, 8.0), Grid((16, 16), 1.0))
    inner = np.arange(6, 14)
    where = np.meshgrid(*[(inner - 9.5) * 1.5 + 7.5] * 2, indexing="ij")
    for label in (1, 2):
        expected = map_coordinates(odds[0, ..., label], where, order=1)
        np.testing.assert_allclose(native[6:14, 6:14, 0, label], expected, rtol=1e-5)


def test_native_probabilities_need_four_axes():
    with pytest.raises(ValueError, match=r"\(2, 16, 16\)"):
        probabilities_to_native(np.zeros((2, 16, 16)), (9, 9, 2), (1, 1, 1), Grid((16, 16), 1.0))


def test_ties_of_probabilities_go_to_the_lower_label():
    tied = np.array([[0.2, 0.4, 0.4 + 1e-7], [0.5, 0.5, 0.0], [0.1, 0.2, 0.7]])
    assert most_probable(tied).tolist() == [1, 0, 2]
    assert most_probable(tied).dtype == np.uint8
