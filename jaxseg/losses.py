"""The paper's losses, Eq. 3-5, as well as plain cross-entropy and a soft Dice loss.

Logits and targets are (B, H, W, L). Targets are label probabilities and may be soft, such as those
of mixup. Losses are computed in float32, independent of the dtype of the logits.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import Array

from jaxseg.anatomy import LabelSet

Inclusion = tuple[LabelSet, LabelSet]
"""A pair (inner, outer) of regions, each a union of labels, where inner lies inside outer."""


def _check_pair(logits: Array, targets: Array) -> None:
    if logits.ndim != 4 or logits.shape != targets.shape:
        raise ValueError(
            "logits and targets must share one shape (B, H, W, L), "
            f"got {logits.shape} and {targets.shape}"
        )


def cross_entropy(logits: Array, targets: Array) -> Array:
    """Mean cross-entropy over all pixels: -1/N sum_x sum_i Y_i(x) log Yhat_i(x).

    Args:
      logits: (B, H, W, L) floating point.
      targets: (B, H, W, L) label probabilities.

    Returns:
      () float32.

    Raises:
      ValueError: the shapes differ or are not of rank 4.
    """
    _check_pair(logits, targets)
    log_probabilities = jax.nn.log_softmax(logits.astype(jnp.float32))
    return -(targets * log_probabilities).sum(-1).mean()


def automated_weighted_cross_entropy(logits: Array, targets: Array, weights: Array) -> Array:
    """Eq. 3: L_AWCE = -1/N sum_x sum_i w_i Y_i(x) log Yhat_i(x), N the number of all pixels.

    This is the equation itself, differentiable in logits and in weights. Minimized over both, it
    rewards weights that vanish on hard labels. `jaxseg.label_weights` avoids this.

    Args:
      logits: (B, H, W, L) floating point.
      targets: (B, H, W, L) label probabilities.
      weights: (B, L), one weight for each image and label.

    Returns:
      () float32.

    Raises:
      ValueError: the shapes do not match.
    """
    _check_pair(logits, targets)
    if weights.shape != (logits.shape[0], logits.shape[-1]):
        raise ValueError(f"weights must be (B, L) for logits {logits.shape}, got {weights.shape}")
    log_probabilities = jax.nn.log_softmax(logits.astype(jnp.float32))
    weighted = weights.astype(jnp.float32)[:, None, None, :] * targets
    return -(weighted * log_probabilities).sum(-1).mean()


DICE_OF = ("labels", "regions")
"""Units of the soft Dice loss: each label, or each scored region as a whole."""


def soft_dice_loss(logits: Array, targets: Array, *, regions: Sequence[LabelSet] = ()) -> Array:
    """One minus the soft Dice coefficient, averaged over the labels present in an image.

        1/B sum_b 1/|S_b| sum_{i in S_b} (1 - 2 sum_x p_i Y_i / (sum_x p_i + sum_x Y_i))

    p is the softmax of the logits, and S_b the set of labels in image b, background included. This
    loss is not part of the paper.

    If regions are given, they replace the labels, each with the sum of its labels' probabilities.
    Regions may overlap, as those of the EMIDEC challenge do. No-reflow predicted as infarct is then
    an error of the region no-reflow, but not of the region infarct, which includes it.

    The loss sharpens soft targets: where 0 < Y < 1, its optimum is not p = Y but closer to 0 or 1,
    which the DSC of label maps rewards. With min(p, Y) instead of p Y the optimum is p = Y, but
    the DSC was not higher
    (docs/studies/020-soft-targets-in-difficulty-and-dice.md).

    Args:
      logits: (B, H, W, L) floating point.
      targets: (B, H, W, L) label probabilities; a label is present if its sum is positive.
      regions: tuples of labels; if empty, each label is a separate region.

    Returns:
      () float32, 0 to 1.

    Raises:
      ValueError: the shapes differ or are not of rank 4, or a region names a label that the logits
        do not have.
    """
    _check_pair(logits, targets)
    _check_regions("regions", regions, logits.shape[-1])
    probabilities = jax.nn.softmax(logits.astype(jnp.float32))
    if regions:
        probabilities, targets = (
            jnp.stack([_region(x, labels) for labels in regions], -1)
            for x in (probabilities, targets)
        )
    overlap, mass = (probabilities * targets).sum((1, 2)), targets.sum((1, 2))
    total = probabilities.sum((1, 2)) + mass
    held = mass > 0
    dice = 2 * overlap / jnp.where(held, total, 1.0)
    return (jnp.where(held, 1.0 - dice, 0.0).sum(-1) / jnp.maximum(held.sum(-1), 1)).mean()


def neighborhood_penalty(inner: Array, outer: Array, *, epsilon: float) -> Array:
    """Eq. 4: L_NP(a, b) = mean(1_{a>0} x 1_{b>0} x (1 - a - b)) where a b < 1 - epsilon.

    The mean is over all pixels; those outside the gate count as 0. On softmax outputs both
    indicators are 1 everywhere.

    Args:
      inner: (B, H, W) probability of the inner region, a.
      outer: (B, H, W) probability of the outer region, b.
      epsilon: only pixels with a b < 1 - epsilon contribute.

    Returns:
      () float32; may be negative, as 1 - a - b may.

    Raises:
      ValueError: the shapes differ or are not (B, H, W).
    """
    if inner.ndim != 3 or inner.shape != outer.shape:
        raise ValueError(
            f"inner and outer must share one shape (B, H, W), got {inner.shape} and {outer.shape}"
        )
    a = inner.astype(jnp.float32)
    b = outer.astype(jnp.float32)
    gate = (a > 0) & (b > 0) & (a * b < 1.0 - epsilon)
    return jnp.where(gate, 1.0 - a - b, 0.0).mean()


def neighboring_loss(
    probabilities: Array, inclusions: Sequence[Inclusion], *, epsilon: float
) -> Array:
    """Eq. 5: the neighborhood penalty summed over the inclusion pairs of the anatomy.

    Args:
      probabilities: (B, H, W, L), softmax of the logits.
      inclusions: pairs (inner, outer) of label tuples; the probability of a region is the sum over
        its labels. For EMIDEC the pairs are ((4,), (4, 3)) and ((4, 3), (4, 3, 2)).
      epsilon: as in `neighborhood_penalty`.

    Returns:
      () float32.

    Raises:
      ValueError: the probabilities are not of rank 4, there is no pair, or a pair names a label
        that the probabilities do not have.
    """
    if probabilities.ndim != 4:
        raise ValueError(f"probabilities must be (B, H, W, L), got shape {probabilities.shape}")
    if not inclusions:
        raise ValueError("inclusions must hold at least one pair (inner, outer)")
    regions = [region for pair in inclusions for region in pair]
    _check_regions("inclusions", regions, probabilities.shape[-1])
    pairs = [[_region(probabilities, labels) for labels in pair] for pair in inclusions]
    return sum(
        (neighborhood_penalty(a, b, epsilon=epsilon) for a, b in pairs),
        start=jnp.float32(0.0),
    )


def _check_regions(field: str, regions: Sequence[LabelSet], count: int) -> None:
    """Check label indices, because JAX would silently clamp an index that is out of range."""
    for label in (label for region in regions for label in region):
        if not 0 <= label < count:
            raise ValueError(f"{field}: expected labels 0 to {count - 1}, got {label}")


def _region(probabilities: Array, labels: LabelSet) -> Array:
    """Probability of a region, (..., L) to (...): the sum over its labels."""
    return sum((probabilities[..., i] for i in labels), start=jnp.float32(0.0))
