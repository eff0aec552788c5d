import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg.models import UNet, WeightGenerator, initialize

IMAGE = jnp.zeros((1, 32, 32, 1))
KEY = jax.random.key(3)


@pytest.mark.slow
@pytest.mark.parametrize(
    "module",
    [
        UNet(num_labels=5, width=8, depth=2, groups=4),
        UNet(num_labels=5, width=8, depth=2, groups=4, context=True),
        UNet(num_labels=3, width=8, depth=1, groups=4, attention=False, dense=True),
        WeightGenerator(num_labels=5, width=8, groups=4),
    ],
)
def test_initialize_agrees_with_the_initializers_of_the_modules(module):
    own = jax.tree.leaves_with_path(module.init(KEY, IMAGE)["params"])
    ours = jax.tree.leaves_with_path(initialize(module, KEY, IMAGE))
    assert [path for path, _ in own] == [path for path, _ in ours]
    for (path, expected), (_, leaf) in zip(own, ours, strict=True):
        name = jax.tree_util.keystr(path)
        assert leaf.shape == expected.shape, name
        assert leaf.dtype == expected.dtype == jnp.float32, name
        if np.ptp(expected) == 0:
            np.testing.assert_array_equal(leaf, expected, err_msg=name)
        elif leaf.size >= 500:  # the sampling error of a standard deviation is 1 / sqrt(2 n)
            assert np.std(leaf) == pytest.approx(np.std(expected), rel=6 / np.sqrt(leaf.size)), name


def test_kernels_are_he_normal_cut_off_at_two_standard_deviations():
    params = initialize(UNet(num_labels=5, width=16, depth=2), KEY, IMAGE)
    kernel = np.asarray(params["bottleneck"]["conv2"]["Conv_0"]["kernel"])
    std = np.sqrt(2 / (9 * 64))
    assert kernel.mean() == pytest.approx(0, abs=4 * std / np.sqrt(kernel.size))
    assert kernel.std() == pytest.approx(std, rel=0.02)
    assert np.abs(kernel).max() <= 2 * std / 0.8796
    assert np.abs(kernel).max() > 1.9 * std / 0.8796


def test_layers_are_drawn_independently():
    module = UNet(num_labels=5, width=8, depth=1, groups=4)
    first, again = initialize(module, KEY, IMAGE), initialize(module, KEY, IMAGE)
    other = initialize(module, jax.random.key(4), IMAGE)
    kernel = first["encoder0"]["conv2"]["Conv_0"]["kernel"]
    np.testing.assert_array_equal(kernel, again["encoder0"]["conv2"]["Conv_0"]["kernel"])
    assert not np.array_equal(kernel, other["encoder0"]["conv2"]["Conv_0"]["kernel"])
    assert not np.array_equal(kernel, first["decoder0"]["conv2"]["Conv_0"]["kernel"])


def test_a_parameter_without_a_rule_is_named():
    class Odd(nn.Module):
        @nn.compact
        def __call__(self, x):
            return x + self.param("gain", nn.initializers.ones_init(), (1, 1, 1, 1))

    with pytest.raises(ValueError, match="parameter gain: no rule"):
        initialize(Odd(), KEY, IMAGE)
