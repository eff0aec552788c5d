"""The ONNX graph of every choice of blocks gives the network's probabilities, in onnxruntime."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg.models import UNet
from jaxseg.models.onnx_graph import onnx_probabilities
from jaxseg.models.segment import make_probabilities

pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")

NETWORK = UNet(num_labels=3, width=4, depth=2, attention=False, groups=2)
NETWORKS = {
    "plain": NETWORK,
    "attention": NETWORK.clone(attention=True, groups=4),
    "dense": NETWORK.clone(attention=True, dense=True, depth=1),
    "instance normalization": NETWORK.clone(groups=0, depth=3),
    "context": NETWORK.clone(context=True, depth=3),
}


def random_params(network):
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, 16, 24, 1)))["params"]
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), leaf.dtype), shapes)


def random_images(*shape):
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


def session_of(network, params, size):
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    return runtime.InferenceSession(onnx_probabilities(network, params, size), options)


@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
def test_the_same_probabilities_of_any_number_of_slices(network):
    params = random_params(network)
    session = session_of(network, params, (16, 24))
    for count in (1, 3, 8):
        images = random_images(count, 16, 24)
        (found,) = session.run(None, {"images": images})
        expected = make_probabilities(network, batch_size=8)(params, images)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, atol=1e-4)
        assert np.ptp(found, (0, 1, 2)).max() > 0.1, "a constant would show nothing"


def test_the_same_probabilities_of_any_size():
    params = random_params(NETWORK)
    session = session_of(NETWORK, params, None)
    for shape in ((2, 8, 8), (3, 40, 24)):
        images = random_images(*shape)
        (found,) = session.run(None, {"images": images})
        expected = make_probabilities(NETWORK, batch_size=3)(params, images)
        np.testing.assert_allclose(found, expected, atol=1e-4)


def test_a_network_in_bfloat16_computes_in_float32():
    params = random_params(NETWORK)
    images = random_images(1, 16, 24)
    both = [
        session_of(network, params, None).run(None, {"images": images})[0]
        for network in (NETWORK, NETWORK.clone(dtype=jnp.bfloat16))
    ]
    np.testing.assert_array_equal(*both)


def test_names_and_shapes_of_a_graph():
    session = session_of(NETWORK, random_params(NETWORK), (16, 24))
    (taken,), (given,) = session.get_inputs(), session.get_outputs()
    assert (taken.name, taken.type, taken.shape) == ("images", "tensor(float)", ["batch", 16, 24])
    assert (given.name, given.shape) == ("probabilities", ["batch", 16, 24, 3])
