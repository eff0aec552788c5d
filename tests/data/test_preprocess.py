"""Intensities: hand-derived values, and independence of the padding around the tissue."""

import nibabel as nib
import numpy as np
import pytest

from jaxseg.data.case import Case
from jaxseg.data.grid import Grid
from jaxseg.data.nifti import DataError
from jaxseg.data.preprocess import (
    NORMALIZATIONS,
    Preprocessing,
    network_images,
    normalize,
    preprocess_case,
)
from jaxseg.data.readers.emidec import find_cases, load_case


def make_case(image, label=None, spacing=(1.2, 0.9, 8.0)):
    return Case("Case_X", image.astype(np.float32), label, spacing, nib.Nifti1Header())


def how(grid, num_labels=5, **options):
    return Preprocessing(grid, num_labels, **options)


def tissue(shape, seed=0):
    """Smooth, positive and without exact zeros."""
    return np.random.default_rng(seed).uniform(50, 250, shape).astype(np.float32)


def test_zscore_by_hand():
    """Tissue 1, 3, 5, 7: mean 4, standard deviation sqrt(5)."""
    images = np.array([[[0, 1, 3], [5, 7, 0]]], np.float32)
    result = normalize(images, images > 0, percentiles=(0, 100))
    s = np.sqrt(5)
    np.testing.assert_allclose(result, [[[0, -3 / s, -1 / s], [1 / s, 3 / s, 0]]], rtol=1e-6)
    assert result.dtype == np.float32


def test_percentile_by_hand():
    """Of 1..101, the 10th and 90th percentiles are 11 and 91."""
    images = np.concatenate([np.zeros(50), np.arange(1, 102)]).reshape(1, 1, -1)
    result = normalize(images, images > 0, method="percentile", percentiles=(10, 90))[0, 0]
    np.testing.assert_array_equal(result[:50], 0)
    np.testing.assert_allclose(result[50:], np.clip((np.arange(1, 102) - 11) / 80, 0, 1), rtol=1e-6)


def test_zscore_clips_at_the_percentiles_first():
    values = np.concatenate([np.arange(1, 101), [1e6]])
    images = values.reshape(1, 1, -1)
    result = normalize(images, images > 0, percentiles=(0, 99))[0, 0]
    clipped = np.clip(values, 1, 100)  # the 99th of 101 sorted values is the 100th
    np.testing.assert_allclose(result, (clipped - clipped.mean()) / clipped.std(), rtol=1e-5)


def test_method_none_changes_nothing():
    images = tissue((2, 5, 5))
    np.testing.assert_array_equal(normalize(images, images > 0, method="none"), images)


def test_statistics_are_taken_over_the_stack():
    images = np.stack([tissue((6, 6)), 2 * tissue((6, 6), 1)])
    result = normalize(images, images > 0, percentiles=(0, 100))
    assert result.mean() == pytest.approx(0, abs=1e-5)
    assert result.std() == pytest.approx(1, abs=1e-5)
    assert result[1].mean() - result[0].mean() > 1


def test_a_stack_too_large_for_memory_is_refused():
    """2^27 pixels are the most: 8192 slices of 128 x 128."""
    with pytest.raises(DataError, match=r"Case_X: .*8193.*8192"):
        preprocess_case(make_case(np.ones((1, 1, 8193))), how(Grid((128, 128), None)))


@pytest.mark.parametrize("method", ["zscore", "percentile"])
def test_the_gain_of_the_scanner_is_removed(method):
    images = tissue((2, 8, 8))
    images[:, :2] = 0
    found = [normalize(x, images > 0, method=method) for x in (images, images * 16.06)]
    np.testing.assert_allclose(*found, atol=1e-5)


@pytest.mark.parametrize("spacing", [1.4, 0.8, None])
@pytest.mark.parametrize("method", ["zscore", "percentile"])
def test_more_padding_changes_no_tissue(spacing, method):
    """A stack padded by 7 rows and 9 columns on all sides gives the very same arrays."""
    image = tissue((40, 36, 3))
    padded = np.pad(image, ((7, 7), (9, 9), (0, 0)))
    grid = Grid((64, 64), spacing)
    first, second = (
        preprocess_case(make_case(x), how(grid, normalization=method))[0] for x in (image, padded)
    )
    assert (first == 0).mean() > 0.1
    np.testing.assert_allclose(first, second, atol=1e-5)


def test_padding_makes_no_strong_edge():
    """Bright, nearly even tissue beside padding: padding ends at the mean, inside the range."""
    image = np.zeros((30, 30, 1), np.float32)
    image[:, 11:] = tissue((30, 19, 1)) + 1000
    result, _ = preprocess_case(make_case(image, spacing=(1.0, 1.0, 8.0)), how(Grid((20, 20), 1.3)))
    padding = result[0, :, :5]
    np.testing.assert_array_equal(padding, 0)
    inside = result[0, :, 8:]
    assert np.abs(np.diff(result[0], axis=1)).max() <= np.ptp(inside)


def test_images_and_labels_share_the_geometry():
    """Tissue is bright exactly where the label is: the two must stay together on the grid."""
    label = np.zeros((40, 50, 2), np.uint8)
    label[12:30, 20:41] = 1
    image = np.where(label, 200, 100) + tissue(label.shape) / 100
    images, labels = preprocess_case(
        make_case(image, label), how(Grid((30, 30), 1.4), num_labels=2, percentiles=(0, 100))
    )
    assert labels is not None
    assert images.shape == labels.shape == (2, 30, 30)
    assert (images.dtype, labels.dtype) == (np.float32, np.uint8)
    middle = (images[labels == 1].min() + images[labels == 0].min()) / 2
    inside_field = images != 0
    assert np.mean((images > middle)[inside_field] == labels[inside_field]) > 0.98


@pytest.mark.parametrize("method", NORMALIZATIONS)
def test_padding_is_zero_by_every_normalization(method):
    image = np.zeros((20, 24, 2))
    image[4:15, 3:19] = tissue((11, 16, 2))
    own = how(Grid((32, 32), spacing=None), normalization=method)
    images, shown = network_images(make_case(image), own)
    assert shown.sum() == 11 * 16 * 2
    np.testing.assert_array_equal(images[~shown], 0)


def test_a_case_without_label_has_none():
    assert preprocess_case(make_case(tissue((9, 9, 2))), how(Grid((8, 8))))[1] is None


def test_refuses_images_that_cannot_be_normalized():
    with pytest.raises(DataError, match="no tissue"):
        normalize(np.zeros((1, 3, 3), np.float32), np.zeros((1, 3, 3), bool))
    with pytest.raises(DataError, match="5"):
        normalize(np.full((1, 3, 3), 5, np.float32), np.ones((1, 3, 3), bool))
    corner = np.zeros((50, 50, 1))
    corner[0, 0] = 9
    with pytest.raises(DataError, match="Case_X: "):
        preprocess_case(make_case(corner), how(Grid((4, 4)), normalization="none"))


def test_refuses_unknown_options():
    images, shown = tissue((1, 3, 3)), np.ones((1, 3, 3), bool)
    ranges = [(99, 1), (5, 5), (-1, 99), (1, float("nan"))]
    for options in ({"method": "minmax"}, *({"percentiles": found} for found in ranges)):
        with pytest.raises(ValueError, match=r"minmax|percentiles") as caught:
            normalize(images, shown, **options)
        assert not isinstance(caught.value, DataError), "not the data's fault"


def test_real_cases_are_normalized_alike(emidec_root):
    """On the default grid no real case has padding, so that mean and spread are 0 and 1."""
    for folder in find_cases(emidec_root)[::10]:
        images, labels = preprocess_case(load_case(folder), how(Grid()))
        assert labels is not None
        assert images.mean() == pytest.approx(0, abs=1e-4)
        assert images.std() == pytest.approx(1, abs=1e-3)
        assert np.abs(images).max() < 6
        # In late enhancement the cavity is brighter than normal myocardium.
        assert images[labels == 1].mean() > images[labels == 2].mean()
