"""The localizer, a small U-net that locates the heart on scouts and is trained with the network.

This is not part of the paper, whose images are all centered on the heart. The localizer sees every
slice of a stack over the whole field of view in coarse pixels (`jaxseg.data.scout`).
"""

from typing import cast

import jax
import jax.numpy as jnp
from jax import Array

from jaxseg.augment import Augmentation, augment
from jaxseg.batch import DeviceCohort
from jaxseg.losses import cross_entropy, soft_dice_loss
from jaxseg.models import Convolve, UNet

DEPTH = 3
WIDTH = 8
# Moves the heart to any position and orientation in the image. Lengths are in pixels of 8 mm.
AUGMENTATION = Augmentation(
    probability=0.9,
    flip=True,
    rotation=180.0,
    zoom=0.25,
    shift=12.0,
    gamma=0.5,
    contrast=0.5,
    brightness=0.5,
    noise=0.2,
    bias=1.0,
)
# Probability, for each side, that the image is cut closer to the heart.
_CUT = 0.4


def make_localizer(convolve: Convolve) -> UNet:
    """The network: (B, h, w, 1) scouts to logits (B, h, w, 2) of background and heart."""
    return UNet(
        num_labels=2, width=WIDTH, depth=DEPTH, attention=False, groups=0, convolve=convolve
    )


def scout_batch(
    key: Array, cohort: DeviceCohort, indices: Array, first: Array | int
) -> tuple[Array, Array]:
    """Gather scouts and augment them, so that the position of the heart varies.

    Args:
      key: PRNG key of this step.
      cohort: the training slices, with scouts.
      indices: (B,) integer, the slices of this device's share of the batch.
      first: position of the first of them in the global batch.

    Returns:
      Scouts (B, h, w, 1) and fractions of background and heart (B, h, w, 2), float32.
    """
    scouts, hearts = cast(Array, cohort.scouts), cast(Array, cohort.hearts)

    def example(position: Array, index: Array) -> tuple[Array, Array]:
        move_key, cut_key = jax.random.split(jax.random.fold_in(key, position))
        heart = hearts[index][..., None]
        shares = jnp.concatenate([1 - heart, heart], axis=-1)
        scout, shares = augment(move_key, scouts[index][..., None], shares, AUGMENTATION)
        return _cut(cut_key, scout, shares[..., 1]), shares

    return jax.vmap(example)(first + jnp.arange(indices.shape[0]), indices)


def _cut(key: Array, scout: Array, heart: Array) -> Array:
    """Randomly cut some sides of a scout, between its border and the heart."""
    inside = jnp.array(True)
    for axis in (0, 1):
        size = heart.shape[axis]
        lines = (heart > 0.1).any(1 - axis)
        place = jnp.arange(size)
        # Without a heart, cut up to the middle.
        top = jnp.where(lines.any(), jnp.argmax(lines), size // 2)
        bottom = jnp.where(lines.any(), size - 1 - jnp.argmax(lines[::-1]), size // 2)
        key, chance_key, depth_key = jax.random.split(key, 3)
        depth = jax.random.uniform(depth_key, (2,)) * (jax.random.uniform(chance_key, (2,)) < _CUT)
        kept = (place >= depth[0] * top) & (size - 1 - place >= depth[1] * (size - 1 - bottom))
        inside = inside & jnp.expand_dims(kept, 1 - axis)
    return jnp.where(inside[..., None], scout, scout.min())  # padding looks as in `scout_of`


def localizer_loss(logits: Array, shares: Array) -> Array:
    """Cross-entropy plus soft Dice loss, ().

    Args:
      logits: (B, h, w, 2).
      shares: (B, h, w, 2), fractions of background and heart.
    """
    return cross_entropy(logits, shares) + soft_dice_loss(logits, shares)
