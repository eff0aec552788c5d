"""DICOM series: what is read, where it lies, and what is refused in one line."""

import builtins
import shutil

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from pydicom.uid import JPEG2000, BasicTextSRStorage, RLELossless

from jaxseg.data import DataError
from jaxseg.data.nifti import write_like
from jaxseg.data.readers.dicom import dicom_files, find_series
from tests.dicom_series import (
    ORIGIN,
    PATIENT,
    ROW,
    affine_of,
    new_file,
    position,
    write_enhanced,
    write_series,
)

SPACING = (1.25, 1.75, 8.0)
IMAGE = np.random.default_rng(0).integers(0, 500, (12, 9, 6))
# 5 mm beside the fourth slice.
BESIDE = (np.array(position(SPACING, 3)) + 5 * ROW).tolist()


def read(source, choice=None):
    return find_series(source, dicom_files(source), choice).read("A")


def refused(source, choice=None):
    """The only line with which a series is refused, which does not name the patient."""
    with pytest.raises(DataError) as caught:
        read(source, choice)
    line = str(caught.value)
    assert "\n" not in line
    assert not any(part in line for part in (*PATIENT.split("^"), "4711"))
    return line


def test_a_series_in_any_order_under_any_name(tmp_path):
    folder = write_series(tmp_path / "scan", IMAGE, SPACING)
    (folder / "notes.txt").write_text("not an image")
    (folder / "DICOMDIR").write_bytes(b"short")
    case = read(folder)
    assert case.image.dtype == np.float32
    np.testing.assert_array_equal(case.image, IMAGE)
    assert case.spacing == pytest.approx(SPACING)
    np.testing.assert_allclose(case.header.get_best_affine(), affine_of(SPACING), atol=1e-4)
    assert case.orientation == "LI"


def test_values_are_scaled_by_each_file_s_own_rescale(tmp_path):
    def per_slice(data, k):
        data.RescaleSlope, data.RescaleIntercept = k + 1, -k

    case = read(write_series(tmp_path / "scan", IMAGE, SPACING, change=per_slice))
    k = np.arange(IMAGE.shape[2])
    np.testing.assert_array_equal(case.image, IMAGE * (k + 1.0) - k)


def test_simpleitk_finds_the_same_values_in_the_same_places(tmp_path):
    """An independent reader of the series, and of the NIfTI files written with its geometry."""
    folder = write_series(tmp_path / "scan", IMAGE, SPACING, scaling=(0.5, -20.0))
    case = read(folder)
    names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder))
    series = sitk.ReadImage(names)
    np.testing.assert_allclose(sitk.GetArrayFromImage(series).T, case.image)
    write_like(tmp_path / "out.nii.gz", (case.image > 200).astype(np.uint8), case.header)
    written = sitk.ReadImage(str(tmp_path / "out.nii.gz"))
    for index in ((0, 0, 0), (11, 8, 5), (3, 7, 2)):
        found = written.TransformIndexToPhysicalPoint(index)
        np.testing.assert_allclose(found, series.TransformIndexToPhysicalPoint(index), atol=1e-3)
    np.testing.assert_allclose(written.TransformIndexToPhysicalPoint((0, 0, 0)), ORIGIN, atol=1e-4)


def test_frames_of_an_enhanced_file(tmp_path):
    path = write_enhanced(tmp_path / "enhanced", IMAGE, SPACING)
    for source in (path, tmp_path):
        case = read(source)
        np.testing.assert_array_equal(case.image, 2.0 * IMAGE - 1)
        np.testing.assert_allclose(case.header.get_best_affine(), affine_of(SPACING), atol=1e-4)


def test_compressed_pixels(tmp_path):
    def compress(data, k):
        data.compress(RLELossless)

    np.testing.assert_array_equal(
        read(write_series(tmp_path / "scan", IMAGE, SPACING, change=compress)).image, IMAGE
    )


def test_several_series_need_a_choice(tmp_path):
    write_series(tmp_path / "1", IMAGE, SPACING)
    write_series(tmp_path / "2", IMAGE[..., :4] + 1, SPACING, series=23, description="LGE 2ch")
    line = refused(tmp_path)
    assert "2 series; expected one, chosen by --series" in line
    assert "'LGE SAX' (6 files, UID ...1); 'LGE 2ch' (4 files, UID ...23)" in line
    np.testing.assert_array_equal(read(tmp_path, "LGE SAX").image, IMAGE)
    np.testing.assert_array_equal(read(tmp_path, ".23").image, IMAGE[..., :4] + 1)
    assert "0 of them for --series=LGE;" in refused(tmp_path, "LGE")
    np.testing.assert_array_equal(read(tmp_path / "1", "LGE SAX").image, IMAGE)


@pytest.mark.parametrize("lost", [1, 3])
def test_a_missing_slice(tmp_path, lost):
    line = refused(write_series(tmp_path / "x", IMAGE, SPACING, change=lambda _, k: k != lost))
    assert "x: 16 mm between IM" in line
    assert "8 mm between others; expected equal distances, without a missing slice" in line


def test_a_duplicate(tmp_path):
    folder = write_series(tmp_path / "x", IMAGE, SPACING)
    shutil.copy(sorted(folder.iterdir())[0], folder / "copy")
    line = refused(folder)
    assert "copy lie at one position" in line


def test_a_cine_with_time(tmp_path):
    def phase(data, k):
        data.ImagePositionPatient = ORIGIN.tolist()
        data.TriggerTime = 40 * k

    assert "x: several times at one position (6 images, 6 trigger times), as of a cine" in refused(
        write_series(tmp_path / "x", IMAGE, SPACING, change=phase)
    )


def test_views_that_are_not_parallel(tmp_path):
    def turned(data, k):
        if k == 2:
            data.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]

    assert "x: slices of several orientations, as of a localizer" in refused(
        write_series(tmp_path / "x", IMAGE, SPACING, change=turned)
    )


@pytest.mark.parametrize("count", [1, 2])
def test_too_few_slices(tmp_path, count):
    line = refused(write_series(tmp_path / "x", IMAGE[..., :count], SPACING))
    assert f"x: {count} parallel slice" in line
    assert "expected a short-axis stack of at least 3" in line


@pytest.mark.parametrize(
    ("tag", "value", "message"),
    [
        ("Modality", "CT", "Modality CT; expected MR"),
        ("PhotometricInterpretation", "MONOCHROME1", "MONOCHROME1; expected gray"),
        ("PixelSpacing", None, "no PixelSpacing; expected 2 numbers"),
        ("ImagePositionPatient", None, "no ImagePositionPatient; expected 3 numbers"),
        ("ImageOrientationPatient", None, "no ImageOrientationPatient; expected 6 numbers"),
        ("ImageOrientationPatient", [1, 0, 0, 1, 0, 0], "expected two unit vectors"),
        ("PixelSpacing", [0, 1], "PixelSpacing 0.0, 1.0 mm; expected"),
        ("ImagePositionPatient", BESIDE, "lies 5 mm beside the normal"),
        ("PixelSpacing", [1.5, 1.5], "expected slices of one size"),
    ],
)
def test_slices_whose_tags_are_wrong_or_missing(tmp_path, tag, value, message):
    def edit(data, k):
        if k == 3 and value is None:
            delattr(data, tag)
        elif k == 3:
            setattr(data, tag, value)

    folder = write_series(tmp_path / "x", IMAGE, SPACING, change=edit)
    assert message in refused(folder)


def test_pixels_that_cannot_be_decoded(tmp_path):
    def damage(data, k):
        if k == 1:
            data.PixelData = data.PixelData[:-2]

    line = refused(write_series(tmp_path / "x", IMAGE, SPACING, change=damage))
    assert ".dcm: pixels cannot be decoded (Explicit VR Little Endian: " in line

    def claim(data, k):
        data.compress(RLELossless)
        data.file_meta.TransferSyntaxUID = JPEG2000

    line = refused(write_series(tmp_path / "y", IMAGE, SPACING, change=claim))
    assert "pixels cannot be decoded (JPEG 2000" in line


@pytest.mark.parametrize("kept", [140, 500, 700, -1])
def test_damaged_files(tmp_path, kept):
    folder = write_series(tmp_path / "x", IMAGE, SPACING)
    path = sorted(folder.iterdir())[0]
    path.write_bytes(path.read_bytes()[:kept])
    refused(folder)


def test_files_without_an_image_are_skipped(tmp_path):
    folder = write_series(tmp_path / "x", IMAGE, SPACING)
    data = new_file(folder, BasicTextSRStorage, 99, 7, "a report")
    data.Modality = "SR"
    data.save_as(folder / "report", enforce_file_format=True)
    np.testing.assert_array_equal(read(folder).image, IMAGE)
    shutil.copy(folder / "report", tmp_path / "report")
    assert "without an image" in refused(tmp_path / "report")


def test_without_pydicom(tmp_path, monkeypatch):
    folder, original = write_series(tmp_path / "x", IMAGE, SPACING), builtins.__import__

    def without(name, *rest, **options):
        if name == "pydicom":
            raise ImportError(name)
        return original(name, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    assert "needs pydicom; expected it installed: pip install" in refused(folder)


@pytest.mark.parametrize(
    ("folder", "description", "name"),
    [
        ("study-12", "LGE SAX", "study-12_LGE_SAX"),
        ("DOE_JANE", "LGE/SAX: 10'", "LGE_SAX_10"),
        ("4711", "PSIR of Quirin", "series"),
        ("scanjane2", "", "series"),
        ("Ärzte..", "../x", "rzte.._.._x"),
    ],
)
def test_names_of_outputs_hold_no_patient(tmp_path, folder, description, name):
    source = write_series(tmp_path / folder, IMAGE, SPACING, description=description)
    assert find_series(source, dicom_files(source)).name == name
