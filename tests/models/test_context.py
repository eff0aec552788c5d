"""The exchange between slices by its formula, and which slices are neighbors."""

import jax
import numpy as np

from jaxseg.models.context import Exchange, neighbors

RNG = np.random.default_rng(0)


def test_exchange_by_its_formula():
    x, a, b = RNG.normal(size=(3, 2, 4, 6, 3)).astype(np.float32)
    parts = {
        "mix": {"kernel": RNG.normal(size=(9, 3))},
        "GroupNorm_0": {"scale": RNG.normal(size=3), "shift": RNG.normal(size=3)},
        "update": {"kernel": RNG.normal(size=(3, 3)), "bias": RNG.normal(size=3)},
    }
    params = jax.tree.map(np.float32, parts)
    found = jax.jit(Exchange(groups=0).apply)({"params": params}, x, a, b)
    y = np.concatenate([x, np.maximum(a, b), np.minimum(a, b)], -1) @ parts["mix"]["kernel"]
    y = (y - y.mean((1, 2), keepdims=True)) / np.sqrt(y.var((1, 2), keepdims=True) + 1e-5)
    y = np.maximum(y * parts["GroupNorm_0"]["scale"] + parts["GroupNorm_0"]["shift"], 0)
    expected = x + y @ parts["update"]["kernel"] + parts["update"]["bias"]
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_slices_at_the_ends_are_their_own_neighbors():
    stack = np.arange(4)[:, None]
    before, after = neighbors(stack)
    assert before.ravel().tolist() == [0, 0, 1, 2]
    assert after.ravel().tolist() == [1, 2, 3, 3]
    assert [part.tolist() for part in neighbors(stack[:1])] == [[[0]], [[0]]]
