"""Context through the slices: features of a slice and of its two neighbors, for coarse levels.

Neighboring slices of a stack are 8 to 13 mm apart, several times the distance of pixels, so that
fine detail does not continue from one to the next. This is not part of the paper.
"""

import flax.linen as nn
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from jaxseg.models.layers import GroupNorm, by_pixel

EXCHANGE = "exchange"
"""Start of the names of exchanges, which the number of their level follows."""

ZERO_LAYER = "update"
"""Name of the layer that starts at zero, so that a new exchange changes nothing."""


class Exchange(nn.Module):
    """Update the features of slices by those of their neighbors.

        y = x + W2 relu(norm(W1 [x, max(a, b), min(a, b)]))

    a and b are the features of the two neighbors. Their order does not matter, so that a stack and
    the same stack upside down have the same result.

    Attributes:
      groups: groups of the normalization; see `GroupNorm`.
      dtype: compute dtype.
    """

    groups: int
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Array, a: Array, b: Array) -> Array:
        """Map three arrays (B, H, W, C) to one of the same shape."""
        channels, he = x.shape[-1], nn.initializers.he_normal()
        zeros = nn.initializers.zeros_init()
        mix = nn.Dense(channels, use_bias=False, dtype=self.dtype, kernel_init=he, name="mix")
        update = nn.Dense(channels, dtype=self.dtype, kernel_init=zeros, name=ZERO_LAYER)
        y = by_pixel(mix, jnp.concatenate([x, jnp.maximum(a, b), jnp.minimum(a, b)], axis=-1))
        return x + by_pixel(update, nn.relu(GroupNorm(self.groups)(y)))


def neighbors(x: Array) -> tuple[Array, Array]:
    """The slices before and after each slice of a stack (N, ...); at its ends, the slice itself."""
    return jnp.concatenate([x[:1], x[:-1]]), jnp.concatenate([x[1:], x[-1:]])
