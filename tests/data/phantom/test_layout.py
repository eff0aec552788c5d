"""The phantom as an nnU-Net data set: same cohort, other names, values and affines."""

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from jaxseg.data import find_cases, load_case
from jaxseg.data.phantom.write import MANIFEST, phantom_case, write_phantom
from jaxseg.data.readers import nnunet

# In EMIDEC's order, so that label maps of the two forms are equal once read.
RENAMED = ("background", "cavity", "myocardium", "edema", "scar")


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("phantom") / "data"
    return write_phantom(folder, seed=1, num_cases=3, layout="nnunet")


def test_the_reader_returns_the_written_cohort(root):
    images = nnunet.find_cases(root)
    made = {case.name: case for case in (phantom_case(1, k, num_cases=3) for k in range(3))}
    assert len(images) == 3
    found = set()
    for image in images:
        case = nnunet.load_case(image, labels=RENAMED)
        expected = made.pop(case.name)
        np.testing.assert_array_equal(case.image, expected.image)
        np.testing.assert_array_equal(case.label, expected.label)
        assert case.spacing == pytest.approx(expected.spacing, rel=1e-6)
        found |= set(np.unique(expected.label).tolist())
    assert found == {0, 1, 2, 3, 4}  # every label was remapped


def test_label_values_are_those_of_dataset_json(root):
    labels = json.loads((root / "dataset.json").read_text())["labels"]
    assert labels == {"background": 0, "myocardium": 1, "cavity": 2, "scar": 3, "edema": 4}
    values = [labels[name] for name in RENAMED]
    for index in range(3):
        case = phantom_case(1, index, num_cases=3)
        volume: Any = nib.load(root / "labelsTr" / f"{case.name}.nii.gz")
        np.testing.assert_array_equal(np.asarray(volume.dataobj), np.array(values)[case.label])


def test_affines_hold_the_spacing(root):
    files = [*root.glob("imagesTr/*_0000.nii.gz"), *root.glob("labelsTr/*.nii.gz")]
    assert len(files) == 6
    for file in files:
        volume: Any = nib.load(file)
        sizes = nib.affines.voxel_sizes(volume.affine)
        np.testing.assert_allclose(sizes, volume.header.get_zooms(), rtol=1e-6)
        assert sizes[2] in (8, 10, 13)


def test_a_cohort_of_another_layout_is_refused(root, tmp_path):
    before = {file: file.stat().st_mtime_ns for file in root.rglob("*")}
    assert write_phantom(root, seed=1, num_cases=3, layout="nnunet") == root
    assert {file: file.stat().st_mtime_ns for file in root.rglob("*")} == before
    with pytest.raises(ValueError, match=r"layout is nnunet.*emidec"):
        write_phantom(root, seed=1, num_cases=3)
    next(root.glob("labelsTr/*")).rename(tmp_path / "moved")
    with pytest.raises(ValueError, match=r"labelsTr.[NP]00\d\.nii\.gz is missing"):
        write_phantom(root, seed=1, num_cases=3, layout="nnunet")
    (tmp_path / "moved").rename(next(file for file in before if not file.exists()))


def test_a_manifest_without_a_layout_is_emidec(tmp_path):
    root = write_phantom(tmp_path / "data", seed=0, num_cases=1)
    manifest = json.loads((root / MANIFEST).read_text())
    assert manifest.pop("layout") == "emidec"
    (root / MANIFEST).write_text(json.dumps(manifest))
    assert write_phantom(root, seed=0, num_cases=1) == root
    with pytest.raises(ValueError, match=r"layout is emidec.*nnunet"):
        write_phantom(root, seed=0, num_cases=1, layout="nnunet")
    (folder,) = find_cases(root)
    np.testing.assert_array_equal(load_case(folder).image, phantom_case(0, 0, num_cases=1).image)


def test_an_unknown_layout_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ValueError, match="'bids'"):
        write_phantom(tmp_path / "data", seed=0, num_cases=1, layout="bids")
    assert not list(tmp_path.iterdir())
