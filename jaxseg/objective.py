"""What a stage of the ablation minimizes: its loss terms put together."""

from dataclasses import dataclass
from typing import Any, cast

import jax
import jax.numpy as jnp
from jax import Array

from jaxseg import balance
from jaxseg.anatomy import LabelSet
from jaxseg.localizer import localizer_loss
from jaxseg.losses import (
    Inclusion,
    automated_weighted_cross_entropy,
    cross_entropy,
    neighboring_loss,
    soft_dice_loss,
)
from jaxseg.models import COARSE, UNet, WeightGenerator


@dataclass(frozen=True)
class Objective:
    """What a stage minimizes.

    Attributes:
      method: of `jaxseg.balance`.
      strength: of `jaxseg.balance`.
      factors: (L,) as a tuple, prevalence factors on the weights.
      penalty: coefficient of the neighboring loss (Eq. 5); 0 leaves it out.
      epsilon: of Eq. 4.
      support: of Eq. 4.
      inclusions: the anatomy's pairs.
      difficulty: of `jaxseg.balance`.
      dice: coefficient of the soft Dice loss, which the paper has not; 0 leaves it out.
      dice_regions: of that loss: label tuples; none for each label by itself.
      dice_smooth: of that loss.
      dice_over: of that loss: each "image" for itself, or the "batch" as one.
      deep: weight of a coarser level of the decoder, relative to the next finer ("deep
        supervision", which the paper has not); 0 leaves all of them out.
    """

    method: str
    strength: float
    factors: tuple[float, ...]
    penalty: float
    epsilon: float
    support: float
    inclusions: tuple[Inclusion, ...]
    difficulty: str = "image"
    dice: float = 0.0
    dice_regions: tuple[LabelSet, ...] = ()
    dice_smooth: float = 0.0
    dice_over: str = "image"
    deep: float = 0.0


@dataclass(frozen=True)
class Networks:
    """The sub-networks.

    Attributes:
      segmentation: the U-net.
      generator: of label weights, for automated weighted cross-entropy (Eq. 3); None for plain
        cross-entropy.
      localizer: finds the heart; None where the grid's center is given.
    """

    segmentation: UNet
    generator: WeightGenerator | None
    localizer: UNet | None = None


def loss_and_logs(
    params: dict,
    networks: Networks,
    objective: Objective,
    images: Array,
    targets: Array,
    scouts: tuple[Array, Array] | None = None,
    *,
    axis_name: str | None = None,
) -> tuple[Array, dict[str, Array]]:
    """The stage's loss on one batch.

    Args:
      params: as in `TrainState`.
      networks: the sub-networks.
      objective: the stage.
      images: (B, H, W, C).
      targets: (B, H, W, L).
      scouts: what the localizer learns from, from `jaxseg.localizer.scout_batch`.
      axis_name: of the devices that share the batch, if several do.

    Returns:
      The loss () whose gradient trains all sub-networks, and logs: every term () and the label
      weights (L,) as the network sees them, averaged over the batch.
    """
    logits, coarse = _logits(networks.segmentation, params["network"], images, bool(objective.deep))
    logs, weights = {"cross_entropy": cross_entropy(logits, targets)}, None
    if networks.generator is not None:
        generated = cast(Array, networks.generator.apply({"params": params["generator"]}, images))
        factors = jnp.array(objective.factors, jnp.float32)
        weights = jax.lax.stop_gradient(generated) * factors[None, :]
        generator_loss = balance.generator_objective(
            logits, targets, generated,
            method=objective.method, strength=objective.strength, factors=factors,
            difficulty=objective.difficulty, axis_name=axis_name,
        )  # fmt: skip
        logs |= {
            "weighted_cross_entropy": automated_weighted_cross_entropy(logits, targets, weights),
            "generator_objective": generator_loss,
            "label_weights": weights.mean(0),
        }
    else:
        generator_loss = jnp.float32(0.0)
    loss = logs["cross_entropy"] if weights is None else logs["weighted_cross_entropy"]
    if objective.penalty:
        logs["neighboring_loss"] = neighboring_loss(
            jax.nn.softmax(logits), objective.inclusions,
            epsilon=objective.epsilon, support=objective.support,
        )  # fmt: skip
        loss = loss + objective.penalty * logs["neighboring_loss"]
    if objective.dice:
        logs["dice_loss"] = _dice_loss(logits, targets, objective, axis_name)
        loss = loss + objective.dice * logs["dice_loss"]
    if coarse:
        logs["deep_supervision"] = _coarse_loss(coarse, targets, weights, objective, axis_name)
        loss = loss + logs["deep_supervision"]
    logs["loss"] = loss
    total = loss + generator_loss
    if networks.localizer is not None and scouts is not None:
        found = networks.localizer.apply({"params": params["localizer"]}, scouts[0])
        logs["localizer_loss"] = localizer_loss(cast(Array, found), scouts[1])
        total = total + logs["localizer_loss"]
    return total, logs


def _logits(
    network: UNet, params: Any, images: Array, deep: bool
) -> tuple[Array, tuple[Array, ...]]:
    """Logits, and those of the decoder's coarser levels if asked for, coarsest first."""
    if not deep:
        return cast(Array, network.apply({"params": params}, images)), ()
    logits, kept = cast(Any, network.apply({"params": params}, images, mutable=[COARSE]))
    return logits, kept[COARSE]["levels"]


def _coarse_loss(
    coarse: tuple[Array, ...],
    targets: Array,
    weights: Array | None,
    objective: Objective,
    axis_name: str | None,
) -> Array:
    """Cross-entropy and Dice at the coarser levels: sum_k deep^k of level k, 1 the next finest.

    Targets there are the means of the pixels that a coarse pixel covers.
    """
    total = jnp.float32(0.0)
    for level, logits in enumerate(reversed(coarse), start=1):
        batch, height, width, labels = logits.shape
        means = targets.reshape(batch, height, 2**level, width, 2**level, labels).mean((2, 4))
        if weights is None:
            loss = cross_entropy(logits, means)
        else:
            loss = automated_weighted_cross_entropy(logits, means, weights)
        if objective.dice:
            dice = _dice_loss(logits, means, objective, axis_name, level=level)
            loss = loss + objective.dice * dice
        total = total + objective.deep**level * loss
    return total


def _dice_loss(
    logits: Array, targets: Array, objective: Objective, axis_name: str | None, *, level: int = 0
) -> Array:
    """The objective's soft Dice loss at a level of the decoder, 0 the finest."""
    return soft_dice_loss(
        logits, targets,
        regions=objective.dice_regions,
        smooth=objective.dice_smooth / 4**level,  # the same area
        over=objective.dice_over,
        axis_name=axis_name,
    )  # fmt: skip
