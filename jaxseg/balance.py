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
  The difficulty c is an image's own (a label that it does not hold is not difficult, c = 0), or the
  mean over the images of the batch that hold the label: then a rare label keeps its weight on
  every image.
- "barrier": Eq. 3 minus strength * sum_i log w_i over the labels present; weights are free (exp),
  and inverse to a label's share of the loss: without bound once a label is learned.
- "minimize": Eq. 3 itself, the literal reading of the paper, kept to show its trivial optimum.

Measured comparison: docs/studies/002-label-weights.md.
"""

import jax
import jax.numpy as jnp
from jax import Array

from jaxseg.losses import automated_weighted_cross_entropy


def label_cross_entropy(logits: Array, targets: Array) -> tuple[Array, Array]:
    """Mean cross-entropy over each label's own pixels, per image.

    Args:
      logits: (B, H, W, L) floating point.
      targets: (B, H, W, L) label probabilities; a soft pixel counts with its share.

    Returns:
      c (B, L) float32, 0 for a label that the image does not hold, and present (B, L) bool.
    """
    log_probabilities = jax.nn.log_softmax(logits.astype(jnp.float32))
    mass = targets.sum((1, 2))
    present = mass > 0
    total = -(targets * log_probabilities).sum((1, 2))
    return total / jnp.where(present, mass, 1.0), present


def _batch_difficulty(difficulty: Array, present: Array, axis_name: str | None) -> Array:
    """(B, L) difficulty by image to its mean over the images that hold the label, for each image.

    The batch is that of all devices where `axis_name` names their axis.
    """
    total, count = difficulty.sum(0), present.sum(0)
    if axis_name is not None:
        total, count = jax.lax.psum((total, count), axis_name)
    return jnp.broadcast_to(total / jnp.maximum(count, 1), difficulty.shape)


def prevalence_factors(prevalence: Array, *, power: float) -> Array:
    """Constant factors that lift rare labels, w_i -> w_i f_i with f_i ~ prevalence_i^-power.

    Normalized so that uniform weights keep the pixel mean of the loss: sum_i f_i prevalence_i = 1.

    Args:
      prevalence: (L,) share of each label among the training pixels; a label that never occurs
        counts as the rarest one that does.
      power: 0 leaves every factor 1, 1 gives every label the same total weight.

    Returns:
      (L,) float32.
    """
    prevalence = prevalence.astype(jnp.float32)
    rarest = jnp.where(prevalence > 0, prevalence, jnp.inf).min()
    lifted = jnp.where(prevalence > 0, prevalence, rarest) ** -power
    return lifted / (lifted * prevalence).sum()


METHODS = ("adversarial", "barrier", "minimize")
ACTIVATIONS = {"adversarial": "softmax", "barrier": "exp", "minimize": "softmax"}
"""The activation that each method asks of the weight generator."""
DIFFICULTIES = ("image", "batch")


def generator_objective(
    logits: Array,
    targets: Array,
    weights: Array,
    *,
    method: str,
    strength: float,
    factors: Array,
    difficulty: str = "image",
    axis_name: str | None = None,
) -> Array:
    """The loss that the weight generator minimizes; no gradient reaches the network.

    Args:
      logits: (B, H, W, L), taken as constants.
      targets: (B, H, W, L).
      weights: (B, L), the generator's output.
      method: one of `METHODS`.
      strength: coefficient of the entropy or of the barrier.
      factors: (L,) from `prevalence_factors`, with which the network sees the weights.
      difficulty: one of `DIFFICULTIES`, for the adversarial method.
      axis_name: of the devices that share the batch, if several do.

    Returns:
      () float32.

    Raises:
      ValueError: for an unknown method or difficulty.
    """
    if method not in METHODS:
        raise ValueError(f"balance method must be one of {', '.join(METHODS)}, got {method!r}")
    if difficulty not in DIFFICULTIES:
        raise ValueError(f"difficulty must be one of {', '.join(DIFFICULTIES)}, got {difficulty!r}")
    logits = jax.lax.stop_gradient(logits)
    hardness, present = label_cross_entropy(logits, targets)
    if method == "adversarial":
        # The factors play no part: c_i is a mean over the label's own pixels, however few.
        if difficulty == "batch":
            hardness = _batch_difficulty(hardness, present, axis_name)
        return -_adversarial_gain(hardness, weights, strength)
    loss = automated_weighted_cross_entropy(logits, targets, weights * factors[None, :])
    if method == "minimize":
        return loss
    # The inner where keeps log, and its gradient, away from an absent label's weight of 0.
    return loss - strength * jnp.log(jnp.where(present, weights, 1.0)).sum(-1).mean()


def _adversarial_gain(difficulty: Array, weights: Array, strength: float) -> Array:
    q = weights / weights.shape[-1]
    entropy = -(q * jnp.log(jnp.maximum(q, 1e-12))).sum(-1)
    return ((q * difficulty).sum(-1) + strength * entropy).mean()
