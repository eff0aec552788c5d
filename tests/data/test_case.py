"""Image and label of a case: values, orientation, and pairs that are refused."""

import gzip

import nibabel as nib
import numpy as np
import pytest

from jaxseg.data.case import directions_of, read_case
from jaxseg.data.label_values import LabelValues
from jaxseg.data.nifti import DataError

FIVE = LabelValues.plain(5)
SHAPE = (6, 5, 3)
SPACING = (1.5, 0.75, 8.0)


def write(path, array, spacing=SPACING, affine=None):
    image = nib.Nifti1Image(array, np.diag([-1.0, -1, 1, 1]) if affine is None else affine)
    image.header.set_zooms(spacing)
    image.to_filename(path)
    return path


@pytest.fixture
def image(tmp_path):
    return write(tmp_path / "image.nii.gz", np.arange(90, dtype=np.int16).reshape(SHAPE))


def labels(dtype=np.uint8, value=4):
    label = np.zeros(SHAPE, dtype)
    label[2, 3, 1] = value
    return label


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float64])
def test_types_and_values(image, tmp_path, dtype):
    path = write(tmp_path / "label.nii.gz", labels(dtype))
    case = read_case("A", image, path, FIVE)
    assert case.name == "A"
    assert case.image.dtype == np.float32
    np.testing.assert_array_equal(case.image, np.arange(90).reshape(SHAPE))
    assert case.label is not None
    assert case.label.dtype == np.uint8
    np.testing.assert_array_equal(case.label, labels())
    assert case.spacing == SPACING
    assert case.header.get_data_shape() == SHAPE


def test_label_is_optional(image):
    assert read_case("A", image).label is None


@pytest.mark.parametrize(
    ("label", "shown"),
    [(labels(value=5), "5"), (labels(np.int16, -1), "-1"), (labels(np.float64, 2.5), r"2\.5")],
)
def test_refuses_values_outside_the_label_set(image, tmp_path, label, shown):
    path = write(tmp_path / "label.nii.gz", label)
    with pytest.raises(DataError, match=rf"label\.nii\.gz: .*{shown}"):
        read_case("A", image, path, FIVE)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16])
@pytest.mark.parametrize("highest", [3, 4])
def test_scaled_labels_under_an_integer_header_are_recovered(image, tmp_path, dtype, highest):
    """nibabel scales them to the whole range of the type: 1 of 0 to 4 in 8 bits is 64 x 4 / 255."""
    wanted = (np.arange(90) % (highest + 1)).reshape(SHAPE)
    header = nib.load(image).header.copy()
    header.set_data_dtype(dtype)
    path = tmp_path / "label.nii.gz"
    nib.Nifti1Image(wanted.astype(float), nib.load(image).affine, header).to_filename(path)
    stored = np.asanyarray(nib.load(path).dataobj)
    assert not np.array_equal(stored, wanted)
    case = read_case("A", image, path, FIVE)
    assert case.label is not None
    np.testing.assert_array_equal(case.label, wanted)
    with pytest.raises(DataError, match=rf"label\.nii\.gz: .*{highest}"):
        read_case("A", image, path, LabelValues.plain(highest))


@pytest.mark.parametrize("spacing", [(8.0, 1.5, 1.5), (1.5, 8.0, 1.5), (1.5, 1.5, 1.4)])
def test_slices_along_another_axis_are_refused(tmp_path, spacing):
    path = write(tmp_path / "image.nii", np.arange(90, dtype=np.int16).reshape(SHAPE), spacing)
    shown = " x ".join(f"{edge:g}" for edge in spacing)
    with pytest.raises(DataError, match=rf"image\.nii: .*{shown}"):
        read_case("A", path)


def test_cubic_voxels_and_single_slices(tmp_path):
    cubic = np.arange(90, dtype=np.int16).reshape(SHAPE)
    path = write(tmp_path / "cubic.nii", cubic, (1.5, 1.5, 1.499))
    assert read_case("A", path).spacing == pytest.approx((1.5, 1.5, 1.499))
    path = write(
        tmp_path / "single.nii", cubic[..., :1], (1.5, 1.5, 1.0)
    )  # 1 of a single slice is no spacing
    assert read_case("A", path).spacing == pytest.approx((1.5, 1.5, 1.0))


def test_the_orientation_is_read_from_the_header(tmp_path):
    pixels = np.arange(90.0).reshape(SHAPE)
    affine = np.array([[0, 0.75, 0, 5], [-1.5, 0, 0, 5], [0, 0, 8.0, 5], [0, 0, 0, 1]])
    path = write(tmp_path / "turned.nii", pixels, affine=affine)
    turned = read_case("A", path)
    assert turned.orientation == "PR"  # the first axis towards posterior
    np.testing.assert_allclose(turned.directions, [[0, -1, 0], [1, 0, 0]])
    silent = nib.load(path)
    plain = nib.Nifti1Image(pixels, None, silent.header)
    plain.header["sform_code"] = plain.header["qform_code"] = 0
    plain.to_filename(tmp_path / "silent.nii")
    case = read_case("A", tmp_path / "silent.nii")
    assert case.orientation is None
    assert case.directions is None


def test_an_affine_of_other_voxel_sizes_gives_no_orientation(image, tmp_path):
    """EMIDEC's diag(-1, -1, 1), while the voxels measure 1.5 x 0.75 x 8 mm."""
    assert int(nib.load(image).header["sform_code"]) > 0
    assert read_case("A", image).orientation is None
    affine = np.diag([-1.5, -0.75, 8.0, 1])
    path = write(tmp_path / "own.nii", np.arange(90.0).reshape(SHAPE), affine=affine)
    assert read_case("A", path).orientation == "LP"


def test_refuses_another_shape_or_spacing(image, tmp_path):
    path = write(tmp_path / "label.nii.gz", labels()[:, :4])
    with pytest.raises(DataError, match=r"label\.nii\.gz.*\(6, 4, 3\).*\(6, 5, 3\).*image"):
        read_case("A", image, path, FIVE)
    path = write(tmp_path / "label.nii.gz", labels(), (1.5, 0.80, 8.0))
    with pytest.raises(DataError, match=r"label\.nii\.gz.*0\.8.*0\.75"):
        read_case("A", image, path, FIVE)
    rounded = write(tmp_path / "label.nii.gz", labels(), (1.5, 0.7501, 8.0))
    assert read_case("A", image, rounded, FIVE).spacing == SPACING


def test_refuses_another_position_only_if_both_state_one(image, tmp_path):
    """Mirrored about the center: same shape and spacing, other voxels."""
    mirrored = np.diag([1.0, -1, 1, 1])
    mirrored[0, 3] = -5
    path = write(tmp_path / "label.nii.gz", labels(), affine=mirrored)
    with pytest.raises(DataError, match="affine"):
        read_case("A", image, path, FIVE)
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[252:256] = bytes(4)  # qform_code and sform_code: the label states no position
    silent = tmp_path / "silent.nii"
    silent.write_bytes(bytes(content))
    assert read_case("A", image, silent, FIVE).label is not None


def test_affines_may_differ_by_rounding(image, tmp_path):
    nudged = np.diag([-1.0, -1, 1, 1]) + 1e-4
    nudged[3] = [0, 0, 0, 1]
    path = write(tmp_path / "label.nii.gz", labels(), affine=nudged)
    assert read_case("A", image, path, FIVE).label is not None


def test_refuses_constant_images_and_values_beyond_float32(tmp_path):
    large = np.zeros(SHAPE)
    large[0, 0, 0] = 1e300
    for array, found in ((np.full(SHAPE, 7, np.int16), "7"), (large, r"1e\+300.*float32")):
        path = write(tmp_path / "image.nii.gz", array)
        with pytest.raises(DataError, match=rf"image\.nii\.gz: .*{found}"):
            read_case("A", path)


@pytest.mark.parametrize(
    "affine", [np.zeros((3, 3)), np.diag([1.0, 1, 0]), [[1, 1, 0], [0, 0, 0], [0, 0, 1]]]
)
def test_a_singular_affine_gives_no_orientation(image, tmp_path, affine):
    flat = np.eye(4)
    flat[:3, :3] = affine
    for name, array in (
        ("image", np.arange(90, dtype=np.int16).reshape(SHAPE)),
        ("label", labels()),
    ):
        stack = nib.Nifti1Image(array, np.eye(4))
        stack.header.set_zooms(SPACING)
        content = stack.header.copy()
        for row, values in zip("xyz", flat, strict=False):
            content[f"srow_{row}"] = values
        content["sform_code"], content["vox_offset"], content["magic"] = 1, 352, b"n+1"
        content.set_data_dtype(array.dtype)
        data = content.binaryblock + bytes(4) + array.tobytes(order="F")
        (tmp_path / f"flat_{name}.nii").write_bytes(data)
    case = read_case("A", tmp_path / "flat_image.nii", tmp_path / "flat_label.nii", FIVE)
    assert case.orientation is None
    assert read_case("A", image, tmp_path / "flat_label.nii", FIVE).label is not None


def test_codes_are_directions_towards_right_anterior_and_superior():
    np.testing.assert_array_equal(directions_of("LP"), [[-1, 0, 0], [0, -1, 0]])
    np.testing.assert_array_equal(directions_of("SA"), [[0, 0, 1], [0, 1, 0]])


@pytest.mark.parametrize("code", ["", "L", "LR", "LL", "PA", "XY", "lp", "LPS", "L,P"])
def test_other_codes_are_refused(code):
    with pytest.raises(ValueError, match="LP"):
        directions_of(code)
