"""Bias fields: a known field is removed, and what shows the same stack gives the same image."""

import subprocess
import sys
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest

from jaxseg.data.bias_field import correct_bias_field
from jaxseg.data.case import Case
from jaxseg.data.phantom.write import phantom_case


@pytest.fixture(scope="module")
def case():
    drawn = phantom_case(0, 3, num_cases=4)
    image = drawn.image.astype(np.float32)
    return Case(drawn.name, image, None, drawn.spacing, nib.Nifti1Header())


@pytest.fixture(scope="module")
def corrected(case):
    return correct_bias_field(case).image


def with_field(case, axis, size=0.3):
    """The case in a field of 1 - size to 1 + size along an axis."""
    ramp = 1 + size * np.linspace(-1, 1, case.image.shape[axis], dtype=np.float32)
    return replace(case, image=case.image * np.moveaxis(ramp[:, None, None], 0, axis))


@pytest.mark.parametrize("axis", [0, 1])
def test_a_known_field_is_reduced(case, corrected, axis):
    biased = with_field(case, axis)
    bright = case.image > np.median(case.image[case.tissue])
    left = np.log(correct_bias_field(biased).image[bright] / corrected[bright])
    field = np.log(biased.image[bright] / case.image[bright])
    assert left.std() < 0.65 * field.std()


def test_a_stack_without_a_field_changes_little(case, corrected):
    bright = case.image > np.median(case.image[case.tissue])
    assert np.log(corrected[bright] / case.image[bright]).std() < 0.03
    assert corrected.dtype == np.float32


def test_the_orientation_in_plane_makes_no_difference(case, corrected):
    x, y, z = case.spacing
    turned = replace(case, image=case.image.transpose(1, 0, 2)[::-1].copy(), spacing=(y, x, z))
    back = correct_bias_field(turned).image[::-1].transpose(1, 0, 2)
    np.testing.assert_allclose(back, corrected, rtol=0.01, atol=1e-3 * np.ptp(corrected))


def test_padding_makes_no_difference_and_keeps_its_values(case, corrected):
    wide = np.pad(case.image, ((20, 3), (0, 11), (1, 1)))
    found = correct_bias_field(replace(case, image=wide)).image
    inner = (slice(20, -3), slice(0, -11), slice(1, -1))
    np.testing.assert_allclose(found[inner], corrected, rtol=1e-5)
    found[inner] = 0
    assert not found.any()


@pytest.mark.parametrize(("scale", "offset"), [(1000, 0), (1e-3, 0), (1, 500), (1, -1000)])
def test_scale_and_offset_of_the_file_make_no_difference(case, corrected, scale, offset):
    stored = replace(case, image=(scale * case.image + offset).astype(np.float32))
    found = (correct_bias_field(stored).image - offset) / scale
    np.testing.assert_allclose(found, corrected, rtol=1e-3, atol=2e-3 * np.ptp(corrected))


@pytest.mark.parametrize("shape", [(90, 90, 1), (90, 9, 2), (8, 8, 2), (7, 90, 2), (1, 1, 2)])
def test_few_slices_and_small_pictures(case, shape):
    middle = replace(case, image=case.image[tuple(slice(60, 60 + n) for n in shape[:2])])
    small = replace(middle, image=middle.image[..., 2 : 2 + shape[2]])
    found = correct_bias_field(with_field(small, 0)).image
    assert found.shape == shape
    assert np.isfinite(found).all()


@pytest.mark.parametrize("image", [np.zeros((8, 8, 2)), np.full((8, 8, 2), 3.0)])
def test_a_stack_without_picture_stays_as_it_is(case, image):
    empty = replace(case, image=image.astype(np.float32))
    np.testing.assert_array_equal(correct_bias_field(empty).image, image)


def test_a_training_without_the_correction_does_not_load_simpleitk():
    code = "import sys, jaxseg.training.train; sys.exit('SimpleITK' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
