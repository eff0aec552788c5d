"""Scouts: coarse images of the whole field of view, and the center of the heart."""

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from jaxseg.data.case import Case
from jaxseg.data.grid import Grid
from jaxseg.data.nifti import DataError
from jaxseg.data.preprocess import Preprocessing
from jaxseg.data.scout import SIZE, SPACING_MM, center_of, heart_of, scout_grid, scout_of

HOW = Preprocessing(Grid((16, 16), 2.0, None), num_labels=3)


def make_case(image, spacing=(2.0, 2.5, 8.0)):
    return Case("Case_X", image.astype(np.float32), None, spacing, nib.Nifti1Header())


def smooth(shape=(90, 80, 3)):
    """Structures of some centimeters, without zeros."""
    noise = np.random.default_rng(0).normal(size=shape)
    return 200 + 500 * ndimage.gaussian_filter(noise, (5, 5, 0))


def scout(image, spacing=(2.0, 2.5, 8.0)):
    case = make_case(image, spacing)
    return scout_of(case, HOW, scout_grid(case))


def test_a_scout_shows_the_whole_field_of_view():
    """180 x 200 mm in 48 x 48 pixels of 8 mm; beyond it is as dark as the darkest."""
    found = scout(smooth())
    assert (found.shape, found.dtype) == ((3, *SIZE), np.float32)
    dark = found == found.min()
    inside = ~dark.all((0, 2)), ~dark.all((0, 1))
    assert abs(inside[0].sum() * SPACING_MM - 180) <= SPACING_MM
    assert abs(inside[1].sum() * SPACING_MM - 200) <= SPACING_MM
    assert found[:, 20:28, 20:28].std() > 0.3


@pytest.mark.parametrize("value", [0, -1, 9, 250])
@pytest.mark.parametrize("pads", [((7, 0), (0, 11)), ((0, 90), (0, 0)), ((200, 200), (1, 0))])
def test_padding_does_not_change_the_scout(value, pads):
    padded = np.pad(smooth(), (*pads, (0, 0)), constant_values=value)
    np.testing.assert_allclose(scout(padded), scout(smooth()), atol=1e-4)


def test_noisy_padding_is_dark_too():
    """It cannot be distinguished from tissue, so the scout is as wide as the stack."""
    air = np.random.default_rng(1).uniform(0, 2, (90, 160, 3))
    found = scout(np.concatenate([smooth(), air], axis=1))
    # 600 mm in 80 pixels, the picture in those from 2.5 to 27.5.
    tissue, pad = found[:, 15:33, 5:26], found[:, 15:33, 30:50]
    assert pad.max() < np.percentile(tissue, 5)


@pytest.mark.parametrize("way", [np.s_[::-1], np.s_[:, ::-1], np.s_[::-1, ::-1]])
def test_mirroring_a_stack_mirrors_its_scout(way):
    image = smooth()[:89, :80]
    flipped = np.moveaxis(np.moveaxis(scout(image), 0, -1)[way], -1, 0)
    np.testing.assert_allclose(scout(image[way]), flipped, atol=1e-4)


def test_sizes_are_multiples_of_8():
    """300 mm are 37.5 pixels, below the least, 48; 500 mm are 62.5, so 64; 520 mm 65, so 72."""
    image = smooth((150, 200, 1))
    assert scout_grid(make_case(image)).size == (48, 64)
    assert scout_grid(make_case(image, (2.0, 2.6, 8.0))).size == (48, 72)
    assert scout_grid(make_case(np.pad(image, ((0, 500), (0, 0), (0, 0))))).size == (48, 64)
    assert scout_grid(make_case(image), SIZE).size == SIZE


def test_an_empty_stack_is_refused():
    with pytest.raises(DataError, match="Case_X: no tissue"):
        scout(np.ones((9, 9, 2)))


def test_the_heart_keeps_its_area_and_position():
    label = np.zeros((90, 80, 2), np.uint8)
    label[30:50, 20:36, 0] = 1
    label[35:45, 24:30, 0] = 2
    grid = scout_grid(make_case(smooth()[..., :2]))
    heart = heart_of(label, (2.0, 2.5, 8.0), grid)
    assert (heart.shape, heart.dtype) == ((2, *SIZE), np.float32)
    assert not heart[1].any()
    assert heart[0].max() == pytest.approx(1)
    assert heart[0].sum() * SPACING_MM**2 == pytest.approx(40 * 40, rel=0.02)
    # Voxels 39.5 and 27.5; the grid's middle, 23.5, is at voxels 44.5 and 39.5.
    middle = ndimage.center_of_mass(heart[0])
    wanted = 23.5 + (39.5 - 44.5) * 2.0 / 8, 23.5 + (27.5 - 39.5) * 2.5 / 8
    np.testing.assert_allclose(middle, wanted, atol=0.05)


def test_one_wrong_slice_does_not_move_the_center():
    heart = np.zeros((6, 48, 48), bool)
    heart[:, 10:15, 20:27] = True
    assert center_of(heart) == (12, 23)
    heart[5] = False
    heart[5, 40:45, 1:8] = True
    assert np.abs(np.subtract(center_of(heart), (12, 23))).max() <= 1


def test_a_center_between_pixels():
    """Of 8 pixels in rows 2, 3, 3, 3, 3, 3, 4, 4 half lie above 2.5 + 3 / 5."""
    heart = np.zeros((1, 8, 8), bool)
    heart[0, 2, 0] = heart[0, 4, 0:2] = heart[0, 3, 0:5] = True
    row, column = center_of(heart)
    assert row == pytest.approx(2.5 + 3 / 5)
    assert column == pytest.approx(0.5 + 1 / 2)
    mirrored, exchanged = center_of(heart[:, ::-1]), center_of(heart.swapaxes(1, 2))
    assert mirrored == pytest.approx((7 - row, column))
    assert exchanged == pytest.approx((column, row))


def test_an_empty_heart_has_no_center():
    assert center_of(np.zeros((2, 4, 4), bool)) is None
