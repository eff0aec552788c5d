import gzip
import json
import shutil
import threading
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from jaxseg.data import find_cases, load_case
from jaxseg.data.phantom.fields import (
    ANGLES,
    DIRECTIONS,
    cover,
    ellipse_distance,
    look_up,
    paint,
    slow_noise,
    smooth_noise,
)
from jaxseg.data.phantom.write import MANIFEST, PhantomCase, phantom_case, write_phantom

NUM_CASES = 40
GRID, STEP = 96, 1.4  # pixels, mm

# The real training cases on this grid: shares of the pixels in %, and percentiles 5, 50, 95 of the
# radii of cavity and epicardium over slices in mm. (On 128 x 128 pixels the shares are 90.4, 4.8,
# 4.1, 0.65, 0.08 %.)
REAL_SHARES = (82.94, 8.51, 7.24, 1.16, 0.15)
REAL_CAVITY = (11.4, 21.7, 29.4)
REAL_EPICARDIUM = (19.4, 31.2, 39.5)


@pytest.fixture(scope="module")
def cohort() -> list[PhantomCase]:
    return [phantom_case(3, index, num_cases=NUM_CASES) for index in range(NUM_CASES)]


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return write_phantom(tmp_path_factory.mktemp("phantom") / "data", seed=1, num_cases=3)


def _positions(size: int, spacing: float, center: float) -> np.ndarray:
    grid = (np.arange(GRID) - (GRID - 1) / 2) * STEP / spacing
    return np.rint(center + grid).astype(int).clip(0, size - 1)


def _on_grid(
    image: np.ndarray, label: np.ndarray, spacing: tuple[float, float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """Both on 96 x 96 pixels of 1.4 mm around the heart, by nearest neighbor."""
    center = np.argwhere(label > 0)[:, :2].mean(axis=0)
    at = [_positions(label.shape[i], spacing[i], center[i]) for i in range(2)]
    return image[np.ix_(*at)].astype(float), label[np.ix_(*at)]


@pytest.fixture(scope="module")
def gridded(cohort) -> list[tuple[np.ndarray, np.ndarray]]:
    return [_on_grid(case.image, case.label, case.spacing) for case in cohort]


def _levels(gridded: list[tuple[np.ndarray, np.ndarray]], label: int) -> np.ndarray:
    """A label's mean per case that holds it; normal myocardium 0, cavity 1."""
    found = []
    for image, labels in gridded:
        zero = image[labels == 2].mean()
        if (labels == label).sum() > 20:
            contrast = image[labels == 1].mean() - zero
            found.append((image[labels == label].mean() - zero) / contrast)
    return np.array(found)


def _radii(gridded: list[tuple[np.ndarray, np.ndarray]], labels: tuple[int, ...]) -> np.ndarray:
    """Radius of the circle of the labels' area in each slice, mm."""
    area = [np.isin(part, labels).sum(axis=(0, 1)) * STEP**2 for _, part in gridded]
    return np.sqrt(np.concatenate(area) / np.pi)


def test_arrays_have_the_types_of_the_real_data(cohort):
    for case in cohort:
        assert case.image.dtype == np.int16
        assert case.label.dtype == np.uint8
        assert case.image.shape == case.label.shape
        assert case.image.min() >= 0
        assert case.image.max() == 255  # every image is scaled to 0..255
        assert set(np.unique(case.label)) <= {0, 1, 2, 3, 4}


def test_names_give_the_role_and_are_unique(cohort):
    assert [int(case.name[1:]) for case in cohort] == list(range(1, NUM_CASES + 1))
    for case in cohort:
        assert (case.name[0] == "P") == bool((case.label >= 3).any())


@pytest.mark.parametrize(
    ("num_cases", "pathological", "no_reflow"), [(3, 2, 1), (NUM_CASES, 27, 16)]
)
def test_shares_of_pathological_cases(cohort, num_cases, pathological, no_reflow):
    # Two thirds and 40 %, rounded: 3 -> 2.01, 1.2; 40 -> 26.8, 16.
    small = [phantom_case(3, index, num_cases=num_cases) for index in range(3)]
    cases = cohort if num_cases == NUM_CASES else small
    assert sum(bool((case.label >= 3).any()) for case in cases) == pathological
    assert sum(bool((case.label == 4).any()) for case in cases) == no_reflow


def test_stack_geometry(cohort):
    counts = [case.label.shape[2] for case in cohort]
    assert min(counts) >= 4
    assert max(counts) <= 10
    assert 6.5 <= np.mean(counts) <= 7.8  # real cases: 7.1
    assert {case.spacing[2] for case in cohort} <= {8.0, 10.0, 13.0}
    assert len({case.spacing[2] for case in cohort}) == 3
    ratio = np.array([case.spacing[0] / case.spacing[1] for case in cohort])
    assert (ratio == 1).any()
    assert ratio.min() < 0.75
    assert ratio.max() > 1.35
    for case in cohort:
        assert all(0.69 <= case.spacing[axis] <= 1.95 for axis in range(2))
        view = np.array(case.label.shape[:2]) * case.spacing[:2]
        assert view.min() >= 199
        assert view.max() <= 400


def test_the_heart_lies_in_the_central_field_of_view(cohort):
    for case in cohort:
        for axis in range(2):
            length = case.label.shape[axis]
            held = np.flatnonzero((case.label > 0).any(axis=tuple({0, 1, 2} - {axis})))
            far = np.abs(held - (length - 1) / 2).max() * case.spacing[axis]
            assert far < GRID / 2 * STEP
        outside = case.image[np.ix_(*(_inner(case, axis) for axis in range(2)))] == 0
        assert not outside.any(axis=2).all(axis=0).any()  # padding stays clear of it


def _inner(case: PhantomCase, axis: int) -> np.ndarray:
    at = (np.arange(case.label.shape[axis]) - (case.label.shape[axis] - 1) / 2) * case.spacing[axis]
    return np.flatnonzero(np.abs(at) < GRID / 2 * STEP)


def test_apex_is_first_and_smaller_than_the_base(cohort):
    first, last = (np.array([(case.label[:, :, i] > 0).sum() for case in cohort]) for i in (0, -1))
    # 79 of the 80 real cases.
    assert (first < last).mean() >= 0.95
    assert np.median(first / last) == pytest.approx(0.40, abs=0.12)


def test_labels_are_nested(cohort):
    ring = ndimage.generate_binary_structure(2, 1)
    for case in cohort:
        for z in range(case.label.shape[2]):
            label = case.label[:, :, z]
            for inner in ((1,), (1, 2, 3, 4)):  # a closed disc in a closed ring, in every slice
                _, count = ndimage.label(np.isin(label, inner))
                assert count == 1
            assert not (ndimage.binary_dilation(label == 1, ring) & (label == 0)).any()
            assert not (ndimage.binary_dilation(label == 4, ring) & (label == 0)).mean() > 0.002


def _shares(gridded: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    counts = np.sum([np.bincount(label.ravel(), minlength=5) for _, label in gridded], axis=0)
    return 100 * counts / counts.sum()


def test_pixel_shares(gridded):
    far = np.abs(_shares(gridded) - REAL_SHARES)
    assert (far < [1.5, 1.2, 0.9, 0.35, 0.06]).all(), _shares(gridded)


def test_share_of_slices_with_a_label(gridded):
    held = np.concatenate(
        [[(label == value).any(axis=(0, 1)) for value in range(5)] for _, label in gridded], axis=1
    ).mean(axis=1)
    assert held[:3].tolist() == [1, 1, 1]
    assert held[3] == pytest.approx(0.555, abs=0.08)
    assert held[4] == pytest.approx(0.19, abs=0.05)


def _percentiles(gridded: list[tuple[np.ndarray, np.ndarray]], labels: tuple[int, ...]):
    return np.percentile(_radii(gridded, labels), [5, 50, 95])


def test_radii(gridded):
    np.testing.assert_allclose(_percentiles(gridded, (1,)), REAL_CAVITY, atol=2.2)
    np.testing.assert_allclose(_percentiles(gridded, (1, 2, 3, 4)), REAL_EPICARDIUM, atol=2.2)


def test_targets_match_the_real_cases(emidec_root):
    cases = [load_case(folder) for folder in find_cases(emidec_root)]
    real = [_on_grid(case.image, case.label, case.spacing) for case in cases]
    np.testing.assert_allclose(_shares(real), REAL_SHARES, atol=0.05)
    np.testing.assert_allclose(_percentiles(real, (1,)), REAL_CAVITY, atol=0.1)
    np.testing.assert_allclose(_percentiles(real, (1, 2, 3, 4)), REAL_EPICARDIUM, atol=0.1)
    for label, level in ((3, 1.26), (4, 0.59), (0, 0.40)):
        assert np.median(_levels(real, label)) == pytest.approx(level, abs=0.03)


def test_infarct_sizes(gridded):
    sizes = [[(part == v).sum() for v in (2, 3, 4)] for _, part in gridded]
    myocardium, infarct, core = np.array(sizes, float).T
    whole = infarct + core
    held = (whole / (myocardium + whole))[whole > 0]
    # Share of the myocardium, real 5, 50, 95 %: 0.05, 0.21, 0.41; no-reflow over infarct: 0.12.
    np.testing.assert_allclose(np.percentile(held, [5, 50, 95]), [0.05, 0.21, 0.41], atol=0.08)
    assert np.median((core / np.maximum(whole, 1))[core > 0]) == pytest.approx(0.12, abs=0.06)


def test_no_reflow_may_touch_the_cavity_but_need_not(cohort):
    touching = []
    for case in cohort:
        for z in np.flatnonzero((case.label == 4).any(axis=(0, 1))):
            near = ndimage.binary_dilation(case.label[:, :, z] == 1)
            touching.append(bool((near & (case.label[:, :, z] == 4)).any()))
    assert 0.6 < np.mean(touching) < 1


def test_misregistration_of_slices_is_a_few_millimeters(cohort):
    bends = []
    for case in cohort:
        centers = np.array(
            [ndimage.center_of_mass(part > 0) for part in np.moveaxis(case.label, 2, 0)]
        )
        bends.extend(np.hypot(*np.diff(centers * case.spacing[:2], 2, axis=0).T))
    assert 1.4 < np.median(bends) < 2.8  # real cases: 2.06 mm


def test_intensity_levels(gridded):
    # Medians over cases: real 1.26, 0.59, 0.40.
    assert np.median(_levels(gridded, 3)) == pytest.approx(1.25, abs=0.2)
    assert np.median(_levels(gridded, 4)) == pytest.approx(0.60, abs=0.3)
    assert np.median(_levels(gridded, 0)) == pytest.approx(0.43, abs=0.2)
    low, high = np.percentile(_levels(gridded, 3), [5, 95])
    assert low < 0.95  # some infarcts are darker than blood
    assert high > 1.6


def test_the_intensity_of_no_reflow_overlaps_with_myocardium(gridded):
    below = [
        np.mean(image[labels == 2] > image[labels == 4].mean())
        for image, labels in gridded
        if (labels == 4).sum() > 20
    ]
    # The core's signal is an ordinary one for normal myocardium in most cases.
    assert np.mean([0.02 < share < 0.98 for share in below]) > 0.7


def test_spread_within_labels(gridded):
    spreads: dict[int, list[float]] = {label: [] for label in range(5)}
    for image, labels in gridded:
        for z in range(labels.shape[2]):
            part, values = labels[:, :, z], image[:, :, z]
            contrast = values[part == 1].mean() - values[part == 2].mean()
            for label, found in spreads.items():
                if (part == label).sum() > 20:
                    found.append(values[part == label].std() / contrast)
    medians = [np.median(spreads[label]) for label in range(5)]
    # Standard deviation in a slice over its cavity-myocardium contrast, real cases.
    np.testing.assert_allclose(medians, [1.44, 0.46, 0.45, 0.44, 0.38], rtol=0.25)


def test_contrast_varies_between_cases(gridded):
    contrast = [image[labels == 1].mean() - image[labels == 2].mean() for image, labels in gridded]
    low, middle, high = np.percentile(contrast, [5, 50, 95])
    # Gray values; real cases 7.6, 13.2, 25.3.
    assert low > 5
    assert middle == pytest.approx(13.2, abs=2.5)
    assert high / low > 1.8


def test_normal_cases_have_no_pathology(cohort):
    normal = [case for case in cohort if case.name.startswith("N")]
    assert len(normal) == 13
    assert all(case.label.max() == 2 for case in normal)


def test_cases_are_determined_by_seed_and_index():
    one, same = (phantom_case(7, 2, num_cases=5) for _ in range(2))
    np.testing.assert_array_equal(one.image, same.image)
    np.testing.assert_array_equal(one.label, same.label)
    assert (one.name, one.spacing) == (same.name, same.spacing)
    for other in (phantom_case(8, 2, num_cases=5), phantom_case(7, 3, num_cases=5)):
        assert other.image.shape != one.image.shape or (other.image != one.image).any()


def test_num_cases_only_changes_the_role():
    # Index 2 is normal, infarcted or has no-reflow; equal roles give equal cases.
    by_role: dict[tuple[bool, bool], PhantomCase] = {}
    for num_cases in range(3, 12):
        case = phantom_case(0, 2, num_cases=num_cases)
        role = bool((case.label >= 3).any()), bool((case.label == 4).any())
        first = by_role.setdefault(role, case)
        np.testing.assert_array_equal(first.image, case.image)
    assert len(by_role) >= 2


def test_invalid_arguments_are_named(tmp_path):
    for seed, index, message in (
        (-1, 0, "seed is -1"),
        (0, 3, "index is 3"),
        (0, -1, "index is -1"),
    ):
        with pytest.raises(ValueError, match=message):
            phantom_case(seed, index, num_cases=3)
    for seed, num_cases, message in ((-1, 2, "seed is -1"), (0, 0, "num_cases is 0")):
        with pytest.raises(ValueError, match=message):
            write_phantom(tmp_path / "data", seed=seed, num_cases=num_cases)
    assert not list(tmp_path.iterdir())


def test_written_headers_match_the_emidec_release(root):
    files = sorted(root.glob("Case_*/*/Case_*.nii.gz"))
    assert len(files) == 6
    for file in files:
        volume = nib.load(file)
        header = volume.header
        np.testing.assert_array_equal(volume.affine, np.diag([-1, -1, 1, 1]))
        np.testing.assert_array_equal(nib.affines.voxel_sizes(volume.affine), 1)  # the trap
        assert int(header["sform_code"]) == 2
        assert int(header["qform_code"]) == 0
        assert header.get_xyzt_units()[0] == "mm"
        assert np.isnan(header["scl_slope"])
        assert header.get_data_dtype() == (np.int16 if "Images" in file.parts else np.uint8)
        assert header.get_zooms()[2] in (8, 10, 13)
        assert header.get_zooms()[0] < 2


def test_the_reader_returns_the_written_cases(root):
    folders = find_cases(root)
    assert len(folders) == 3
    by_name = {
        f"Case_{case.name}": case for case in (phantom_case(1, i, num_cases=3) for i in range(3))
    }
    assert {folder.name for folder in folders} == set(by_name)
    for folder in folders:
        read, made = load_case(folder), by_name[folder.name]
        np.testing.assert_array_equal(read.image, made.image)
        np.testing.assert_array_equal(read.label, made.label)
        assert read.spacing == pytest.approx(made.spacing, rel=1e-7)


def _contents(root: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(root)): file.read_bytes() for file in root.rglob("*") if file.is_file()
    }


def test_bytes_are_the_same_on_every_run(root, tmp_path):
    again = write_phantom(tmp_path / "deeper" / "data", seed=1, num_cases=3)
    assert _contents(again) == _contents(root)
    packed = next(root.rglob("*.nii.gz")).read_bytes()
    assert packed[:2] == b"\x1f\x8b"
    assert packed[4:8] == bytes(4)  # gzip's time stamp
    assert len(gzip.decompress(packed)) > 352


def test_manifest_and_progress(tmp_path):
    seen: list[tuple[int, int]] = []
    root = tmp_path / "data"

    def progress(done: int, total: int) -> None:
        assert not root.exists(), "visible before it is complete"
        seen.append((done, total))

    write_phantom(root, seed=5, num_cases=2, progress=progress)
    assert seen == [(1, 2), (2, 2)]
    assert [path.name for path in tmp_path.iterdir()] == ["data"]
    manifest = json.loads((root / MANIFEST).read_text())
    assert manifest == {"generator_version": 1, "layout": "emidec", "num_cases": 2, "seed": 5}


def test_a_complete_cohort_is_not_rewritten(root):
    def fail(done: int, total: int) -> None:
        raise AssertionError("generated again")

    before = {file: file.stat().st_mtime_ns for file in root.rglob("*")}
    assert write_phantom(root, seed=1, num_cases=3, progress=fail) == root
    assert {file: file.stat().st_mtime_ns for file in root.rglob("*")} == before


def test_an_interrupted_run_leaves_nothing(tmp_path):
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_phantom(tmp_path / "data", seed=1, num_cases=2, progress=interrupt)
    assert not list(tmp_path.iterdir())


def test_two_writers_agree(tmp_path):
    root = tmp_path / "data"
    errors: list[Exception] = []

    def write() -> None:
        try:
            write_phantom(root, seed=1, num_cases=1, progress=lambda *_: barrier.wait(30))
        except Exception as error:
            errors.append(error)

    barrier = threading.Barrier(2)  # both have generated before either renames
    threads = [threading.Thread(target=write) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_other_contents_are_refused(tmp_path):
    """A folder or file of something else, and a damaged manifest; an empty folder is filled."""
    (tmp_path / "file").touch()
    for name, text in (("notes.txt", "mine"), (MANIFEST, "{"), (MANIFEST, "[1]"),
                       (MANIFEST, "[" * 10**5)):  # fmt: skip
        folder = tmp_path / "folder"
        folder.mkdir(exist_ok=True)
        (folder / name).write_text(text)
        for root in (folder, tmp_path / "file"):
            with pytest.raises(ValueError, match=str(root)):
                write_phantom(root, seed=0, num_cases=1)
        assert [path.name for path in folder.iterdir()] == [name]
        (folder / name).unlink()
    assert (write_phantom(tmp_path / "folder", seed=0, num_cases=1) / MANIFEST).is_file()


def test_another_or_an_incomplete_phantom_is_refused(root, tmp_path):
    for field, seed, num_cases in (("seed", 2, 3), ("num_cases", 1, 4)):
        with pytest.raises(ValueError, match=field):
            write_phantom(root, seed=seed, num_cases=num_cases)
    copy = shutil.copytree(root, tmp_path / "copy")
    gone = next(copy.rglob("Contours/*.nii.gz"))
    gone.unlink()
    with pytest.raises(ValueError, match=gone.name):
        write_phantom(copy, seed=1, num_cases=3)


def test_look_up_interpolates_between_directions():
    table = np.outer(np.arange(ANGLES), [1.0, 10.0]).astype(np.float32)
    step = 2 * np.pi / ANGLES
    angle = np.array([0, 2.5, -1, ANGLES / 2 - 0.25])[:, None, None] * step * np.ones((1, 1, 2))
    # -1 step is row 95; a quarter step before row 48 is 47.75.
    expected = np.array([0, 2.5, 95, 47.75])[:, None, None] * [1, 10]
    np.testing.assert_allclose(look_up(table, angle), expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("angle", [-np.pi, np.pi, -np.pi + 1e-7, np.pi - 1e-7])
def test_look_up_is_periodic(angle):
    table = np.cos(DIRECTIONS)[:, None].astype(np.float32)
    assert look_up(table, np.full((1, 1, 1), angle)).item() == pytest.approx(-1, abs=1e-3)


def test_partial_volume_is_a_ramp():
    distance = np.array([-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0])
    np.testing.assert_allclose(cover(distance, 2.0), [1, 1, 0.75, 0.5, 0.25, 0, 0])
    np.testing.assert_allclose(paint(np.array([4.0, 4.0]), np.array([0.25, 1.0]), 8.0), [5, 8])


def test_ellipse_distance_on_its_axes():
    x, y = np.array([0.0, 3, 5, 0]), np.array([0.0, 0, 0, 2])
    # 3 x 2 ellipse: the center is one smaller semi-axis inside; at x = 5, (5/3 - 1) * 2 outside.
    found = ellipse_distance(x, y, (3.0, 2.0), 2.0)
    np.testing.assert_allclose(found, [-2, 0, 4 / 3, 0], atol=1e-6)


def test_noise_has_the_requested_size_and_smoothness():
    rng = np.random.default_rng(0)
    noise = smooth_noise(rng, (200, 200), (3, 3))
    assert np.sqrt(np.mean(noise**2)) == pytest.approx(1, abs=1e-5)
    # White noise blurred by s correlates over a lag d as exp(-d^2 / (4 s^2)): exp(-0.25) at 3.
    assert np.mean(noise[3:] * noise[:-3]) == pytest.approx(np.exp(-0.25), abs=0.06)
    slow = slow_noise(rng, (40, 50, 3), 5, 0.0)
    assert slow.shape == (40, 50, 3)
    assert np.abs(np.diff(slow, axis=0)).max() < 1
