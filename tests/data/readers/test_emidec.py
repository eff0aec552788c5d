"""EMIDEC folders: which are found, which are refused, and the real cases against their volumes."""

import csv

import nibabel as nib
import numpy as np
import pytest

from jaxseg.data.nifti import DataError
from jaxseg.data.readers.emidec import find_cases, load_case


def write_volume(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(array, np.diag([-1.0, -1, 1, 1]))
    image.header.set_zooms((1.5, 0.75, 8.0))
    image.to_filename(path)


def make_case(root, name, *, contours=True, suffix=".nii.gz"):
    folder = root / name
    write_volume(
        folder / "Images" / f"{name}{suffix}", np.arange(24, dtype=np.int16).reshape(4, 3, 2)
    )
    if contours:
        write_volume(folder / "Contours" / f"{name}{suffix}", np.eye(4, 3)[..., None].repeat(2, 2))
    return folder


def test_finds_cases_at_any_depth_sorted_by_name(tmp_path):
    expected = [
        make_case(tmp_path / "deep" / "er", "Case_123", contours=False),
        make_case(tmp_path / "z", "Case_N002"),
        make_case(tmp_path, "Case_P001"),
    ]
    (tmp_path / "Case P001.txt").write_bytes(b"Age : 61\r\n\xe9\r\n")
    (tmp_path / "Case_P001.txt").write_text("not a folder")
    (tmp_path / "documents").mkdir()
    assert find_cases(tmp_path) == expected
    assert find_cases(str(tmp_path)) == expected


def test_a_folder_with_images_is_a_case_whatever_its_name(tmp_path):
    folder = make_case(tmp_path, "patient7")
    assert find_cases(tmp_path) == [folder]
    assert find_cases(folder) == [folder]


def test_follows_links_once(tmp_path):
    folder = make_case(tmp_path / "store", "Case_P001")
    (tmp_path / "store" / "loop").symlink_to(tmp_path / "store")
    assert find_cases(tmp_path / "store") == [folder]
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "Case_P001").symlink_to(folder)
    assert [found.name for found in find_cases(tmp_path / "links")] == ["Case_P001"]


def test_refuses_a_root_without_cases(tmp_path):
    with pytest.raises(DataError, match="none: no such folder"):
        find_cases(tmp_path / "none")
    with pytest.raises(DataError, match="no case; expected folders such as"):
        find_cases(tmp_path)


def test_refuses_two_cases_of_one_name(tmp_path):
    make_case(tmp_path / "a", "Case_P001")
    make_case(tmp_path / "b", "Case_P001")
    with pytest.raises(DataError, match=r"b.Case_P001: a second case.*a.Case_P001"):
        find_cases(tmp_path)


def test_refuses_a_case_folder_without_image(tmp_path):
    make_case(tmp_path, "Case_P001")
    (tmp_path / "Case_P002").mkdir()
    with pytest.raises(DataError, match=r"Case_P002.Images: no such folder; expected one file"):
        find_cases(tmp_path)
    (tmp_path / "Case_P002" / "Images").mkdir()
    with pytest.raises(DataError, match=r"Case_P002.Images: 0 NIfTI files"):
        find_cases(tmp_path)
    with pytest.raises(DataError, match=r"Case_P002.Images: 0 NIfTI files"):
        load_case(tmp_path / "Case_P002")


def test_refuses_two_images_in_one_case(tmp_path):
    make_case(tmp_path, "Case_P001", suffix=".nii")
    folder = make_case(tmp_path, "Case_P001")
    for read in (find_cases, load_case):
        with pytest.raises(DataError, match=r"2 NIfTI files \(Case_P001\.nii, Case_P001\.nii\.gz"):
            read(folder)


def test_hidden_files_beside_an_image_are_passed_over(tmp_path):
    folder = make_case(tmp_path, "Case_P001")
    (folder / "Images" / "._Case_P001.nii.gz").write_bytes(b"of macOS")
    assert find_cases(tmp_path) == [folder]
    assert load_case(folder).name == "Case_P001"


def test_refuses_the_file_of_another_case(tmp_path):
    folder = make_case(tmp_path, "Case_P001")
    image = folder / "Images" / "Case_P001.nii.gz"
    image.rename(image.with_name("Case_P002.nii.gz"))
    with pytest.raises(DataError, match=r"Case_P002\.nii\.gz: file of another case.*Case_P001"):
        load_case(folder)


def test_refuses_a_contours_folder_without_label_map(tmp_path):
    folder = make_case(tmp_path, "Case_P001")
    (folder / "Contours" / "Case_P001.nii.gz").unlink()
    with pytest.raises(DataError, match="Contours: 0 NIfTI files"):
        load_case(folder)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_loads_a_case(tmp_path, suffix):
    case = load_case(make_case(tmp_path, "Case_N001", suffix=suffix))
    assert case.name == "Case_N001"
    np.testing.assert_array_equal(case.image, np.arange(24).reshape(4, 3, 2))
    assert case.label is not None
    np.testing.assert_array_equal(case.label[..., 1], np.eye(4, 3))
    assert case.spacing == (1.5, 0.75, 8.0)


def test_a_test_case_has_no_label(tmp_path):
    assert load_case(make_case(tmp_path, "Case_123", contours=False)).label is None


def test_name_does_not_depend_on_how_the_folder_is_written(tmp_path, monkeypatch):
    folder = make_case(tmp_path, "Case_N001")
    monkeypatch.chdir(folder)
    assert load_case(".").name == "Case_N001"


def test_an_error_names_the_file(tmp_path):
    folder = make_case(tmp_path, "Case_N001")
    path = folder / "Contours" / "Case_N001.nii.gz"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"Contours.Case_N001\.nii\.gz: truncated"):
        load_case(folder)
    with pytest.raises(DataError, match="Case_404: no such case folder"):
        load_case(tmp_path / "Case_404")


def test_real_volumes_agree_with_the_official_ones(emidec_root):
    """Voxel count times pixdim against volumes.csv, for every case.

    The copy's spacing was recovered from the whole myocardium, which is exact; resampling its label
    maps moved the borders of the smaller regions.
    """
    with (emidec_root / "volumes.csv").open(newline="") as file:
        official = {row["case"]: row for row in csv.DictReader(file)}
    folders = find_cases(emidec_root)
    assert [folder.name for folder in folders] == sorted(official)
    columns = {
        "whole_myocardium_ml": ((2, 3, 4), 1e-4),
        "infarct_and_no_reflow_ml": ((3, 4), 0.06),
        "no_reflow_ml": ((4,), 0.18),
    }
    for folder in folders:
        case = load_case(folder)
        for column, (labels, tolerance) in columns.items():
            milliliters = np.isin(case.label, labels).sum() * np.prod(case.spacing) / 1000
            expected = float(official[case.name][column])
            assert milliliters == pytest.approx(expected, rel=tolerance), (case.name, column)


def test_real_labels(emidec_root):
    """N cases have no pathology; every slice shows the cavity, which widens from apex to base."""
    for folder in find_cases(emidec_root)[::6]:
        label = load_case(folder).label
        assert label is not None
        cavity = np.count_nonzero(label == 1, axis=(0, 1))
        assert cavity.all()
        assert cavity[-1] > cavity[0]
        assert (label.max() <= 2) == folder.name.startswith("Case_N")
