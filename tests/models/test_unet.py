"""The segmentation generator: its size, its attention branch, and what it must not depend on."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from jaxseg.models import UNet
from jaxseg.models.layers import ConvNormRelu
from jaxseg.models.unet import Block
from tests.models.conftest import filled

TINY = {"num_labels": 5, "width": 4, "depth": 1, "groups": 2}


def images(seed: int, *shape: int) -> jax.Array:
    return jnp.float32(np.random.default_rng(seed).normal(size=shape))


def shapes(network: UNet, channels: int = 1) -> dict[str, tuple[int, ...]]:
    """Shape of every parameter by its path, without running anything."""
    side = 2**network.depth
    variables = jax.eval_shape(
        network.init, jax.random.key(0), jnp.zeros((1, side, side, channels))
    )
    return {"/".join(path): leaf.shape for path, leaf in flatten_dict(variables["params"]).items()}


def count(network: UNet, channels: int = 1) -> int:
    return sum(int(np.prod(shape)) for shape in shapes(network, channels).values())


# Size


def expected_count(labels, width, depth, attention, dense, channels) -> int:
    """From the architecture: 3x3 convolutions without bias, scale and shift of the normalization.

    Only the attention branch's second convolution has a bias and no normalization.
    """

    def conv(inputs, outputs):
        return 9 * inputs * outputs

    def block(inputs, outputs):
        second = outputs + inputs if dense else outputs
        total = conv(inputs, outputs) + conv(second, outputs) + 4 * outputs
        if attention:
            total += conv(inputs, outputs) + 2 * outputs + conv(outputs, outputs) + outputs
        return total

    widths = [width * 2**level for level in range(depth + 1)]
    encoder = sum(block(*pair) for pair in zip([channels, *widths], widths, strict=False))
    # Each step up: 4 (2 C) C weights and 4 C biases, then a block on skip and upsampled together.
    decoder = sum(8 * c * c + 4 * c + block(2 * c, c) for c in widths[:-1])
    return encoder + decoder + width * labels + labels


@pytest.mark.parametrize(
    ("settings", "pinned"),
    [
        ({}, 14_828_197),
        ({"attention": False}, 7_764_037),
        ({"attention": False, "dense": True}, 10_897_765),
        ({"dense": True}, 17_961_925),
    ],
    ids=["default", "baseline", "dense baseline", "dense"],
)
def test_parameter_count_of_the_full_network(settings, pinned):
    network = UNet(num_labels=5, **settings)
    assert count(network) == pinned
    full = {"attention": True, "dense": False} | settings
    assert expected_count(5, 32, 4, channels=1, **full) == pinned


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("attention", [False, True])
@pytest.mark.parametrize(("width", "depth"), [(4, 0), (6, 1), (8, 3)])
def test_parameter_count_follows_from_the_architecture(width, depth, attention, dense):
    network = UNet(3, width=width, depth=depth, attention=attention, dense=dense, groups=2)
    assert count(network, 2) == expected_count(3, width, depth, attention, dense, channels=2)


@pytest.mark.parametrize("dense", [False, True])
def test_attention_adds_its_branches_and_nothing_else(dense):
    deep = TINY | {"depth": 2}
    with_branch = shapes(UNet(**deep, dense=dense))
    without = shapes(UNet(**deep, dense=dense, attention=False))
    branches = {path: shape for path, shape in with_branch.items() if "/attention" in path}
    assert {**without, **branches} == with_branch
    assert not set(without) & set(branches)
    # Every block has one: two encoders, the bottleneck, two decoders.
    blocks = {"encoder0", "encoder1", "bottleneck", "decoder0", "decoder1"}
    assert {path.split("/")[0] for path in branches} == blocks


# Block


@pytest.mark.parametrize("dense", [False, True])
def test_block_is_features_times_sigmoid_of_the_branch(dense):
    x = images(0, 2, 8, 8, 3)
    block = Block(4, groups=2, attention=True, dense=dense)
    y, variables = jax.jit(block.init_with_output)(jax.random.key(1, impl="rbg"), x)
    params = variables["params"]

    def layer(name, x):
        return ConvNormRelu(4, groups=2).apply({"params": params[name]}, x)

    first = layer("conv1", x)
    features = layer("conv2", jnp.concatenate([x, first], -1) if dense else first)
    kernel, bias = params["attention2"]["kernel"], params["attention2"]["bias"]
    scores = bias.reshape(1, 1, 1, 4) + jax.lax.conv_general_dilated(
        layer("attention1", x), kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    np.testing.assert_allclose(y, features / (1 + np.exp(-scores)), atol=1e-5)
    # Without the branch: the features themselves, from the parameters that remain.
    plain = Block(4, groups=2, attention=False, dense=dense).apply(variables, x)
    np.testing.assert_allclose(plain, features, atol=1e-5)
    # A gate lies between 0 and 1.
    assert (np.abs(y) <= np.abs(features) + 1e-6).all()


# Network


@pytest.mark.parametrize(("depth", "size"), [(1, (16, 16)), (2, (8, 20)), (2, (4, 4))])
def test_logits_have_the_size_of_the_images(depth, size):
    network = UNet(**TINY | {"depth": depth})
    logits = jax.jit(network.apply)(filled(network), images(1, 2, *size, 1))
    assert logits.shape == (2, *size, 5)
    assert logits.dtype == jnp.float32
    assert jnp.isfinite(logits).all()
    assert logits.std() > 0


def test_initialization_depends_on_the_key():
    network = UNet(**TINY)
    init = jax.jit(network.init)
    x = images(2, 2, 16, 16, 1)
    # Keys of this kind compile in a fifth of the time.
    first, again, other = (init(jax.random.key(k, impl="rbg"), x) for k in (3, 3, 4))
    logits = [np.asarray(network.apply(v, x)) for v in (first, again, other)]
    np.testing.assert_array_equal(logits[0], logits[1])
    assert not np.allclose(logits[0], logits[2])
    assert 0.05 < logits[0].std() < 5


@pytest.mark.parametrize("attention", [True, False])
def test_images_of_a_batch_do_not_affect_each_other(attention):
    network = UNet(**TINY, attention=attention)
    variables = filled(network)
    apply = jax.jit(network.apply)
    a, b, c = images(3, 3, 16, 16, 1) * jnp.array([1.0, 50.0, 0.01]).reshape(3, 1, 1, 1)
    first, second, last = (apply(variables, jnp.stack(pair)) for pair in ((a, b), (a, c), (b, a)))
    np.testing.assert_allclose(first[0], second[0], atol=1e-5)
    np.testing.assert_allclose(first[0], last[1], atol=1e-5)
    np.testing.assert_allclose(first[1], last[0], atol=1e-5)
    # Nor does an image's loss send a gradient to another.
    slope = jax.jit(jax.grad(lambda x: (network.apply(variables, x)[0] ** 2).sum()))
    gradient = slope(jnp.stack([a, b]))
    assert gradient[0].any()
    assert not gradient[1].any()


def test_skip_connections_carry_detail_past_the_bottleneck():
    # Behind a silenced bottleneck, without skips, every output would be the same for all images.
    network = UNet(**TINY)
    variables = filled(network)
    variables["params"]["bottleneck"] = jax.tree.map(
        jnp.zeros_like, variables["params"]["bottleneck"]
    )
    logits = jax.jit(network.apply)(variables, images(4, 2, 16, 16, 1))
    assert np.abs(logits[0] - logits[1]).max() > 0.1
    # And behind a silenced decoder they are.
    variables["params"]["decoder0"] = jax.tree.map(jnp.zeros_like, variables["params"]["decoder0"])
    logits = jax.jit(network.apply)(variables, images(4, 2, 16, 16, 1))
    np.testing.assert_allclose(logits, np.broadcast_to(logits[0, 0, 0], logits.shape), atol=1e-5)


# Context


CONTEXT = UNet(num_labels=5, width=4, depth=3, groups=2, context=True)


def test_only_the_two_neighbors_of_a_slice_reach_its_logits():
    variables, x = filled(CONTEXT), images(6, 6, 16, 16, 1)
    apply = jax.jit(CONTEXT.apply)
    changed = np.abs(apply(variables, x.at[2].set(x[2, ::-1])) - apply(variables, x)).max((1, 2, 3))
    assert (changed[1:4] > 0.01).all()
    np.testing.assert_allclose(changed[[0, 4, 5]], 0, atol=1e-5)


def test_a_stack_upside_down_has_the_same_logits():
    variables, x = filled(CONTEXT), images(7, 4, 16, 16, 1)
    apply = jax.jit(CONTEXT.apply)
    np.testing.assert_allclose(apply(variables, x[::-1])[::-1], apply(variables, x), atol=1e-5)


def test_context_adds_layers_that_change_nothing_at_first():
    """At the levels of 16 and 32 channels, and nowhere else."""
    added = shapes(CONTEXT).items() - shapes(CONTEXT.clone(context=False)).items()
    expected = {}
    for level, channels in ((2, 16), (3, 32)):
        expected[f"exchange{level}/mix/kernel"] = (3 * channels, channels)
        expected[f"exchange{level}/update/kernel"] = (channels, channels)
        for name in ("update/bias", "GroupNorm_0/scale", "GroupNorm_0/shift"):
            expected[f"exchange{level}/{name}"] = (channels,)
    assert dict(added) == expected
    x = images(8, 3, 16, 16, 1)
    variables = CONTEXT.init(jax.random.key(0, impl="rbg"), x)
    rest = {name: v for name, v in variables["params"].items() if "exchange" not in name}
    alone = CONTEXT.clone(context=False).apply({"params": rest}, x)
    np.testing.assert_allclose(CONTEXT.apply(variables, x), alone, atol=1e-5)


def test_context_takes_slices_alone_or_with_two_neighbors():
    with pytest.raises(ValueError, match="got 2 channels"):
        CONTEXT.init(jax.random.key(0), jnp.zeros((1, 8, 8, 2)))


def test_neighbors_change_a_slice_and_its_gradient():
    variables, x = filled(CONTEXT), images(9, 2, 16, 16, 3)
    apply = jax.jit(CONTEXT.apply)
    assert abs(apply(variables, x.at[..., 1:].set(0)) - apply(variables, x)).max() > 1e-2
    slope = jax.jit(jax.grad(lambda x: (CONTEXT.apply(variables, x) ** 2).sum()))(x)
    assert all(slope[..., k].any() for k in range(3))


def test_bfloat16_keeps_parameters_and_logits_in_float32():
    network, half = UNet(**TINY), UNet(**TINY, dtype=jnp.bfloat16)
    variables = filled(network)
    half_variables = filled(half)
    assert jax.tree.structure(half_variables) == jax.tree.structure(variables)
    assert {leaf.dtype for leaf in jax.tree.leaves(half_variables)} == {jnp.dtype(jnp.float32)}
    x = images(5, 2, 16, 16, 1)
    wide, narrow = (jax.jit(n.apply)(variables, x) for n in (network, half))
    assert narrow.dtype == jnp.float32
    assert not np.array_equal(wide, narrow)
    assert jnp.sqrt(((wide - narrow) ** 2).mean()) < 0.03 * wide.std()


@pytest.mark.parametrize("context", [False, True])
def test_gradients_are_finite_and_reach_every_parameter(context):
    network = UNet(**TINY, context=context)
    slope = jax.jit(jax.grad(lambda v, x: (network.apply(v, x) ** 2).mean()))
    variables, x = filled(network), images(6, 2, 16, 16, 1)
    for path, leaf in flatten_dict(slope(variables, x)["params"]).items():
        assert jnp.isfinite(leaf).all(), path
        assert leaf.any(), path
    blank = slope(variables, jnp.zeros_like(x))
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(blank))


@pytest.mark.parametrize("shape", [(1, 6, 8, 1), (1, 8, 6, 1), (1, 9, 9, 1), (8, 8, 1)])
def test_sizes_that_do_not_divide_and_other_ranks_are_refused(shape):
    shown = ", ".join(map(str, shape if len(shape) == 3 else shape[1:3]))
    with pytest.raises(ValueError, match=rf"\({shown}\)"):
        UNet(**TINY | {"depth": 2}).init(jax.random.key(0), jnp.zeros(shape))
