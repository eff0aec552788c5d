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


def test_name_header_and_byte_order_play_no_part():
    header = nib.Nifti1Header()
    header["descrip"] = b"other"
    turned = np.asfortranarray(CASE.image.astype(">f4"))
    known = digests(CASE)
    assert changed(name="B", header=header, image=turned) == known
    assert all(len(text) == 64 for text in known)
    assert changed(image=np.where(CASE.image > 1.5, 0.0, CASE.image).astype("f4")) == changed(
        image=np.where(CASE.image > 1.5, -0.0, CASE.image).astype("f4")
    )


def test_rounding_of_a_header_plays_no_part_but_a_voxel_size_does():
    x, y, z = CASE.spacing
    assert changed(spacing=(x + 1e-7, y, z)) == digests(CASE)
    assert changed(spacing=(x + 0.01, y, z)).image != digests(CASE).image
    assert changed(spacing=(x + 0.01, y, z)).label == digests(CASE).label


def test_one_voxel_counts_in_the_image_and_in_the_label_map_apart():
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


def test_shapes_count():
    flat = CASE.image.reshape(144, 1, 3)
    assert changed(image=flat).image != digests(CASE).image


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("kind", [np.int16, np.float64])
def test_file_format_and_storage_type_play_no_part(tmp_path, ending, kind):
    values = np.arange(60).reshape(5, 4, 3)
    first, second = tmp_path / "a.nii", tmp_path / f"b{ending}"
    nib.Nifti1Image(values.astype(np.uint8), np.eye(4)).to_filename(first)
    nib.Nifti2Image(values.astype(kind), np.eye(4)).to_filename(second)
    assert digests(read_case("a", first)) == digests(read_case("b", second))
