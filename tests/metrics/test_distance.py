"""Distances and volumes against values drawn by hand, SciPy and SimpleITK."""

import itertools

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from scipy.spatial.distance import cdist, directed_hausdorff

from jaxseg import metrics
from jaxseg.anatomy import EMIDEC
from tests.metrics.label_maps import SPACINGS, blobs, sitk_image

A, B = np.ones((2, 3), int), np.ones((2, 3), int)


def surface_points(mask: np.ndarray, spacing) -> np.ndarray:
    """Surface voxels in mm by definition: some face neighbor is not in the mask."""
    padded = np.pad(mask, 1)
    inner = np.ones_like(padded)
    for axis in range(mask.ndim):
        inner &= np.roll(padded, 1, axis) & np.roll(padded, -1, axis)
    return (np.argwhere(padded & ~inner) - 1) * np.asarray(spacing)


def test_hausdorff_by_hand_follows_the_order_of_the_axes():
    prediction, reference = np.zeros((4, 5), int), np.zeros((4, 5), int)
    prediction[0, 0] = reference[3, 4] = 1
    assert metrics.hausdorff_distance(prediction, reference, 1, (1.0, 1.0)) == pytest.approx(5.0)
    assert metrics.hausdorff_distance(prediction, reference, 1, (4.0, 1.25)) == pytest.approx(13.0)
    assert metrics.hausdorff_distance(prediction, reference, 1, (1.25, 4.0)) != pytest.approx(13.0)


def test_hausdorff_is_measured_between_surfaces():
    solid = np.ones((9, 9), int)
    dot = np.zeros((9, 9), int)
    dot[4, 4] = 1
    # From the dot to the rim 4, from a corner of the rim to the dot 4 sqrt 2.
    assert metrics.hausdorff_distance(dot, solid, 1, (1, 1)) == pytest.approx(4 * np.sqrt(2))
    hollow = solid.copy()
    hollow[4, 4] = 0
    # The four pixels around the hole become surface, 3 from the rim; the rim has lost nothing.
    assert metrics.hausdorff_distance(hollow, solid, 1, (1, 1)) == pytest.approx(3.0)


def test_percentile_is_taken_of_each_direction():
    prediction, reference = np.zeros((1, 21), int), np.zeros((1, 21), int)
    prediction[0, 0] = 1
    reference[0, [0, 10, 20]] = 1
    # Directed distances 0 and (0, 10, 20); pooled they would be (0, 0, 10, 20), median 5.
    distance = metrics.hausdorff_distance(prediction, reference, 1, (1, 1), percentile=50)
    assert distance == pytest.approx(10.0)
    distance = metrics.hausdorff_distance(prediction, reference, 1, (1, 1), percentile=95)
    assert distance == pytest.approx(19.0)


@pytest.mark.parametrize("shape", [(40,), (24, 31), (6, 17, 23), (3, 5, 9, 11)])
@pytest.mark.parametrize("labels", [2, (1, 2)])
def test_hausdorff_agrees_with_scipy_at_any_rank(shape, labels):
    spacing = SPACINGS[len(shape)]
    prediction, reference = blobs(2, shape), blobs(3, shape)
    ours, theirs = (
        surface_points(np.isin(label_map, labels), spacing) for label_map in (prediction, reference)
    )
    expected = max(directed_hausdorff(ours, theirs)[0], directed_hausdorff(theirs, ours)[0])
    assert expected > 0
    distance = metrics.hausdorff_distance(prediction, reference, labels, spacing)
    assert distance == pytest.approx(expected, abs=1e-9)
    assert distance == metrics.hausdorff_distance(reference, prediction, labels, spacing)
    table = cdist(ours, theirs)
    expected = max(np.percentile(table.min(1), 95), np.percentile(table.min(0), 95))
    distance = metrics.hausdorff_distance(prediction, reference, labels, spacing, percentile=95)
    assert distance == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("shape", [(24, 31), (6, 17, 23)])
def test_hausdorff_agrees_with_simpleitk(shape, seed):
    spacing = SPACINGS[len(shape)]
    prediction, reference = blobs(seed, shape), blobs(seed + 10, shape)
    contours = []
    for label_map in (prediction, reference):
        # SimpleITK measures between the sets it is given: give it contours, the edge's included.
        mask = sitk_image(np.pad(label_map == 2, 1), spacing)
        contours.append(sitk.LabelContour(mask, fullyConnected=False))
    tool = sitk.HausdorffDistanceImageFilter()
    tool.Execute(*contours)
    distance = metrics.hausdorff_distance(prediction, reference, 2, spacing)
    assert distance == pytest.approx(tool.GetHausdorffDistance(), abs=1e-4)


def test_hausdorff_of_equal_and_of_empty_regions():
    some, none = blobs(0, (6, 7)), np.zeros((6, 7), np.int16)
    assert metrics.hausdorff_distance(some, some, (1, 2), (1, 2)) == 0.0
    for pair in ((some, none), (none, some), (none, none)):
        assert np.isnan(metrics.hausdorff_distance(*pair, (1, 2), (1, 2)))


def surface(mask: np.ndarray, spacing) -> tuple[dict, list]:
    """By definition, voxel by voxel and neighbor by neighbor: areas of corners, boxes of faces."""
    areas, faces = {}, []
    sizes = np.asarray(spacing)
    for index in np.argwhere(mask):
        for axis in range(mask.ndim):
            for step in (0, 1):
                beside = index.copy()
                beside[axis] += 2 * step - 1
                if (beside >= 0).all() and (beside < mask.shape).all() and mask[tuple(beside)]:
                    continue
                low, high = index.copy(), index + 1
                low[axis] = high[axis] = index[axis] + step
                faces.append((low * sizes, high * sizes))
                corners = set(itertools.product(*zip(low.tolist(), high.tolist(), strict=True)))
                for corner in corners:
                    area = np.prod(np.delete(sizes, axis)) / len(corners)
                    areas[corner] = areas.get(corner, 0.0) + area
    return areas, faces


def far(corners, faces, spacing) -> np.ndarray:
    """Distances of corners to the nearest point of any face, in mm."""
    points = np.array(list(corners)) * np.asarray(spacing)
    gaps = [np.maximum(np.maximum(low - points, points - high), 0) for low, high in faces]
    return np.sqrt(np.min([np.square(gap).sum(1) for gap in gaps], axis=0))


@pytest.mark.parametrize("shape", [(24, 31), (5, 9, 11), (3, 4, 5, 6)])
@pytest.mark.parametrize("labels", [2, (1, 2)])
@pytest.mark.parametrize("tolerance", [0.0, 1.4, 2.0])
def test_surface_dice_agrees_with_brute_force(shape, labels, tolerance):
    spacing = SPACINGS[len(shape)]
    prediction, reference = blobs(2, shape), blobs(3, shape)
    ours, theirs = (surface(np.isin(m, labels), spacing) for m in (prediction, reference))
    within = total = 0.0
    for (areas, _), (_, faces) in ((ours, theirs), (theirs, ours)):
        near = far(areas, faces, spacing) <= tolerance + 1e-9
        within += np.array(list(areas.values()))[near].sum()
        total += sum(areas.values())
    assert 0 < within < total
    args = (labels, spacing, tolerance)
    found = metrics.surface_dice(prediction, reference, *args)
    assert found == pytest.approx(within / total, abs=1e-12)
    assert found == pytest.approx(metrics.surface_dice(reference, prediction, *args))


def test_surface_dice_of_shifted_boxes_by_hand():
    """Boxes of 4 x 6 pixels of 3 x 2 mm, one shifted by a pixel along the columns, 2 mm."""
    prediction, reference = np.zeros((12, 12), int), np.zeros((12, 12), int)
    prediction[2:6, 2:8] = reference[2:6, 3:9] = 1
    args = (prediction, reference, 1, (3.0, 2.0))
    assert metrics.surface_dice(*args, tolerance=2.0) == 1
    # Below 2 mm each loses the side that the other does not reach, 4 * 3 mm with half of the two
    # edges that meet it, and the inner corners of its other side: 3 corners of 3 mm.
    perimeter = 2 * (6 * 2 + 4 * 3)
    found = metrics.surface_dice(*args, tolerance=1.0)
    assert found == pytest.approx(1 - (12 + 2 + 9) / perimeter)


def test_surface_dice_weighs_thick_slices_by_their_area():
    """A column of 6 x 6 pixels of 1 mm, two and three slices of 10 mm."""
    prediction = np.zeros((3, 10, 10), int)
    prediction[:2, 2:8, 2:8] = 1
    reference = prediction.copy()
    reference[2, 2:8, 2:8] = 1
    # Sides of 4 * 6 * 10 mm2 a slice, caps of 36 mm2. The rim of the prediction's upper cap lies on
    # a side of the reference; corners 2 mm from it are within as well, all but the 1 in the middle.
    # The reference lacks its cap and half of the sides of the last slice.
    within = 2 * (36 + 2 * 240) + 35 + 120
    total = (2 * 240 + 72) + (3 * 240 + 72)
    found = metrics.surface_dice(prediction, reference, 1, (10, 1, 1), tolerance=2)
    assert found == pytest.approx(within / total)


def test_surface_dice_of_a_ball_that_grows():
    """Radii of 20 and 21 mm: agree at 2 mm; below 1 mm only where steps of both meet."""
    radius = np.sqrt(np.square(np.mgrid[-22:23, -22:23, -22:23]).sum(0))
    small, large = (radius <= 20).astype(int), (radius <= 21).astype(int)
    args = (small, large, 1, (1, 1, 1))
    assert metrics.surface_dice(*args, tolerance=2) == 1
    assert metrics.surface_dice(*args, tolerance=0.25) < 0.5


def test_surface_dice_of_equal_and_of_empty_regions():
    some, none = blobs(0, (6, 7)), np.zeros((6, 7), np.int16)
    found = [
        metrics.surface_dice(*pair, (1, 2), (1, 2), tolerance=0)
        for pair in ((some, some), (some, none), (none, some), (none, none))
    ]
    assert found[:3] == [1, 0, 0]
    assert np.isnan(found[3])


@pytest.mark.parametrize("tolerance", [-1, np.nan, np.inf])
def test_bad_tolerance_is_refused(tolerance):
    with pytest.raises(ValueError, match=r"^tolerance: expected"):
        metrics.surface_dice(A, B, 1, (1, 1), tolerance=tolerance)


def test_volume_by_hand():
    prediction, reference = np.zeros((2, 3, 4), int), np.zeros((2, 3, 4), int)
    prediction[0] = 3  # 12 voxels
    reference[:, 0, 0] = (3, 4)
    spacing = (10.0, 1.5, 2.0)  # 30 mm3 a voxel
    assert metrics.volume(prediction, 3, spacing) == pytest.approx(360.0)
    assert metrics.volume(prediction, 4, spacing) == 0.0
    assert metrics.volume_difference(prediction, reference, 3, spacing) == pytest.approx(330.0)
    assert metrics.volume_difference(reference, prediction, (3, 4), spacing) == pytest.approx(300.0)
    assert metrics.volume_difference(reference, reference, 1, spacing) == 0.0


def test_volumes_of_real_cases_are_the_official_ones(emidec_root):
    """The copy's spacing was fitted to the whole myocardium; resampling moved the small regions."""
    rows = np.genfromtxt(
        emidec_root / "volumes.csv", delimiter=",", names=True, dtype=None, encoding="utf-8"
    )
    for name, wall, infarct, no_reflow in rows[::4]:
        case = nibabel.load(emidec_root / name / "Contours" / f"{name}.nii.gz")
        label_map, zooms = np.asarray(case.dataobj).astype(np.uint8), case.header.get_zooms()
        ours = [metrics.volume(label_map, v, zooms) / 1000 for _, v in EMIDEC.case_regions]
        assert ours[0] == pytest.approx(wall, rel=1e-6), name
        assert ours[1:] == pytest.approx([infarct, no_reflow], rel=0.06, abs=0.5), name


@pytest.mark.parametrize("spacing", [(1,), (1, 1, 1), (1, 0), (1, -2), (1, np.nan), (np.inf, 1)])
def test_bad_spacing_is_refused(spacing):
    for score in (metrics.hausdorff_distance, metrics.volume_difference):
        with pytest.raises(ValueError, match=r"^spacing: expected"):
            score(A, B, 1, spacing)
    with pytest.raises(ValueError, match=r"^spacing: expected"):
        metrics.volume(A, 1, spacing)


@pytest.mark.parametrize("percentile", [0, -1, 100.1, np.nan])
def test_bad_percentile_is_refused(percentile):
    with pytest.raises(ValueError, match=r"^percentile: expected"):
        metrics.hausdorff_distance(A, B, 1, (1, 1), percentile=percentile)
