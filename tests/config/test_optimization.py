"""The learning rate over a run, Adam and Muon, by hand."""

from dataclasses import replace
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxseg.config.optimization import Optimization

PAPER = Optimization("adam", 1e-2, 1e-6, "cosine", warmup_epochs=5.0, clip_norm=1.0)


def rates(steps, steps_per_epoch, *, epochs=40, **fields):
    found = replace(PAPER, **fields).rates(epochs, steps, steps_per_epoch)
    return np.array([float(np.asarray(found(step))) for step in range(steps)])


# 11 steps, 2 of them warm-up: the decay from 1e-2 to 1e-6 takes 8 steps, from step 2 to step 10.
@pytest.mark.parametrize(
    ("schedule", "at_4", "at_6", "at_10"),
    [
        # (1 + cos(pi / 4)) / 2 = 0.853553
        ("cosine", 1e-6 + 0.853553 * (1e-2 - 1e-6), (1e-2 + 1e-6) / 2, 1e-6),
        ("linear", 0.75e-2 + 0.25e-6, (1e-2 + 1e-6) / 2, 1e-6),
        ("constant", 1e-2, 1e-2, 1e-2),
    ],
)
def test_learning_rate_by_hand(schedule, at_4, at_6, at_10):
    found = rates(11, 2.0, schedule=schedule, warmup_epochs=1.0)
    expected = [1e-2 / 3, 2e-2 / 3, 1e-2, at_4, at_6, at_10]
    np.testing.assert_allclose(found[[0, 1, 2, 4, 6, 10]], expected, rtol=1e-4)


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
@pytest.mark.parametrize("warmup_epochs", [0.0, 0.5, 1.0, 3.0])
def test_the_rate_rises_then_falls_to_the_final_rate(schedule, warmup_epochs):
    found = rates(41, 10.0, schedule=schedule, warmup_epochs=warmup_epochs)
    top = round(10 * warmup_epochs)
    assert found[top] == pytest.approx(1e-2, rel=1e-5)
    assert (np.diff(found[: top + 1]) > 0).all()
    assert (np.diff(found[top:]) < 0).all()
    assert found[0] > 0
    assert found[-1] == pytest.approx(1e-6, rel=1e-2)


def test_a_warm_up_as_long_as_the_run_still_ends_at_the_final_rate():
    found = rates(10, 10.0, warmup_epochs=0.98)
    assert found[8] == pytest.approx(1e-2)
    assert found[9] == pytest.approx(1e-6, rel=1e-2)
    np.testing.assert_allclose(rates(1, 0.5, warmup_epochs=0.9), [1e-2])


@pytest.mark.parametrize("warmup_epochs", [4.0, 5.0, 400.0])
def test_a_run_no_longer_than_its_warm_up_rises_for_its_first_half(warmup_epochs):
    found = rates(40, 10.0, epochs=4, warmup_epochs=warmup_epochs)
    assert found.argmax() == 20
    assert found[20] == pytest.approx(1e-2)
    assert found[-1] == pytest.approx(1e-6, rel=1e-2)


def adam_by_hand(gradients, rate):
    """Kingma and Ba, algorithm 1."""
    x = m = v = np.zeros(2)
    for t, gradient in enumerate(gradients, start=1):
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        x = x - rate * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    return x


@pytest.mark.parametrize("clip_norm", [0.0, 1.0])
def test_adam_with_the_gradient_clipped_before_it(clip_norm):
    gradients = [np.array([3.0, 4.0]), np.array([0.3, -0.4])]  # norms 5 and 0.5
    huge = 1e3  # another sub-network's gradient, by which this one is not rescaled
    optimizer = replace(PAPER, clip_norm=clip_norm).optimizer(optax.constant_schedule(0.1))
    params: Any = {"network": jnp.zeros(2), "generator": jnp.zeros(1)}
    state = optimizer.init(params)
    for g in gradients:
        tree = {"network": jnp.array(g), "generator": jnp.array([huge])}
        updates, state = optimizer.update(tree, state, params)
        params = optax.apply_updates(params, updates)
    clipped = [gradients[0] / 5, gradients[1]]
    expected = adam_by_hand(clipped if clip_norm else gradients, 0.1)
    np.testing.assert_allclose(params["network"], expected, rtol=1e-5)
    assert abs(adam_by_hand(clipped, 0.1) - adam_by_hand(gradients, 0.1)).max() > 1e-3


def test_muon_orthogonalizes_the_steps_of_kernels_and_leaves_the_rest_to_adam():
    """The first step of a kernel G = U S V^T is close to -0.2 rate sqrt(36) U V^T."""
    rng = np.random.default_rng(0)
    kernel, bias = rng.normal(size=(3, 3, 4, 5)), np.array([2.0, -0.5])
    optimizer = replace(PAPER, method="muon", clip_norm=0.0).optimizer(optax.constant_schedule(0.1))
    params: Any = {"network": {"kernel": jnp.zeros(kernel.shape), "bias": jnp.zeros(2)}}
    gradients = {"network": {"kernel": jnp.array(kernel), "bias": jnp.array(bias)}}
    updates, _ = optimizer.update(gradients, optimizer.init(params), params)
    left, _, right = np.linalg.svd(kernel.reshape(36, 5), full_matrices=False)
    step = -np.asarray(updates["network"]["kernel"]).reshape(36, 5) / (0.1 * 0.2 * 6)
    seen = left.T @ step @ right.T
    # Five Newton-Schulz iterations bring singular values to within about 0.3 of 1.
    assert np.all(np.abs(np.diag(seen) - 1) < 0.35)
    assert np.abs(seen - np.diag(np.diag(seen))).max() < 0.02
    # The first step of Adam with Nesterov momentum: (1 + 0.9 * 0.1 / (1 - 0.9^2)) sign(g).
    adam = -0.1 * (1 + 0.09 / 0.19) * np.sign(bias)
    np.testing.assert_allclose(updates["network"]["bias"], adam, rtol=1e-5)
