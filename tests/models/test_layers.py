"""The fast forms of the layers against Flax's textbook ones, in value and gradient."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg.models.layers import ConvNormRelu, GroupNorm, Upsample, max_pool


def normal(seed: int, *shape: int) -> jax.Array:
    return jnp.float32(np.random.default_rng(seed).normal(size=shape))


def value_and_pull_back(module: nn.Module, params, x, cotangent):
    """Output, gradient of the parameters and of the input, compiled."""

    @jax.jit
    def run(params, x):
        y, pull_back = jax.vjp(lambda p, x: module.apply({"params": p}, x), params, x)
        return y, *pull_back(cotangent.astype(y.dtype))

    return run(params, x)


# Group normalization


@pytest.mark.parametrize("groups", [1, 2, 8])
def test_group_norm_matches_flax(groups):
    x = 3 * normal(0, 2, 5, 3, 8) + 2
    scale, shift, cotangent = normal(1, 8), normal(2, 8), normal(3, 2, 5, 3, 8)
    y, params_slope, x_slope = value_and_pull_back(
        GroupNorm(groups), {"scale": scale, "shift": shift}, x, cotangent
    )
    expected = value_and_pull_back(
        nn.GroupNorm(groups, epsilon=1e-5), {"scale": scale, "bias": shift}, x, cotangent
    )
    np.testing.assert_allclose(y, expected[0], atol=1e-5)
    np.testing.assert_allclose(params_slope["scale"], expected[1]["scale"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(params_slope["shift"], expected[1]["bias"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(x_slope, expected[2], rtol=1e-4, atol=1e-5)


def test_group_norm_by_definition():
    x = np.random.default_rng(4).normal(5, 3, size=(2, 4, 6, 6))
    grouped = x.reshape(2, 4, 6, 3, 2)
    mean = grouped.mean((1, 2, 4), keepdims=True)
    variance = grouped.var((1, 2, 4), keepdims=True)
    expected = ((grouped - mean) / np.sqrt(variance + 1e-5)).reshape(x.shape)
    y, variables = GroupNorm(3).init_with_output(jax.random.key(0), jnp.float32(x))
    np.testing.assert_allclose(y, expected, atol=1e-5)
    np.testing.assert_array_equal(variables["params"]["scale"], np.ones(6))
    np.testing.assert_array_equal(variables["params"]["shift"], np.zeros(6))


def test_group_norm_in_bfloat16_keeps_float32_statistics():
    # 1024 pixels around 20: sums in bfloat16 would be wrong in the second digit.
    x = (normal(5, 1, 32, 32, 4) + 20).astype(jnp.bfloat16)
    params = {"scale": jnp.ones(4), "shift": jnp.zeros(4)}
    y, _, x_slope = value_and_pull_back(GroupNorm(2), params, x, normal(6, *x.shape))
    assert y.dtype == x_slope.dtype == jnp.bfloat16
    wide, _, wide_slope = value_and_pull_back(
        GroupNorm(2), params, x.astype(jnp.float32), normal(6, *x.shape).astype(jnp.bfloat16)
    )
    # One rounding, at the end: 2^-8 relative.
    np.testing.assert_allclose(y.astype(jnp.float32), wide, rtol=2**-8, atol=1e-5)
    np.testing.assert_allclose(x_slope.astype(jnp.float32), wide_slope, rtol=2**-6, atol=0.01)


def test_group_norm_of_constant_and_single_pixel_inputs_is_the_shift():
    params = {"scale": jnp.ones(4), "shift": jnp.arange(4.0)}
    for x in (jnp.full((1, 3, 3, 4), 7.0), jnp.full((2, 1, 1, 4), -1.0)):
        y, _, x_slope = value_and_pull_back(GroupNorm(4), params, x, jnp.ones(x.shape))
        # 7 / sqrt(epsilon) cancels to float32's rounding.
        np.testing.assert_allclose(y, np.broadcast_to(np.arange(4), x.shape), atol=1e-3)
        assert jnp.isfinite(x_slope).all()


def test_groups_are_lowered_to_the_channels_or_refused():
    x = normal(7, 1, 4, 4, 4)
    params = {"scale": jnp.ones(4), "shift": jnp.zeros(4)}
    many, instance = (GroupNorm(g).apply({"params": params}, x) for g in (32, 4))
    np.testing.assert_array_equal(many, instance)
    np.testing.assert_array_equal(GroupNorm(0).apply({"params": params}, x), instance)
    with pytest.raises(ValueError, match="4 channels cannot be split into 3 groups"):
        GroupNorm(3).init(jax.random.key(0), x)


# Pooling


def test_max_pool_by_hand():
    x = jnp.array([[1.0, 2, 5, 6], [3, 4, 8, 7]])[None, ..., None]
    np.testing.assert_array_equal(max_pool(x)[0, ..., 0], [[4, 8]])


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("shape", [(2, 4, 6, 3), (1, 2, 2, 1), (1, 10, 4, 2)])
def test_max_pool_matches_flax(shape, dtype):
    # Distinct numbers, which bfloat16 holds up to 256: no ties, so that the gradient is one.
    numbers = np.random.default_rng(8).permutation(int(np.prod(shape))) - 70.0
    x = jnp.asarray(numbers.reshape(shape), dtype)
    cotangent = normal(9, shape[0], shape[1] // 2, shape[2] // 2, shape[3]).astype(dtype)
    y, pull_back = jax.vjp(max_pool, x)
    expected, expected_pull_back = jax.vjp(lambda x: nn.max_pool(x, (2, 2), (2, 2)), x)
    assert y.dtype == dtype
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(pull_back(cotangent)[0], expected_pull_back(cotangent)[0])


# Upsampling


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_upsample_matches_transposed_convolution(dtype):
    x, cotangent = normal(10, 2, 3, 5, 4), normal(11, 2, 6, 10, 3)
    # Flax's kernel (2, 2, in, out) is read flipped: tap (1 - i, 1 - j) lands on row 2 r + i,
    # column 2 c + j. Dense output 4 features: (i, j, out) in C order.
    kernel, bias = normal(12, 2, 2, 4, 3), normal(13, 3)
    flipped = kernel[::-1, ::-1].transpose(2, 0, 1, 3).reshape(4, 12)
    dense = {"Dense_0": {"kernel": flipped, "bias": jnp.tile(bias, 4)}}
    y, slope, x_slope = value_and_pull_back(Upsample(3, dtype), dense, x, cotangent)
    expected, expected_slope, expected_x_slope = value_and_pull_back(
        nn.ConvTranspose(3, (2, 2), (2, 2), dtype=dtype),
        {"kernel": kernel, "bias": bias}, x, cotangent,
    )  # fmt: skip
    assert y.dtype == expected.dtype == dtype
    assert y.shape == (2, 6, 10, 3)
    loose = {"rtol": 0.02, "atol": 0.1} if dtype == jnp.bfloat16 else {"rtol": 1e-4, "atol": 1e-5}
    np.testing.assert_allclose(y.astype(jnp.float32), expected.astype(jnp.float32), **loose)
    np.testing.assert_allclose(x_slope, expected_x_slope, **loose)
    kernel_slope = slope["Dense_0"]["kernel"].reshape(4, 2, 2, 3).transpose(1, 2, 0, 3)
    np.testing.assert_allclose(kernel_slope[::-1, ::-1], expected_slope["kernel"], **loose)
    bias_slope = slope["Dense_0"]["bias"].reshape(4, 3).sum(0)
    np.testing.assert_allclose(bias_slope, expected_slope["bias"], **loose)


# Convolution layer


def test_conv_norm_relu_by_its_parts():
    x = normal(14, 2, 8, 6, 3)
    layer = ConvNormRelu(4, groups=2)
    y, variables = jax.jit(layer.init_with_output)(jax.random.key(1, impl="rbg"), x)
    kernel = np.asarray(variables["params"]["Conv_0"]["kernel"], np.float64)
    assert set(variables["params"]["Conv_0"]) == {"kernel"}  # no bias
    padded = np.pad(np.asarray(x, np.float64), ((0, 0), (1, 1), (1, 1), (0, 0)))
    convolved = sum(
        padded[:, i : i + 8, j : j + 6] @ kernel[i, j] for i in range(3) for j in range(3)
    )
    normalized = nn.GroupNorm(2, epsilon=1e-5).apply(
        {"params": {"scale": jnp.ones(4), "bias": jnp.zeros(4)}}, jnp.float32(convolved)
    )
    np.testing.assert_allclose(y, np.maximum(normalized, 0), atol=1e-4)
    strided = ConvNormRelu(4, groups=2, stride=2).apply(variables, x)
    assert strided.shape == (2, 4, 3, 4)


def test_conv_norm_relu_computes_in_bfloat16_on_float32_parameters():
    x = normal(15, 1, 4, 4, 2)
    layer = ConvNormRelu(4, groups=2, dtype=jnp.bfloat16)
    y, variables = jax.jit(layer.init_with_output)(jax.random.key(2, impl="rbg"), x)
    assert y.dtype == jnp.bfloat16
    assert {p.dtype for p in jax.tree.leaves(variables)} == {jnp.dtype(jnp.float32)}
    wide = ConvNormRelu(4, groups=2).apply(variables, x)
    np.testing.assert_allclose(y.astype(jnp.float32), wide, atol=0.05)
