"""The localizer: batches of scouts, its loss, and a short training."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxseg.augment import Augmentation
from jaxseg.batch import DeviceCohort
from jaxseg.localizer import localizer_loss, make_localizer, scout_batch
from jaxseg.models import convolve_xla, initialize

SIZE = (32, 40)


def disks(count, seed=0):
    """Scouts of a bright disk in noise, and the disk's share of a pixel."""
    rng = np.random.default_rng(seed)
    row, column = np.mgrid[: SIZE[0], : SIZE[1]]
    place = rng.uniform(12, 20, (2, count, 1, 1))
    hearts = np.clip(4.5 - np.hypot(row - place[0], column - place[1] - 4), 0, 1)
    scouts = 2 * hearts + rng.normal(0, 0.2, hearts.shape)
    return scouts.astype(np.float32), hearts.astype(np.float32)


def cohort(count=6):
    scouts, hearts = disks(count)
    tiny = np.zeros((count, 4, 4), np.float32)
    return DeviceCohort.from_slices(
        tiny, tiny.astype(np.uint8), np.zeros(count, np.float32), scouts=scouts, hearts=hearts
    )


def test_cropping_keeps_the_heart_and_a_rectangle(monkeypatch):
    """Without the geometry of augmentation; the intensity stays as it is."""
    monkeypatch.setattr("jaxseg.localizer.AUGMENTATION", Augmentation())
    slices, batch = cohort(1), jax.jit(scout_batch)
    scout, heart = slices.scouts[0], np.asarray(slices.hearts[0])
    kept, sides = [], set()
    for k in range(100):
        found, _ = batch(jax.random.key(k), slices, jnp.array([0]), 0)
        changed = np.asarray(found[0] != scout[..., None])[..., 0]
        assert not changed[heart > 0.1].any()
        np.testing.assert_array_equal(np.asarray(found[0, ..., 0])[changed], scout.min())
        shown = np.asarray(found[0, ..., 0]) > scout.min()  # all but the darkest pixel
        assert shown.any(0).sum() * shown.any(1).sum() - shown.sum() <= 1
        kept.append(1 - changed.mean())
        sides |= {i for i, line in enumerate((changed[0], changed[-1], changed.T[0], changed.T[-1]))
                  if line.all()}  # fmt: skip
    assert max(kept) == 1
    assert min(kept) < 0.5
    assert sides == {0, 1, 2, 3}


def test_cropping_without_a_heart_keeps_the_middle(monkeypatch):
    monkeypatch.setattr("jaxseg.localizer.AUGMENTATION", Augmentation())
    slices, batch = cohort(1), jax.jit(scout_batch)
    slices = slices.replace(hearts=jnp.zeros_like(slices.hearts))
    for k in range(30):
        found, _ = batch(jax.random.key(k), slices, jnp.array([0]), 0)
        assert found[0, 16, 20, 0] == slices.scouts[0, 16, 20]


def test_a_batch_of_scouts():
    key, indices = jax.random.key(0), jnp.array([3, 1, 4, 1])
    slices, batch = cohort(), jax.jit(scout_batch)
    scouts, shares = batch(key, slices, indices, 0)
    assert scouts.shape == (4, *SIZE, 1)
    assert shares.shape == (4, *SIZE, 2)
    np.testing.assert_allclose(shares.sum(-1), 1, atol=1e-5)
    assert np.isfinite(scouts).all()
    assert np.asarray(scouts[1] != scouts[3]).any(), "one slice, two places: two draws"
    second = batch(key, slices, indices[2:], 2)  # of a second device
    for whole, own in zip((scouts, shares), second, strict=True):
        np.testing.assert_allclose(whole[2:], own, atol=1e-5)


def test_the_loss_by_hand():
    """Even odds: log 2 of cross-entropy. Dice loss of each half: 1 - 2 (n / 4) / (n / 2 + n / 2)
    with half of the n pixels the heart's."""
    heart = jnp.zeros((1, 4, 4)).at[:, :2].set(1)
    shares = jnp.stack([1 - heart, heart], -1)
    found = localizer_loss(jnp.zeros((1, 4, 4, 2)), shares)
    assert found == pytest.approx(np.log(2) + 0.5, abs=1e-5)
    assert localizer_loss(40 * (shares - 0.5), shares) < 1e-3


@pytest.mark.slow
def test_a_localizer_learns_to_find_disks():
    network, slices = make_localizer(convolve_xla), cohort()
    params = initialize(network, jax.random.key(0), jnp.zeros((1, *SIZE, 1)))
    optimizer = optax.adam(1e-2)

    @jax.jit
    def step(params, state, number):
        key = jax.random.fold_in(jax.random.key(1), number)
        scouts, shares = scout_batch(key, slices, jnp.arange(6), 0)
        loss, slope = jax.value_and_grad(
            lambda p: localizer_loss(network.apply({"params": p}, scouts), shares)
        )(params)
        updates, state = optimizer.update(slope, state)
        return optax.apply_updates(params, updates), state, loss

    state, losses = optimizer.init(params), []
    for number in range(60):
        params, state, loss = step(params, state, number)
        losses.append(float(loss))
    assert np.mean(losses[-10:]) < 0.5 * np.mean(losses[:5])
    scouts, hearts = disks(4, seed=9)
    found = network.apply({"params": params}, scouts[..., None])
    inside = np.asarray(found[..., 1] > found[..., 0])
    overlap = 2 * (inside & (hearts > 0.5)).sum() / (inside.sum() + (hearts > 0.5).sum())
    assert overlap > 0.8
