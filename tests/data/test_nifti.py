"""Reading and writing volumes: storage types, units, geometry and refused files."""

import gzip
import os
import tracemalloc

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
    """A DataError of one line that starts with the path and holds the words."""
    with pytest.raises(DataError) as caught:
        read_volume(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: "), message
    assert "\n" not in message
    for word in words:
        assert word in message, message


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, np.float64])
def test_reads_every_storage_type(tmp_path, suffix, dtype):
    path = tmp_path / f"volume{suffix}"
    make_image(ramp(dtype=dtype)).to_filename(path)
    array, header = read_volume(path)
    np.testing.assert_array_equal(array, ramp())
    assert array.dtype == dtype
    assert voxel_spacing(header) == pytest.approx((1.4, 0.8, 10.0))


def test_reads_big_endian_nifti2_suffixes_in_capitals_and_axes_of_one(tmp_path):
    swapped = nib.Nifti1Image(ramp(), AFFINE, nib.Nifti1Header(endianness=">"))
    swapped.to_filename(tmp_path / "big.nii")
    (tmp_path / "big.nii").rename(tmp_path / "big.Nii")
    nib.Nifti2Image(ramp(), AFFINE).to_filename(tmp_path / "two.nii.gz")
    (tmp_path / "two.nii.gz").rename(tmp_path / "two.NII.GZ")
    make_image(ramp()[..., None]).to_filename(tmp_path / "four.nii")
    for name in ("big.Nii", "two.NII.GZ", "four.nii"):
        array, header = read_volume(tmp_path / name)
        np.testing.assert_array_equal(array, ramp())
        assert len(voxel_spacing(header)) == 3
        assert isinstance(header, nib.Nifti2Header) == name.startswith("two")
        assert nifti.without_suffix(name) == name.split(".")[0]


# struct offsets of NIfTI-1: xyzt_units 123, scl_slope 112, scl_inter 116
@pytest.mark.parametrize(("slope", "expected"), [(0.0, 1.0), (np.nan, 1.0), (2.0, 2.0)])
def test_a_slope_of_zero_or_nan_means_no_scaling(tmp_path, slope, expected):
    patch = np.array([slope, 0], "<f4").tobytes()
    array, _ = read_volume(raw_file(tmp_path / "volume.nii", 112, patch))
    np.testing.assert_array_equal(array, ramp() * expected)


@pytest.mark.parametrize("slope", [np.inf, -np.inf])
def test_an_infinite_slope_is_refused(tmp_path, slope):
    patch = np.array([slope, 0], "<f4").tobytes()
    refused(raw_file(tmp_path / "volume.nii", 112, patch), f"scl_slope {slope}")


@pytest.mark.parametrize(("code", "scale"), [(0, 1), (1, 1000), (2, 1), (3, 0.001)])
def test_spacing_is_converted_to_millimeters(tmp_path, code, scale):
    path = raw_file(tmp_path / "volume.nii", 123, bytes([code]))
    content = bytearray(path.read_bytes())
    content[80:92] = (np.array([1.4, 0.8, 10]) / scale).astype("<f4").tobytes()  # pixdim[1:4]
    path.write_bytes(content)
    _, header = read_volume(path)
    assert voxel_spacing(header) == pytest.approx((1.4, 0.8, 10))


@pytest.mark.parametrize("bad", [0.0, -1.4, np.nan, np.inf])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_refuses_a_spacing_that_is_not_positive(tmp_path, bad, axis):
    patch = np.array([bad], "<f4").tobytes()  # pixdim[1] lies at byte 80
    path = raw_file(tmp_path / "volume.nii", 80 + 4 * axis, patch)
    refused(path, "spacing")


def test_refuses_arrays_that_are_not_3d(tmp_path):
    make_image(ramp((4, 3)), (1.0, 1.0)).to_filename(tmp_path / "flat.nii")
    refused(tmp_path / "flat.nii", "2D", "3D")
    make_image(ramp((4, 3, 2, 2))).to_filename(tmp_path / "series.nii")
    refused(tmp_path / "series.nii", "(4, 3, 2, 2)", "3D")


def test_refuses_absurd_dimensions_before_allocating(tmp_path):
    patch = np.array([3, 32767, 32767, 32767], "<i2").tobytes()  # dim lies at byte 40
    path = raw_file(tmp_path / "volume.nii", 40, patch)
    assert peak(path, "32767", str(nifti.MAX_VOXELS)) < 2**23


def peak(path, *words):
    """Bytes of memory that refusing a file takes."""
    tracemalloc.start()
    try:
        refused(path, *words)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_memory_follows_the_file_size_not_the_header(tmp_path, suffix):
    content = bytearray(make_image(ramp()).to_bytes())
    content[40:48] = np.array([3, 512, 512, 512], "<i2").tobytes()
    content[70:74] = np.array([64, 64], "<i2").tobytes()  # datatype, bitpix: float64
    path = tmp_path / f"volume{suffix}"
    path.write_bytes(gzip.compress(content) if suffix == ".nii.gz" else content)
    assert peak(path, "1073741824", "48") < 2**23


def test_bytes_behind_the_data_are_read_up_to_a_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(nifti, "MAX_EXTRA_BYTES", 2**21)
    path = tmp_path / "volume.nii.gz"
    path.write_bytes(gzip.compress(make_image(ramp()).to_bytes() + bytes(2**21)))
    read_volume(path)
    path.write_bytes(gzip.compress(make_image(ramp()).to_bytes() + bytes(2**21 + 1)))
    refused(path, str(2**21))
    path.write_bytes(gzip.compress(make_image(ramp()).to_bytes() + bytes(2**26)))
    assert path.stat().st_size < 2**17
    assert peak(path, str(2**21)) < 2**23


@pytest.mark.parametrize("size", [2**31 - 16, 64 * 2**20, 7, 0, -8, -(2**31)])
def test_header_extensions_of_any_size_are_skipped(tmp_path, size, monkeypatch):
    """nibabel would read as many bytes as an extension states in one piece."""
    monkeypatch.setattr(nifti, "MAX_EXTRA_BYTES", 2**21)
    content = bytearray(make_image(ramp()).to_bytes())
    content[108:112] = np.float32(384).tobytes()  # vox_offset
    extension = bytes([1, 0, 0, 0]) + np.array([size, 6], "<i4").tobytes() + bytes(24)
    content[348:352] = extension
    path = tmp_path / "volume.nii.gz"
    path.write_bytes(gzip.compress(content))
    np.testing.assert_array_equal(read_volume(path)[0], ramp())
    path.write_bytes(gzip.compress(content + bytes(2**26)))
    assert peak(path) < 2**23


@pytest.mark.parametrize("offset", [0, -1, -1e30, 4, 351.5, 3e38, np.nan, np.inf])
def test_refuses_invalid_data_offsets(tmp_path, offset):
    path = raw_file(tmp_path / "volume.nii", 108, np.array([offset], "<f4").tobytes())
    refused(path, "352")


def test_scaling_that_overflows_is_refused(tmp_path):
    patch = np.array([3e38, 0], "<f4").tobytes()
    read_volume(raw_file(tmp_path / "volume.nii", 112, patch))  # float64 holds it
    large = ramp(dtype=np.float64) * 1e300
    refused(raw_file(tmp_path / "large.nii", 112, patch, large), "not finite")


def test_refuses_pipes_and_folders(tmp_path):
    os.mkfifo(tmp_path / "pipe.nii")
    (tmp_path / "folder.nii").mkdir()
    for name in ("pipe.nii", "folder.nii"):
        refused(tmp_path / name, "regular file")


@pytest.mark.parametrize("keep", [0, 100, 0.6, -4])
def test_refuses_truncated_files(tmp_path, keep):
    """-4 cuts into the trailer behind the last pixel, which nibabel alone does not notice."""
    noise = np.random.default_rng(0).integers(0, 4096, (20, 20, 3)).astype(np.int16)
    plain = make_image(noise).to_bytes()
    for name, content in (("volume.nii", plain), ("volume.nii.gz", gzip.compress(plain))):
        end = int(keep * len(content)) if keep == 0.6 else keep
        (tmp_path / name).write_bytes(content[:end])
        refused(tmp_path / name)


def test_refuses_a_gzip_with_a_flipped_bit(tmp_path):
    noise = np.random.default_rng(0).integers(0, 4096, (20, 20, 3)).astype(np.int16)
    content = bytearray(gzip.compress(make_image(noise).to_bytes(), compresslevel=0))
    content[-1000] ^= 1  # stored, not deflated: only the checksum detects it
    path = tmp_path / "volume.nii.gz"
    path.write_bytes(bytes(content))
    refused(path, "CRC")


def test_refuses_files_of_other_formats(tmp_path):
    for name in ("text.nii", "text.nii.gz"):
        (tmp_path / name).write_bytes(b"hello " * 200)
        refused(tmp_path / name)
    (tmp_path / "image.png").write_bytes(b"")
    refused(tmp_path / "image.png", ".nii.gz")
    refused(tmp_path / "none.nii.gz")
    refused(raw_file(tmp_path / "pair.nii", 344, b"ni1\0"))


def test_refuses_pixels_that_are_not_finite_real_numbers(tmp_path):
    bad = ramp(dtype=np.float64)
    bad[1, 2, 0] = np.nan
    make_image(bad).to_filename(tmp_path / "nan.nii")
    refused(tmp_path / "nan.nii", "[1, 2, 0]", "finite")
    make_image(ramp(dtype=np.complex64)).to_filename(tmp_path / "complex.nii")
    refused(tmp_path / "complex.nii", "32")


KINDS = {
    "little": lambda: make_image(ramp()).to_bytes(),
    "big": lambda: nib.Nifti1Image(ramp(), AFFINE, nib.Nifti1Header(endianness=">")).to_bytes(),
    "two": lambda: nib.Nifti2Image(ramp(), AFFINE).to_bytes(),
}


def read_or_refuse(path):
    """A whole stack, or None after a DataError of one line that names the file."""
    try:
        array, header = read_volume(path)
    except DataError as error:
        message = str(error)
        assert message.startswith(f"{path}: ")
        assert "\n" not in message
        return None
    assert array.ndim == 3
    assert np.isfinite(array).all()
    assert min(voxel_spacing(header)) > 0
    assert header.get_best_affine().shape == (4, 4)
    return array


@pytest.mark.parametrize("kind", KINDS)
def test_any_damaged_file_is_refused_or_read(tmp_path, kind):
    """500 files with three random bytes, of pixels too: a stack, or a DataError."""
    rng = np.random.default_rng(0)
    content = KINDS[kind]()
    path = tmp_path / "volume.nii"
    read = 0
    for _ in range(500):
        damaged = bytearray(content)
        for position in rng.integers(0, len(content), 3):
            damaged[position] = rng.integers(0, 256)
        path.write_bytes(bytes(damaged))
        read += read_or_refuse(path) is not None
    assert 50 < read < 450


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8", ">f8"])
def test_any_damaged_pixels_are_the_stored_ones_or_refused(tmp_path, dtype):
    """200 payloads with random bytes and an extreme: exactly what lies there, if it is finite."""
    rng = np.random.default_rng(2)
    header = nib.Nifti1Header(endianness=dtype[0])
    header.set_data_dtype(dtype)
    content = nib.Nifti1Image(ramp().astype(dtype), AFFINE, header).to_bytes()
    start, read = len(content) - 24 * np.dtype(dtype).itemsize, 0
    limits = np.finfo(dtype)
    extremes = [np.nan, np.inf, -np.inf, -0.0, limits.max, limits.smallest_subnormal]
    path = tmp_path / "volume.nii"
    for _ in range(200):
        damaged = bytearray(content)
        for position in rng.integers(start, len(content), 3):
            damaged[position] = rng.integers(0, 256)
        pixels = np.frombuffer(damaged, dtype, offset=start)
        pixels[rng.integers(24)] = extremes[rng.integers(6)]
        path.write_bytes(bytes(damaged))
        array = read_or_refuse(path)
        assert (array is not None) == np.isfinite(pixels).all()
        if array is None:
            refused(path, "not finite")
        else:
            read += 1
            assert array.tobytes(order="F") == pixels.tobytes()
    assert 50 < read < 150


def test_any_damaged_gzip_is_refused(tmp_path):
    """300 streams with one bit flipped, 100 cut short: CRC and length leave nothing unnoticed."""
    rng = np.random.default_rng(1)
    noise = rng.integers(0, 4096, (9, 8, 3)).astype(np.int16)
    content = gzip.compress(make_image(noise).to_bytes(), mtime=0)
    path = tmp_path / "volume.nii.gz"
    for _ in range(300):
        damaged = bytearray(content)
        damaged[rng.integers(10, len(content))] ^= 1 << rng.integers(0, 8)
        path.write_bytes(bytes(damaged))
        assert read_or_refuse(path) is None
    for keep in rng.integers(0, len(content), 100):
        path.write_bytes(content[:keep])
        assert read_or_refuse(path) is None


@pytest.mark.parametrize("field", ["dim", "datatype", "slope", "quaternion", "srow"])
def test_extreme_numbers_in_a_field_are_refused_or_read(tmp_path, field):
    """Every pair of extremes at every place of the field, which random bytes rarely hit."""
    start, count, dtype = {
        "dim": (40, 8, "<i2"), "datatype": (70, 2, "<i2"), "slope": (112, 2, "<f4"),
        "quaternion": (256, 6, "<f4"), "srow": (280, 12, "<f4"),
    }[field]  # fmt: skip
    extremes = {"<i2": [-32768, -1, 0, 1, 3, 7, 32767]}.get(
        dtype, [np.nan, np.inf, -np.inf, 0, -1, 1e-45, 3.4e38]
    )
    content = make_image(ramp()).to_bytes()
    path = tmp_path / "volume.nii"
    for first in range(count):
        for second in range(first, count):
            for low in extremes:
                damaged = bytearray(content)
                damaged[252:256] = np.array([1, 1], "<i2").tobytes()  # both forms are read
                for place, value in ((first, low), (second, extremes[(first + second) % 7])):
                    size = np.dtype(dtype).itemsize
                    at = start + place * size
                    damaged[at : at + size] = np.array([value], dtype).tobytes()
                path.write_bytes(bytes(damaged))
                read_or_refuse(path)


@pytest.mark.parametrize("edge", [1e-7, 1e-20, 1e-45, 0.009, 1001, 1e30])
@pytest.mark.parametrize("places", [(0,), (1,), (2,), (0, 1, 2)])
@pytest.mark.parametrize("kind", KINDS)
def test_extreme_voxel_edges_are_refused(tmp_path, edge, places, kind):
    """Resampled to millimeters such a stack would take all memory, or vanish."""
    at, dtype = {"little": (80, "<f4"), "big": (80, ">f4"), "two": (112, "<f8")}[kind]
    content = bytearray(KINDS[kind]())
    edges = np.frombuffer(content, dtype, count=3, offset=at)
    assert edges.min() > 0.5
    edges[list(places)] = edge
    path = tmp_path / "volume.nii"
    path.write_bytes(bytes(content))
    refused(path, "mm")


@pytest.mark.parametrize(
    ("edge", "unit", "there"),
    [
        (0.011, 2, True), (1000, 2, True), (1.5, 1, False), (0.9, 1, True), (9, 3, False),
        (11, 3, True),
    ],
)  # fmt: skip
def test_voxel_edges_are_limited_in_millimeters(tmp_path, edge, unit, there):
    """Whatever the unit that the header is in."""
    content = bytearray(make_image(ramp()).to_bytes())
    content[80:92] = np.full(3, edge, "<f4").tobytes()
    content[123] = unit
    path = tmp_path / "volume.nii"
    path.write_bytes(bytes(content))
    if there:
        factor = {1: 1e3, 2: 1, 3: 1e-3}[unit]
        assert voxel_spacing(read_volume(path)[1]) == pytest.approx((edge * factor,) * 3)
    else:
        refused(path, "mm")


GEOMETRY = (
    "pixdim", "xyzt_units", "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d",
    "qoffset_x", "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z", "slice_code", "descrip",
)  # fmt: skip


def raw_header(path, kind):
    """Unchecked, as nibabel would correct it."""
    return kind(path.read_bytes()[: kind.sizeof_hdr], None, False)


def test_results_have_the_geometry_of_their_image_byte_for_byte(tmp_path):
    """A qfac of 0, an odd fourth pixdim and contradicting forms: nibabel would change them."""
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
def test_results_keep_the_kind_of_header(tmp_path, kind, order):
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
    large = np.linspace(252, 70000, 24).reshape(ramp().shape).astype(int)
    for array, found in ((ramp()[..., :1], r"\(4, 3, 1\)"), (large, "252 to 70000")):
        with pytest.raises(DataError, match=rf"out.nii.gz: .*{found}"):
            write_like(target, array, source)
    assert not target.exists()


@pytest.mark.parametrize("name", ["really_compressed.nii", "really_plain.nii.gz"])
def test_compression_is_detected_by_content(tmp_path, name):
    content = make_image(ramp()).to_bytes()
    path = tmp_path / name
    path.write_bytes(gzip.compress(content) if name.endswith(".nii") else content)
    np.testing.assert_array_equal(read_volume(path)[0], ramp())
    write_like(tmp_path / "out.nii.gz", ramp(dtype=np.uint8), path)
    np.testing.assert_array_equal(read_volume(tmp_path / "out.nii.gz")[0], ramp())


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("offset", [280, 292, 324])  # srow_x[0], its shift, srow_z[3]
def test_refuses_an_affine_that_is_not_finite(tmp_path, value, offset):
    patch = np.array([value], "<f4").tobytes()
    refused(raw_file(tmp_path / "volume.nii", offset, patch), "sform")


@pytest.mark.parametrize(
    "name", ["two\nlines", "tab\tname", "line\u2028name", "nel\x85name", os.fsdecode(b"cas\xe9")]
)
def test_file_names_are_printed_escaped_in_one_line(tmp_path, name):
    path = tmp_path / f"{name}.nii"
    path.write_bytes(b"none")
    with pytest.raises(DataError) as caught:
        read_volume(path)
    assert str(caught.value).isprintable()
    assert str(caught.value).encode().startswith(os.fsencode(tmp_path))
