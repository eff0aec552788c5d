"""Objectives that train the label weights of Eq. 3 without its trivial optimum.

Minimized jointly over network and weights, Eq. 3 has a trivial optimum: weight moves onto labels
that are absent, rare or already easy, and the network no longer learns the others. The network
therefore minimizes Eq. 3 with constant weights, and the weight generator has a separate objective:

- "adversarial": q = w / L, the normalized weights, *ascends*
      sum_i q_i c_i + strength * H(q),   c_i the mean cross-entropy over label i's pixels.
  The optimum is q = softmax(c / strength): weight follows difficulty, and the entropy bounds it.
  The difficulty c is computed for each image; a label that is not present in it has c = 0.
  For soft targets, such as those of mixup, c includes the entropy of the targets. A label with
  small fractions then has a higher weight even where the prediction is correct. Without this part,
  the DSC of the infarct was lower (docs/studies/020-soft-targets-in-difficulty-and-dice.md).
- "minimize": Eq. 3 itself, the literal reading of the paper, kept to show its trivial optimum.

See docs/studies/002-label-weights.md for a measured comparison.
"""

import jax
import jax.numpy as jnp
from jax import Array

from jaxseg.losses import automated_weighted_cross_entropy


def label_cross_entropy(logits: Array, targets: Array) -> Array:
    """Mean cross-entropy over the pixels of each label, for each image.

    Args:
      logits: (B, H, W, L) floating point.
      targets: (B, H, W, L) label probabilities; soft pixels count in proportion.

    Returns:
      c (B, L) float32, 0 for a label that is not present in the image.
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
      logits: (B, H, W, L), treated as constants.
      targets: (B, H, W, L) label probabilities.
      weights: (B, L), output of the generator.
      method: one of `METHODS`.
      strength: coefficient of the entropy in the adversarial objective.

    Returns:
      () float32.

    Raises:
      ValueError: the method is unknown.
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
