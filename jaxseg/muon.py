"""Muon: steps of matrices along their momentum, orthogonalized by the Newton-Schulz iteration.

K. Jordan et al., https://kellerjordan.github.io/posts/muon, 2024. The iteration multiplies a matrix
X by polynomials of its Gram matrix G = X^T X. Here only these polynomials are iterated, and X is
multiplied once at the end. For a 3x3 kernel with as many outputs as inputs, G has a ninth of the
size of X, and the products take about a third of the operations. This equals `optax.contrib.muon`
up to rounding and the bias correction of the first steps' momentum.
"""

import math

import jax
import jax.numpy as jnp
import optax
from jax import Array

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of X, X G and X G^2 in an iteration; Jordan et al.
_ITERATIONS = 5
_MOMENTUM = 0.95
_TINY = 1e-8


def orthogonalize(kernel: Array) -> Array:
    """Move the singular values of a kernel, read as a matrix, to about 1 (0.7 to 1.2).

    Args:
      kernel: (..., outputs) float32; the other axes are the rows of the matrix U S V^T.

    Returns:
      U S' V^T of the same shape. Singular values below a thousandth of the Frobenius norm remain
      smaller than 0.7.
    """
    matrix = kernel.reshape(-1, kernel.shape[-1])
    wide = matrix.shape[0] < matrix.shape[1]
    x = matrix.T if wide else matrix
    x = x / (jnp.linalg.norm(x) + _TINY)
    first, second, third = _COEFFICIENTS
    # G holds the squares of the singular values, which TF32 or bfloat16 products would blur.
    with jax.default_matmul_precision("highest"):
        gram, product = x.T @ x, jnp.eye(x.shape[-1])
        for _ in range(_ITERATIONS):
            factor = first * jnp.eye(len(gram)) + second * gram + third * (gram @ gram)
            # All these matrices are polynomials of the first G and commute.
            product, gram = product @ factor, factor @ gram @ factor
        x = x @ product
    return (x.T if wide else x).reshape(kernel.shape)


def scale_by_muon(rms: float) -> optax.GradientTransformation:
    """Nesterov momentum, orthogonalized, with about `rms` as the root mean square of each step.

    An orthogonalized m x n matrix has min(m, n) singular values of about 1 and thus a root mean
    square of max(m, n)^(-1/2), by which the step is divided.
    """

    def step(momentum: Array) -> Array:
        rows = math.prod(momentum.shape[:-1])
        return rms * math.sqrt(max(rows, momentum.shape[-1])) * orthogonalize(momentum)

    return optax.chain(
        optax.trace(_MOMENTUM, nesterov=True),
        optax.stateless(lambda updates, _: jax.tree.map(step, updates)),
    )
