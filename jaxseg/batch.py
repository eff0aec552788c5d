"""Gather, mix and augment batches of training slices on the device."""

from dataclasses import dataclass
from functools import partial
from typing import Self

import flax.struct
import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxseg.augment import Augmentation, augment, crop
from jaxseg.mixup import choose_partner, foreground_of, pathology_mixup, shares_of


class DeviceCohort(flax.struct.PyTreeNode):
    """The training slices, which stay on the device for the whole run.

    Attributes:
      images: (N, H + 2 margin, W + 2 margin, C) float32, normalized; C is 1 for one slice.
      labels: (N, H + 2 margin, W + 2 margin) uint8; or, with a last axis L, float32 fraction of
        each pixel covered by each label.
      heights: (N,) float32, 0 (base) to 1 (apex).
      eligible: (N,) bool, slices with foreground, which may be mixup partners.
      scouts: (N, h, w) float32, coarse slices on which the heart is located; None without a
        localizer.
      hearts: (N, h, w) float32, fraction of each scout pixel inside the heart; None if `scouts`
        is.
      margin: pixels of surroundings on each side of the network grid.
    """

    images: Array
    labels: Array
    heights: Array
    eligible: Array
    scouts: Array | None = None
    hearts: Array | None = None
    margin: int = flax.struct.field(pytree_node=False, default=0)

    @classmethod
    def from_slices(
        cls,
        images: ArrayLike,
        labels: ArrayLike,
        heights: ArrayLike,
        *,
        scouts: ArrayLike | None = None,
        hearts: ArrayLike | None = None,
        margin: int = 0,
    ) -> Self:
        """Move slices to the first device, and compute once which are eligible as partners.

        Images are (N, H, W), labels (N, H, W) integers or (N, H, W, L) fractions. H and W include
        the margin.
        """
        images, labels = jnp.asarray(images), jnp.asarray(labels)
        inner = jax.vmap(partial(crop, margin=margin))(labels)
        eligible = jax.vmap(foreground_of)(inner).any((1, 2))
        return cls(
            images=images[..., None],
            labels=labels,
            heights=jnp.asarray(heights),
            eligible=eligible,
            scouts=None if scouts is None else jnp.asarray(scouts),
            hearts=None if hearts is None else jnp.asarray(hearts),
            margin=margin,
        )


@dataclass(frozen=True)
class Mixup:
    """Parameters of pathology mixup.

    Attributes:
      probability: probability that an example is mixed; 0 disables mixup.
      tolerance: largest difference between the relative heights of partners.
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
    """Gather a batch and mix each example with its own partner.

    Args:
      key: PRNG key of this step.
      cohort: the training slices.
      indices: (B,) integer, the slices of this device's share of the batch.
      first: position of the first of them in the global batch, so that the random numbers of an
        example do not depend on its device.
      mixup: parameters of mixup.
      num_labels: L.

    Returns:
      Images (B, H, W, C) float32 and label probabilities (B, H, W, L) float32. H and W include the
      cohort's margin. Mixup acts on the network grid; the margin is that of the fixed slice.
    """
    margin = cohort.margin

    def example(position: Array, index: Array) -> tuple[Array, Array]:
        chance_key, lam_key, partner_key = jax.random.split(jax.random.fold_in(key, position), 3)
        partner, found = choose_partner(
            partner_key, index, cohort.heights, cohort.eligible, tolerance=mixup.tolerance
        )
        mixed = found & (jax.random.uniform(chance_key) < mixup.probability)
        # lambda = 1 gives the fixed slice itself, so that unmixed examples need no other code path.
        lam = jnp.where(mixed, jax.random.uniform(lam_key), 1.0)
        image, label = cohort.images[index], cohort.labels[index]
        mixed_image, mixed_label = pathology_mixup(
            crop(image, margin),
            crop(label, margin),
            crop(cohort.images[partner], margin),
            crop(cohort.labels[partner], margin),
            lam,
            num_labels=num_labels,
        )
        if not margin:
            return mixed_image, mixed_label
        inner = slice(margin, -margin)
        shares = shares_of(label, num_labels).at[inner, inner].set(mixed_label)
        return image.at[inner, inner].set(mixed_image), shares

    positions = first + jnp.arange(indices.shape[0])
    return jax.vmap(example)(positions, indices)


def augmented_batch(
    key: Array,
    images: Array,
    targets: Array,
    first: Array | int,
    settings: Augmentation,
    *,
    margin: int = 0,
) -> tuple[Array, Array]:
    """Augment each example of a batch and crop the margin; arguments as in `mixed_batch`."""

    def example(position: Array, image: Array, target: Array) -> tuple[Array, Array]:
        key_of_it = jax.random.fold_in(key, position)
        return augment(key_of_it, image, target, settings, margin=margin)

    return jax.vmap(example)(first + jnp.arange(images.shape[0]), images, targets)
