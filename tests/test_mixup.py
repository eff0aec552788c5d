"""Eq. 1-2 against hand-derived numbers and an independent float64 implementation."""

from fractions import Fraction
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage, stats

from jaxseg.mixup import (
    choose_partner,
    foreground_moments,
    pathology_mixup,
    registration_matrix,
    warp,
)

SHAPE = (20, 24)
L = 5
mixup = jax.jit(partial(pathology_mixup, num_labels=L))


def points(*coordinates: tuple[int, int], shape: tuple[int, int] = (8, 10)) -> jax.Array:
    mask = np.zeros(shape, bool)
    mask[tuple(np.transpose(coordinates))] = True
    return jnp.array(mask)


def heart(center: tuple[float, float], radius: float, turn: float = 0.0) -> np.ndarray:
    """Cavity within a myocardium, infarct in a sector of that and no-reflow in the infarct."""
    rows, columns = np.indices(SHAPE)
    distance = np.hypot(rows - center[0], columns - center[1]) / radius
    angle = (np.arctan2(rows - center[0], columns - center[1]) + turn) % (2 * np.pi)
    label = np.select([distance < 0.5, distance < 1], [1, 2], 0)
    label[(label == 2) & (angle < 2)] = 3
    label[(label == 3) & (angle < 1) & (distance < 0.8)] = 4
    return label.astype(np.uint8)


def slices(seed: int, *hearts: np.ndarray) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(seed)
    return tuple(rng.normal(size=h.shape).astype(np.float32) for h in hearts)


def similarity(scale: float, row: float, column: float) -> np.ndarray:
    return np.array([[scale, 0, row], [0, scale, column], [0, 0, 1]])


def warp64(image: np.ndarray, matrix: np.ndarray, outside: float = 0.0) -> np.ndarray:
    """SciPy in float64, by inverting the matrix on homogeneous coordinates of every pixel."""
    grid = np.indices(image.shape).reshape(2, -1)
    pulled = np.linalg.inv(matrix) @ np.vstack([grid, np.ones(grid.shape[1])])
    warped = ndimage.map_coordinates(
        image.astype(np.float64), pulled[:2], order=1, mode="grid-constant", cval=outside
    )
    return warped.reshape(image.shape)


def moments64(mask: np.ndarray) -> tuple[np.ndarray, float]:
    inside = np.argwhere(mask).astype(np.float64)
    center = inside.mean(0)
    return center, np.linalg.norm(inside - center, axis=1).mean()


def mixup64(fixed_image, fixed_label, moving_image, moving_label, lam):
    """Eq. 1-2 label by label; the background is warped as a label of its own, 1 outside."""
    (center_f, distance_f), (center_m, distance_m) = (
        moments64(label > 0) for label in (fixed_label, moving_label)
    )
    matrix = similarity(distance_f / distance_m, *(center_f - distance_f / distance_m * center_m))
    inside = fixed_label > 0
    image = np.where(
        inside, (1 - lam) * warp64(moving_image, matrix) + lam * fixed_image, fixed_image
    )
    probabilities = np.empty((*fixed_label.shape, L))
    for i in range(L):
        fixed = (fixed_label == i).astype(np.float64)
        warped = warp64(moving_label == i, matrix, outside=float(i == 0))
        probabilities[..., i] = np.where(inside, (1 - lam) * warped + lam * fixed, fixed)
    return image, probabilities


# Registration, Eq. 1


def test_moments_by_hand():
    center, distance = foreground_moments(points((1, 3), (1, 4), (2, 3), (2, 4)))
    np.testing.assert_allclose(center, [1.5, 3.5])
    assert distance == pytest.approx(0.5**0.5)
    # A cross: the middle is 0 away, four arms are 1 away.
    center, distance = foreground_moments(points((4, 5), (3, 5), (5, 5), (4, 4), (4, 6)))
    np.testing.assert_allclose(center, [4, 5])
    assert distance == pytest.approx(4 / 5)


@pytest.mark.parametrize("seed", range(3))
def test_moments_match_float64(seed):
    mask = np.random.default_rng(seed).random(SHAPE) < 0.2
    center, distance = jax.jit(foreground_moments)(jnp.array(mask))
    expected_center, expected_distance = moments64(mask)
    np.testing.assert_allclose(center, expected_center, rtol=1e-6)
    assert distance == pytest.approx(expected_distance, rel=1e-6)


def test_moments_of_nothing_and_of_one_pixel():
    for mask, expected in ((jnp.zeros((4, 4), bool), [0, 0]), (points((2, 7)), [2, 7])):
        center, distance = foreground_moments(mask)
        np.testing.assert_array_equal(center, expected)
        assert distance == 0
    with pytest.raises(ValueError, match="foreground"):
        foreground_moments(jnp.zeros((1, 4, 4), bool))


def test_matrix_by_hand():
    # Corners of a square of side 2 around (3, 3), and of one of side 4 around (3, 5): s = 2,
    # translation (3 - 2 * 3, 5 - 2 * 3).
    moving = [(2, 2), (2, 4), (4, 2), (4, 4)]
    fixed = [(1, 3), (1, 7), (5, 3), (5, 7)]
    matrix = registration_matrix(points(*fixed), points(*moving))
    np.testing.assert_allclose(matrix, [[2, 0, -3], [0, 2, -1], [0, 0, 1]], rtol=1e-6)
    homogeneous = np.hstack([moving, np.ones((4, 1))])
    np.testing.assert_allclose((matrix @ homogeneous.T).T[:, :2], fixed, rtol=1e-6)


def test_matrices_compose_and_invert():
    a, b, c = (jnp.array(heart(*h) > 0) for h in (((9, 11), 7), ((10.3, 8), 4), ((6, 15), 5.5)))
    center, _ = foreground_moments(b)
    mapped = registration_matrix(a, b) @ jnp.array([*center, 1.0])
    np.testing.assert_allclose(mapped[:2], foreground_moments(a)[0], rtol=1e-5)
    there_and_back = registration_matrix(a, b) @ registration_matrix(b, a)
    np.testing.assert_allclose(there_and_back, np.eye(3), atol=1e-5)
    by_way_of_b = registration_matrix(a, b) @ registration_matrix(b, c)
    np.testing.assert_allclose(by_way_of_b, registration_matrix(a, c), rtol=1e-5, atol=1e-5)


def test_matrix_without_extent():
    blob, pixel = points((3, 3), (3, 4), (4, 3)), points((6, 2))
    shift = np.array([6, 2]) - np.array([10 / 3, 10 / 3])
    # One pixel has a center and no size: translation only.
    np.testing.assert_allclose(registration_matrix(pixel, blob), similarity(1, *shift), rtol=1e-6)
    np.testing.assert_allclose(registration_matrix(blob, pixel), similarity(1, *-shift), rtol=1e-6)
    empty = jnp.zeros((8, 10), bool)
    for pair in ((empty, blob), (blob, empty), (empty, empty)):
        np.testing.assert_array_equal(registration_matrix(*pair), np.eye(3))


# Warp


@pytest.mark.parametrize("seed", range(8))
def test_warp_matches_scipy(seed):
    rng = np.random.default_rng(seed)
    image = rng.normal(size=(13, 18))
    # From well inside the field to almost out of it, shrunk and enlarged.
    matrix = similarity(rng.uniform(0.4, 2.5), *rng.uniform(-14, 14, size=2))
    expected = warp64(image, matrix)
    assert np.abs(expected).max() > 0.1
    actual = warp(jnp.float32(image), jnp.float32(matrix))
    np.testing.assert_allclose(actual, expected, atol=5e-5)


def test_warp_reads_a_scale_per_axis_and_zero_outside():
    image = jnp.ones((4, 6))
    stretched = warp(image, jnp.diag(jnp.array([2.0, 1.0, 1.0])))
    # Rows pulled at 0, 0.5, 1, 1.5; all inside. Halved: at 0, 2, 4, 6; the last two outside.
    np.testing.assert_array_equal(stretched, image)
    halved = warp(image, jnp.diag(jnp.array([0.5, 1.0, 1.0])))
    np.testing.assert_array_equal(halved, np.repeat([[1.0], [1], [0], [0]], 6, axis=1))
    assert not warp(image, jnp.array(similarity(1, 100, 0))).any()


def test_warp_identity_and_integer_shift_are_exact():
    image = jnp.float32(np.random.default_rng(0).normal(size=(5, 7)))
    np.testing.assert_array_equal(warp(image, jnp.eye(3)), image)
    # Content moves by the translation, down and to the left.
    shifted = warp(image, jnp.array(similarity(1, 2, -3)))
    expected = np.zeros((5, 7))
    expected[2:, :4] = image[:3, 3:]
    np.testing.assert_array_equal(shifted, expected)
    # Half a pixel to the right: the mean of left neighbors, which at the rim fades to 0.
    half = warp(image, jnp.array(similarity(1, 0, 0.5)))
    padded = np.pad(image, ((0, 0), (1, 0)))
    np.testing.assert_allclose(half, (padded[:, 1:] + padded[:, :-1]) / 2, rtol=1e-6)


def test_warp_under_channels_vmap_and_dtypes():
    rng = np.random.default_rng(1)
    images = jnp.float32(rng.normal(size=(3, 9, 11)))
    matrices = jnp.float32(
        np.stack([similarity(rng.uniform(0.7, 1.4), *rng.normal(size=2)) for _ in range(3)])
    )
    one = jax.jit(warp)
    plain = np.stack([one(*pair) for pair in zip(images, matrices, strict=True)])
    np.testing.assert_allclose(jax.jit(jax.vmap(warp))(images, matrices), plain, atol=1e-6)
    channels = warp(jnp.moveaxis(images, 0, -1), matrices[0])
    for channel in range(3):
        alone = one(images[channel], matrices[0])
        np.testing.assert_allclose(channels[..., channel], alone, atol=1e-6)
    half = warp(images[0].astype(jnp.bfloat16), matrices[0])
    assert half.dtype == jnp.bfloat16
    np.testing.assert_allclose(half.astype(jnp.float32), plain[0], atol=0.02)


def test_gradient_with_respect_to_the_image_is_the_adjoint():
    shape, matrix = (6, 7), similarity(1.3, -2.2, 1.7)
    # The operator as a dense float64 matrix: its columns are SciPy's warps of single pixels.
    units = np.eye(42).reshape(42, *shape)
    operator = np.stack([warp64(unit, matrix).ravel() for unit in units], axis=1)
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(2, *shape))
    value, pull_back = jax.vjp(lambda image: warp(image, jnp.float32(matrix)), jnp.float32(x))
    (gradient,) = pull_back(jnp.float32(y))
    np.testing.assert_allclose(gradient.ravel(), operator.T @ y.ravel(), atol=1e-5)
    assert float((value * y).sum()) == pytest.approx(float((gradient * x).sum()), rel=1e-4)


def test_gradient_with_respect_to_the_matrix():
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(2, 6, 7))
    matrix = similarity(1.3, -2.21, 1.74)
    gradient = jax.jit(jax.grad(lambda m: (warp(jnp.float32(x), m) * y).sum()))(jnp.float32(matrix))
    # Scale and translation of each axis; no sample lies within the step of a kink.
    for entry in ((0, 0), (1, 1), (0, 2), (1, 2)):
        step = np.zeros((3, 3))
        step[entry] = 1e-5
        slope = ((warp64(x, matrix + step) - warp64(x, matrix - step)) * y).sum() / 2e-5
        assert float(gradient[entry]) == pytest.approx(slope, rel=1e-3, abs=1e-3)


def test_warp_refuses_arguments_that_do_not_fit():
    image = jnp.zeros((4, 4))
    for name, arguments in (
        ("image", (image.astype(jnp.int32), jnp.eye(3))),
        ("image", (image[None, ..., None], jnp.eye(3))),
        ("matrix", (image, jnp.eye(3)[:2])),
    ):
        with pytest.raises(ValueError, match=name):
            warp(*arguments)


# Mixup, Eq. 2

FIXED = heart((9.2, 11.4), 6.5)
MOVING = heart((8.0, 14.0), 4.8, turn=2.0)


@pytest.mark.parametrize("lam", [0.0, 0.3, 0.85, 1.0])
@pytest.mark.parametrize(
    ("fixed", "moving"),
    [
        (FIXED, MOVING),
        (MOVING, FIXED),
        # Enlarged from the rim: part of the fixed foreground looks beyond the moving field.
        (heart((12, 10), 9), heart((1, 1), 3.5)),
    ],
    ids=["enlarge", "shrink", "rim"],
)
def test_mixup_matches_float64(lam, fixed, moving):
    fixed_image, moving_image = slices(0, fixed, moving)
    image, probabilities = mixup(fixed_image, fixed, moving_image, moving, lam)
    expected = mixup64(fixed_image, fixed, moving_image, moving, lam)
    np.testing.assert_allclose(image, expected[0], atol=5e-5)
    np.testing.assert_allclose(probabilities, expected[1], atol=2e-5)
    np.testing.assert_allclose(probabilities.sum(-1), 1, atol=1e-6)
    assert probabilities.min() >= 0
    assert image.dtype == probabilities.dtype == jnp.float32


def test_mixup_by_hand():
    # Two foregrounds of one shape, one row apart: T is that shift, and pixels meet pixels.
    fixed_label, moving_label = np.zeros((2, 5, 4), np.int32)
    fixed_label[1:3, 1:3] = [[1, 1], [1, 2]]
    moving_label[2:4, 1:3] = [[1, 2], [1, 2]]
    fixed_image, moving_image = np.full((5, 4), 8.0, np.float32), np.full((5, 4), 4.0, np.float32)
    moving_image[2, 2] = 0.0
    image, probabilities = pathology_mixup(
        fixed_image, fixed_label, moving_image, moving_label, 0.25, num_labels=3
    )
    expected = fixed_image.copy()
    expected[1:3, 1:3] = [[5.0, 2.0], [5.0, 5.0]]  # 0.25 * 8 + 0.75 * (4 or 0)
    np.testing.assert_allclose(image, expected, atol=1e-6)
    np.testing.assert_allclose(probabilities[1, 1], [0, 1, 0], atol=1e-6)
    np.testing.assert_allclose(probabilities[1, 2], [0, 0.25, 0.75], atol=1e-6)
    np.testing.assert_allclose(probabilities[2, 2], [0, 0, 1], atol=1e-6)
    np.testing.assert_array_equal(probabilities[3, 1], [1, 0, 0])  # moving heart, fixed background


def test_mixup_under_jit_and_vmap():
    labels = np.stack([FIXED, MOVING, np.zeros_like(FIXED)])
    images = np.stack(slices(3, *labels))
    lam = jnp.array([0.2, 0.5, 0.9])
    batch = (images, labels, np.roll(images, 1, 0), np.roll(labels, 1, 0), lam)
    together = jax.jit(jax.vmap(partial(pathology_mixup, num_labels=L)))(*batch)
    for i in range(3):
        alone = pathology_mixup(*(part[i] for part in batch), num_labels=L)
        for actual, expected in zip(together, alone, strict=True):
            np.testing.assert_allclose(actual[i], expected, atol=5e-6)


def test_channels_are_mixed_with_the_same_transform():
    """Each channel is mixed as it would be alone."""
    fixed, moving = (np.stack(slices(k, FIXED, MOVING)) for k in (4, 5))
    image, probabilities = mixup(
        np.stack([fixed[0], moving[0]], -1), FIXED, np.stack([fixed[1], moving[1]], -1), MOVING, 0.3
    )
    for channel, (a, b) in enumerate((fixed, moving)):
        alone, expected = mixup(a, FIXED, b, MOVING, 0.3)
        np.testing.assert_allclose(image[..., channel], alone, atol=1e-6)
        np.testing.assert_allclose(probabilities, expected, atol=1e-6)


def test_one_hot_shares_are_mixed_like_labels():
    shares = [np.eye(5, dtype=np.float32)[label] for label in (FIXED, MOVING)]
    fixed, moving = (np.random.default_rng(k).normal(size=FIXED.shape) for k in (0, 1))
    expected = mixup(fixed, FIXED, moving, MOVING, 0.3)
    found = mixup(fixed, shares[0], moving, shares[1], 0.3)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_shares_are_mixed_where_the_heart_exceeds_one_half():
    """Two slices of one row, background's shares 1, 0.5, 0.4, 0 and the same again: nothing moves,
    and lambda 1/4 mixes the last two pixels."""
    background = jnp.array([[1.0, 0.5, 0.4, 0.0]])
    fixed = jnp.stack([background, 1 - background, jnp.zeros((1, 4))], -1)
    moving = fixed[..., jnp.array([0, 2, 1])]
    images = jnp.zeros((1, 4)), jnp.ones((1, 4))
    image, shares = pathology_mixup(images[0], fixed, images[1], moving, 0.25, num_labels=3)
    np.testing.assert_allclose(image, [[0, 0, 0.75, 0.75]], atol=1e-6)
    expected = [[1, 0, 0], [0.5, 0.5, 0], [0.4, 0.15, 0.45], [0, 0.25, 0.75]]
    np.testing.assert_allclose(shares[0], expected, atol=1e-6)


def test_mixup_refuses_arguments_that_do_not_fit():
    image, label, shares = jnp.zeros((4, 4)), jnp.zeros((4, 4), jnp.int32), jnp.zeros((4, 4, 3))
    stack, pair, three = jnp.zeros((2, 4, 4)), jnp.zeros((4, 4, 2)), jnp.zeros((4, 4, 3))
    for num_labels, arguments in (
        (3, (image, label, image, shares)),
        (2, (image, shares, image, shares)),
        (2, (image, label, jnp.zeros((4, 5)), label)),
        (2, (stack, stack.astype(int), stack, stack.astype(int))),
        (2, (pair, label, three, label)),
    ):
        with pytest.raises(ValueError, match="H, W"):
            pathology_mixup(*arguments, 0.5, num_labels=num_labels)


# Partners

HEIGHTS = jnp.array([0.0, 0.1, 0.2, 0.3, 0.3, 0.9, 0.2])
ELIGIBLE = jnp.array([True, True, True, False, True, True, True])
DRAWS = 4000


@jax.jit
def draws(index: jax.Array, tolerance: float) -> tuple[jax.Array, jax.Array]:
    def draw(key):
        return choose_partner(key, index, HEIGHTS, ELIGIBLE, tolerance=tolerance)

    return jax.vmap(draw)(jax.random.split(jax.random.key(7), DRAWS))


def candidates(index: int, tolerance: Fraction) -> set[int]:
    """The definition, in exact arithmetic of tenths."""
    exact = [Fraction(round(10 * float(h)), 10) for h in HEIGHTS]
    return {
        i
        for i in range(len(exact))
        if i != index and ELIGIBLE[i] and abs(exact[i] - exact[index]) <= tolerance
    }


@pytest.mark.parametrize("tenths", [0, 1, 2, 10])
@pytest.mark.parametrize("index", range(len(HEIGHTS)))
def test_partner_is_uniform_over_exactly_the_candidates(index, tenths):
    expected = candidates(index, Fraction(tenths, 10))
    partners, found = (np.asarray(a) for a in draws(jnp.int32(index), tenths / 10))
    if not expected:
        assert not found.any()
        assert (partners == index).all()
        return
    assert found.all()
    counts = np.bincount(partners, minlength=len(HEIGHTS))
    assert set(np.flatnonzero(counts)) == expected
    # Keys are fixed, so this either always passes or never does.
    assert len(expected) == 1 or stats.chisquare(counts[sorted(expected)]).pvalue > 1e-3


def test_partner_depends_on_the_key_alone():
    keys = jax.random.split(jax.random.key(0), 8)
    arguments = (jnp.int32(1), HEIGHTS, ELIGIBLE)
    first, again = (
        [int(choose_partner(key, *arguments, tolerance=1.0)[0]) for key in keys] for _ in range(2)
    )
    assert first == again
    assert len(set(first)) > 1
    partner, found = choose_partner(keys[0], *arguments, tolerance=1.0)
    assert (partner.dtype, partner.shape, found.dtype) == (jnp.int32, (), jnp.bool_)
