"""The schedule of batches, epochs and validations as functions of the step alone."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

_ORDER = 2  # random stream of the batch order, distinct from those of `jaxseg.train_step`


@dataclass(frozen=True)
class Plan:
    """Schedule of a run.

    Slices come in a new random order in each epoch. Batches continue across epochs, so that every
    batch is full and no slice is left out. Everything is a function of (seed, step), so that a
    resumed run sees the same batches as an uninterrupted one.

    Attributes:
      num_slices: number of training slices, N.
      batch_size: size of the global batch over all devices; may exceed N.
      epochs: number of passes over the slices.
      validate_every: epochs between validations; the end of the run is always validated.
      seed: seed of the run.
    """

    num_slices: int
    batch_size: int
    epochs: int
    validate_every: int
    seed: int

    @property
    def steps_per_epoch(self) -> float:
        """Steps per epoch, not a whole number if a batch extends into the next epoch."""
        return self.num_slices / self.batch_size

    @cached_property
    def steps(self) -> int:
        """Number of optimizer steps of the whole run."""
        return -(-self.epochs * self.num_slices // self.batch_size)

    @cached_property
    def _validations(self) -> frozenset[int]:
        every = range(self.validate_every, self.epochs, self.validate_every)
        return frozenset({-(-e * self.num_slices // self.batch_size) for e in every} | {self.steps})

    def epoch(self, step: int) -> float:
        """Number of completed epochs after `step` steps, as a fraction."""
        return min(step * self.batch_size / self.num_slices, float(self.epochs))

    def validates_after(self, step: int) -> bool:
        """Whether a validation is due after `step` completed steps."""
        return step in self._validations

    def indices(self, step: int) -> NDArray[np.int32]:
        """Slices (batch_size,) of the next step after `step` completed steps."""
        positions = np.arange(step * self.batch_size, (step + 1) * self.batch_size)
        epochs, places = np.divmod(positions, self.num_slices)
        batch = np.empty(self.batch_size, np.int32)
        for epoch in np.unique(epochs):
            batch[epochs == epoch] = self._order(epoch)[places[epochs == epoch]]
        return batch

    def _order(self, epoch: int) -> NDArray[np.intp]:
        """Random order (num_slices,) of the slices in an epoch."""
        return np.random.default_rng([_ORDER, self.seed, epoch]).permutation(self.num_slices)
