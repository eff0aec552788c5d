"""Scores against values drawn and counted by hand, and against SimpleITK and SciPy."""

import inspect

import jax
import jax.numpy as jnp
import nibabel
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from scipy import ndimage
from scipy.spatial.distance import cdist, directed_hausdorff

from jaxseg import metrics
from jaxseg.anatomy import EMIDEC

INFARCT_PAIR = ((4,), (4, 3))
WALL_PAIR = ((3, 4), (2, 3, 4))
SPACINGS = {1: (1.7,), 2: (1.4, 0.9), 3: (9.5, 1.4, 0.8), 4: (2.0, 9.5, 1.4, 0.8)}


def drawn(*rows: str) -> np.ndarray:
    """A label map of digits, one string a row; a dot is background."""
    return np.array([[int(c) for c in row.replace(".", "0")] for row in rows], np.uint8)


def blobs(seed: int, shape: tuple[int, ...], sigma: float = 1.0) -> np.ndarray:
    """A random label map with labels 0..2 in smooth patches that reach the array's edge."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), sigma)
    return np.digitize(noise, np.quantile(noise, [0.5, 0.8])).astype(np.int16)


def surface_points(mask: np.ndarray, spacing) -> np.ndarray:
    """Surface voxels in mm by definition: some face neighbor is not in the mask."""
    padded = np.pad(mask, 1)
    inner = np.ones_like(padded)
    for axis in range(mask.ndim):
        inner &= np.roll(padded, 1, axis) & np.roll(padded, -1, axis)
    return (np.argwhere(padded & ~inner) - 1) * np.asarray(spacing)


def sitk_image(mask: np.ndarray, spacing) -> sitk.Image:
    image = sitk.GetImageFromArray(mask.astype(np.uint8))
    image.SetSpacing([float(s) for s in spacing[::-1]])  # SimpleITK counts axes the other way
    return image


# Overlap


def test_dice_by_hand():
    prediction = drawn("112.", "1334")
    reference = drawn("11..", "1244")
    assert metrics.dice(prediction, reference, 1) == 1.0
    assert metrics.dice(prediction, reference, 4) == pytest.approx(2 * 1 / (1 + 2))
    assert metrics.dice(prediction, reference, 2) == 0.0
    # The union counts a 3 for a 4 as right: 2 * 2 / (3 + 2).
    assert metrics.dice(prediction, reference, (3, 4)) == pytest.approx(0.8)


def test_dice_of_empty_masks():
    some, none = drawn("1."), drawn("..")
    assert np.isnan(metrics.dice(none, none, 1))
    assert metrics.dice(none, none, 1, empty=1.0) == 1.0
    assert metrics.dice(some, none, 1, empty=1.0) == 0.0
    assert metrics.dice(none, some, 1, empty=1.0) == 0.0


@pytest.mark.parametrize("labels", [1, (1, 2)])
@pytest.mark.parametrize("shape", [(11, 9), (5, 11, 9)])
def test_dice_agrees_with_simpleitk(shape, labels):
    prediction, reference = blobs(0, shape), blobs(1, shape)
    overlap = sitk.LabelOverlapMeasuresImageFilter()
    masks = [np.isin(m, labels) for m in (prediction, reference)]
    overlap.Execute(*(sitk_image(mask, SPACINGS[len(shape)]) for mask in masks))
    expected = overlap.GetDiceCoefficient(1)
    assert 0 < expected < 1
    assert metrics.dice(prediction, reference, labels) == pytest.approx(expected, abs=1e-12)
    assert metrics.dice(reference, prediction, labels) == pytest.approx(expected, abs=1e-12)


# Distance


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


# Volume


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


# Slices, regions, tables


REGIONS = (("One", (1,)), ("Either", (1, 2)), ("Four", (4,)))


def test_slice_scores_by_hand():
    prediction = np.stack([drawn("112", "..4"), drawn("...", "..."), drawn("144", "...")])
    reference = np.stack([drawn("122", "..."), drawn("1..", "..."), drawn("..4", "...")])
    nan = np.nan
    expected = [
        # 2*1/(2+1); 3 of 3; a 4 predicted where the slice holds none is not counted.
        [2 / 3, 1.0, nan],
        [0.0, 0.0, nan],
        [nan, nan, 2 / 3],
    ]
    np.testing.assert_allclose(metrics.slice_scores(prediction, reference, REGIONS), expected)


@pytest.mark.parametrize("jitted", [False, True])
@pytest.mark.parametrize("dtype", [np.uint8, np.int32])
def test_device_counts_are_the_counts_of_numpy(jitted, dtype):
    shape = (5, 12, 8)
    prediction, reference = blobs(4, shape).astype(dtype), blobs(5, shape).astype(dtype)
    reference[2] = 0
    sets = tuple(values for _, values in REGIONS)
    run = jax.jit(metrics.overlap_counts, static_argnums=2) if jitted else metrics.overlap_counts
    counts = run(jnp.asarray(prediction), jnp.asarray(reference), sets)
    for region, values in enumerate(sets):
        for n in range(shape[0]):
            p, r = np.isin(prediction[n], values), np.isin(reference[n], values)
            found = [int(c[n, region]) for c in counts]
            assert found == [(p & r).sum(), p.sum(), r.sum()]
    assert all(c.dtype == jnp.int32 for c in counts)
    np.testing.assert_array_equal(
        metrics.slice_dice(*counts), metrics.slice_scores(prediction, reference, REGIONS)
    )


def test_counts_of_slices_add_up_to_the_dice_of_the_case():
    prediction, reference = blobs(6, (4, 9, 9)), blobs(7, (4, 9, 9))
    counts = metrics.overlap_counts(jnp.asarray(prediction), jnp.asarray(reference), [(1, 2), 3])
    totals = [np.asarray(c).sum(axis=0) for c in counts]
    whole = metrics.dice_from_counts(*totals, empty=1.0)
    assert whole[0] == metrics.dice(prediction, reference, (1, 2))
    assert whole[1] == 1.0


def test_dice_from_counts_by_hand():
    scores = metrics.dice_from_counts([3, 0, 0], [4, 0, 5], [8, 0, 0])
    np.testing.assert_allclose(scores, [0.5, np.nan, 0.0])
    assert metrics.dice_from_counts(0, 0, 0, empty=1.0) == 1.0


def test_summarize_by_hand():
    nan = np.nan
    mean, std, n = metrics.summarize(
        [[0.2, nan, 0.5, 0.0], [0.6, nan, nan, 0.0], [nan, nan, nan, 3.0]]
    )
    np.testing.assert_allclose(mean, [0.4, nan, 0.5, 1.0])
    # Sample: sqrt((0.04 + 0.04) / 1), sqrt((1 + 1 + 4) / 2).
    np.testing.assert_allclose(std, [np.sqrt(0.08), nan, nan, np.sqrt(3)])
    np.testing.assert_array_equal(n, [2, 0, 1, 3])
    assert [list(v) for v in metrics.summarize(np.zeros((0, 1)))[2:]] == [[0]]


def test_confusion_matrix_by_hand():
    prediction, reference = drawn("0112", "0222"), drawn("0012", "2221")
    expected = [[1, 1, 0], [0, 1, 1], [1, 0, 3]]
    matrix = metrics.confusion_matrix(prediction, reference, 3)
    np.testing.assert_array_equal(matrix, expected)
    assert matrix.dtype == np.int64
    np.testing.assert_array_equal(metrics.confusion_matrix(reference, prediction, 3), matrix.T)
    halves = [metrics.confusion_matrix(prediction[i], reference[i], 3) for i in (0, 1)]
    np.testing.assert_array_equal(sum(halves), matrix)


# Inclusion


def violation(label_map, pair, **options) -> tuple[int, int, int]:
    inner, detached, gap = metrics.inclusion_violation(label_map, *pair, **options)
    return int(inner), int(detached), int(gap)


def test_detached_no_reflow_by_hand():
    label_map = drawn(
        "44....4.",
        "4..3....",
        "..4.3..4",
    )
    # Only the left 4 of row 2 touches a 3, at a corner; in its row a gap lies between it and a 3.
    assert violation(label_map, INFARCT_PAIR, max_width=1) == (6, 5, 1)


def test_a_component_is_kept_by_one_touch_and_components_do_not_leak_between_slices():
    touching = drawn("4444", "4..4", "...3")
    alone = drawn("4444", "4..4", "....")
    counts = metrics.inclusion_violation(np.stack([touching, alone]), *INFARCT_PAIR)
    np.testing.assert_array_equal(counts.inner, [6, 6])
    np.testing.assert_array_equal(counts.detached, [0, 6])
    # Infarct of the slice below at the same place does not count as a neighbor.
    counts = metrics.inclusion_violation(np.stack([alone, drawn("3333", *["...."] * 2)]), 4, (3, 4))
    np.testing.assert_array_equal(counts.detached, [6, 0])


def test_gap_by_hand():
    label_map = drawn(
        ".........",
        "22.33..22",
        "22133...2",
        "222333222",
        ".........",
    )
    # One background and one cavity pixel left of the infarct, runs of 2 and 3 right of it.
    assert violation(label_map, WALL_PAIR, max_width=1) == (7, 0, 2)
    assert violation(label_map, WALL_PAIR, max_width=2) == (7, 0, 4)
    assert violation(label_map, WALL_PAIR) == (7, 0, 7)
    assert violation(label_map.T, WALL_PAIR) == (7, 0, 7)
    assert violation(label_map[:, ::-1], WALL_PAIR) == (7, 0, 7)


def test_other_labels_between_no_reflow_and_infarct_are_a_gap_of_that_pair_only():
    label_map = drawn("2222222", "2342332", "2222222")
    assert violation(label_map, INFARCT_PAIR) == (1, 0, 1)
    assert violation(label_map, WALL_PAIR) == (4, 0, 0)


@pytest.mark.parametrize(
    "rows",
    [
        ("........", ".223322.", ".223322.", "........"),  # a clean border of the two
        ("....33..", "...233..", "..223...", "..22...."),  # a staircase
        ("33.33...", "33333222"),  # a notch with infarct on both sides
        ("333....2",),  # wider than max_width
        ("33...", "....2"),  # nothing opposite in row or column
        ("3",),
    ],
)
def test_no_gap_where_nothing_is_squeezed(rows):
    assert violation(drawn(*rows), WALL_PAIR)[2] == 0


def test_gap_at_the_edge_and_wider_than_the_array():
    assert violation(drawn("3.2"), WALL_PAIR, max_width=9) == (1, 1, 1)
    assert violation(drawn("3", ".", ".", "2"), WALL_PAIR, max_width=9) == (1, 1, 2)
    assert violation(drawn("3..", "..2"), WALL_PAIR, max_width=9) == (1, 1, 0)


def test_leading_axes_are_kept():
    stack = np.stack([drawn("3.2", "..."), drawn("32.", "...")])
    counts = metrics.inclusion_violation(stack[None], *WALL_PAIR)
    assert [c.tolist() for c in counts] == [[[1, 1]], [[1, 0]], [[1, 0]]]


def test_expert_contours_hold_the_prior(emidec_root):
    """The measures are near 0 on reference maps: they separate sound maps from broken ones."""
    totals = np.zeros((len(EMIDEC.inclusions), 3))
    for folder in sorted(emidec_root.glob("Case_P*")):
        path = folder / "Contours" / f"{folder.name}.nii.gz"
        stack = np.moveaxis(np.asarray(nibabel.load(path).dataobj).astype(np.uint8), 2, 0)
        for k, pair in enumerate(EMIDEC.inclusions):
            totals[k] += [c.sum() for c in metrics.inclusion_violation(stack, *pair)]
    inner, detached, gap = totals.T
    assert (inner > 500).all()
    assert (detached <= 0.01 * inner).all()
    assert (gap <= 0.01 * inner).all()


# Refusals


A, B = np.ones((2, 3), int), np.ones((2, 3), int)
PAIRWISE = [
    lambda p, r, labels=1: metrics.dice(p, r, labels),
    lambda p, r, labels=1: metrics.hausdorff_distance(p, r, labels, (1, 1)),
    lambda p, r, labels=1: metrics.volume_difference(p, r, labels, (1, 1)),
]


@pytest.mark.parametrize("score", PAIRWISE)
def test_bad_maps_and_labels_are_refused(score):
    with pytest.raises(ValueError, match=r"shape \(2, 3\), but reference has \(3, 2\)"):
        score(A, B.T)
    with pytest.raises(
        ValueError, match=r"^prediction: expected an integer label map, got float64"
    ):
        score(A * 0.5, B)
    with pytest.raises(ValueError, match=r"^reference: expected an integer label map, got bool"):
        score(A, B > 0)
    with pytest.raises(ValueError, match=r"^prediction: .*at least one axis"):
        score(1, 1)
    for labels in ((), 1.0, ("LV",), True, None):
        with pytest.raises(ValueError, match=r"^labels: expected an int or a non-empty tuple"):
            score(A, B, labels)


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


def test_bad_stacks_and_regions_are_refused():
    stack = np.ones((2, 3, 4), np.int32)
    with pytest.raises(ValueError, match=r"expected one shape \(N, H, W\)"):
        metrics.slice_scores(A, B, REGIONS)
    with pytest.raises(ValueError, match=r"^regions: expected at least one"):
        metrics.slice_scores(stack, stack, ())
    with pytest.raises(ValueError, match=r"expected one shape \(N, H, W\)"):
        metrics.overlap_counts(jnp.asarray(stack), jnp.asarray(stack[:1]), [1])
    with pytest.raises(ValueError, match=r"^regions: expected at least one"):
        metrics.overlap_counts(jnp.asarray(stack), jnp.asarray(stack), [])
    with pytest.raises(ValueError, match=r"^reference: expected an integer label map, got float32"):
        metrics.overlap_counts(jnp.asarray(stack), jnp.ones((2, 3, 4)), [1])
    with pytest.raises(ValueError, match=r"^scores: expected shape \(N, R\)"):
        metrics.summarize([0.5])


@pytest.mark.parametrize("value", [-1, 2])
def test_confusion_matrix_refuses_labels_out_of_range(value):
    with pytest.raises(ValueError, match=r"^reference: expected labels 0\.\.1, got"):
        metrics.confusion_matrix(A, B * value, 2)


def test_bad_inclusion_arguments_are_refused():
    for outer in (3, (3, 4)):
        with pytest.raises(ValueError, match=r"^inner: expected a strict subset"):
            metrics.inclusion_violation(A, (3, 4), outer)
    with pytest.raises(ValueError, match=r"^max_width: expected at least 1"):
        metrics.inclusion_violation(A, 4, (3, 4), max_width=0)
    with pytest.raises(ValueError, match=r"^label_map: expected shape \(\.\.\., H, W\)"):
        metrics.inclusion_violation(A[0], 4, (3, 4))


def test_defaults_are_keyword_only():
    functions = inspect.getmembers(metrics, inspect.isfunction)
    own = [(name, f) for name, f in functions if f.__module__ == metrics.__name__]
    assert len(own) > 10
    for name, function in own:
        for parameter in inspect.signature(function).parameters.values():
            keyword = parameter.kind is inspect.Parameter.KEYWORD_ONLY
            assert keyword == (parameter.default is not inspect.Parameter.empty), name
