"""Volumes: what is read, in which units, and every file that is refused."""

import gzip
import re

import nibabel as nib
import numpy as np
import pytest

from jaxseg.data import nifti
from jaxseg.data.nifti import DataError, read_volume, voxel_spacing, write_like

AFFINE = np.diag([-1.0, -1.0, 1.0, 1.0])  # EMIDEC's: no spacing in it


def make_image(array, zooms=(1.4, 0.8, 10.0)):
    image = nib.Nifti1Image(array, AFFINE)
    image.header.set_zooms(zooms + (1.0,) * (array.ndim - len(zooms)))
    image.header.set_xyzt_units("mm")
    return image


def ramp(shape=(4, 3, 2), dtype=np.int16):
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


def raw_file(path, offset, patch, array=None):
    """A `.nii` file whose bytes at `offset` are overwritten by `patch`."""
    content = bytearray(make_image(ramp() if array is None else array).to_bytes())
    content[offset : offset + len(patch)] = patch
    path.write_bytes(bytes(content))
    return path


def refused(path, *words):
    with pytest.raises(DataError) as caught:
        read_volume(path)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(str(path)), message
    for word in words:
        assert re.search(word, message), message


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, np.float64])
def test_reads_every_storage_type(tmp_path, suffix, dtype):
    path = tmp_path / f"volume{suffix}"
    make_image(ramp(dtype=dtype)).to_filename(path)
    array, header = read_volume(path)
    np.testing.assert_array_equal(array, ramp())
    assert array.dtype == dtype
    assert voxel_spacing(header) == pytest.approx((1.4, 0.8, 10.0))


def test_reads_big_endian_and_nifti2(tmp_path):
    swapped = nib.Nifti1Image(ramp(), AFFINE, nib.Nifti1Header(endianness=">"))
    swapped.to_filename(tmp_path / "big.nii")
    nib.Nifti2Image(ramp(), AFFINE).to_filename(tmp_path / "two.nii.gz")
    np.testing.assert_array_equal(read_volume(tmp_path / "big.nii")[0], ramp())
    array, header = read_volume(tmp_path / "two.nii.gz")
    np.testing.assert_array_equal(array, ramp())
    assert isinstance(header, nib.Nifti2Header)


def test_trailing_axes_of_one_are_dropped(tmp_path):
    path = tmp_path / "volume.nii"
    make_image(ramp()[..., None]).to_filename(path)
    array, header = read_volume(path)
    assert array.shape == (4, 3, 2)
    assert len(voxel_spacing(header)) == 3


# struct offsets of NIfTI-1: xyzt_units 123, scl_slope 112, scl_inter 116
@pytest.mark.parametrize(
    ("slope", "expected"),
    [(0.0, 1.0), (np.nan, 1.0), (2.0, 2.0)],
)
def test_slope_of_zero_or_nan_means_no_scaling(tmp_path, slope, expected):
    patch = np.array([slope, 0], "<f4").tobytes()
    array, _ = read_volume(raw_file(tmp_path / "volume.nii", 112, patch))
    np.testing.assert_array_equal(array, ramp() * expected)


@pytest.mark.parametrize(("code", "scale"), [(0, 1), (1, 1000), (2, 1), (3, 0.001)])
def test_spacing_is_in_millimeters_whatever_the_unit(tmp_path, code, scale):
    _, header = read_volume(raw_file(tmp_path / "volume.nii", 123, bytes([code])))
    assert voxel_spacing(header) == pytest.approx((1.4 * scale, 0.8 * scale, 10 * scale))


@pytest.mark.parametrize("bad", [0.0, -1.4, np.nan, np.inf])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_refuses_a_spacing_that_is_not_positive(tmp_path, bad, axis):
    patch = np.array([bad], "<f4").tobytes()  # pixdim[1] lies at byte 80
    path = raw_file(tmp_path / "volume.nii", 80 + 4 * axis, patch)
    refused(path, "spacing", "positive")


def test_refuses_shapes_that_are_no_stack(tmp_path):
    make_image(ramp((4, 3)), (1.0, 1.0)).to_filename(tmp_path / "flat.nii")
    refused(tmp_path / "flat.nii", "2D", "3D")
    make_image(ramp((4, 3, 2, 2))).to_filename(tmp_path / "series.nii")
    refused(tmp_path / "series.nii", r"\(4, 3, 2, 2\)", "3D")


def test_refuses_absurd_dimensions_before_allocating(tmp_path, monkeypatch):
    patch = np.array([3, 32767, 32767, 32767], "<i2").tobytes()  # dim lies at byte 40
    path = raw_file(tmp_path / "volume.nii", 40, patch)
    with monkeypatch.context() as patched:
        patched.setattr(nib.Nifti1Image, "from_stream", lambda *_: pytest.fail("was read"))
        refused(path, "32767", str(nifti.MAX_VOXELS))


def test_refuses_a_volume_with_a_tail(tmp_path, monkeypatch):
    monkeypatch.setattr(nifti, "MAX_EXTRA_BYTES", 1000)
    path = tmp_path / "volume.nii.gz"
    path.write_bytes(gzip.compress(make_image(ramp()).to_bytes() + b"\0" * 1000))
    read_volume(path)
    path.write_bytes(gzip.compress(make_image(ramp()).to_bytes() + b"\0" * 1001))
    refused(path, "behind")


@pytest.mark.parametrize("keep", [0, 100, 0.6, -4])
def test_refuses_truncated_gzip(tmp_path, keep):
    """-4 cuts into the trailer behind the last pixel, which nibabel alone does not notice."""
    noise = np.random.default_rng(0).integers(0, 4096, (20, 20, 3)).astype(np.int16)
    content = gzip.compress(make_image(noise).to_bytes())
    path = tmp_path / "volume.nii.gz"
    path.write_bytes(content[: int(keep * len(content)) if keep == 0.6 else keep])
    refused(path)


def test_refuses_a_gzip_with_a_flipped_bit(tmp_path):
    noise = np.random.default_rng(0).integers(0, 4096, (20, 20, 3)).astype(np.int16)
    content = bytearray(gzip.compress(make_image(noise).to_bytes(), compresslevel=0))
    content[-1000] ^= 1  # stored, not deflated: only the checksum can tell
    path = tmp_path / "volume.nii.gz"
    path.write_bytes(bytes(content))
    refused(path, "damaged", "CRC")


def test_refuses_truncated_uncompressed(tmp_path):
    path = tmp_path / "volume.nii"
    path.write_bytes(make_image(ramp()).to_bytes()[:-1])
    refused(path, "truncated")


def test_refuses_what_is_no_nifti(tmp_path):
    (tmp_path / "text.nii").write_bytes(b"hello " * 200)
    refused(tmp_path / "text.nii", "not a NIfTI")
    (tmp_path / "text.nii.gz").write_bytes(b"hello " * 200)
    refused(tmp_path / "text.nii.gz", "gzip")
    (tmp_path / "image.png").write_bytes(b"")
    refused(tmp_path / "image.png", ".nii.gz")
    refused(tmp_path / "none.nii.gz", "no such file")
    refused(raw_file(tmp_path / "pair.nii", 344, b"ni1\0"), "single-file")


def test_refuses_pixels_that_are_not_finite_real_numbers(tmp_path):
    bad = ramp(dtype=np.float64)
    bad[1, 2, 0] = np.nan
    make_image(bad).to_filename(tmp_path / "nan.nii")
    refused(tmp_path / "nan.nii", r"\[1, 2, 0\]", "finite")
    make_image(ramp(dtype=np.complex64)).to_filename(tmp_path / "complex.nii")
    refused(tmp_path / "complex.nii", "type code 32", "real")


def test_any_damaged_header_is_refused_or_read(tmp_path):
    """500 headers with three random bytes: a stack, or a DataError."""
    rng = np.random.default_rng(0)
    content = make_image(ramp()).to_bytes()
    path = tmp_path / "volume.nii"
    messages, shapes = [], []
    for _ in range(500):
        damaged = bytearray(content)
        for position in rng.integers(0, 352, 3):
            damaged[position] = rng.integers(0, 256)
        path.write_bytes(bytes(damaged))
        try:
            array, header = read_volume(path)
        except DataError as error:
            messages.append(str(error))
        else:
            shapes.append(array.ndim)
            assert min(voxel_spacing(header)) > 0
    assert all(message.startswith(f"{path}: ") for message in messages)
    assert set(shapes) == {3}
    assert min(len(messages), len(shapes)) > 50


GEOMETRY = (
    "pixdim", "xyzt_units", "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d",
    "qoffset_x", "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z", "slice_code", "descrip",
)  # fmt: skip


def raw_header(path, kind):
    """Unchecked: nibabel would mend it."""
    return kind(path.read_bytes()[: kind.sizeof_hdr], None, False)


def test_a_result_has_its_image_s_geometry_byte_for_byte(tmp_path):
    """A qfac of 0, an odd fourth pixdim and contradicting forms: nibabel alone would mend them."""
    path = raw_file(tmp_path / "image.nii", 76, np.float32(0).tobytes())  # pixdim[0]
    content = bytearray(path.read_bytes())
    content[92:96] = np.float32(0.25).tobytes()  # pixdim[4]
    content[252:256] = np.array([1, 4], "<i2").tobytes()  # qform_code, sform_code
    content[256:268] = np.float32([0.1, 0.2, 0.3]).tobytes()  # quaternion
    path.write_bytes(bytes(content))
    labels = (ramp() % 5).astype(np.uint8)
    write_like(tmp_path / "labels.nii.gz", labels, path)
    written = gzip.decompress((tmp_path / "labels.nii.gz").read_bytes())
    assert written[40:56] == content[40:56]  # dim
    assert written[76:108] == content[76:108]  # pixdim
    assert written[148:344] == content[148:344]  # descrip to intent_name: both forms and units
    assert written[123] == content[123]
    array, header = read_volume(tmp_path / "labels.nii.gz")
    assert header.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(array, labels)


@pytest.mark.parametrize(
    ("kind", "order"), [(nib.Nifti1Image, "<"), (nib.Nifti1Image, ">"), (nib.Nifti2Image, "<")]
)
def test_results_of_every_kind_of_header(tmp_path, kind, order):
    header = kind.header_class(endianness=order)
    image = kind(ramp((4, 3, 2, 1)), AFFINE, header)
    image.header.set_zooms((1.4, 0.8, 10.0, 3.0))
    image.header.set_slope_inter(2.0, 5.0)
    image.to_filename(tmp_path / "image.nii")
    before = raw_header(tmp_path / "image.nii", kind.header_class)
    labels = ramp() % 5
    probabilities = np.random.default_rng(0).random((4, 3, 2, 5)).astype(np.float32)
    write_like(tmp_path / "labels.nii", labels, tmp_path / "image.nii")
    write_like(tmp_path / "soft.nii.gz", probabilities, tmp_path / "image.nii")
    after = raw_header(tmp_path / "labels.nii", kind.header_class)
    assert after.endianness == before.endianness
    for field in GEOMETRY:
        assert after[field].tobytes() == before[field].tobytes(), field
    array, _ = read_volume(tmp_path / "labels.nii")
    np.testing.assert_array_equal(array, labels)  # the image's scaling is gone
    soft = nib.load(tmp_path / "soft.nii.gz")
    assert soft.shape == (4, 3, 2, 5)
    np.testing.assert_array_equal(np.asarray(soft.dataobj), probabilities)
    np.testing.assert_array_equal(soft.affine, image.affine)


def test_results_that_do_not_fit_their_image_are_refused(tmp_path):
    make_image(ramp()).to_filename(tmp_path / "image.nii.gz")
    source, target = tmp_path / "image.nii.gz", tmp_path / "out.nii.gz"
    with pytest.raises(DataError, match=r"out.nii.gz: array is \(4, 3, 1\); the grid of .* \(4, 3"):
        write_like(target, ramp()[..., :1], source)
    with pytest.raises(DataError, match="labels 252 to 275; uint8 holds 0 to 255"):
        write_like(target, ramp() + 252, source)
    assert not target.exists()
