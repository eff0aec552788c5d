"""DICOM series: values, positions, and series that are refused."""

import builtins
import shutil

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from pydicom.uid import (
    JPEG2000,
    BasicTextSRStorage,
    HTJ2KLossless,
    MediaStorageDirectoryStorage,
    RLELossless,
)

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
    """The error of a refused series: one line that does not name the patient."""
    with pytest.raises(DataError) as caught:
        read(source, choice)
    line = str(caught.value)
    assert "\n" not in line
    assert not any(part in line for part in (*PATIENT.split("^"), "4711"))
    return line


def test_files_are_sorted_by_position(tmp_path):
    folder = write_series(tmp_path / "scan", IMAGE, SPACING)
    (folder / "notes.txt").write_text("not an image")
    (folder / "DICOMDIR").write_bytes(b"short")
    case = read(folder)
    assert case.image.dtype == np.float32
    np.testing.assert_array_equal(case.image, IMAGE)
    assert case.spacing == pytest.approx(SPACING)
    np.testing.assert_allclose(case.header.get_best_affine(), affine_of(SPACING), atol=1e-4)
    assert case.orientation == "LI"


def test_values_are_rescaled_by_file(tmp_path):
    def per_slice(data, k):
        data.RescaleSlope, data.RescaleIntercept = k + 1, -k

    case = read(write_series(tmp_path / "scan", IMAGE, SPACING, change=per_slice))
    k = np.arange(IMAGE.shape[2])
    np.testing.assert_array_equal(case.image, IMAGE * (k + 1.0) - k)


def test_values_and_positions_agree_with_simpleitk(tmp_path):
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

    case = read(write_series(tmp_path / "scan", IMAGE, SPACING, change=compress))
    np.testing.assert_array_equal(case.image, IMAGE)


@pytest.mark.parametrize(
    "syntax",
    ["JPEG2000Lossless", "JPEGLSLossless", "JPEGLosslessProcess14", "JPEGLosslessProcess14_1"],
)
def test_compressed_pixels_that_pydicom_alone_cannot_decode(tmp_path, syntax):
    gdcm = pytest.importorskip("gdcm")
    folder = write_series(tmp_path / "scan", IMAGE, SPACING)
    write_enhanced(tmp_path / "enhanced", IMAGE, SPACING)
    for path in (*folder.iterdir(), tmp_path / "enhanced"):
        reader, change = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax()
        reader.SetFileName(str(path))
        assert reader.Read()
        change.SetTransferSyntax(gdcm.TransferSyntax(getattr(gdcm.TransferSyntax, syntax)))
        change.SetInput(reader.GetImage())
        assert change.Change()
        writer = gdcm.ImageWriter()
        writer.SetFileName(str(path))
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        assert writer.Write()
    np.testing.assert_array_equal(read(folder).image, IMAGE)
    np.testing.assert_array_equal(read(tmp_path / "enhanced").image, 2.0 * IMAGE - 1)


def test_a_syntax_without_a_decoder_names_file_syntax_and_package(tmp_path):
    def claim(data, k):
        data.compress(RLELossless)
        data.file_meta.TransferSyntaxUID = HTJ2KLossless

    folder = write_series(tmp_path / "scan", IMAGE, SPACING, change=claim)
    line = refused(folder)
    assert str(folder) in line
    assert HTJ2KLossless.name in line
    assert "pylibjpeg-openjpeg" in line  # named by pydicom


def test_a_disk_with_nested_folders_and_other_files(tmp_path):
    folder = write_series(tmp_path / "disk" / "DICOM" / "A" / "1", IMAGE, SPACING)
    (folder.parent / "2").mkdir()
    for path in sorted(folder.iterdir())[::2]:
        path.rename(folder.parent / "2" / path.stem)
    index = new_file(tmp_path, MediaStorageDirectoryStorage, 98, 8, "index")
    index.save_as(tmp_path / "disk" / "DICOMDIR", enforce_file_format=True)
    for name in (".DS_Store", "README.TXT", "DICOM/Thumbs.db", "DICOM/A/._IM0001"):
        (tmp_path / "disk" / name).write_bytes(b"\x00\x05\x16\x07 other" * 20)
    np.testing.assert_array_equal(read(tmp_path / "disk").image, IMAGE)


def test_several_series_need_a_choice(tmp_path):
    write_series(tmp_path / "1", IMAGE, SPACING)
    write_series(tmp_path / "2", IMAGE[..., :4] + 1, SPACING, series=23, description="LGE 2ch")
    line = refused(tmp_path)
    for part in ("--series", "'LGE SAX'", "6 files", "'LGE 2ch'", "4 files", "...23"):
        assert part in line
    np.testing.assert_array_equal(read(tmp_path, "LGE SAX").image, IMAGE)
    np.testing.assert_array_equal(read(tmp_path, ".23").image, IMAGE[..., :4] + 1)
    assert "--series=LGE" in refused(tmp_path, "LGE")
    np.testing.assert_array_equal(read(tmp_path / "1", "LGE SAX").image, IMAGE)


@pytest.mark.parametrize("lost", [1, 3])
def test_a_missing_slice(tmp_path, lost):
    line = refused(write_series(tmp_path / "x", IMAGE, SPACING, change=lambda _, k: k != lost))
    for part in ("x: ", "16 mm", "8 mm", "IM"):
        assert part in line


def test_a_duplicate(tmp_path):
    folder = write_series(tmp_path / "x", IMAGE, SPACING)
    shutil.copy(sorted(folder.iterdir())[0], folder / "copy")
    assert "copy" in refused(folder)


def test_cine_series_and_localizers(tmp_path):
    def phase(data, k):
        data.ImagePositionPatient = ORIGIN.tolist()
        data.TriggerTime = 40 * k

    def turned(data, k):
        if k == 2:
            data.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]

    for kind, change in (("cine", phase), ("localizer", turned)):
        folder = tmp_path / change.__name__
        assert kind in refused(write_series(folder, IMAGE, SPACING, change=change))


@pytest.mark.parametrize("count", [1, 2])
def test_too_few_slices(tmp_path, count):
    line = refused(write_series(tmp_path / "x", IMAGE[..., :count], SPACING))
    assert f"x: {count} " in line


@pytest.mark.parametrize(
    ("tag", "value", "found"),
    [
        ("Modality", "CT", "Modality CT"),
        ("PhotometricInterpretation", "MONOCHROME1", "MONOCHROME1"),
        ("PixelSpacing", None, "PixelSpacing"),
        ("ImagePositionPatient", None, "ImagePositionPatient"),
        ("ImageOrientationPatient", None, "ImageOrientationPatient"),
        ("ImageOrientationPatient", [1, 0, 0, 1, 0, 0], "vectors"),
        ("PixelSpacing", [0, 1], "PixelSpacing 0.0, 1.0 mm"),
        ("ImagePositionPatient", BESIDE, "5 mm"),
        ("PixelSpacing", [1.5, 1.5], "size"),
    ],
)
def test_wrong_and_missing_tags(tmp_path, tag, value, found):
    def edit(data, k):
        if k == 3 and value is None:
            delattr(data, tag)
        elif k == 3:
            setattr(data, tag, value)

    folder = write_series(tmp_path / "x", IMAGE, SPACING, change=edit)
    assert found in refused(folder)


def test_pixels_that_cannot_be_decoded(tmp_path):
    def damage(data, k):
        if k == 1:
            data.PixelData = data.PixelData[:-2]

    def claim(data, k):
        data.compress(RLELossless)
        data.file_meta.TransferSyntaxUID = JPEG2000

    for change, syntax in ((damage, "Explicit VR Little Endian"), (claim, "JPEG 2000")):
        folder = write_series(tmp_path / change.__name__, IMAGE, SPACING, change=change)
        assert syntax in refused(folder)


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
    refused(tmp_path / "report")


def test_without_pydicom(tmp_path, monkeypatch):
    folder, original = write_series(tmp_path / "x", IMAGE, SPACING), builtins.__import__

    def without(name, *rest, **options):
        if name == "pydicom":
            raise ImportError(name)
        return original(name, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    assert "pip install" in refused(folder)


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
def test_output_names_do_not_contain_the_patient(tmp_path, folder, description, name):
    source = write_series(tmp_path / folder, IMAGE, SPACING, description=description)
    assert find_series(source, dicom_files(source)).name == name
