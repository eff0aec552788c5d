"""The loss of a stage in PyTorch: `jaxseg.objective` with the adversarial weight generator.

Logits and targets are (B, L, H, W), as usual in PyTorch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.twin import UNet, WeightGenerator
from jaxseg.anatomy import Anatomy, LabelSet


@dataclass(frozen=True)
class Terms:
    """Parameters of the loss, as in `jaxseg.objective.Objective`.

    Attributes:
      strength: coefficient of the entropy.
      penalty: coefficient of the neighboring loss; 0 omits it.
      epsilon: epsilon of Eq. 4.
      inclusions: inclusion pairs of the anatomy.
    """

    strength: float
    penalty: float
    epsilon: float
    inclusions: Sequence[tuple[LabelSet, LabelSet]]


class Stage(nn.Module):
    """Networks and loss of a stage, which maps a batch to its loss.

    Attributes:
      network: the segmentation generator.
      generator: the weight generator, or None for plain cross-entropy.
    """

    def __init__(self, network: UNet, generator: WeightGenerator | None, terms: Terms) -> None:
        super().__init__()
        self.network, self.generator, self.terms = network, generator, terms

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> "Stage":
        """Build the stage from a config.

        Raises:
          ValueError: the twin does not support the config.
        """
        model, loss, balance = settings["model"], settings["loss"], settings["balance"]
        if model["dense"] or balance["method"] != "adversarial":
            raise ValueError(
                "expected model.dense=False and balance.method=adversarial for the twin"
            )
        anatomy = Anatomy.from_dict(settings["anatomy"])
        groups = model["groups"]
        network = UNet(
            anatomy.num_labels,
            width=model["width"],
            depth=model["depth"],
            attention=model["attention"],
            groups=groups,
        )
        generator = None
        if loss["weighted"]:
            generator = WeightGenerator(anatomy.num_labels, width=balance["width"], groups=groups)
        terms = Terms(balance["strength"], loss["penalty"], loss["epsilon"], anatomy.inclusions)
        return cls(network, generator, terms)

    def forward(self, images: Tensor, targets: Tensor) -> Tensor:
        """Images (B, 1, H, W) and targets (B, L, H, W) to () float32."""
        logits = self.network(images)
        generated = None if self.generator is None else self.generator(images)
        return stage_loss(logits, targets, generated, self.terms)


def stage_loss(logits: Tensor, targets: Tensor, generated: Tensor | None, terms: Terms) -> Tensor:
    """The loss whose gradient trains both sub-networks.

    Args:
      logits: (B, L, H, W) float32.
      targets: (B, L, H, W) label probabilities.
      generated: weights (B, L) of the generator; None for plain cross-entropy.
      terms: parameters of the loss.
    """
    log_probabilities = torch.log_softmax(logits, 1)
    entropy = -targets * log_probabilities
    if generated is None:
        loss = entropy.sum(1).mean()
    else:
        weighted = generated.detach()[:, :, None, None] * entropy
        loss = weighted.sum(1).mean() + _balance(entropy.detach(), targets, generated, terms)
    if terms.penalty:
        loss = loss + terms.penalty * _neighboring(log_probabilities.exp(), terms)
    return loss


def _balance(entropy: Tensor, targets: Tensor, generated: Tensor, terms: Terms) -> Tensor:
    mass = targets.sum((2, 3))
    difficulty = entropy.sum((2, 3)) / torch.where(mass > 0, mass, 1.0)
    q = generated / generated.shape[1]
    bonus = -(q * torch.log(q.clamp_min(1e-12))).sum(1)
    return -((q * difficulty).sum(1) + terms.strength * bonus).mean()


def _neighboring(probabilities: Tensor, terms: Terms) -> Tensor:
    total = probabilities.new_zeros(())
    for inner, outer in terms.inclusions:
        a = probabilities[:, list(inner)].sum(1)
        b = probabilities[:, list(outer)].sum(1)
        gate = (a > 0) & (b > 0) & (a * b < 1.0 - terms.epsilon)
        total = total + torch.where(gate, 1.0 - a - b, 0.0).mean()
    return total
