"""Ordinary augmentation after mixup: random geometric and intensity changes inside the step.

This is not part of the paper, whose stages do not use it. All functions are pure functions of one
example; `jax.vmap` applies them to batches.
"""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array


@dataclass(frozen=True)
class Augmentation:
    """Parameters of ordinary augmentation. A value of 0 disables that change.

    Attributes:
      probability: probability of a geometric change, and independently of an intensity change.
      flip: whether to mirror rows and columns, each in half of the geometric changes.
      rotation: largest angle in degrees, about the center of the slice.
      zoom: largest change of scale, log-uniform: 0.2 means a factor from 1 / 1.2 to 1.2.
      shift: largest shift along rows and along columns, in pixels.
      turn: whether to swap rows and columns in half of the geometric changes, for square images.
        Together with `flip` this gives all eight orientations of a slice.
      gamma: largest change of the exponent applied to intensities between their minimum and
        maximum; as `zoom`.
      contrast: largest change of the distance to the mean; as `zoom`.
      brightness: largest offset, in units of the normalized image.
      noise: largest standard deviation of Gaussian noise, in the same units.
      bias: largest change of the signal at the border of the image, which grows through the image
        in a random direction, as near a surface coil; as `zoom`.
    """

    probability: float = 0.0
    flip: bool = False
    rotation: float = 0.0
    zoom: float = 0.0
    shift: float = 0.0
    turn: bool = False
    gamma: float = 0.0
    contrast: float = 0.0
    brightness: float = 0.0
    noise: float = 0.0
    bias: float = 0.0

    def reach(self, size: tuple[int, int]) -> int:
        """Number of pixels beyond each border that a geometric change can move into an image."""
        if not self.probability:
            return 0
        height, width = size
        reach = math.hypot(height, width) if self.rotation else max(height, width)
        wide = reach * (1 + self.zoom) / 2 + self.shift - min(height, width) / 2
        return max(math.ceil(wide), 0)


def augment(
    key: Array, image: Array, probabilities: Array, settings: Augmentation, *, margin: int = 0
) -> tuple[Array, Array]:
    """Randomly move an example and change its intensity.

    Args:
      key: typed PRNG key of this example.
      image: (H + 2 margin, W + 2 margin, C) float32; all channels move together.
      probabilities: (H + 2 margin, W + 2 margin, L) float32 label probabilities.
      settings: parameters of the augmentation.
      margin: pixels of surroundings on each side, which a move can bring into the image.

    Returns:
      Image (H, W, C) and label probabilities (H, W, L), which still sum to 1 at every pixel.
    """
    move_key, space_key, change_key, intensity_key = jax.random.split(key, 4)
    both = jnp.concatenate([image, probabilities], axis=-1)
    matrix, shift = _draw_move(space_key, settings)
    moved = resample(both, matrix, shift, margin=margin)
    moves = jax.random.uniform(move_key) < settings.probability
    both = jnp.where(moves, moved, crop(both, margin))
    image, probabilities = jnp.split(both, [image.shape[-1]], axis=-1)
    changed = change_intensity(intensity_key, image, settings)
    changes = jax.random.uniform(change_key) < settings.probability
    return jnp.where(changes, changed, image), probabilities


def crop(image: Array, margin: int) -> Array:
    """Crop (H + 2 margin, W + 2 margin, ...) to (H, W, ...)."""
    height, width = image.shape[:2]
    return image[margin : height - margin, margin : width - margin]


def _draw_move(key: Array, settings: Augmentation) -> tuple[Array, Array]:
    """Draw a (2, 2) matrix from output to input offsets, and a shift (2,)."""
    angle_key, zoom_key, flip_key = jax.random.split(key, 3)
    angle = _symmetric(angle_key, math.radians(settings.rotation))
    scale = _factor(zoom_key, settings.zoom)
    flips = jnp.where(jax.random.bernoulli(flip_key, 0.5, (2,)) & settings.flip, -1.0, 1.0)
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    turned = jax.random.bernoulli(jax.random.fold_in(key, 4)) & settings.turn
    # A separate key keeps the other draws equal to those of runs without a shift.
    shift_key = jax.random.fold_in(key, 3)
    shift = jax.random.uniform(shift_key, (2,), minval=-1.0) * settings.shift
    matrix = jnp.array([[cos, -sin], [sin, cos]]) / scale * flips[:, None]
    return jnp.where(turned, matrix[::-1], matrix), shift


def resample(image: Array, matrix: Array, shift: Array | None = None, *, margin: int = 0) -> Array:
    """Resample an image through an affine map, bilinear.

    Args:
      image: (H + 2 margin, W + 2 margin, C) float32.
      matrix: (2, 2), from the (row, column) offset of an output pixel to that in the input, both
        relative to the center of the image.
      shift: (2,) in pixels, added to the input offset; no shift by default.
      margin: pixels of the input on each side that the output lacks.

    Returns:
      (H, W, C). Samples outside take the nearest border pixel, so that channels that sum to 1 still
      do.
    """
    height, width = image.shape[:2]
    down, across = jnp.mgrid[: height - 2 * margin, : width - 2 * margin]
    down, across = (x - (n - 1) / 2 for x, n in zip((down, across), down.shape, strict=True))
    row_shift, column_shift = (0.0, 0.0) if shift is None else (shift[0], shift[1])
    # A matrix product would be rounded to a tenth of a pixel on accelerators.
    pulled_row = (height - 1) / 2 + row_shift + matrix[0, 0] * down + matrix[0, 1] * across
    pulled_column = (width - 1) / 2 + column_shift + matrix[1, 0] * down + matrix[1, 1] * across
    return sample(image, pulled_row, pulled_column)


def sample(image: Array, row: Array, column: Array) -> Array:
    """Interpolate an image at positions, bilinear.

    Args:
      image: (H, W, C) float32.
      row: (...) float32, in pixels.
      column: (...) float32.

    Returns:
      (..., C). Positions outside take the nearest border pixel.
    """
    height, width, channels = image.shape
    row, below, beneath = _between(row, height)
    column, right, beside = _between(column, width)
    # Gather contiguous channels from a table of pixels, which is fast on every device.
    table = image.reshape(height * width, channels)

    def corner(row: Array, column: Array) -> Array:
        return table[row * width + column]

    top = corner(row, column) * (1 - beside) + corner(row, right) * beside
    bottom = corner(below, column) * (1 - beside) + corner(below, right) * beside
    return top * (1 - beneath) + bottom * beneath


def _between(position: Array, size: int) -> tuple[Array, Array, Array]:
    """Pixels on both sides of a position (...), and the weight (..., 1) of the second."""
    position = jnp.clip(position, 0.0, size - 1)
    low = jnp.floor(position)
    index = low.astype(jnp.int32)
    return index, jnp.minimum(index + 1, size - 1), (position - low)[..., None]


def change_intensity(key: Array, image: Array, settings: Augmentation) -> Array:
    """Apply bias field, gamma, contrast, brightness and noise, in that order.

    Args:
      key: typed PRNG key.
      image: (H, W, C) float32; all channels change alike, except for noise.
      settings: parameters of the augmentation.

    Returns:
      (H, W, C) float32.
    """
    gamma_key, contrast_key, brightness_key, level_key, noise_key = jax.random.split(key, 5)
    if settings.bias:
        image = _biased(jax.random.fold_in(key, 5), image, settings.bias)
    low, span = image.min(), image.max() - image.min()
    # Clip away from 0, where a power below 1 has no finite slope; a constant image is unchanged.
    unit = jnp.clip((image - low) / jnp.where(span > 0, span, 1.0), 1e-6, 1.0)
    bent = low + span * unit ** _factor(gamma_key, settings.gamma)
    mean = bent.mean()
    image = mean + (bent - mean) * _factor(contrast_key, settings.contrast)
    image = image + _symmetric(brightness_key, settings.brightness)
    level = settings.noise * jax.random.uniform(level_key)
    return image + level * jax.random.normal(noise_key, image.shape)


def _biased(key: Array, image: Array, size: float) -> Array:
    """Multiply the signal above the minimum by a log-linear field that is 1 in the middle."""
    size_key, way_key = jax.random.split(key)
    height, width = image.shape[:2]
    way = jax.random.uniform(way_key, maxval=2 * math.pi)
    down, across = jnp.linspace(-1, 1, height)[:, None], jnp.linspace(-1, 1, width)[None, :]
    slope = jax.random.uniform(size_key) * math.log1p(size)
    field = jnp.exp(slope * (jnp.cos(way) * down + jnp.sin(way) * across))
    low = image.min()
    return low + (image - low) * field[..., None]


def _symmetric(key: Array, size: float) -> Array:
    return jax.random.uniform(key, minval=-1.0) * size


def _factor(key: Array, size: float) -> Array:
    """Draw a factor, log-uniform between 1 / (1 + size) and 1 + size."""
    return jnp.exp(_symmetric(key, math.log1p(size)))
