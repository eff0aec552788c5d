"""Files of bare parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint
import pytest

from jaxseg.runs.params import load_params, save_params


def new_params(*, size=3):
    """Parameters in float32 that no short decimal gives."""
    rng = np.random.default_rng(5)
    shapes = {"kernel": (3, 3, 2, size), "shift": (size,)}
    return {"conv": {k: jnp.array(rng.normal(size=n), jnp.float32) for k, n in shapes.items()}}


def assert_bitwise(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(x, y)


def test_parameters_are_restored_bitwise(tmp_path):
    params = new_params()
    params["conv"]["shift"] = jnp.array([np.nan, -0.0, 1e-45], jnp.float32)
    save_params(tmp_path / "params", params)
    restored = load_params(tmp_path / "params", jax.eval_shape(lambda: params))
    assert_bitwise(restored, params)
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(restored))
    with orbax.checkpoint.StandardCheckpointer() as reader:
        bare = reader.restore(tmp_path / "params")
    assert_bitwise(bare, params)
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(bare))


def test_files_do_not_contain_their_path(tmp_path):
    save_params(tmp_path / "params", new_params())
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 3
    assert not [path for path in files if str(tmp_path).encode() in path.read_bytes()]


def test_other_shapes_and_names_are_refused(tmp_path):
    save_params(tmp_path / "params", new_params())
    with pytest.raises(ValueError, match="kernel"):
        load_params(tmp_path / "params", new_params(size=5))
    with pytest.raises(ValueError, match="None"):
        load_params(tmp_path / "params", {"dense": jnp.zeros(3)})
    with pytest.raises(ValueError, match="no parameters"):
        load_params(tmp_path / "none", new_params())
