"""What keeps the label weights of Eq. 3 honest.

Minimized jointly over network and weights, Eq. 3 has a trivial optimum: weight moves onto labels
that are absent, rare or already easy, and the rest stops being learned. So the network minimizes
Eq. 3 with the weights as constants, and the weight generator gets an objective of its own:

- "adversarial": q = w / L, the normalized weights, *ascends*
      sum_i q_i c_i + strength * H(q),   c_i the mean cross-entropy over label i's pixels.
  The optimum is q = softmax(c / strength): weight follows difficulty, and the entropy bounds it.
  Of soft targets, as mixup makes them, c holds their own entropy too, so that a label of small
  shares weighs more than others even where the network is right; without that part the infarct was
  learned a little worse.
  The difficulty c is an image's own: a label that it does not hold is not difficult, c = 0.
- "minimize": Eq. 3 itself, the literal reading of the paper, kept to show its trivial optimum.

Measured comparison: docs/studies/002-label-weights.md.
"""

import jax
import jax.numpy as jnp
from jax import Array

from jaxseg.losses import automated_weighted_cross_entropy


def label_cross_entropy(logits: Array, targets: Array) -> Array:
    """Mean cross-entropy over each label's own pixels, per image.

    Args:
      logits: (B, H, W, L) floating point.
      targets: (B, H, W, L) label probabilities; a soft pixel counts with its share.

    Returns:
      c (B, L) float32, 0 for a label that the image does not hold.
    """
    log_probabilities = jax.nn.log_softmax(logits.astype(jnp.float32))
    mass = targets.sum((1, 2))
    total = -(targets * log_probabilities).sum((1, 2))
    return total / jnp.where(mass > 0, mass, 1.0)


METHODS = ("adversarial", "minimize")


def generator_objective(
    logits: Array, targets: Array, weights: Array, *, method: str, strength: float
) -> Array:
    """The loss that the weight generator minimizes; no gradient reaches the network.

    Args:
      logits: (B, H, W, L), taken as constants.
      targets: (B, H, W, L).
      weights: (B, L), the generator's output.
      method: one of `METHODS`.
      strength: coefficient of the adversarial generator's entropy.

    Returns:
      () float32.

    Raises:
      ValueError: for an unknown method.
    """
    if method not in METHODS:
        raise ValueError(f"balance method must be one of {', '.join(METHODS)}, got {method!r}")
    logits = jax.lax.stop_gradient(logits)
    if method == "minimize":
        return automated_weighted_cross_entropy(logits, targets, weights)
    return -_adversarial_gain(label_cross_entropy(logits, targets), weights, strength)


def _adversarial_gain(difficulty: Array, weights: Array, strength: float) -> Array:
    q = weights / weights.shape[-1]
    entropy = -(q * jnp.log(jnp.maximum(q, 1e-12))).sum(-1)
    return ((q * difficulty).sum(-1) + strength * entropy).mean()
