"""Pathology mixup of a whole batch on the device, vectorized by hand in PyTorch (Eq. 1-2)."""

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor


def draw(
    heights: Tensor,
    eligible: Tensor,
    indices: Tensor,
    *,
    tolerance: float,
    probability: float,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Draw the partner and the weight of the fixed slice for each example.

    Args:
      heights: (N,) relative heights.
      eligible: (N,) bool, slices with foreground.
      indices: (B,) int64, the fixed slices.
      tolerance: largest difference of heights.
      probability: probability that an example is mixed.
      generator: generator of random numbers.

    Returns:
      Partners (B,) int64 and lambda (B,) float32, 1 where an example stays unmixed.
    """
    near = (heights[None, :] - heights[indices][:, None]).abs() <= tolerance + 1e-6
    others = torch.arange(len(heights), device=heights.device)[None, :] != indices[:, None]
    candidates = near & eligible[None, :] & others
    ranks = candidates.cumsum(1)
    count = ranks[:, -1]
    chance, lam, which = torch.rand(
        3, len(indices), generator=generator, device=heights.device
    ).unbind()
    nth = (which * count).long().clamp(max=count - 1).clamp(min=0)
    partner = torch.searchsorted(ranks, nth[:, None] + 1)[:, 0]
    found = count > 0
    mixed = found & (chance < probability)
    return torch.where(found, partner, indices), torch.where(mixed, lam, 1.0)


def mix(
    fixed_image: Tensor,
    fixed_label: Tensor,
    moving_image: Tensor,
    moving_label: Tensor,
    lam: Tensor,
    num_labels: int,
) -> tuple[Tensor, Tensor]:
    """Eq. 2 on a batch, with the scale and translation of Eq. 1 as two matrix products.

    Args:
      fixed_image: (B, H, W) float32.
      fixed_label: (B, H, W) uint8.
      moving_image: (B, H, W) float32.
      moving_label: (B, H, W) uint8.
      lam: (B,) weight of the fixed slice.
      num_labels: L.

    Returns:
      Images (B, 1, H, W) and label probabilities (B, L, H, W) float32.
    """
    fixed_foreground, moving_foreground = fixed_label > 0, moving_label > 0
    scale, translation = _registration(fixed_foreground, moving_foreground)
    one_hot = F.one_hot(moving_label.long(), num_labels).movedim(-1, 1)[:, 1:].float()
    moving = torch.cat([moving_image[:, None], one_hot], 1)
    rows = _interpolation(moving.shape[2], scale, translation[:, 0])
    columns = _interpolation(moving.shape[3], scale, translation[:, 1])
    warped = rows[:, None] @ moving @ columns[:, None].transpose(2, 3)
    labels = warped[:, 1:]
    background = (1.0 - labels.sum(1, keepdim=True)).clamp_min(0.0)
    warped_probabilities = torch.cat([background, labels], 1)
    inside = fixed_foreground & moving_foreground.any(2).any(1)[:, None, None]
    share = torch.where(inside, lam[:, None, None], 1.0)[:, None]
    image = share * fixed_image[:, None] + (1.0 - share) * warped[:, :1]
    fixed = F.one_hot(fixed_label.long(), num_labels).movedim(-1, 1).float()
    return image, share * fixed + (1.0 - share) * warped_probabilities


def _moments(foreground: Tensor) -> tuple[Tensor, Tensor]:
    """(B, H, W) bool to centers (B, 2) and mean distances (B,)."""
    mask = foreground.float()
    area = mask.sum((1, 2)).clamp_min(1.0)
    rows = torch.arange(mask.shape[1], device=mask.device, dtype=torch.float32)
    columns = torch.arange(mask.shape[2], device=mask.device, dtype=torch.float32)
    row = (mask.sum(2) * rows).sum(1) / area
    column = (mask.sum(1) * columns).sum(1) / area
    distance = torch.hypot(
        (rows[None] - row[:, None])[:, :, None], (columns[None] - column[:, None])[:, None]
    )
    return torch.stack([row, column], 1), (mask * distance).sum((1, 2)) / area


def _registration(fixed: Tensor, moving: Tensor) -> tuple[Tensor, Tensor]:
    """Scale (B,) and translation (B, 2), moving to fixed coordinates."""
    fixed_center, fixed_distance = _moments(fixed)
    moving_center, moving_distance = _moments(moving)
    measurable = (fixed_distance > 0) & (moving_distance > 0)
    scale = torch.where(measurable, fixed_distance, 1.0)
    scale = scale / torch.where(measurable, moving_distance, 1.0)
    both = fixed.any(2).any(1) & moving.any(2).any(1)
    translation = fixed_center - scale[:, None] * moving_center
    return scale, torch.where(both[:, None], translation, 0.0)


def _interpolation(size: int, scale: Tensor, translation: Tensor) -> Tensor:
    """(B, size, size) bilinear weights of the moving positions pulled at each pixel."""
    grid = torch.arange(size, device=scale.device, dtype=torch.float32)
    pulled = (grid[None] - translation[:, None]) / scale[:, None]
    return (1.0 - (pulled[:, :, None] - grid).abs()).clamp_min(0.0)
