"""Prediction of a DICOM series: the label map of the same stack as NIfTI, in the same place."""

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from jaxseg.__main__ import main
from jaxseg.data import DataError, read_volume
from jaxseg.inference.predict import predict
from tests.dicom_series import PATIENT, affine_of, write_series


@pytest.fixture(scope="module")
def stack(phantom):
    """A phantom's image and its voxel size."""
    array, header = read_volume(phantom / "Case_P001" / "Images" / "Case_P001.nii.gz")
    return array, tuple(map(float, header.get_zooms()[:3]))


@pytest.fixture(scope="module")
def series(stack, tmp_path_factory):
    return write_series(tmp_path_factory.mktemp("dicom") / "Doe_scan", *stack)


def test_a_series_gives_the_label_map_of_the_same_nifti_stack(run, stack, series, tmp_path):
    array, spacing = stack
    turned = nib.Nifti1Image(array, affine_of(spacing)).as_reoriented([[1, -1], [0, 1], [2, -1]])
    turned.to_filename(tmp_path / "turned.nii.gz")
    predict([run], tmp_path / "turned.nii.gz", tmp_path / "out")
    predict([run], series, tmp_path / "out", probabilities=True)
    found = nib.load(tmp_path / "out" / "LGE_SAX.nii.gz")
    assert found.get_data_dtype() == np.uint8
    assert len(np.unique(found.dataobj)) == 5
    np.testing.assert_allclose(found.affine, affine_of(spacing), atol=1e-3)
    other = nib.load(tmp_path / "out" / "turned.nii.gz")
    one, other = (nib.as_closest_canonical(image) for image in (found, other))
    np.testing.assert_array_equal(one.dataobj, other.dataobj)
    np.testing.assert_allclose(one.affine, other.affine, atol=1e-3)
    probabilities = nib.load(tmp_path / "out" / "probabilities" / "LGE_SAX.nii.gz")
    assert probabilities.shape == (*array.shape, 5)


def test_the_label_map_has_the_position_of_the_series(run, stack, series, tmp_path):
    predict([run], series, tmp_path)
    labels = sitk.ReadImage(str(tmp_path / "LGE_SAX.nii.gz"))
    scan = sitk.ReadImage(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(series)))
    assert labels.GetSize() == scan.GetSize()
    last = [n - 1 for n in scan.GetSize()]
    for index in ((0, 0, 0), (3, 5, 1), last):
        places = [image.TransformIndexToPhysicalPoint(index) for image in (labels, scan)]
        np.testing.assert_allclose(*places, atol=1e-2)
    affine = nib.load(tmp_path / "LGE_SAX.nii.gz").affine
    left, posterior, superior = scan.TransformIndexToPhysicalPoint(last)
    found = (affine @ [*last, 1])[:3]
    np.testing.assert_allclose(found, [-left, -posterior, superior], atol=1e-2)


def test_the_patient_is_never_named(random_run, series, tmp_path, capsys):
    main(["predict", str(series), f"--run={random_run}", f"--output={tmp_path / 'out'}"])
    printed = "".join(capsys.readouterr())
    for word in (*PATIENT.split("^"), "ID-4711"):
        assert word not in printed.replace(str(series), "")
        for path in (tmp_path / "out").rglob("*"):
            assert word not in path.name
            assert path.is_dir() or word.encode() not in path.read_bytes()
    header = nib.load(tmp_path / "out" / "LGE_SAX.nii.gz").header
    assert not header.extensions
    assert header["descrip"].item() == b""


def test_one_of_several_series_is_chosen_by_name(run, stack, series, tmp_path):
    array, spacing = stack
    source = tmp_path / "study"
    write_series(source / "a", array, spacing)
    write_series(source / "b", array[::-1], spacing, series=2, description="other")
    with pytest.raises(DataError, match=r"study: .*'LGE SAX'.*'other'"):
        predict([run], source, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    predict([run], source, tmp_path / "out", series="LGE SAX")
    predict([run], series, tmp_path / "alone")
    chosen, alone = tmp_path / "out" / "study_LGE_SAX.nii.gz", tmp_path / "alone/LGE_SAX.nii.gz"
    assert chosen.read_bytes() == alone.read_bytes()
    with pytest.raises(DataError, match="out"):
        predict([run], tmp_path / "out", tmp_path / "more", series="LGE SAX")


def test_a_bad_series_is_refused_in_one_line(random_run, stack, tmp_path, capsys):
    write_series(tmp_path / "x", *stack, change=lambda _, k: k != 2)
    with pytest.raises(SystemExit) as caught:
        main(["predict", str(tmp_path / "x"), f"--run={random_run}", f"--output={tmp_path / 'o'}"])
    assert caught.value.code == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith(f"error: {tmp_path / 'x'}: ")
