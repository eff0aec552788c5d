"""The optimizer with its learning rate over the steps of a run."""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import jax
import optax

from jaxseg.muon import scale_by_muon

# Root mean square of Adam's steps, in units of the learning rate (Liu et al., "Muon is Scalable for
# LLM Training", arXiv:2502.16982).
_ADAM_RMS = 0.2


@dataclass(frozen=True)
class Optimization:
    """Parameters of the optimizer.

    Attributes:
      method: "adam" or "muon" (K. Jordan et al., https://kellerjordan.github.io/posts/muon, 2024).
      learning_rate: learning rate after the warm-up.
      final_learning_rate: learning rate of the last step, unless the schedule is constant.
      schedule: "cosine", "linear" or "constant".
      warmup_epochs: epochs of linear rise.
      clip_norm: largest norm of each sub-network's gradient; 0 for no clipping.
    """

    method: str
    learning_rate: float
    final_learning_rate: float
    schedule: str
    warmup_epochs: float
    clip_norm: float

    def rates(self, epochs: int, steps: int, steps_per_epoch: float) -> optax.Schedule:
        """Linear warm-up, followed by the schedule.

        Args:
          epochs: number of epochs of the whole run.
          steps: number of its optimizer steps.
          steps_per_epoch: number of training slices divided by the batch size.

        Returns:
          Learning rate as a function of the step. The last step has the final learning rate, unless
          the schedule is constant or the run has a single step.
        """
        first, last = self.learning_rate, self.final_learning_rate
        rising = self.warmup_epochs if self.warmup_epochs < epochs else epochs / 2
        # Even a warm-up as long as the run leaves one step at the first rate and one at the last.
        warmup = min(round(rising * steps_per_epoch), max(steps - 2, 0))
        rest = max(steps - 1 - warmup, 1)
        match self.schedule:
            case "cosine":
                decay = optax.cosine_decay_schedule(first, rest, alpha=last / first)
            case "linear":
                decay = optax.linear_schedule(first, last, rest)
            case _:
                decay = optax.constant_schedule(first)
        if not warmup:
            return decay
        # Start above 0: the first step would otherwise change nothing.
        rise = optax.linear_schedule(first / (warmup + 1), first, warmup)
        return optax.join_schedules([rise, decay], [warmup])

    def optimizer(self, rates: optax.Schedule) -> optax.GradientTransformation:
        """The optimizer, optionally with each sub-network's gradient clipped to its own norm.

        Muon orthogonalizes the momentum of every convolution kernel, read as a matrix from its
        inputs to its outputs; its steps are scaled to the size of Adam's. All other parameters are
        trained with Adam with Nesterov momentum.
        """
        clip = clip_each(self.clip_norm) if self.clip_norm else optax.identity()
        if self.method == "adam":
            return optax.chain(clip, optax.adam(rates))
        parts: dict[Hashable, optax.GradientTransformation] = {
            "muon": optax.chain(scale_by_muon(_ADAM_RMS), optax.scale_by_learning_rate(rates)),
            "adam": optax.adam(rates, nesterov=True),
        }
        return optax.chain(clip, optax.partition(parts, _optimizer_names))


def _optimizer_names(params: Any) -> Any:
    """Name the optimizer of each parameter: Muon for convolution kernels, Adam for the rest."""
    return jax.tree.map(lambda x: "muon" if x.ndim == 4 else "adam", params)


def clip_each(norm: float) -> optax.GradientTransformation:
    """Clip each top-level entry of the gradients by its own norm.

    With a joint norm, the gradient of one sub-network would rescale that of another.
    """
    clip = optax.clip_by_global_norm(norm)

    def clipped(gradients: Any, _: Any) -> dict[str, Any]:
        return {name: clip.update(part, optax.EmptyState())[0] for name, part in gradients.items()}

    return optax.stateless(clipped)
