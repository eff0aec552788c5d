"""Batches: which slices are mixed, how often, and what an example depends on."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

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
