"""A batch of examples out of the training slices: gathered, mixed and augmented on the device."""

from dataclasses import dataclass
from typing import Self

import flax.struct
import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxseg.augment import Augmentation, augment
from jaxseg.mixup import choose_partner, foreground_of, pathology_mixup


class DeviceCohort(flax.struct.PyTreeNode):
    """The training slices, on the device for the whole run.

    Attributes:
      images: (N, H, W, C) float32, normalized; C is 1 for one slice.
      labels: (N, H, W) uint8, or (N, H, W, L) float32, each label's share of a pixel.
      heights: (N,) float32, 0 base .. 1 apex.
      eligible: (N,) bool, slices with foreground, which may be partners in mixup.
    """

    images: Array
    labels: Array
    heights: Array
    eligible: Array

    @classmethod
    def from_slices(cls, images: ArrayLike, labels: ArrayLike, heights: ArrayLike) -> Self:
        """Put slices on the first device; what a step would compute again and again, once.

        Images are (N, H, W[, C]), labels (N, H, W) integers or (N, H, W, L) shares.
        """
        images, labels = jnp.asarray(images), jnp.asarray(labels)
        eligible = jax.vmap(foreground_of)(labels).any((1, 2))
        images = images.reshape(*labels.shape[:3], -1)
        return cls(images, labels, jnp.asarray(heights), eligible)


@dataclass(frozen=True)
class Mixup:
    """Settings of pathology mixup.

    Attributes:
      probability: share of the examples that are mixed; 0 turns mixup off.
      tolerance: largest difference of relative height between partners.
    """

    probability: float
    tolerance: float


def mixed_batch(
    key: Array,
    cohort: DeviceCohort,
    indices: Array,
    first: Array | int,
    mixup: Mixup,
    num_labels: int,
) -> tuple[Array, Array]:
    """Gather a batch and mix each example with a partner of its own.

    Args:
      key: of this step.
      cohort: the training slices.
      indices: (B,) integer, slices of this device's share of the batch.
      first: position of the first of them in the global batch, so that an example draws the same
        numbers on whatever device it lands.
      mixup: settings.
      num_labels: L.

    Returns:
      Images (B, H, W, C) float32 and label probabilities (B, H, W, L) float32.
    """

    def example(position: Array, index: Array) -> tuple[Array, Array]:
        chance_key, lam_key, partner_key = jax.random.split(jax.random.fold_in(key, position), 3)
        partner, found = choose_partner(
            partner_key, index, cohort.heights, cohort.eligible, tolerance=mixup.tolerance
        )
        mixed = found & (jax.random.uniform(chance_key) < mixup.probability)
        # lambda = 1 is the fixed slice itself: one code path, whether mixed or not.
        lam = jnp.where(mixed, jax.random.uniform(lam_key), 1.0)
        return pathology_mixup(
            cohort.images[index], cohort.labels[index],
            cohort.images[partner], cohort.labels[partner],
            lam, num_labels=num_labels,
        )  # fmt: skip

    positions = first + jnp.arange(indices.shape[0])
    return jax.vmap(example)(positions, indices)


def augmented_batch(
    key: Array, images: Array, targets: Array, first: Array | int, settings: Augmentation
) -> tuple[Array, Array]:
    """Augment each example of a batch; arguments as in `mixed_batch`, shapes stay."""

    def example(position: Array, image: Array, target: Array) -> tuple[Array, Array]:
        return augment(jax.random.fold_in(key, position), image, target, settings)

    return jax.vmap(example)(first + jnp.arange(images.shape[0]), images, targets)
