"""Combine the loss terms that a stage of the ablation minimizes."""

from dataclasses import dataclass
from typing import cast

import jax
import jax.numpy as jnp
from jax import Array

from jaxseg import label_weights
from jaxseg.anatomy import LabelSet
from jaxseg.localizer import localizer_loss
from jaxseg.losses import (
    Inclusion,
    automated_weighted_cross_entropy,
    cross_entropy,
    neighboring_loss,
    soft_dice_loss,
)
from jaxseg.models import UNet, WeightGenerator


@dataclass(frozen=True)
class Objective:
    """Loss terms of a stage and their coefficients.

    Attributes:
      method: method of `jaxseg.label_weights`.
      strength: strength of `jaxseg.label_weights`.
      penalty: coefficient of the neighboring loss (Eq. 5); 0 omits it.
      epsilon: epsilon of Eq. 4.
      inclusions: inclusion pairs of the anatomy.
      dice: coefficient of the soft Dice loss, which is not part of the paper; 0 omits it.
      dice_regions: regions of the soft Dice loss; if empty, each label is a separate region.
    """

    method: str
    strength: float
    penalty: float
    epsilon: float
    inclusions: tuple[Inclusion, ...]
    dice: float = 0.0
    dice_regions: tuple[LabelSet, ...] = ()


@dataclass(frozen=True)
class Networks:
    """Sub-networks of a stage.

    Attributes:
      segmentation: the U-net.
      generator: generator of label weights for automated weighted cross-entropy (Eq. 3); None for
        plain cross-entropy.
      localizer: network that locates the heart; None if the grid has a fixed center.
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
) -> tuple[Array, dict[str, Array]]:
    """Compute the loss of a stage on one batch.

        L = CE + penalty * L_N + dice * L_Dice

    CE is the cross-entropy, or Eq. 3 with constant weights if there is a weight generator; L_N is
    Eq. 5. The losses of the weight generator and of the localizer are added to L. They have no
    gradient with respect to the network, so that they do not change its training.

    Args:
      params: parameters by sub-network, as in `TrainState`.
      networks: the sub-networks.
      objective: the objective of the stage.
      images: (B, H, W, C) float32, as the segmentation generator takes them; the weight generator
        takes the first channel.
      targets: (B, H, W, L) float32 label probabilities.
      scouts: batch of the localizer, from `jaxseg.localizer.scout_batch`.

    Returns:
      The loss () whose gradient trains all sub-networks, and logs: each term () and the label
      weights (L,) that the network uses, averaged over the batch.
    """
    logits = cast(Array, networks.segmentation.apply({"params": params["network"]}, images))
    logs, weights = {"cross_entropy": cross_entropy(logits, targets)}, None
    if networks.generator is not None:
        generated = cast(
            Array, networks.generator.apply({"params": params["generator"]}, images[..., :1])
        )
        weights = jax.lax.stop_gradient(generated)
        generator_loss = label_weights.generator_objective(
            logits, targets, generated, method=objective.method, strength=objective.strength
        )
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
            jax.nn.softmax(logits), objective.inclusions, epsilon=objective.epsilon
        )
        loss = loss + objective.penalty * logs["neighboring_loss"]
    if objective.dice:
        logs["dice_loss"] = soft_dice_loss(logits, targets, regions=objective.dice_regions)
        loss = loss + objective.dice * logs["dice_loss"]
    logs["loss"] = loss
    total = loss + generator_loss
    if networks.localizer is not None and scouts is not None:
        found = networks.localizer.apply({"params": params["localizer"]}, scouts[0])
        logs["localizer_loss"] = localizer_loss(cast(Array, found), scouts[1])
        total = total + logs["localizer_loss"]
    return total, logs
