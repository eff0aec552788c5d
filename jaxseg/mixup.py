"""Pathology mixup: register one short-axis slice onto another and blend them inside the heart.

This implements Section 2 of the paper, Eq. 1-2. All functions are pure functions of one slice or
one pair; `jax.vmap` applies them to batches. Coordinates are (row, column) in pixels, with integers
at pixel centers.
"""

import jax
import jax.numpy as jnp
from jax import Array


def foreground_of(label: Array) -> Array:
    """Foreground of a slice: pixels that are not background, or less than half background.

    Args:
      label: (H, W) labels, where 0 is the background; or (H, W, L) floating point, the fraction of
        each pixel covered by each label.

    Returns:
      (H, W) bool.
    """
    return label > 0 if label.ndim == 2 else label[..., 0] < 0.5


def foreground_moments(foreground: Array) -> tuple[Array, Array]:
    """Center of the foreground and mean distance of its pixels to that center.

    Args:
      foreground: (H, W) bool, true on every pixel that is not background.

    Returns:
      Center (2,) float32 as (row, column) and mean distance () float32, both in pixels. Both are 0
      for an empty foreground, which `registration_matrix` treats as nothing to register.

    Raises:
      ValueError: the foreground is not a single (H, W) mask.
    """
    if foreground.ndim != 2:
        raise ValueError(f"foreground must be (H, W), got shape {foreground.shape}")
    mask = foreground.astype(jnp.float32)
    area = jnp.maximum(mask.sum(), 1.0)
    rows = jnp.arange(mask.shape[0], dtype=jnp.float32)
    columns = jnp.arange(mask.shape[1], dtype=jnp.float32)
    center_row = (mask.sum(1) * rows).sum() / area
    center_column = (mask.sum(0) * columns).sum() / area
    distance = jnp.hypot((rows - center_row)[:, None], (columns - center_column)[None, :])
    return jnp.stack([center_row, center_column]), (mask * distance).sum() / area


def registration_matrix(fixed_foreground: Array, moving_foreground: Array) -> Array:
    """Eq. 1: the homogeneous matrix that maps moving coordinates to fixed coordinates.

        T = [[s, 0, c_F,row - s c_M,row], [0, s, c_F,col - s c_M,col], [0, 0, 1]],  s = d_F / d_M

    Args:
      fixed_foreground: (H, W) bool.
      moving_foreground: (H', W') bool.

    Returns:
      (3, 3) float32. If either foreground has no extent (it is empty or a single pixel), the scale
      cannot be estimated and s is 1. If either is empty, T is the identity.
    """
    fixed_center, fixed_distance = foreground_moments(fixed_foreground)
    moving_center, moving_distance = foreground_moments(moving_foreground)
    measurable = (fixed_distance > 0) & (moving_distance > 0)
    scale = jnp.where(measurable, fixed_distance, 1.0) / jnp.where(measurable, moving_distance, 1.0)
    both = fixed_foreground.any() & moving_foreground.any()
    translation = jnp.where(both, fixed_center - scale * moving_center, 0.0)
    matrix = jnp.diag(jnp.stack([scale, scale, jnp.ones_like(scale)]))
    return matrix.at[:2, 2].set(translation)


def _interpolation_matrix(size: int, scale: Array, translation: Array) -> Array:
    """Weights (size, size) w[i, k] = max(0, 1 - |x_i - k|), x_i the moving position for pixel i."""
    grid = jnp.arange(size, dtype=jnp.float32)
    pulled = (grid - translation) / scale
    return jnp.maximum(0.0, 1.0 - jnp.abs(pulled[:, None] - grid[None, :]))


def warp(image: Array, matrix: Array) -> Array:
    """Resample the moving image on the fixed grid, bilinear (pull convention).

    Scaling with translation acts on rows and columns independently. The warp is therefore two small
    matrix products, which are fast on every device, instead of a gather.

    Args:
      image: (H, W) or (H, W, C) floating point, the moving image.
      matrix: (3, 3), moving to fixed coordinates. Only the scale and translation of each axis are
        used; shear and rotation are not part of Eq. 1 and are ignored.

    Returns:
      Same shape and dtype as `image`. Samples outside the moving image are 0, and its border fades
      to 0 over one pixel (scipy's `mode="grid-constant"`).

    Raises:
      ValueError: the image is not (H, W[, C]) floating point, or the matrix is not (3, 3).
    """
    if image.ndim not in (2, 3) or not jnp.issubdtype(image.dtype, jnp.floating):
        raise ValueError(f"image must be (H, W[, C]) float, got {image.dtype}{list(image.shape)}")
    if matrix.shape != (3, 3):
        raise ValueError(f"matrix must be (3, 3), got shape {matrix.shape}")
    rows = _interpolation_matrix(image.shape[0], matrix[0, 0], matrix[0, 2])
    columns = _interpolation_matrix(image.shape[1], matrix[1, 1], matrix[1, 2])
    # Use full float32: TF32 or bfloat16 products would blur intensities and break sums to 1.
    warped = jnp.einsum(
        "ir,rc...,jc->ij...",
        rows,
        image.astype(jnp.float32),
        columns,
        precision=jax.lax.Precision.HIGHEST,
    )
    return warped.astype(image.dtype)


def pathology_mixup(
    fixed_image: Array,
    fixed_label: Array,
    moving_image: Array,
    moving_label: Array,
    lam: Array | float,
    *,
    num_labels: int,
) -> tuple[Array, Array]:
    """Eq. 2: (1 - lambda) M∘T + lambda F inside the fixed foreground, F outside it.

    Args:
      fixed_image: (H, W[, C]) float; all channels are mixed alike.
      fixed_label: (H, W) integer labels, where 0 is the background; or (H, W, L) float, the
        fraction of each pixel covered by each label.
      moving_image: float, of the same shape as the fixed image.
      moving_label: labels of the same kind as the fixed ones.
      lam: (), weight of the fixed slice, in [0, 1].
      num_labels: L, background included.

    Returns:
      The mixed image, with the shape of the fixed one, and label probabilities (H, W, L) float32
      that sum to 1 at every pixel. If either slice has no foreground, the fixed slice is returned.

    Raises:
      ValueError: the four arrays do not share (H, W), the images do not share their channels, or
        the labels are of neither kind.
    """
    _check_pairs(fixed_image, fixed_label, moving_image, moving_label, num_labels)
    fixed_foreground, moving_foreground = foreground_of(fixed_label), foreground_of(moving_label)
    matrix = registration_matrix(fixed_foreground, moving_foreground)
    # Background is the remainder of the other labels, so that it includes samples from outside.
    moving_labels = shares_of(moving_label, num_labels)[..., 1:]
    channels = moving_image.astype(jnp.float32).reshape(*moving_label.shape[:2], -1)
    warped = warp(jnp.concatenate([channels, moving_labels], axis=-1), matrix)
    warped_image, labels = jnp.split(warped, [channels.shape[-1]], axis=-1)
    warped_image = warped_image.reshape(fixed_image.shape).astype(fixed_image.dtype)
    background = jnp.maximum(0.0, 1.0 - labels.sum(-1, keepdims=True))
    warped_probabilities = jnp.concatenate([background, labels], axis=-1)

    fixed_probabilities = shares_of(fixed_label, num_labels)
    inside = fixed_foreground & moving_foreground.any()
    share = jnp.where(inside, jnp.asarray(lam, jnp.float32), 1.0)
    depth = share.reshape(share.shape + (1,) * (fixed_image.ndim - 2))
    image = depth * fixed_image + (1.0 - depth) * warped_image
    probabilities = (
        share[..., None] * fixed_probabilities + (1.0 - share)[..., None] * warped_probabilities
    )
    return image.astype(fixed_image.dtype), probabilities


def shares_of(label: Array, num_labels: int) -> Array:
    """Convert labels (H, W) to fractions (H, W, L) float32; fractions are returned unchanged."""
    return label if label.ndim == 3 else jax.nn.one_hot(label, num_labels, dtype=jnp.float32)


def _check_pairs(
    fixed_image: Array,
    fixed_label: Array,
    moving_image: Array,
    moving_label: Array,
    num_labels: int,
) -> None:
    images, labels = (fixed_image, moving_image), (fixed_label, moving_label)
    planes = {a.shape[:2] for a in (*images, *labels)}
    channels, kinds = {a.shape[2:] for a in images}, {a.shape[2:] for a in labels}
    if len(planes) != 1 or len(channels) != 1 or fixed_image.ndim not in (2, 3):
        shapes = sorted({a.shape for a in (*images, *labels)})
        raise ValueError(f"images and labels must share one (H, W), got {shapes}")
    if kinds not in ({()}, {(num_labels,)}):
        shapes = sorted({a.shape for a in labels})
        raise ValueError(f"labels must be (H, W), or shares (H, W, {num_labels}), got {shapes}")


def similar_heights(index: Array, heights: Array, *, tolerance: float) -> Array:
    """Slices (N,) bool whose relative height is within `tolerance` of that of slice `index`."""
    return jnp.abs(heights - heights[index]) <= tolerance + 1e-6


def choose_partner(
    key: Array, index: Array, heights: Array, eligible: Array, *, tolerance: float
) -> tuple[Array, Array]:
    """Draw a moving slice at a similar height, uniformly among the candidates.

    Args:
      key: typed PRNG key.
      index: () integer, the fixed slice, which is never its own partner.
      heights: (N,) relative height of each slice in its stack, 0 (base) to 1 (apex).
      eligible: (N,) bool, slices that may be moving slices (those with foreground).
      tolerance: largest difference of heights, inclusive.

    Returns:
      Index of the partner () int32 and whether there was a candidate () bool. Without a candidate,
      the partner is `index` itself.
    """
    near = similar_heights(index, heights, tolerance=tolerance)
    candidates = near & eligible & (jnp.arange(heights.shape[0]) != index)
    count = candidates.sum()
    nth = jax.random.randint(key, (), 0, jnp.maximum(count, 1))
    # Pick the nth candidate, which is cheaper than a categorical draw over N logits and easier to
    # reproduce.
    partner = jnp.searchsorted(jnp.cumsum(candidates), nth + 1)
    found = count > 0
    return jnp.where(found, partner, index).astype(jnp.int32), found
