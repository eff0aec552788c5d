"""Padding of every kind is detected, and dark tissue is not."""

import numpy as np
import pytest

from jaxseg.data.padding import field_of_view, tissue_of
from tests.by_hand import picture


def noise(shape=(20, 24, 3), seed=0):
    """A picture without zeros."""
    return np.random.default_rng(seed).uniform(1, 2, shape).astype(np.float32)


def diamond(shape=(21, 21, 2)):
    row, column = np.mgrid[: shape[0], : shape[1]]
    inside = np.abs(row - shape[0] // 2) + np.abs(column - shape[1] // 2) <= 8
    return np.broadcast_to(inside[..., None], shape)


def test_an_image_without_zeros_is_tissue():
    assert tissue_of(noise()).all()


def test_zeros_surrounded_by_tissue_are_tissue():
    """An 8-bit window whose lower end is above normal myocardium: a ring of zeros."""
    image = noise()
    image[8:14, 6:14] = 0
    image[10:12, 9:11] = 200
    assert tissue_of(image).all()


def test_zeros_that_reach_the_border_are_padding():
    image = noise((5, 6, 1))
    image[1, 3:] = 0  # to the right border
    image[:2, 1] = 0  # to the upper border
    image[3, 2] = 0  # surrounded
    image[1, 2] = 0  # beside both, but the row leads past column 1 to a picture
    wanted = np.ones((5, 6), bool)
    wanted[1, 2:] = False
    wanted[:2, 1] = False
    np.testing.assert_array_equal(tissue_of(image)[..., 0], wanted)


@pytest.mark.parametrize("value", [0, -1, 7])
def test_a_constant_border_is_padding(value):
    padded = np.pad(noise(), ((3, 0), (2, 5), (0, 0)), constant_values=value)
    found = tissue_of(padded)
    assert found[3:, 2:-5].all()
    assert found.sum() == noise().size


@pytest.mark.parametrize("value", [0, 7])
def test_a_constant_slice_is_padding(value):
    image = np.pad(noise(), ((2, 2), (1, 1), (0, 0)), constant_values=-1)
    alone = tissue_of(image)
    image = np.concatenate([np.full_like(image[..., :1], value), image], axis=-1)
    found = tissue_of(image)
    assert not found[..., 0].any()
    np.testing.assert_array_equal(found[..., 1:], alone)


def test_zeros_at_the_border_of_one_slice_are_padding_there():
    image = noise()
    image[:4, :, 1] = 0
    found = tissue_of(image)
    assert not found[:4, :, 1].any()
    assert found.sum() == image.size - 4 * 24


@pytest.mark.parametrize("value", [0, -1, 7])
def test_a_rotated_image_inside_nested_padding(value):
    image = noise((21, 21, 2)) * diamond()
    padded = np.pad(image, ((4, 4), (0, 6), (0, 0)), constant_values=value)
    wanted = np.pad(diamond(), ((4, 4), (0, 6), (0, 0)))
    np.testing.assert_array_equal(tissue_of(padded), wanted)


@pytest.mark.parametrize("value", [0, 3.5])
def test_constant_slices_have_no_tissue(value):
    image = np.full((6, 7, 2), value, np.float32)
    image[..., 1] += 1
    found = tissue_of(image)
    assert not found.any()
    assert field_of_view(found) == (slice(0, 6), slice(0, 7))


@pytest.mark.parametrize("axis", [0, 1])
def test_stripes_have_no_tissue(axis):
    """Each line holds one value, so that all of them are border."""
    image = np.moveaxis(np.arange(1.0, 6)[:, None, None].repeat(4, 1), 0, axis)
    assert not tissue_of(image).any()


def test_equals_the_definition_voxel_by_voxel():
    rng, shares = np.random.default_rng(1), []
    for _ in range(150):
        shape = rng.integers(1, 8, 3)
        image = rng.choice([0, 0, 0, 1, -1, 2], shape) * rng.choice([0, 1, 1], shape[2])
        found = tissue_of(image)
        assert (found.shape, found.dtype) == (image.shape, bool)
        np.testing.assert_array_equal(found, picture(image))
        shares.append(found.mean())
    assert np.min(shares) == 0 < 0.7 < np.max(shares)


def test_the_field_of_view_covers_every_slice():
    tissue = np.zeros((9, 11, 2), bool)
    tissue[3, 4, 0] = tissue[5, 2, 1] = True
    assert field_of_view(tissue) == (slice(3, 6), slice(2, 5))
