"""Augmentation: geometry against NumPy and SciPy, intensities by hand, probabilities kept."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from jaxseg.augment import Augmentation, augment, change_intensity, resample

SHAPE = (9, 12)
RNG = np.random.default_rng(0)
IMAGE = RNG.normal(size=(*SHAPE, 2)).astype(np.float32)
LABELS = np.zeros(SHAPE, int)
LABELS[3:7, 4:9] = 1
LABELS[4:6, 5:7] = 2
PROBABILITIES = np.eye(3, dtype=np.float32)[LABELS]
ALL = Augmentation(
    probability=1.0, flip=True, rotation=30.0, zoom=0.2, gamma=0.5, contrast=0.3, brightness=0.3,
    noise=0.2,
)  # fmt: skip
GEOMETRY = Augmentation(probability=1.0, flip=True, rotation=30.0, zoom=0.2)
KEYS = [jax.random.key(k) for k in range(12)]


def linear(angle=0.0, scale=1.0):
    turn = np.deg2rad(angle)
    return np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) / scale


# ---- geometry


def test_the_identity_changes_nothing():
    np.testing.assert_array_equal(resample(IMAGE, jnp.eye(2)), IMAGE)
    for settings in (Augmentation(0.0, True, 30.0), Augmentation(probability=1.0)):
        image, probabilities = augment(KEYS[0], IMAGE, PROBABILITIES, settings)
        np.testing.assert_allclose(image, IMAGE, atol=1e-5)
        np.testing.assert_allclose(probabilities, PROBABILITIES, atol=1e-6)


@pytest.mark.parametrize(("axes", "signs"), [((0,), (-1, 1)), ((1,), (1, -1)), ((0, 1), (-1, -1))])
def test_flips_match_numpy(axes, signs):
    flipped = resample(IMAGE, jnp.diag(jnp.array(signs, jnp.float32)))
    np.testing.assert_allclose(flipped, np.flip(IMAGE, axes), atol=1e-6)


def test_quarter_turns_match_numpy():
    square = IMAGE[:, :9]
    for matrix, turns in (([[0, 1], [-1, 0]], 1), ([[0, -1], [1, 0]], 3)):
        turned = resample(square, jnp.array(matrix, jnp.float32))
        np.testing.assert_allclose(turned, np.rot90(square, turns), atol=1e-6)


@pytest.mark.parametrize("matrix", [linear(17), linear(-40, 1.2), linear(5, 0.8), linear(0, 3.0)])
def test_sampling_matches_scipy(matrix):
    center = (np.array(SHAPE) - 1) / 2
    offset = center - matrix @ center
    expected = [
        ndimage.affine_transform(IMAGE[..., c], matrix, offset, order=1, mode="nearest")
        for c in range(2)
    ]
    found = resample(IMAGE, jnp.array(matrix, jnp.float32))
    np.testing.assert_allclose(found, np.stack(expected, -1), atol=2e-5)


def test_single_rows_and_columns_are_sampled():
    for shape in ((1, 5, 1), (5, 1, 1), (1, 1, 1)):
        image = jnp.arange(math.prod(shape), dtype=jnp.float32).reshape(shape)
        np.testing.assert_allclose(resample(image, jnp.eye(2)), image, atol=1e-6)


@pytest.mark.parametrize("key", KEYS[:4])
def test_image_and_labels_move_together(key):
    """An image that is a label's probability stays just that."""
    image, probabilities = augment(key, PROBABILITIES[..., 1:2], PROBABILITIES, GEOMETRY)
    np.testing.assert_allclose(image, probabilities[..., 1:2], atol=1e-6)
    assert not np.allclose(probabilities, PROBABILITIES)


def test_rotation_and_zoom_stay_within_their_sizes():
    """Read off the moments of a disk off the center."""
    row, column = np.mgrid[:65, :65] - 32.0
    disk = (np.hypot(row, column - 12) < 6).astype(np.float32)[..., None]
    background = 1 - disk
    settings = Augmentation(probability=1.0, rotation=25.0, zoom=0.3)
    angles, scales = [], []
    move = jax.jit(partial(augment, settings=settings))
    for k in range(60):
        _, moved = move(jax.random.key(k), disk, np.concatenate([background, disk], -1))
        mass = np.asarray(moved[..., 1], np.float64)
        y, x = (mass * row).sum() / mass.sum(), (mass * column).sum() / mass.sum()
        angles.append(np.rad2deg(np.arctan2(y, x)))
        scales.append(np.hypot(x, y) / 12)
        np.testing.assert_allclose(mass.sum(), disk.sum() * scales[-1] ** 2, rtol=0.05)
    assert 20 < max(np.abs(angles)) < 25.5
    assert min(angles) < -10 < 10 < max(angles)
    assert 1 / 1.32 < min(scales) < 0.85 < 1.2 < max(scales) < 1.32


def test_each_pair_of_flips_has_a_quarter_of_the_examples():
    settings = Augmentation(probability=1.0, flip=True)
    flips = {axes: np.flip(PROBABILITIES, axes) for axes in ((), (0,), (1,), (0, 1))}
    counts = dict.fromkeys(flips, 0)
    move = jax.jit(partial(augment, settings=settings))
    for k in range(80):
        _, moved = move(jax.random.key(k), IMAGE, PROBABILITIES)
        (which,) = [axes for axes, flip in flips.items() if np.allclose(moved, flip, atol=1e-5)]
        counts[which] += 1
    assert min(counts.values()) > 8  # 20 expected, deviation 3.9


@pytest.mark.parametrize("matrix", [linear(), linear(33), linear(-100, 1.2), -linear(5, 0.8)])
@pytest.mark.parametrize("shift", [(0, 0), (3, -2), (-1.7, 2.6)])
def test_sampling_with_a_margin_matches_scipy(matrix, shift):
    """From the larger image's middle to the smaller one's."""
    large = np.random.default_rng(2).normal(size=(27, 30, 2)).astype(np.float32)
    large_center, center = np.array([13, 14.5]), (np.array(SHAPE) - 1) / 2
    offset = large_center + shift - matrix @ center
    expected = [
        ndimage.affine_transform(
            large[..., c], matrix, offset, output_shape=SHAPE, order=1, mode="nearest"
        )
        for c in range(2)
    ]
    shift = jnp.array(shift, jnp.float32)
    found = resample(large, jnp.array(matrix, jnp.float32), shift, margin=9)
    np.testing.assert_allclose(found, np.stack(expected, -1), atol=5e-5)


def test_without_a_transform_the_margin_is_cropped():
    settings = Augmentation(probability=0.0, rotation=90.0, shift=3.0)
    image, probabilities = augment(KEYS[0], IMAGE, PROBABILITIES, settings, margin=2)
    np.testing.assert_array_equal(image, IMAGE[2:-2, 2:-2])
    np.testing.assert_array_equal(probabilities, PROBABILITIES[2:-2, 2:-2])


def test_a_shift_is_uniform_along_rows_and_columns():
    """Read off two ramps."""
    ramps = np.stack(np.mgrid[:21, :24], -1).astype(np.float32)
    none = np.ones((21, 24, 1), np.float32)
    move = jax.jit(partial(augment, settings=Augmentation(1.0, shift=4.0), margin=5))
    shifts = [
        np.asarray(move(jax.random.key(k), ramps, none)[0])[4, 5] - (9, 10) for k in range(80)
    ]
    assert np.abs(shifts).max() <= 4 + 1e-4
    assert (np.min(shifts, 0) < -3).all()
    assert (np.max(shifts, 0) > 3).all()
    assert abs(np.corrcoef(np.transpose(shifts))[0, 1]) < 0.35


@pytest.mark.parametrize(
    ("settings", "size", "reach"),
    [
        (Augmentation(0.0, True, 180.0, zoom=1.0, shift=9.0), (10, 10), 0),
        (Augmentation(1.0, True), (10, 10), 0),
        (Augmentation(1.0, shift=2.5), (10, 10), 3),
        (Augmentation(1.0, zoom=0.2), (10, 10), 1),
        (Augmentation(1.0, rotation=90.0), (6, 8), 2),  # half of the diagonal, 5, less 3
        (Augmentation(1.0, rotation=90.0, zoom=1.0, shift=1.0), (6, 8), 8),  # 2 * 5 + 1 - 3
    ],
)
def test_reach_by_hand(settings, size, reach):
    assert settings.reach(size) == reach


@pytest.mark.parametrize("size", [(9, 12), (16, 16)])
def test_nothing_beyond_the_reach_is_sampled(size):
    settings = Augmentation(1.0, flip=True, rotation=180.0, zoom=0.3, shift=2.5)
    margin = settings.reach(size)
    marked = np.zeros([n + 2 * margin + 20 for n in size], np.float32)[..., None]
    marked[10:-10, 10:-10] = 1  # within the reach
    move = jax.jit(
        jax.vmap(partial(augment, settings=settings, margin=margin + 10), (0, None, None))
    )
    image, _ = move(jax.random.split(jax.random.key(0), 300), marked, marked)
    assert image.shape == (300, *size, 1)
    np.testing.assert_allclose(image, 1, atol=1e-5)


# ---- intensity


def test_a_bias_field_by_hand(monkeypatch):
    """Of size 1 at an angle of 0: from half of the signal to twice, along the rows."""
    image = jnp.array([[1.0, 2.0], [1.0, 3.0], [2.0, 5.0]])[..., None]
    draws = iter([0.0, 1.0])  # the angle, the size
    monkeypatch.setattr(jax.random, "uniform", lambda *args, **kwargs: next(draws, 0.0))
    found = change_intensity(jax.random.key(0), image, Augmentation(bias=1.0))
    expected = [[1, 1 + 1 / 2], [1, 3], [1 + 1 * 2, 1 + 4 * 2]]
    np.testing.assert_allclose(found[..., 0], expected, atol=1e-5)


def test_the_logarithm_of_a_bias_field_is_a_bounded_plane():
    image = jnp.ones((15, 21, 1)).at[0, 0].set(0.0)  # black
    row, column = np.mgrid[-1:1:15j, -1:1:21j]
    sizes, angles = [], []
    change = jax.jit(partial(change_intensity, settings=Augmentation(bias=0.5)))
    for k in range(60):
        field = np.log(np.asarray(change(jax.random.key(k), image))[..., 0].ravel()[1:])
        plane = np.stack([row.ravel()[1:], column.ravel()[1:]], -1)
        slope, rest, *_ = np.linalg.lstsq(plane, field, rcond=None)
        assert rest < 1e-6
        sizes.append(np.hypot(*slope))
        angles.append(np.arctan2(*slope))
    assert 0 <= min(sizes) < 0.1 < 0.3 < max(sizes) <= np.log(1.5) + 1e-5
    assert min(angles) < -2 < 2 < max(angles)


def test_intensity_by_hand(monkeypatch):
    image = jnp.array([[[0.0], [1.0]], [[2.0], [4.0]]])
    draws = iter([1.0, 1.0, 0.5])  # gamma, contrast and brightness at these shares of their size
    monkeypatch.setattr(jax.random, "uniform", lambda *args, **kwargs: next(draws, 0.0))
    settings = Augmentation(gamma=1.0, contrast=0.5, brightness=0.2, noise=0.0)
    found = change_intensity(jax.random.key(0), image, settings)
    bent = np.array([0, 0.25, 1.0, 4.0])  # 4 (x / 4)^2
    expected = bent.mean() + 1.5 * (bent - bent.mean()) + 0.1
    np.testing.assert_allclose(np.ravel(found), expected, atol=1e-5)


def test_noise_is_gaussian_and_independent_by_channel():
    settings = Augmentation(noise=0.5)
    image = jnp.zeros((64, 64, 2))
    levels = []
    for key in KEYS:
        noise = np.asarray(change_intensity(key, image, settings))
        level = noise.std()
        assert abs(noise.mean()) < 4 * level / 90
        assert abs(np.corrcoef(noise[..., 0].ravel(), noise[..., 1].ravel())[0, 1]) < 0.07
        assert abs((np.abs(noise) < level).mean() - 0.683) < 0.03
        levels.append(level)
    assert 0 < min(levels) < 0.25 < max(levels) <= 0.52


def test_a_constant_image_stays_finite():
    image = jnp.full((4, 4, 1), 3.0)
    found = change_intensity(KEYS[0], image, Augmentation(gamma=2.0, contrast=2.0))
    np.testing.assert_allclose(found, image, rtol=1e-6)


# ---- both


@pytest.mark.parametrize("key", KEYS)
def test_probabilities_stay_probabilities(key):
    image, probabilities = augment(key, IMAGE, PROBABILITIES, ALL)
    assert (image.shape, probabilities.shape) == (IMAGE.shape, PROBABILITIES.shape)
    np.testing.assert_allclose(np.sum(probabilities, -1), 1, atol=1e-5)
    assert np.min(probabilities) >= 0
    assert np.isfinite(image).all()


def test_geometry_and_intensity_are_drawn_independently():
    settings = Augmentation(probability=0.3, rotation=30.0, brightness=1.0)
    change = jax.jit(partial(augment, settings=settings))
    moved, changed = [], []
    for k in range(200):
        image, probabilities = change(jax.random.key(k), np.ones_like(IMAGE), PROBABILITIES)
        moved.append(not np.allclose(probabilities, PROBABILITIES, atol=1e-3))
        changed.append(not np.allclose(image, 1, atol=1e-3))
    for share in (np.mean(moved), np.mean(changed)):
        assert abs(share - 0.3) < 0.1  # three standard deviations
    assert abs(np.mean(np.logical_and(moved, changed)) - 0.09) < 0.06


def test_jit_and_vmap_draw_what_single_calls_draw():
    keys = jax.random.split(jax.random.key(5), 3)
    images, maps = np.stack([IMAGE] * 3), np.stack([PROBABILITIES] * 3)
    together = jax.jit(jax.vmap(partial(augment, settings=ALL)))(keys, images, maps)
    for k in range(3):
        alone = augment(keys[k], IMAGE, PROBABILITIES, ALL)
        for a, b in zip(together, alone, strict=True):
            np.testing.assert_allclose(a[k], b, atol=2e-5)
    assert not np.allclose(together[0][0], together[0][1])
