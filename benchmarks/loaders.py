"""Pathology mixup in the usual PyTorch style: SciPy on one slice at a time, in loader workers."""

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor
from torch.utils.data import DataLoader, Dataset


class MixupSlices(Dataset[tuple[Tensor, Tensor]]):
    """Training slices, each mixed with a partner of similar height when it is read.

    Attributes:
      images: (N, H, W) float32.
      labels: (N, H, W) uint8.
      heights: (N,) float32.
      tolerance: largest difference of partners' heights.
      probability: fraction of the examples that are mixed; the others are not warped.
      num_labels: L.
    """

    def __init__(
        self,
        images: NDArray[np.float32],
        labels: NDArray[np.uint8],
        heights: NDArray[np.float32],
        *,
        tolerance: float,
        probability: float,
        num_labels: int,
    ) -> None:
        self.images, self.labels, self.heights = images, labels, heights
        self.tolerance, self.probability, self.num_labels = tolerance, probability, num_labels
        self.eligible = (labels > 0).any((1, 2))

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Image (1, H, W) and label probabilities (L, H, W) float32."""
        # Draw from the generator of torch, which seeds every worker anew in each epoch.
        chance, lam, which = torch.rand(3).tolist()
        image = self.images[index]
        target = one_hot(self.labels[index], self.num_labels)
        if chance < self.probability:
            near = np.abs(self.heights - self.heights[index]) <= self.tolerance + 1e-6
            near &= self.eligible
            near[index] = False
            candidates = np.flatnonzero(near)
            if len(candidates):
                partner = candidates[int(which * len(candidates))]
                image, target = mix(
                    image,
                    self.labels[index],
                    self.images[partner],
                    self.labels[partner],
                    lam,
                    self.num_labels,
                )
        return torch.from_numpy(image[None]), torch.from_numpy(target)


def make_loader(dataset: MixupSlices, *, batch_size: int, workers: int, pin: bool) -> DataLoader:
    """A shuffling loader with persistent workers; 0 workers means none."""
    return DataLoader(
        dataset,
        batch_size=batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=pin,
    )


def one_hot(label: NDArray[np.uint8], num_labels: int) -> NDArray[np.float32]:
    """(H, W) labels to (L, H, W)."""
    return (label[None] == np.arange(num_labels)[:, None, None]).astype(np.float32)


def mix(
    fixed_image: NDArray[np.float32],
    fixed_label: NDArray[np.uint8],
    moving_image: NDArray[np.float32],
    moving_label: NDArray[np.uint8],
    lam: float,
    num_labels: int,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Eq. 1-2 on one pair: image (H, W) and label probabilities (L, H, W)."""
    fixed = one_hot(fixed_label, num_labels)
    inside = fixed_label > 0
    if not inside.any() or not moving_label.any():
        return fixed_image, fixed
    fixed_center, fixed_distance = _moments(inside)
    moving_center, moving_distance = _moments(moving_label > 0)
    scale = fixed_distance / moving_distance if fixed_distance and moving_distance else 1.0
    # In affine_transform, output pixel x reads the moving slice at matrix x + offset.
    matrix = np.full(2, 1.0 / scale)
    offset = moving_center - fixed_center / scale

    def warp(channel: NDArray[np.float32]) -> NDArray[np.float32]:
        pulled = ndimage.affine_transform(
            channel, matrix, offset.tolist(), order=1, mode="grid-constant"
        )
        return np.asarray(pulled, np.float32)

    moving = one_hot(moving_label, num_labels)
    warped = np.stack([warp(channel) for channel in moving[1:]])
    background = np.maximum(0.0, 1.0 - warped.sum(0, keepdims=True))
    share = np.where(inside, lam, 1.0).astype(np.float32)
    image = share * fixed_image + (1.0 - share) * warp(moving_image)
    probabilities = share * fixed + (1.0 - share) * np.concatenate([background, warped])
    return np.asarray(image, np.float32), np.asarray(probabilities, np.float32)


def _moments(foreground: NDArray[np.bool_]) -> tuple[NDArray[np.float64], float]:
    """Center (row, column) and mean distance to it, in pixels."""
    positions = np.argwhere(foreground)
    center = positions.mean(0)
    return center, float(np.hypot(*(positions - center).T).mean())
