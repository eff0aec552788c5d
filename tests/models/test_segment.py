"""Stacks in batches: the same result whatever the batch, one compiled shape."""

import re
from typing import Any, cast

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg.models import UNet
from jaxseg.models.segment import (
    export_probabilities,
    make_labels,
    make_probabilities,
)

RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(5, 16, 16)).astype(np.float32)
NETWORK = UNet(num_labels=3, width=4, depth=1, attention=False, groups=4)


def random_params(network):
    """Random parameters, biases too: fresh ones are 0 there, and dead pixels tie."""
    rng = np.random.default_rng(1)
    shapes = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, 16, 16, 1)))["params"]
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), leaf.dtype), shapes)


@pytest.fixture(scope="module")
def params():
    return random_params(NETWORK)


@pytest.fixture(scope="module")
def expected(params):
    """Softmax by hand of the network on each slice alone."""
    apply = jax.jit(lambda image: NETWORK.apply({"params": params}, image[None, :, :, None]))
    logits = np.concatenate([np.asarray(apply(image)) for image in IMAGES]).astype(np.float64)
    odds = np.exp(logits - logits.max(-1, keepdims=True))
    return odds / odds.sum(-1, keepdims=True)


@pytest.mark.parametrize("batch_size", [2, 5, 8])
def test_probabilities_do_not_depend_on_the_batch(params, expected, batch_size):
    found = make_probabilities(NETWORK, batch_size=batch_size)(params, IMAGES)
    assert found.shape == (5, 16, 16, 3)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(found.sum(-1), 1, atol=1e-6)


def test_labels_are_the_most_probable(params, expected):
    found = make_labels(NETWORK, batch_size=3)(params, IMAGES)
    assert found.shape == (5, 16, 16)
    assert found.dtype == np.uint8
    first, second = np.sort(expected, -1)[..., -1], np.sort(expected, -1)[..., -2]
    clear = first - second > 1e-4  # the rest is decided by rounding
    assert clear.mean() > 0.99
    np.testing.assert_array_equal(found[clear], expected.argmax(-1)[clear])
    assert len(np.unique(found)) > 1


class Recorder:
    """A network of one parameter that notes the shapes it is compiled for."""

    context = False

    def __init__(self):
        self.shapes = []

    def apply(self, variables, images):
        self.shapes.append(images.shape)
        bright = images[..., 0] > variables["params"]
        return jnp.stack([~bright, bright, jnp.zeros_like(bright)], -1).astype(jnp.float32)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 5, 64])
def test_one_shape_is_compiled_for_any_number_of_slices(batch_size):
    network: Any = Recorder()
    segment = make_labels(network, batch_size=batch_size)
    for count in (5, 1, 4):
        found = segment(jnp.float32(0.5), IMAGES[:count])
        np.testing.assert_array_equal(found, IMAGES[:count] > 0.5)
    assert network.shapes == [(batch_size, 16, 16, 1)]


def test_other_parameters_do_not_recompile():
    network: Any = Recorder()
    segment = make_labels(network, batch_size=2)
    for threshold in (-1.0, 0.0, 1.0):
        found = segment(jnp.float32(threshold), IMAGES)
        np.testing.assert_array_equal(found, np.greater(IMAGES, threshold))
    assert len(network.shapes) == 1


@pytest.mark.parametrize("shape", [(0, 16, 16), (16, 16), (2, 16, 16, 1)])
def test_arrays_that_are_not_stacks_are_refused(shape):
    for make in (make_labels, make_probabilities):
        segment = make(cast(Any, Recorder()), batch_size=2)
        with pytest.raises(ValueError, match=r"\(N, H, W\)"):
            segment(jnp.float32(0), np.zeros(shape, np.float32))
    network = NETWORK.clone(context=True)
    with pytest.raises(ValueError, match=r"\(N, H, W, 3\)"):
        make_labels(network, batch_size=2)({}, np.zeros((2, 16, 16, 1), np.float32))


@pytest.mark.parametrize("count", [1, 3, 4, 5, 11])
def test_slices_of_a_stack_have_their_neighbors_in_any_batch(count):
    network = NETWORK.clone(context=True, depth=3)
    params = random_params(network)
    stack = RNG.normal(size=(count, 16, 16)).astype(np.float32)
    whole = jax.jit(network.apply)({"params": params}, stack[..., None])
    found = make_probabilities(network, batch_size=4)(params, stack)
    np.testing.assert_allclose(found, jax.nn.softmax(whole), atol=1e-5)
    own = np.arange(count)
    before, after = np.maximum(own - 1, 0), np.minimum(own + 1, count - 1)
    beside = np.stack([stack, stack[before], stack[after]], axis=-1)
    np.testing.assert_allclose(
        make_probabilities(network, batch_size=4)(params, beside), found, atol=1e-5
    )


@pytest.mark.parametrize(
    "changes",
    [{"attention": True}, {"dtype": jnp.bfloat16, "dense": True}, {"context": True, "depth": 3}],
)
def test_an_artifact_holds_the_network_for_any_batch(changes):
    network = NETWORK.clone(**changes)
    params = random_params(network)
    exported = export_probabilities(network, params, (16, 16))
    assert exported.platforms == ("cpu", "cuda")
    assert [str(aval) for aval in exported.in_avals] == ["float32[batch,16,16]"]
    assert [str(aval) for aval in exported.out_avals] == ["float32[batch,16,16,3]"]
    artifact = exported.serialize()
    # Names of functions may hold ".pytest", as that of xdist's loop does.
    assert not re.search(rb"\.py(?!test)", artifact), "paths of source files tell of the machine"
    found = jax.export.deserialize(artifact)
    wanted = jax.jit(lambda x: jax.nn.softmax(network.apply({"params": params}, x[..., None])))
    for count in (1, 3):
        probabilities = np.asarray(found.call(IMAGES[:count]))
        np.testing.assert_allclose(probabilities, np.asarray(wanted(IMAGES[:count])), atol=1e-6)
    assert np.ptp(probabilities, (0, 1, 2)).min() > 0.05, "a constant would show nothing"
    assert jax.config.jax_hlo_source_file_canonicalization_regex is None
