"""Muon against a singular value decomposition, and against Optax's own implementation."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optax import contrib

from jaxseg.muon import orthogonalize, scale_by_muon

# Taller than wide, square, and wider than tall, as the first kernel of a network is.
SHAPES = [(3, 3, 4, 5), (3, 3, 32, 16), (6, 6), (3, 3, 1, 16)]


def by_hand(kernel):
    """U p(p(...p(S))) V^T in float64, with p(s) = 3.4445 s - 4.775 s^3 + 2.0315 s^5."""
    matrix = np.asarray(kernel, np.float64).reshape(-1, kernel.shape[-1])
    left, singular, right = np.linalg.svd(matrix, full_matrices=False)
    singular = singular / np.linalg.norm(matrix)
    for _ in range(5):
        singular = 3.4445 * singular - 4.7750 * singular**3 + 2.0315 * singular**5
    return (left * singular @ right).reshape(kernel.shape)


@pytest.mark.parametrize("shape", SHAPES)
def test_orthogonalization_by_the_singular_values(shape):
    kernel = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    np.testing.assert_allclose(orthogonalize(jnp.array(kernel)), by_hand(kernel), atol=2e-5)


def test_singular_values_of_many_sizes_stay_exact_in_float32():
    """Their squares, in the Gram matrix, span ten orders of magnitude."""
    rng = np.random.default_rng(1)
    left, _ = np.linalg.qr(rng.normal(size=(144, 16)))
    right, _ = np.linalg.qr(rng.normal(size=(16, 16)))
    kernel = (left * np.geomspace(1, 1e-5, 16) @ right).astype(np.float32).reshape(3, 3, 16, 16)
    np.testing.assert_allclose(orthogonalize(jnp.array(kernel)), by_hand(kernel), atol=1e-3)


def test_a_kernel_of_zeros_stays_zero():
    assert not np.asarray(orthogonalize(jnp.zeros((3, 3, 8, 8)))).any()


def test_steps_equal_those_of_optax_but_for_its_bias_correction():
    """After the first steps, in which the bias corrections differ by up to a factor of two."""
    rng = np.random.default_rng(2)
    gradients = jnp.array(rng.normal(size=(120, 3, 3, 4, 8)), jnp.float32)
    theirs = contrib.muon(
        -1.0,  # the learning rate, by whose negative Optax multiplies
        consistent_rms=0.2,
        muon_weight_dimension_numbers=contrib.MuonDimensionNumbers((0, 1, 2), (3,)),
    )
    step, expected = last_step(scale_by_muon(0.2), gradients), last_step(theirs, gradients)
    np.testing.assert_allclose(step, expected, atol=2e-3)


def last_step(optimizer, gradients):
    params = gradients[0]
    update, state = params, optimizer.init(params)
    for gradient in gradients:
        update, state = optimizer.update(gradient, state, params)
    return np.asarray(update)


def test_the_root_mean_square_of_a_step_does_not_depend_on_the_shape():
    rng = np.random.default_rng(3)
    for shape in SHAPES:
        gradient = {"kernel": jnp.array(rng.normal(size=shape), jnp.float32)}
        optimizer = scale_by_muon(0.2)
        step, _ = optimizer.update(gradient, optimizer.init(gradient))
        size = optax.tree.norm(step) / np.sqrt(np.prod(shape))
        np.testing.assert_allclose(size, 0.2, rtol=0.3)
