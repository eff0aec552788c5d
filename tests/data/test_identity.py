"""Digests of cases: native voxels and voxel size, and nothing else."""

import dataclasses

import nibabel as nib
import numpy as np
import pytest

from jaxseg.data.case import read_case
from jaxseg.data.identity import digests
from tests.data.small_cohorts import make_case

CASE = make_case("A", 3)


def changed(**fields):
    return digests(dataclasses.replace(CASE, **fields))


def test_name_header_and_byte_order_do_not_count():
    header = nib.Nifti1Header()
    header["descrip"] = b"other"
    turned = np.asfortranarray(CASE.image.astype(">f4"))
    known = digests(CASE)
    assert changed(name="B", header=header, image=turned) == known
    assert all(len(text) == 64 for text in known)
    signs = [np.where(CASE.image > 1.5, zero, CASE.image).astype("f4") for zero in (0.0, -0.0)]
    assert changed(image=signs[0]) == changed(image=signs[1])


def test_rounding_does_not_count_but_voxel_size_does():
    x, y, z = CASE.spacing
    assert changed(spacing=(x + 1e-7, y, z)) == digests(CASE)
    assert changed(spacing=(x + 0.01, y, z)).image != digests(CASE).image
    assert changed(spacing=(x + 0.01, y, z)).label == digests(CASE).label


def test_one_voxel_changes_its_digest_only():
    assert CASE.label is not None
    image, label = CASE.image.copy(), CASE.label.copy()
    image[0, 0, 0] = np.nextafter(image[0, 0, 0], np.float32(9))
    label[0, 0, 0] = 1
    known = digests(CASE)
    assert changed(image=image).image != known.image
    assert changed(image=image).label == known.label
    assert changed(label=label).label != known.label
    assert changed(label=label).image == known.image
    assert changed(label=None) == (known.image, None)
    assert changed(image=CASE.image.reshape(144, 1, 3)).image != known.image


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("kind", [np.int16, np.float64])
def test_file_format_and_storage_type_do_not_count(tmp_path, ending, kind):
    values = np.arange(60).reshape(5, 4, 3)
    first, second = tmp_path / "a.nii", tmp_path / f"b{ending}"
    nib.Nifti1Image(values.astype(np.uint8), np.eye(4)).to_filename(first)
    nib.Nifti2Image(values.astype(kind), np.eye(4)).to_filename(second)
    assert digests(read_case("a", first)) == digests(read_case("b", second))
