"""Transplant the pathology of one short-axis slice into the healthy wall of another.

This is not part of the paper, whose mixup blends whole hearts. Both slices are described in polar
coordinates around the center of the heart: the inner and the outer radius of the wall in each
direction. A point of one wall corresponds to the point of the other wall in the same direction and
at the same relative depth, so that the pathology stays within the wall (the inclusion prior of
Eq. 5) at any shape of the two. All functions are pure functions of one pair of slices.
"""

import math
from dataclasses import dataclass

import jax.numpy as jnp
from jax import Array

from jaxseg.anatomy import LabelSet
from jaxseg.augment import sample

_DIRECTIONS = 72
_STEP = 0.5  # distance of the samples along a ray, in pixels
_THINNEST = 0.5  # smallest thickness of a wall, in pixels
_DEPTHS = (-0.5, 1.5)  # range of relative depths, so that corresponding points stay near the wall
# Range of the factor between the contrasts of the two slices.
_FACTORS = (0.5, 2.0)
_TINY = 1e-3
_FLOOR = 1e-9  # keeps a division of 0 by 0 finite


@dataclass(frozen=True)
class Wall:
    """Labels of a wall and of the pathology in it.

    Attributes:
      pathology: labels of the pathology, such as infarct and no-reflow.
      tissue: the other labels of the wall, such as myocardium.
    """

    pathology: LabelSet
    tissue: LabelSet

    @classmethod
    def of(cls, inclusions: tuple[tuple[LabelSet, LabelSet], ...]) -> "Wall":
        """The wall of an anatomy: pathology is each inner region of its inclusion pairs."""
        inner = {label for pair in inclusions for label in pair[0]}
        outer = {label for pair in inclusions for label in pair[1]}
        return cls(tuple(sorted(inner)), tuple(sorted(outer - inner)))


def transplant(
    fixed_image: Array,
    fixed_shares: Array,
    moving_image: Array,
    moving_shares: Array,
    turn: Array | float,
    *,
    wall: Wall,
) -> tuple[Array, Array]:
    """Replace healthy wall of the fixed slice by the pathology at the same place of the moving one.

    The intensities of the moving slice are scaled so that the means of its tissue and of what the
    wall encloses, such as myocardium and blood, become those of the fixed slice. Pixels that are
    partly pathology are blended by their share.

    Args:
      fixed_image: (H, W) float32.
      fixed_shares: (H, W, L) float32, fraction of each pixel covered by each label; 0 is the
        background.
      moving_image: (H, W) float32.
      moving_shares: (H, W, L) float32.
      turn: (), angle in radians by which the moving slice is turned.
      wall: labels of the wall.

    Returns:
      The image (H, W) and shares (H, W, L), which sum to 1 where the fixed ones do. Only shares of
      tissue become pathology.
    """
    labels = jnp.array(wall.pathology)
    fixed, moving = _Polar(fixed_shares, wall), _Polar(moving_shares, wall)
    distance, angle = fixed.coordinates()
    depth = (distance - fixed.inner(angle)) / fixed.thickness(angle)
    row, column = moving.position(jnp.clip(depth, *_DEPTHS), angle - turn)
    channels = jnp.concatenate([moving_image[..., None], moving_shares[..., labels]], axis=-1)
    found = sample(channels, row, column)
    pathology = found[..., 1:]
    amount = pathology.sum(-1, keepdims=True)
    tissue = fixed_shares[..., jnp.array(wall.tissue)]
    room = tissue.sum(-1, keepdims=True)
    taken = jnp.minimum(amount, room)

    base, enclosed = _levels(fixed_image, fixed_shares, wall)
    moving_base, moving_enclosed = _levels(moving_image, moving_shares, wall)
    contrast = moving_enclosed - moving_base
    factor = (enclosed - base) / jnp.where(jnp.abs(contrast) < _TINY, _TINY, contrast)
    seen = base + jnp.clip(factor, *_FACTORS) * (found[..., 0] - moving_base)
    image = fixed_image + taken[..., 0] * (seen - fixed_image)
    shares = fixed_shares.at[..., labels].add(taken * pathology / jnp.maximum(amount, _FLOOR))
    left = 1 - taken / jnp.maximum(room, _FLOOR)
    return image, shares.at[..., jnp.array(wall.tissue)].set(tissue * left)


class _Polar:
    """Inner and outer radius of a wall in each direction from the center of the foreground."""

    def __init__(self, shares: Array, wall: Wall) -> None:
        self.shape = shares.shape[:2]
        foreground = 1 - shares[..., 0]
        enclosed = foreground - shares[..., jnp.array(wall.pathology + wall.tissue)].sum(-1)
        area = jnp.maximum(foreground.sum(), _TINY)
        height, width = self.shape
        self.row = (foreground.sum(1) * jnp.arange(height)).sum() / area
        self.column = (foreground.sum(0) * jnp.arange(width)).sum() / area
        angles = jnp.arange(_DIRECTIONS)[:, None] * (2 * math.pi / _DIRECTIONS)
        radii = jnp.arange(0, math.hypot(height, width) / 2, _STEP)[None, :]
        rays = self._at(radii, angles)
        # The length of a ray inside a region is its radius, for regions without gaps.
        lengths = sample(jnp.stack([enclosed, foreground], -1), *rays).sum(1) * _STEP
        self._inner, self._outer = lengths[:, 0], lengths[:, 1]

    def coordinates(self) -> tuple[Array, Array]:
        """Distance from the center in pixels and angle of each pixel, both (H, W)."""
        down, across = jnp.mgrid[: self.shape[0], : self.shape[1]]
        down, across = down - self.row, across - self.column
        return jnp.hypot(down, across), jnp.arctan2(down, across)

    def inner(self, angle: Array) -> Array:
        """Inner radius of the wall in pixels."""
        return _around(self._inner, angle)

    def thickness(self, angle: Array) -> Array:
        """Thickness of the wall in pixels."""
        return jnp.maximum(_around(self._outer - self._inner, angle), _THINNEST)

    def position(self, depth: Array, angle: Array) -> tuple[Array, Array]:
        """Row and column of a point at a depth of 0 (inner surface) to 1 (outer surface)."""
        radius = jnp.maximum(self.inner(angle) + depth * self.thickness(angle), 0.0)
        return self._at(radius, angle)

    def _at(self, radius: Array, angle: Array) -> tuple[Array, Array]:
        return self.row + radius * jnp.sin(angle), self.column + radius * jnp.cos(angle)


def _around(table: Array, angle: Array) -> Array:
    """Look up a table over all directions, linear between its entries."""
    place = angle * (_DIRECTIONS / (2 * math.pi))
    low = jnp.floor(place)
    index = low.astype(jnp.int32) % _DIRECTIONS
    return table[index] + (place - low) * (table[(index + 1) % _DIRECTIONS] - table[index])


def _levels(image: Array, shares: Array, wall: Wall) -> tuple[Array, Array]:
    """Mean intensity of the tissue, and of what the wall encloses, mostly of whole pixels."""
    tissue = shares[..., jnp.array(wall.tissue)].sum(-1)
    around = tissue + shares[..., jnp.array(wall.pathology)].sum(-1)
    enclosed = jnp.maximum(1 - shares[..., 0] - around, 0.0)

    def mean(weight: Array) -> Array:
        return (weight * image).sum() / jnp.maximum(weight.sum(), _TINY)

    # A wall without any tissue still has a mean, that of the pathology.
    return mean(tissue**2 + _TINY * around), mean(enclosed**2)
