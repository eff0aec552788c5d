"""Batches: which slices are mixed, how often, and what an example depends on."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg.anatomy import EMIDEC
from jaxseg.augment import Augmentation
from jaxseg.batch import DeviceCohort, Mixup, augmented_batch, mixed_batch
from tests.toy_cohort import SIZE, L, cohort, mixing


def test_without_mixup_slices_are_unchanged():
    images, targets = mixing(8)(jax.random.key(1), jnp.arange(8), 0, 0.0, 1.0)
    np.testing.assert_array_equal(images, cohort().images)
    np.testing.assert_array_equal(targets, np.eye(L)[np.asarray(cohort().labels)])


def mixed(images) -> list[bool]:
    return [bool(x) for x in (images != cohort().images).any((1, 2, 3))]


def test_slices_without_foreground_or_partner_are_not_mixed():
    images, targets = mixing(8)(jax.random.key(1), jnp.arange(8), 0, 1.0, 0.3)
    assert mixed(images) == [True] * 4 + [False] + [True] * 3
    np.testing.assert_allclose(targets.sum(-1), np.ones((8, *SIZE)), rtol=1e-6)
    np.testing.assert_array_equal(targets[4], np.eye(L)[np.zeros(SIZE, int)])
    # Outside the foreground a slice stays what it was.
    outside = np.asarray(cohort().labels) == 0
    np.testing.assert_array_equal(images[outside], cohort().images[outside])
    alone, _ = mixing(8)(jax.random.key(1), jnp.arange(8), 0, 1.0, 0.1)  # heights are 1/7 apart
    assert not any(mixed(alone))


def test_the_share_of_mixed_examples_is_the_probability():
    draws = [mixing(8)(jax.random.key(k), jnp.arange(8), 0, 0.25, 1.0)[0] for k in range(60)]
    share = np.mean([np.delete(mixed(images), 4) for images in draws])
    # 420 draws: three standard deviations are 0.063.
    assert 0.25 - 0.063 < share < 0.25 + 0.063


def test_mixup_depends_on_the_global_position_only():
    key = jax.random.key(2)
    whole = mixing(8)(key, jnp.array([1, 2, 3, 5, 6, 7, 0, 1]), 0, 1.0, 0.3)
    share = mixing(4)(key, jnp.array([6, 7, 0, 1]), 4, 1.0, 0.3)  # of a second device
    for all_examples, own in zip(whole, share, strict=True):
        np.testing.assert_array_equal(all_examples[4:], own)
    assert (whole[0][0] != whole[0][7]).any()  # one slice, two places: two draws
    other = mixing(8)(jax.random.key(3), jnp.array([1, 2, 3, 5, 6, 7, 0, 1]), 0, 1.0, 0.3)
    assert (other[0][0] != whole[0][0]).any()


def test_only_the_crop_inside_the_margin_is_mixed():
    rng, plain, margin = np.random.default_rng(3), cohort(), 3
    images = rng.normal(size=(8, 22, 22)).astype(np.float32)
    labels = rng.integers(0, L, (8, 22, 22)).astype(np.uint8)
    inner = np.s_[:, 3:-3, 3:-3]
    images[inner], labels[inner] = plain.images[..., 0], plain.labels
    wide = DeviceCohort.from_slices(images, labels, plain.heights, margin=margin)
    np.testing.assert_array_equal(wide.eligible, plain.eligible)
    assert not wide.eligible[4], "what the margin holds is no foreground"
    batch = jax.jit(partial(mixed_batch, mixup=Mixup(1.0, 0.3), num_labels=L))
    indices, key = jnp.arange(8), jax.random.key(1)
    found, targets = batch(key, wide, indices, 0)
    mixed_images, mixed_targets = batch(key, plain, indices, 0)
    wanted, shares = images[..., None].copy(), np.eye(L)[labels]
    wanted[inner], shares[inner] = mixed_images, mixed_targets
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    np.testing.assert_allclose(targets, shares, atol=1e-6)
    still = augmented_batch(key, found, targets, 0, Augmentation(), margin=margin)
    np.testing.assert_array_equal(still[0], found[inner])


def test_neighbors_are_mixed_like_their_slice():
    """Had the neighbors the same pixels, they would be the same after mixup, too."""
    plain, key, indices = cohort(), jax.random.key(1), jnp.arange(8)
    batch = jax.jit(partial(mixed_batch, mixup=Mixup(1.0, 0.3), num_labels=L))
    expected, _ = batch(key, plain, indices, 0)
    same = plain.replace(neighbors=jnp.stack([indices, indices], -1))
    found, _ = batch(key, same, indices, 0)
    assert found.shape == (8, *SIZE, 3)
    for channel in range(3):
        np.testing.assert_array_equal(found[..., channel], expected[..., 0])
    others = jnp.stack([jnp.roll(indices, 1), jnp.roll(indices, -1)], -1)
    unmixed = jax.jit(partial(mixed_batch, mixup=Mixup(0.0, 0.3), num_labels=L))
    found, _ = unmixed(key, plain.replace(neighbors=others), indices, 0)
    images = plain.images[..., 0]
    np.testing.assert_array_equal(found[..., 0], images)
    np.testing.assert_array_equal(found[..., 1], jnp.roll(images, 1, 0))
    np.testing.assert_array_equal(found[..., 2], jnp.roll(images, -1, 0))


def test_augmentation_depends_on_the_global_position_only():
    settings = Augmentation(probability=0.7, rotation=30.0, noise=0.1)
    images, targets = mixing(8)(jax.random.key(1), jnp.arange(8), 0, 0.0, 1.0)
    key = jax.random.key(2)
    whole = augmented_batch(key, images, targets, 0, settings)
    share = augmented_batch(key, images[4:], targets[4:], 4, settings)  # of a second device
    for all_examples, own in zip(whole, share, strict=True):
        np.testing.assert_allclose(all_examples[4:], own, atol=1e-6)
    changed = (np.asarray(whole[0]) != np.asarray(images)).any((1, 2, 3))
    assert 0 < changed.sum() < 8


# ---- transplants (their geometry: tests/test_transplant.py)

HEALTHY, INFARCT, NO_REFLOW = 4, 3, 1  # slices, in this order; the last is far from the others
HEIGHTS = np.array([0.5] * 8 + [0.9], np.float32)


def rings():
    """Rings of myocardium around blood; a quarter of some is infarct, of one no-reflow."""
    row, column = np.mgrid[:24, :24] - 11.5
    radius, quarter = np.hypot(row, column), (row > 0) & (column > 0)
    ring = np.where(radius < 5, 1, np.where(radius < 10, 2, 0))
    sick = [np.where(quarter & (ring == 2), label, ring) for label in (3, 4)]
    labels = [ring] * HEALTHY + [sick[0]] * INFARCT + [sick[1]] * NO_REFLOW + [ring]
    return np.array(labels, np.uint8)


def transplants(
    key, indices, first=0, *, targets=None, heights=HEIGHTS, margin=0, neighbors=None, **changes
):
    """Batch of the rings, or of other labels or fractions; `changes` to the fields of `Mixup`."""
    targets = rings() if targets is None else targets
    labels = targets.argmax(-1) if targets.ndim == 4 else targets
    fields = {"probability": 0.0, "tolerance": 0.1, "transplant": 1.0} | changes
    mixup = Mixup(**fields, inclusions=EMIDEC.inclusions)
    slices = DeviceCohort.from_slices(
        labels.astype(np.float32),
        targets,
        heights,
        margin=margin,
        pathologies=mixup.pathologies,
        neighbors=neighbors,
    )
    return jax.jit(partial(mixed_batch, mixup=mixup, num_labels=L))(key, slices, indices, first)


def test_healthy_slices_receive_the_pathology_of_a_slice_at_a_similar_height():
    _, targets = transplants(jax.random.key(0), jnp.arange(9))
    given = np.eye(L)[rings()]
    changed = (np.abs(targets - given) > 1e-5).any((1, 2, 3))
    assert list(changed) == [True] * HEALTHY + [False] * 5
    assert (np.asarray(targets)[:HEALTHY, ..., 3:].sum((1, 2, 3)) > 20).all()
    _, targets = transplants(jax.random.key(0), jnp.array([8]), tolerance=0.5)
    assert np.asarray(targets)[..., 3:].sum() > 20


def test_half_of_the_donors_are_drawn_for_their_no_reflow():
    draws = jnp.zeros(300, jnp.int32)
    _, targets = transplants(jax.random.key(1), draws, transplant=0.5)
    infarct, no_reflow = np.asarray(targets[..., 3:].sum((1, 2)) > 1).mean(0)
    # Half of the donors must have no-reflow. The others need an infarct, with or without no-reflow,
    # and one of these four has it. Three standard deviations are 0.07 and 0.08.
    assert abs(infarct - 0.5 * 0.5 * 0.75) < 0.07
    assert abs(no_reflow - 0.5 * (0.5 + 0.5 * 0.25)) < 0.08


def test_a_pathology_without_donors_does_not_use_up_draws():
    """At a height without no-reflow, every donor is drawn for its infarct."""
    heights = np.array([0.5] * 7 + [0.9], np.float32)
    draws = jnp.zeros(20, jnp.int32)
    _, targets = transplants(jax.random.key(4), draws, targets=rings()[:8], heights=heights)
    assert (np.asarray(targets)[..., 3].sum((1, 2)) > 1).all()


def test_donors_are_rotated():
    _, targets = transplants(jax.random.key(5), jnp.zeros(20, jnp.int32))
    shares = np.asarray(targets)[..., 3:].sum(-1)
    rows, columns = ((shares * (x - 11.5)).sum((1, 2)) for x in np.mgrid[:24, :24])
    angles = np.arctan2(rows, columns)
    assert 0.5 < np.ptp(angles) < 1.0
    np.testing.assert_allclose(angles, np.pi / 4, atol=0.55)  # the quarter of the donors


def test_transplants_of_soft_labels_stay_inside_the_margin():
    outside = np.pad(np.zeros((24, 24), bool), 3, constant_values=True)
    labels = np.pad(rings(), ((0, 0), (3, 3), (3, 3)), constant_values=3)  # infarct outside
    shares = np.eye(L, dtype=np.float32)[labels]
    key, indices = jax.random.key(0), jnp.arange(9)
    found = transplants(key, indices, targets=shares, margin=3)
    for wide, plain in zip(found, transplants(key, indices), strict=True):
        np.testing.assert_allclose(wide[:, 3:-3, 3:-3], plain, atol=1e-5)
    np.testing.assert_array_equal(np.asarray(found[1])[:, outside], shares[:, outside])


def test_transplants_need_the_areas_of_the_pathologies():
    mixup = Mixup(0.0, 0.1, 1.0, EMIDEC.inclusions)
    with pytest.raises(ValueError, match="pathologies"):
        mixed_batch(jax.random.key(0), cohort(), jnp.arange(8), 0, mixup, L)


def test_neighbors_receive_the_pathology_of_the_donor_s_neighbors():
    """Each slice as if it were alone, in this data set; at an end, a neighbor is the slice."""
    key, indices = jax.random.key(2), jnp.arange(9)
    alone = np.asarray(transplants(key, indices)[0])[..., 0]
    images = np.asarray(transplants(key, indices, transplant=0.0)[0])[..., 0]
    ends = np.stack([indices, indices], -1)
    found, targets = transplants(key, indices, neighbors=ends)
    for channel in range(3):
        np.testing.assert_allclose(found[..., channel], alone, atol=1e-5)
    np.testing.assert_allclose(targets, transplants(key, indices)[1], atol=1e-5)
    # Healthy slices have healthy neighbors, and diseased ones diseased.
    stacks = np.stack([[1, 2, 3, 2], [3, 0, 1, 0]], -1)
    neighbors = np.concatenate([stacks, ends[HEALTHY:]])
    found = np.asarray(transplants(key, indices, neighbors=neighbors)[0])
    np.testing.assert_allclose(found[..., 0], alone, atol=1e-5)
    for channel in (1, 2):
        given = images[neighbors[:, channel - 1]]
        changed = (np.abs(found[..., channel] - given) > 1e-3).any((1, 2))
        assert list(changed) == [True] * HEALTHY + [False] * 5


def test_mixed_examples_are_not_transplanted():
    key, indices = jax.random.key(2), jnp.arange(9)
    both = transplants(key, indices, probability=1.0)
    without = transplants(key, indices, probability=1.0, transplant=0.0)
    for made, plain in zip(both, without, strict=True):
        np.testing.assert_array_equal(made, plain)


def test_transplants_depend_on_the_global_position_only():
    key, indices = jax.random.key(3), jnp.array([0, 1, 2, 3, 0, 1])
    whole = transplants(key, indices, transplant=0.7)
    share = transplants(key, indices[3:], 3, transplant=0.7)  # of a second device
    for all_examples, own in zip(whole, share, strict=True):
        np.testing.assert_allclose(all_examples[3:], own, atol=1e-5)
