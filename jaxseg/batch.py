"""Gather, mix and augment batches of training slices on the device."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Self, cast

import flax.struct
import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from jaxseg.anatomy import LabelSet
from jaxseg.augment import Augmentation, augment, crop
from jaxseg.mixup import (
    choose_partner,
    foreground_of,
    pathology_mixup,
    shares_of,
    similar_heights,
)
from jaxseg.transplant import Wall, transplant

_ROTATION = 0.5  # largest angle in radians by which a donor of pathology is rotated
# Pathology in pixels: a slice with less than the first is healthy; one with at least the second may
# be a donor.
_HEALTHY, _DONOR = 0.5, 2.0


class DeviceCohort(flax.struct.PyTreeNode):
    """The training slices, which stay on the device for the whole run.

    Attributes:
      images: (N, H + 2 margin, W + 2 margin, 1) float32, normalized.
      labels: (N, H + 2 margin, W + 2 margin) uint8; or, with a last axis L, float32 fraction of
        each pixel covered by each label.
      heights: (N,) float32, 0 (base) to 1 (apex).
      eligible: (N,) bool, slices with foreground, which may be mixup partners.
      scouts: (N, h, w) float32, coarse slices on which the heart is located; None without a
        localizer.
      hearts: (N, h, w) float32, fraction of each scout pixel inside the heart; None if `scouts`
        is.
      pathology_areas: (N, P) float32, pixels of each region of `Mixup.pathologies` in the crop;
        None without transplants.
      neighbors: (N, 2) int32, positions of the slices before and after each slice in its stack;
        None for a network without context.
      margin: pixels of surroundings on each side of the network grid.
    """

    images: Array
    labels: Array
    heights: Array
    eligible: Array
    scouts: Array | None = None
    hearts: Array | None = None
    pathology_areas: Array | None = None
    neighbors: Array | None = None
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
        pathologies: Sequence[LabelSet] = (),
        neighbors: ArrayLike | None = None,
    ) -> Self:
        """Move slices to the first device, and compute once which are eligible as partners.

        Images are (N, H, W), labels (N, H, W) integers or (N, H, W, L) fractions. H and W include
        the margin. `pathologies` are those of `Mixup`, `neighbors` those of `Cohort.neighbors`.
        """
        images, labels = jnp.asarray(images), jnp.asarray(labels)
        inner = jax.vmap(partial(crop, margin=margin))(labels)
        eligible = jax.vmap(foreground_of)(inner).any((1, 2))
        areas = [_area(inner, region) for region in pathologies]
        return cls(
            images=images[..., None],
            labels=labels,
            heights=jnp.asarray(heights),
            eligible=eligible,
            scouts=None if scouts is None else jnp.asarray(scouts),
            hearts=None if hearts is None else jnp.asarray(hearts),
            pathology_areas=jnp.stack(areas, axis=-1) if areas else None,
            neighbors=None if neighbors is None else jnp.asarray(neighbors),
            margin=margin,
        )

    def positions(self, index: Array) -> Array:
        """Positions (C,) of a slice and, with context, of its two neighbors; C is 1 or 3."""
        return index[None] if self.neighbors is None else jnp.append(index, self.neighbors[index])

    def image(self, index: Array) -> Array:
        """A slice as the network takes it, (H + 2 margin, W + 2 margin, C) float32."""
        return jnp.moveaxis(self.images[self.positions(index), ..., 0], 0, -1)


def _area(labels: Array, region: LabelSet) -> Array:
    """Pixels (N,) of a region in labels (N, H, W) or fractions (N, H, W, L)."""
    if labels.ndim == 4:
        return labels[..., jnp.array(region)].sum((1, 2, 3))
    return jnp.isin(labels, jnp.array(region)).sum((1, 2)).astype(jnp.float32)


@dataclass(frozen=True)
class Mixup:
    """Parameters of pathology mixup and of transplants.

    Attributes:
      probability: probability that an example is mixed; 0 disables mixup.
      tolerance: largest difference between the relative heights of partners.
      transplant: probability that an example that is not mixed and has no pathology receives that
        of a partner (`jaxseg.transplant`); 0 disables transplants.
      inclusions: inclusion pairs of the anatomy; at least one for transplants.
    """

    probability: float
    tolerance: float
    transplant: float = 0.0
    inclusions: tuple[tuple[LabelSet, LabelSet], ...] = ()

    @property
    def pathologies(self) -> tuple[LabelSet, ...]:
        """Inner regions of the inclusion pairs, if pathology is transplanted."""
        return tuple(inner for inner, _ in self.inclusions) if self.transplant else ()


def mixed_batch(
    key: Array,
    cohort: DeviceCohort,
    indices: Array,
    first: Array | int,
    mixup: Mixup,
    num_labels: int,
) -> tuple[Array, Array]:
    """Gather a batch, mix examples with partners, and transplant pathology into unmixed ones.

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
      cohort's margin. Mixup and transplants act on the network grid; the margin is that of
      the fixed slice.
    """
    margin = cohort.margin
    if mixup.transplant and cohort.pathology_areas is None:
        raise ValueError(
            "cohort: expected pathologies=mixup.pathologies in DeviceCohort.from_slices"
        )

    def example(position: Array, index: Array) -> tuple[Array, Array]:
        own_key = jax.random.fold_in(key, position)
        chance_key, lam_key, partner_key = jax.random.split(own_key, 3)
        partner, found = choose_partner(
            partner_key, index, cohort.heights, cohort.eligible, tolerance=mixup.tolerance
        )
        mixed = found & (jax.random.uniform(chance_key) < mixup.probability)
        # lambda = 1 gives the fixed slice itself, so that unmixed examples need no other code path.
        lam = jnp.where(mixed, jax.random.uniform(lam_key), 1.0)
        image, label = cohort.image(index), cohort.labels[index]
        mixed_image, mixed_label = pathology_mixup(
            crop(image, margin),
            crop(label, margin),
            crop(cohort.image(partner), margin),
            crop(cohort.labels[partner], margin),
            lam,
            num_labels=num_labels,
        )
        if mixup.transplant:
            transplant_key = jax.random.fold_in(own_key, 3)  # 0 to 2 are those of the split
            made = _transplanted(transplant_key, cohort, index, mixup, num_labels)
            mixed_image = jnp.where(mixed, mixed_image, made[0])
            mixed_label = jnp.where(mixed, mixed_label, made[1])
        if not margin:
            return mixed_image, mixed_label
        inner = slice(margin, -margin)
        shares = shares_of(label, num_labels).at[inner, inner].set(mixed_label)
        return image.at[inner, inner].set(mixed_image), shares

    positions = first + jnp.arange(indices.shape[0])
    return jax.vmap(example)(positions, indices)


def _transplanted(
    key: Array, cohort: DeviceCohort, index: Array, mixup: Mixup, num_labels: int
) -> tuple[Array, Array]:
    """Crop of a slice (H, W, C), (H, W, L), with transplanted pathology if it is healthy.

    First a pair is drawn among those with a donor at a similar height, then a donor with its inner
    region, so that half of the donors have no-reflow although it is rare. The neighbors of the
    slice receive the pathology of the donor's neighbors.
    """
    areas = cast(Array, cohort.pathology_areas)
    chance_key, pair_key, donor_key, rotation_key = jax.random.split(key, 4)
    near = similar_heights(index, cohort.heights, tolerance=mixup.tolerance)
    donors = (areas >= _DONOR) & near[:, None]
    pair = jax.random.categorical(pair_key, jnp.where(donors.any(0), 0.0, -jnp.inf))
    donor, found = choose_partner(
        donor_key, index, cohort.heights, donors[:, pair], tolerance=mixup.tolerance
    )
    chosen = jax.random.uniform(chance_key) < mixup.transplant
    healthy = areas[index].max() < _HEALTHY
    rotation = _ROTATION * jax.random.uniform(rotation_key, minval=-1.0)

    def one(position: Array) -> tuple[Array, Array]:
        shares = shares_of(crop(cohort.labels[position], cohort.margin), num_labels)
        return crop(cohort.images[position], cohort.margin)[..., 0], shares

    positions = cohort.positions(index)
    images, shares = jax.vmap(one)(positions)
    move = partial(transplant, rotation=rotation, wall=Wall.of(mixup.inclusions))
    made, labels = jax.vmap(move)(images, shares, *jax.vmap(one)(cohort.positions(donor)))
    # At the ends of a stack, neighbors are the slice itself.
    made = jnp.where((positions == index)[:, None, None], made[0], made)
    done = found & chosen & healthy
    image = jnp.moveaxis(jnp.where(done, made, images), 0, -1)
    return image, jnp.where(done, labels[0], shares[0])


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
