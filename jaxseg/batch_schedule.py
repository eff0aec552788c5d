"""What happens at which step: batches, epochs and validations, as functions of the step alone."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

_ORDER = 2  # stream of the batch order, apart from those of `jaxseg.train_step`


@dataclass(frozen=True)
class Plan:
    """Course of a run.

    Slices come in a fresh random order every epoch, and batches follow each other across epochs, so
    that every batch is full and no slice is left out. Everything follows from (seed, step): a
    resumed run sees what an uninterrupted one would have seen.

    Attributes:
      num_slices: training slices, N.
      batch_size: of all devices together; may exceed N.
      epochs: passes over the slices.
      validate_every: epochs between validations; the end of the run is always validated.
      seed: of the run.
    """

    num_slices: int
    batch_size: int
    epochs: int
    validate_every: int
    seed: int

    @property
    def steps_per_epoch(self) -> float:
        """Not a whole number where a batch reaches into the next epoch."""
        return self.num_slices / self.batch_size

    @cached_property
    def steps(self) -> int:
        """Optimizer steps of the whole run."""
        return -(-self.epochs * self.num_slices // self.batch_size)

    @cached_property
    def _validations(self) -> frozenset[int]:
        every = range(self.validate_every, self.epochs, self.validate_every)
        return frozenset({-(-e * self.num_slices // self.batch_size) for e in every} | {self.steps})

    def epoch(self, step: int) -> float:
        """Epochs done after `step` steps."""
        return min(step * self.batch_size / self.num_slices, float(self.epochs))

    def validates_after(self, step: int) -> bool:
        """Whether a validation is due once `step` steps are done."""
        return step in self._validations

    def indices(self, step: int) -> NDArray[np.int32]:
        """Slices (batch_size,) of the step that follows `step` done ones."""
        positions = np.arange(step * self.batch_size, (step + 1) * self.batch_size)
        epochs, places = np.divmod(positions, self.num_slices)
        batch = np.empty(self.batch_size, np.int32)
        for epoch in np.unique(epochs):
            batch[epochs == epoch] = self._order(epoch)[places[epochs == epoch]]
        return batch

    def _order(self, epoch: int) -> NDArray[np.intp]:
        """The slices (num_slices,) of an epoch, in their order."""
        return np.random.default_rng([_ORDER, self.seed, epoch]).permutation(self.num_slices)
