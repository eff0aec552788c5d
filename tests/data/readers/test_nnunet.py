"""nnU-Net data sets: reading, label values, and folders that are refused."""

import json
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from jaxseg.data import DataError
from jaxseg.data.phantom.write import write_phantom
from jaxseg.data.readers.dataset_json import read_dataset
from jaxseg.data.readers.nnunet import TEST, case_name, find_cases, load_case

# The anatomy's order; the data set's values are 0 background, 1 scar, 2 muscle.
LABELS = ("background", "muscle", "scar")
VERSION_2 = {
    "channel_names": {"0": "LGE"},
    "labels": {"background": 0, "muscle": 2, "scar": 1},
    "numTraining": 2,
    "file_ending": ".nii.gz",
}
VERSION_1 = {
    "modality": {"0": "MRI"},
    "labels": {"0": "background", "1": "scar", "2": "muscle"},
    "numTraining": 2,
    "training": [{"image": "./imagesTr/b.nii.gz", "label": "./labelsTr/b.nii.gz"}],
}
IMAGE = np.arange(24, dtype=np.int16).reshape(4, 3, 2)
# Values of the file, and the same map in the anatomy's order.
FILE_LABEL = np.array([0, 1, 2], np.uint8)[(IMAGE // 2) % 3]
LABEL = np.array([0, 2, 1], np.uint8)[(IMAGE // 2) % 3]


def write_volume(path, array, spacing=(1.5, 0.75, 8.0)):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.Nifti1Image(array, np.diag([-spacing[0], spacing[1], spacing[2], 1])).to_filename(path)


def describe(root, fields=VERSION_2, **changes):
    """Writes dataset.json; a change to None takes the field out."""
    root.mkdir(parents=True, exist_ok=True)
    kept = {name: value for name, value in {**fields, **changes}.items() if value is not None}
    (root / "dataset.json").write_text(json.dumps(kept))
    return root


def make(root, fields=VERSION_2, *, ending=".nii.gz", names=("b", "a"), **changes):
    describe(root, fields, **changes)
    for name in names:
        write_volume(root / "imagesTr" / f"{name}_0000{ending}", IMAGE)
        write_volume(root / "labelsTr" / f"{name}{ending}", FILE_LABEL)
    return root


@pytest.mark.parametrize("fields", [VERSION_1, VERSION_2])
def test_both_versions_are_read(tmp_path, fields):
    root = make(tmp_path / "Dataset501_Scar", fields)
    assert read_dataset(root).labels == {"background": 0, "scar": 1, "muscle": 2}
    images = find_cases(root)
    assert images == [root / "imagesTr" / f"{name}_0000.nii.gz" for name in ("a", "b")]
    assert find_cases(str(root)) == images
    case = load_case(images[0], labels=LABELS)
    assert case.name == "a"
    np.testing.assert_array_equal(case.image, IMAGE)
    assert case.label is not None
    assert case.label.dtype == np.uint8
    np.testing.assert_array_equal(case.label, LABEL)
    assert case.spacing == (1.5, 0.75, 8.0)


def test_label_values_are_mapped_and_written_back(tmp_path):
    """A permutation of four is not its own inverse, unlike one of three with 0 kept."""
    labels = {"background": 0, "a": 2, "b": 3, "c": 1}
    values = read_dataset(make(tmp_path, labels=labels)).label_values(("background", "a", "b", "c"))
    assert values.written() == (0, 2, 3, 1)
    write_volume(tmp_path / "labelsTr" / "a.nii.gz", (IMAGE % 4).astype(np.uint8))
    case = load_case(tmp_path / "imagesTr" / "a_0000.nii.gz", labels=("background", "a", "b", "c"))
    # File value 1 is c, the anatomy's 3; 2 is a, its 1; 3 is b, its 2.
    assert case.label is not None
    np.testing.assert_array_equal(case.label, np.array([0, 3, 1, 2])[IMAGE % 4])
    np.testing.assert_array_equal(np.array(values.written())[case.label], IMAGE % 4)


def test_cases_are_sorted_by_name(tmp_path):
    # By file name a-b_0000 would come before a_0000.
    root = make(tmp_path, names=("a-b", "a", "a_1"), numTraining=3)
    (root / "imagesTr" / "._a_0000.nii.gz").write_bytes(b"resource fork")
    (root / "imagesTr" / "notes.txt").write_text("mine")
    names = [load_case(image, labels=LABELS).name for image in find_cases(root)]
    assert names == ["a", "a-b", "a_1"]


def test_relative_paths_are_read(tmp_path, monkeypatch):
    monkeypatch.chdir(make(tmp_path) / "imagesTr")
    assert load_case("a_0000.nii.gz", labels=LABELS).label is not None


def test_test_images_may_have_labels(tmp_path):
    root = make(tmp_path)
    for name in ("t1", "t2"):
        write_volume(root / "imagesTs" / f"{name}_0000.nii.gz", IMAGE)
    write_volume(root / "labelsTs" / "t2.nii.gz", FILE_LABEL)
    first, second = (load_case(p, labels=LABELS) for p in find_cases(root, folder=TEST))
    assert (first.name, first.label) == ("t1", None)
    assert second.label is not None
    np.testing.assert_array_equal(second.label, LABEL)


def test_folders_of_another_layout_are_refused(tmp_path):
    def refused(root, name, **options):
        with pytest.raises(DataError, match=name):
            find_cases(root, **options)

    refused(tmp_path / "none", "none: ")
    refused(tmp_path, r"dataset\.json: ")
    (tmp_path / "dataset.json").mkdir()
    refused(tmp_path, r"dataset\.json: ")
    root = describe(tmp_path / "empty")
    refused(root, "imagesTr: ")
    (root / "imagesTr").mkdir()
    refused(root, "imagesTr: ")
    (root / "imagesTs").write_text("a file")
    refused(root, "imagesTs: ", folder=TEST)
    refused(make(tmp_path / "more", numTraining=5), r"5\b.*imagesTr.*\b2\b")


def test_images_and_label_maps_must_correspond(tmp_path):
    root = make(tmp_path)
    label = root / "labelsTr" / "a.nii.gz"
    content = label.read_bytes()
    label.unlink()
    with pytest.raises(DataError, match=r"a_0000\.nii\.gz: .*labelsTr"):
        find_cases(root)
    with pytest.raises(DataError, match=r"labelsTr.a\.nii\.gz: "):
        load_case(root / "imagesTr" / "a_0000.nii.gz", labels=LABELS)
    label.write_bytes(content)
    label.with_name("c.nii.gz").write_bytes(content)
    with pytest.raises(DataError, match=r"labelsTr.c\.nii\.gz: .*c_0000"):
        find_cases(root)


# A second channel, names as in the Decathlon, and another file_ending.
@pytest.mark.parametrize("file", ["a_0001.nii.gz", "c.nii.gz", "_0000.nii.gz", "c_0000.nii"])
def test_file_names_of_another_layout_are_refused(tmp_path, file):
    root = make(tmp_path)
    write_volume(root / "imagesTr" / file, IMAGE)
    with pytest.raises(DataError, match=f"{file}: "):
        find_cases(root)


@pytest.mark.parametrize(
    ("labels", "found"),
    [
        (("background", "muscle", "edema"), "'scar'.*'edema'"),
        (("background", "muscle"), "'scar'"),
        ((*LABELS, "core", "edema"), "'core', 'edema'"),
        (("background", "muscle", "Scar"), "'scar'.*'Scar'"),
        (("scar", "muscle", "background"), "'background'.*'scar'"),
    ],
)
def test_labels_of_another_anatomy_are_refused(tmp_path, labels, found):
    image = find_cases(make(tmp_path))[0]
    with pytest.raises(DataError, match=rf"dataset\.json: .*{found}"):
        load_case(image, labels=labels)


def test_unknown_values_and_images_outside_the_layout_are_refused(tmp_path):
    image = find_cases(make(tmp_path))[0]
    write_volume(tmp_path / "labelsTr" / "a.nii.gz", (IMAGE % 4).astype(np.uint8))
    for path in (image, tmp_path / "labelsTr" / "a.nii.gz"):
        with pytest.raises(DataError, match=r"a\.nii\.gz: "):
            load_case(path, labels=LABELS)


def test_an_oblique_affine_does_not_change_the_arrays(tmp_path):
    """An oblique stack has its true spacing in pixdim and its voxels in stored order."""
    image = find_cases(make(tmp_path))[0]
    turn = np.array([[0.8, -0.6, 0.0], [0.6, 0.8, 0.0], [0.0, 0.0, 1.0]])
    affine: Any = np.eye(4)
    affine[:3, :3] = turn @ np.diag([1.5, 0.75, 8.0])
    for path, array in ((image, IMAGE), (tmp_path / "labelsTr" / "a.nii.gz", FILE_LABEL)):
        nib.Nifti1Image(array, affine).to_filename(path)
    case = load_case(image, labels=LABELS)
    assert case.spacing == pytest.approx((1.5, 0.75, 8.0), rel=1e-6)
    np.testing.assert_array_equal(case.image, IMAGE)


def test_file_endings_in_capitals(tmp_path):
    root = write_phantom(tmp_path / "own", seed=3, num_cases=2, layout="nnunet")
    for path in [*(root / "imagesTr").iterdir(), *(root / "labelsTr").iterdir()]:
        path.rename(path.with_name(path.name.replace(".nii.gz", ".NII.GZ")))
    paths = find_cases(root)
    labels = json.loads((root / "dataset.json").read_text())["labels"]
    for path in paths:
        assert load_case(path, labels=list(labels)).label is not None
        assert "_0000" not in case_name(path)
        assert not case_name(path).lower().endswith("gz")
