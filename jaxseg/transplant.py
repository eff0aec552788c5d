"""Transplant the pathology of one short-axis slice into the healthy wall of another.

This is not part of the paper, whose mixup blends whole hearts. Both slices are described in polar
coordinates around the center of the wall: its inner radius and its thickness in each direction. A
point of one wall corresponds to the point of the other wall in the same direction and at the same
relative depth, so that the pathology stays within the wall (the inclusion prior of Eq. 5) whatever
the shapes of the two. All functions are pure functions of one pair of slices.
"""

import math
from dataclasses import dataclass

import jax.numpy as jnp
from jax import Array

from jaxseg.anatomy import LabelSet, inner_labels
from jaxseg.augment import sample

_DIRECTIONS = 72
_STEP = 0.5  # distance of the samples along a ray, in pixels
_THINNEST = 0.5  # smallest thickness of a wall, in pixels
_DEPTHS = (-0.5, 1.5)  # range of relative depths, so that corresponding points stay near the wall
_FACTORS = (0.5, 2.0)  # range of the factor between the contrasts of the two slices
_CAVITY = 4.0  # smallest enclosed area whose mean intensity is used, in pixels
_FLOOR = 1e-6  # keeps divisions of 0 by 0 finite


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
        inner = inner_labels(inclusions)
        outer = {label for pair in inclusions for label in pair[1]}
        return cls(inner, tuple(sorted(outer.difference(inner))))


def transplant(
    fixed_image: Array,
    fixed_shares: Array,
    moving_image: Array,
    moving_shares: Array,
    rotation: Array | float,
    *,
    wall: Wall,
) -> tuple[Array, Array]:
    """Replace healthy wall of the fixed slice by the pathology at the same place in the moving one.

    The intensities of the moving slice are shifted and scaled so that the means of its tissue and
    of what the wall encloses, such as myocardium and blood, become those of the fixed slice. The
    factor is limited to 0.5 to 2, and is 1 if either wall encloses nothing. Pixels that are partly
    pathology are blended by their share.

    Args:
      fixed_image: (H, W) float32.
      fixed_shares: (H, W, L) float32, fraction of each pixel covered by each label; 0 is the
        background.
      moving_image: (H, W) float32.
      moving_shares: (H, W, L) float32.
      rotation: (), angle in radians by which the moving slice is rotated, from columns to rows.
      wall: labels of the wall, at least one of the tissue and one of the pathology.

    Returns:
      The image (H, W) and shares (H, W, L), which sum to 1 where the fixed ones do. Only shares of
      tissue become pathology.
    """
    labels = jnp.array(wall.pathology)
    fixed, moving = _Polar(fixed_shares, wall), _Polar(moving_shares, wall)
    distance, angle = fixed.coordinates()
    depth = (distance - fixed.inner(angle)) / fixed.thickness(angle)
    row, column = moving.position(jnp.clip(depth, *_DEPTHS), angle - rotation)
    channels = jnp.concatenate([moving_image[..., None], moving_shares[..., labels]], axis=-1)
    sampled = sample(channels, row, column)
    pathology = sampled[..., 1:]
    amount = pathology.sum(-1, keepdims=True)
    tissue = fixed_shares[..., jnp.array(wall.tissue)]
    room = tissue.sum(-1, keepdims=True)
    taken = jnp.minimum(amount, room)

    matched = _matched(
        sampled[..., 0], fixed_image, fixed_shares, moving_image, moving_shares, wall
    )
    image = fixed_image + taken[..., 0] * (matched - fixed_image)
    shares = fixed_shares.at[..., labels].add(taken * pathology / jnp.maximum(amount, _FLOOR))
    left = 1 - taken / jnp.maximum(room, _FLOOR)
    return image, shares.at[..., jnp.array(wall.tissue)].set(tissue * left)


class _Polar:
    """Inner radius and thickness of a wall in each direction from its center."""

    def __init__(self, shares: Array, wall: Wall) -> None:
        self.shape = height, width = shares.shape[:2]
        whole, enclosed = _parts(shares, wall)
        area = jnp.maximum(whole.sum(), _FLOOR)
        self.row = (whole.sum(1) * jnp.arange(height)).sum() / area
        self.column = (whole.sum(0) * jnp.arange(width)).sum() / area
        angles = jnp.arange(_DIRECTIONS)[:, None] * (2 * math.pi / _DIRECTIONS)
        radii = jnp.arange(_STEP / 2, math.hypot(height, width) / 2, _STEP)[None, :]
        row, column = self._at(radii, angles)
        inside = (row >= 0) & (row <= height - 1) & (column >= 0) & (column <= width - 1)
        sampled = sample(jnp.stack([enclosed, whole], -1), row, column) * inside[..., None]
        # What lies beyond the wall, such as the right ventricle, is not enclosed by it.
        beyond = jnp.cumsum(sampled[:, ::-1, 1], axis=1)[:, ::-1] < 0.5
        # The length of a ray inside a region, for regions without gaps.
        self._inner = jnp.where(beyond, 0.0, sampled[..., 0]).sum(1) * _STEP
        self._thickness = sampled[..., 1].sum(1) * _STEP

    def coordinates(self) -> tuple[Array, Array]:
        """Distance from the center in pixels and angle of each pixel, both (H, W)."""
        down, across = jnp.mgrid[: self.shape[0], : self.shape[1]]
        down, across = down - self.row, across - self.column
        return jnp.hypot(down, across), jnp.arctan2(down, across)

    def inner(self, angle: Array) -> Array:
        """Inner radius of the wall in pixels."""
        return _look_up(self._inner, angle)

    def thickness(self, angle: Array) -> Array:
        """Thickness of the wall in pixels."""
        return jnp.maximum(_look_up(self._thickness, angle), _THINNEST)

    def position(self, depth: Array, angle: Array) -> tuple[Array, Array]:
        """Row and column of a point at a depth of 0 (inner surface) to 1 (outer surface)."""
        radius = jnp.maximum(self.inner(angle) + depth * self.thickness(angle), 0.0)
        return self._at(radius, angle)

    def _at(self, radius: Array, angle: Array) -> tuple[Array, Array]:
        return self.row + radius * jnp.sin(angle), self.column + radius * jnp.cos(angle)


def _look_up(table: Array, angle: Array) -> Array:
    """Look up a table over all directions, linear between its entries."""
    place = angle * (_DIRECTIONS / (2 * math.pi))
    low = jnp.floor(place)
    index = low.astype(jnp.int32) % _DIRECTIONS
    return table[index] + (place - low) * (table[(index + 1) % _DIRECTIONS] - table[index])


def _parts(shares: Array, wall: Wall) -> tuple[Array, Array]:
    """Shares (H, W) of the whole wall, and of the labels that are neither wall nor background."""
    whole = shares[..., jnp.array(wall.tissue + wall.pathology)].sum(-1)
    return whole, jnp.maximum(1 - shares[..., 0] - whole, 0.0)


def _matched(
    intensities: Array,
    fixed_image: Array,
    fixed_shares: Array,
    moving_image: Array,
    moving_shares: Array,
    wall: Wall,
) -> Array:
    """Convert intensities of the moving slice to those of the fixed one."""
    base, contrast = _levels(fixed_image, fixed_shares, wall)
    moving_base, moving_contrast = _levels(moving_image, moving_shares, wall)
    known = (contrast != 0) & (moving_contrast != 0)
    factor = jnp.where(known, contrast / jnp.where(known, moving_contrast, 1.0), 1.0)
    return base + jnp.clip(factor, *_FACTORS) * (intensities - moving_base)


def _levels(image: Array, shares: Array, wall: Wall) -> tuple[Array, Array]:
    """Mean intensity of the tissue, and how far that of the enclosed region lies above it.

    Pixels that are entirely of a region count most. Without such a region, the difference is 0.
    """
    whole, enclosed = _parts(shares, wall)
    tissue = shares[..., jnp.array(wall.tissue)].sum(-1)

    def mean(weight: Array) -> Array:
        return (weight * image).sum() / jnp.maximum(weight.sum(), _FLOOR)

    # A wall without any tissue still has a mean, that of the pathology.
    base = mean(tissue**2 + 1e-3 * whole)
    measured = (enclosed**2).sum() >= _CAVITY
    return base, jnp.where(measured, mean(enclosed**2) - base, 0.0)
