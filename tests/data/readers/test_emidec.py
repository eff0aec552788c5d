"""EMIDEC folders: search, refused cases, and volumes of the real cases."""

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
    image = np.arange(24, dtype=np.int16).reshape(4, 3, 2)
    write_volume(folder / "Images" / f"{name}{suffix}", image)
    if contours:
        write_volume(folder / "Contours" / f"{name}{suffix}", np.eye(4, 3)[..., None].repeat(2, 2))
    return folder


def test_finds_cases_at_any_depth_sorted_by_name(tmp_path):
    """Hidden and other files are skipped; any folder with Images is a case."""
    expected = [
        make_case(tmp_path / "deep" / "er", "Case_123", contours=False),
        make_case(tmp_path / "z", "Case_N002"),
        make_case(tmp_path, "Case_P001"),
        make_case(tmp_path, "patient7"),
    ]
    (tmp_path / "Case P001.txt").write_bytes(b"Age : 61\r\n\xe9\r\n")
    (tmp_path / "Case_P001.txt").write_text("not a folder")
    (tmp_path / "documents").mkdir()
    (tmp_path / "Case_P001" / "Images" / "._Case_P001.nii.gz").write_bytes(b"of macOS")
    assert find_cases(tmp_path) == expected
    assert find_cases(str(tmp_path)) == expected
    assert find_cases(expected[-1]) == expected[-1:]
    assert load_case(expected[0]).label is None
    assert load_case(expected[2]).name == "Case_P001"


def test_follows_links_once(tmp_path):
    folder = make_case(tmp_path / "store", "Case_P001")
    (tmp_path / "store" / "loop").symlink_to(tmp_path / "store")
    assert find_cases(tmp_path / "store") == [folder]
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "Case_P001").symlink_to(folder)
    assert [found.name for found in find_cases(tmp_path / "links")] == ["Case_P001"]


def test_refuses_roots_without_cases_and_repeated_names(tmp_path):
    for root in (tmp_path / "none", tmp_path):
        with pytest.raises(DataError, match=str(root)):
            find_cases(root)
    for parent in "ab":
        make_case(tmp_path / parent, "Case_P001")
    with pytest.raises(DataError, match=r"b.Case_P001: .*a.Case_P001"):
        find_cases(tmp_path)


def test_refuses_a_case_without_one_image(tmp_path):
    make_case(tmp_path, "Case_P001")
    folder = tmp_path / "Case_P002"
    for images in (None, [], ["Case_P002.nii", "Case_P002.nii.gz"]):
        folder.mkdir(exist_ok=True)
        if images is not None:
            (folder / "Images").mkdir(exist_ok=True)
        for name in images or ():
            write_volume(folder / "Images" / name, np.ones((4, 3, 2)))
        for read, source in ((find_cases, tmp_path), (load_case, folder)):
            with pytest.raises(DataError, match=r"Case_P002.Images: ") as caught:
                read(source)
            assert all(name in str(caught.value) for name in images or ())


def test_errors_of_a_case_name_the_file(tmp_path):
    folder = make_case(tmp_path, "Case_P001")
    image, label = (folder / part / "Case_P001.nii.gz" for part in ("Images", "Contours"))
    label.write_bytes(label.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"Contours.Case_P001\.nii\.gz: "):
        load_case(folder)
    label.unlink()
    with pytest.raises(DataError, match="Contours: "):
        load_case(folder)
    image.rename(image.with_name("Case_P002.nii.gz"))
    with pytest.raises(DataError, match=r"Case_P002\.nii\.gz: .*Case_P001"):
        load_case(folder)
    with pytest.raises(DataError, match="Case_404: "):
        load_case(tmp_path / "Case_404")


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_loads_a_case(tmp_path, suffix):
    case = load_case(make_case(tmp_path, "Case_N001", suffix=suffix))
    assert case.name == "Case_N001"
    np.testing.assert_array_equal(case.image, np.arange(24).reshape(4, 3, 2))
    assert case.label is not None
    np.testing.assert_array_equal(case.label[..., 1], np.eye(4, 3))
    assert case.spacing == (1.5, 0.75, 8.0)


def test_the_name_does_not_depend_on_the_form_of_the_path(tmp_path, monkeypatch):
    folder = make_case(tmp_path, "Case_N001")
    monkeypatch.chdir(folder)
    assert load_case(".").name == "Case_N001"


def test_real_volumes_agree_with_the_official_volumes(emidec_root):
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
