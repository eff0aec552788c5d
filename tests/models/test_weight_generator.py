"""The weight generator: six convolutions whose output is one positive weight a label."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from jaxseg.models import WeightGenerator
from jaxseg.models.layers import ConvNormRelu
from tests.models.conftest import filled

L = 5


def images(seed: int, batch: int = 2, size: tuple[int, int] = (32, 32)) -> jax.Array:
    return jnp.float32(np.random.default_rng(seed).normal(size=(batch, *size, 1)))


def generator(**settings) -> WeightGenerator:
    return WeightGenerator(L, width=4, groups=2, **settings)


@pytest.fixture(scope="module")
def moved() -> dict:
    """Variables with a last convolution that is no longer zero."""
    return filled(generator(), side=32)


apply = jax.jit(generator().apply)


def test_six_convolutions_and_their_sizes(moved):
    leaves = flatten_dict(moved["params"])
    kernels = {"/".join(p): leaf.shape for p, leaf in leaves.items() if p[-1] == "kernel"}
    assert kernels == {
        "conv1/Conv_0/kernel": (3, 3, 1, 4),
        "conv2/Conv_0/kernel": (3, 3, 4, 8),
        "conv3/Conv_0/kernel": (3, 3, 8, 16),
        "conv4/Conv_0/kernel": (3, 3, 16, 16),
        "conv5/Conv_0/kernel": (3, 3, 16, 16),
        "conv6/kernel": (3, 3, 16, L),
    }


def test_parameter_count_of_the_full_network():
    variables = jax.eval_shape(
        WeightGenerator(L).init, jax.random.key(0), jnp.zeros((1, 32, 32, 1))
    )
    kernels = 9 * (1 * 16 + 16 * 32 + 32 * 64 + 64 * 64 + 64 * 64 + 64 * L)
    scales_and_shifts = 2 * (16 + 32 + 64 + 64 + 64)
    assert kernels + scales_and_shifts + L == 100277
    assert sum(leaf.size for leaf in jax.tree.leaves(variables)) == 100277


def test_training_starts_from_exactly_uniform_weights():
    # Keys of this kind compile in a fifth of the time.
    start = jax.jit(generator().init)(jax.random.key(2, impl="rbg"), images(2))
    np.testing.assert_array_equal(apply(start, images(2)), np.ones((2, L)))
    # Learning starts at the zero kernel and reaches what is behind it as soon as that has moved.
    slope = first_slope(start)["params"]
    assert all(leaf.any() for leaf in jax.tree.leaves(slope["conv6"]))
    assert not any(leaf.any() for leaf in jax.tree.leaves(slope["conv1"]))


@jax.jit
@jax.grad
def first_slope(variables):
    return generator().apply(variables, images(7))[:, 0].sum()


def test_gradients_are_finite_and_reach_every_parameter(moved):
    for path, leaf in flatten_dict(first_slope(moved)["params"]).items():
        assert jnp.isfinite(leaf).all(), path
        assert leaf.any(), path


def test_softmax_weights_are_positive_and_sum_to_the_labels(moved):
    weights = apply(moved, images(3))
    assert weights.shape == (2, L)
    assert (weights > 0).all()
    np.testing.assert_allclose(weights.sum(-1), L, rtol=1e-6)
    assert weights.std() > 0.1


def test_weights_are_the_softmax_of_the_global_average(moved):
    x = images(4)
    features, params = x, moved["params"]
    for layer, width in enumerate((4, 8, 16, 16, 16)):
        features = ConvNormRelu(width, 2, stride=2).apply(
            {"params": params[f"conv{layer + 1}"]}, features
        )
    assert features.shape == (2, 1, 1, 16)
    # On one pixel the 3x3 convolution with zero padding is its middle tap, and the mean the value.
    kernel, bias = (np.asarray(params["conv6"][name], np.float64) for name in ("kernel", "bias"))
    scores = np.asarray(features, np.float64)[:, 0, 0] @ kernel[1, 1] + bias
    shares = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    np.testing.assert_allclose(apply(moved, x), L * shares, rtol=1e-4)


def test_weights_depend_on_their_own_image(moved):
    a, b, c = images(5, batch=3)
    first, second, last = (apply(moved, jnp.stack(pair)) for pair in ((a, b), (a, c), (b, a)))
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_allclose(first, last[::-1], rtol=1e-4)
    assert np.abs(first[0] - first[1]).max() > 1e-3


def test_any_size_is_accepted(moved):
    weights = generator().apply(moved, images(6, size=(20, 36)))  # rounded up at each stride
    np.testing.assert_allclose(weights.sum(-1), L, rtol=1e-6)


def test_bfloat16_keeps_parameters_and_weights_in_float32(moved):
    half = generator(dtype=jnp.bfloat16)
    assert {p.dtype for p in jax.tree.leaves(filled(half, side=32))} == {jnp.dtype(jnp.float32)}
    wide = apply(moved, images(6))
    narrow = jax.jit(half.apply)(moved, images(6))
    assert narrow.dtype == jnp.float32
    np.testing.assert_allclose(narrow, wide, rtol=0.3, atol=0.05)
    np.testing.assert_allclose(narrow.sum(-1), L, rtol=1e-6)


def test_images_of_another_rank_are_refused():
    with pytest.raises(ValueError, match=r"\(B, H, W, C\)"):
        jax.eval_shape(generator().init, jax.random.key(0), jnp.zeros((32, 32, 1)))


def test_instance_normalization_needs_more_than_32_pixels():
    """From 33 pixels a side on: of one pixel a channel, it would leave nothing."""
    network = WeightGenerator(L, width=4, groups=0)
    spread = [
        float(jnp.std(network.apply(filled(network, side=32), images(3, size=size)), axis=0).max())
        for size in ((64, 64), (32, 32))
    ]
    assert spread[0] > 1e-2
    assert spread[1] < 1e-3  # rounding
