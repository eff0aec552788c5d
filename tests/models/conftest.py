"""Parameters for tests of networks."""

import jax
import jax.numpy as jnp
import numpy as np


def filled(network, seed: int = 0, *, side: int = 16) -> dict:
    """Random parameters of the network's shapes; compiling its own initialization takes longer."""
    rng = np.random.default_rng(seed)
    variables = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, side, side, 1)))

    def fill(leaf):
        fan_in = np.prod(leaf.shape[:-1]) if len(leaf.shape) > 1 else 1
        return jnp.asarray(rng.normal(size=leaf.shape) * np.sqrt(2 / fan_in), leaf.dtype)

    return jax.tree.map(fill, variables)
