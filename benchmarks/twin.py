"""The networks of jaxseg in PyTorch, and conversion of their parameters."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn


class ConvNormRelu(nn.Module):
    """3x3 convolution without bias, group normalization, ReLU."""

    def __init__(self, channels: int, features: int, groups: int, stride: int = 1) -> None:
        super().__init__()
        self.stride = stride
        self.conv = nn.Conv2d(
            channels, features, 3, stride=stride, padding=1 if stride == 1 else 0, bias=False
        )
        self.norm = nn.GroupNorm(min(groups, features) or features, features, eps=1e-5)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, features, H / stride, W / stride)."""
        if self.stride > 1:
            x = pad_same(x, self.stride)
        return F.relu(self.norm(self.conv(x)))


def pad_same(x: Tensor, stride: int) -> Tensor:
    """SAME padding of XLA for a 3x3 kernel, with the odd pixel at the far end."""
    height, width = (max((-(-n // stride) - 1) * stride + 3 - n, 0) for n in x.shape[2:])
    return F.pad(x, (width // 2, width - width // 2, height // 2, height - height // 2))


class Upsample(nn.Module):
    """2x2 transposed convolution of stride 2 with a bias per output pixel, as in jaxseg."""

    def __init__(self, channels: int, features: int) -> None:
        super().__init__()
        self.dense = nn.Conv2d(channels, 4 * features, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, features, 2 H, 2 W)."""
        return F.pixel_shuffle(self.dense(x), 2)


class Block(nn.Module):
    """Two convolution layers, gated by the attention branch on the block's input."""

    def __init__(self, channels: int, features: int, groups: int, attention: bool) -> None:
        super().__init__()
        self.conv1 = ConvNormRelu(channels, features, groups)
        self.conv2 = ConvNormRelu(features, features, groups)
        self.attention1 = self.attention2 = None
        if attention:
            self.attention1 = ConvNormRelu(channels, features, groups)
            self.attention2 = nn.Conv2d(features, features, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, features, H, W)."""
        y = self.conv2(self.conv1(x))
        if self.attention1 is None or self.attention2 is None:
            return y
        return y * torch.sigmoid(self.attention2(self.attention1(x)))


class UNet(nn.Module):
    """The segmentation generator; its blocks are not densely connected."""

    def __init__(
        self, num_labels: int, *, width: int, depth: int, attention: bool, groups: int
    ) -> None:
        super().__init__()
        self.depth = depth
        channels = 1
        for level in range(depth + 1):
            features = width * 2**level
            name = f"encoder{level}" if level < depth else "bottleneck"
            self.add_module(name, Block(channels, features, groups, attention))
            channels = features
        for level in reversed(range(depth)):
            features = width * 2**level
            self.add_module(f"up{level}", Upsample(2 * features, features))
            self.add_module(f"decoder{level}", Block(2 * features, features, groups, attention))
        self.logits = nn.Conv2d(width, num_labels, 1)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 1, H, W) to float32 logits (B, L, H, W)."""
        x, skips = images, []
        for level in range(self.depth):
            x = self.get_submodule(f"encoder{level}")(x)
            skips.append(x)
            x = F.max_pool2d(x, 2)
        x = self.get_submodule("bottleneck")(x)
        for level in reversed(range(self.depth)):
            x = self.get_submodule(f"up{level}")(x)
            x = torch.cat([skips[level], x], 1)
            x = self.get_submodule(f"decoder{level}")(x)
        with torch.autocast(x.device.type, enabled=False):
            return self.logits(x.float())


class WeightGenerator(nn.Module):
    """Six convolutions, global average, L softmax(z)."""

    def __init__(self, num_labels: int, *, width: int, groups: int) -> None:
        super().__init__()
        channels = 1
        for layer, factor in enumerate((1, 2, 4, 4, 4)):
            features = factor * width
            self.add_module(f"conv{layer + 1}", ConvNormRelu(channels, features, groups, 2))
            channels = features
        self.conv6 = nn.Conv2d(channels, num_labels, 3, padding=1)
        for parameter in self.conv6.parameters():
            nn.init.zeros_(parameter)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 1, H, W) to float32 weights (B, L)."""
        x = images
        for layer in range(5):
            x = self.get_submodule(f"conv{layer + 1}")(x)
        with torch.autocast(x.device.type, enabled=False):
            scores = self.conv6(x.float()).mean((2, 3))
        return scores.shape[1] * torch.softmax(scores, 1)


def copy_parameters(module: nn.Module, params: Mapping[str, Any]) -> None:
    """Copy the parameters of a Flax module to its twin.

    Args:
      module: `UNet` or `WeightGenerator`.
      params: parameters of the Flax module, without the key "params"; or gradients of that shape.

    Raises:
      ValueError: a parameter is missing, superfluous or of another shape.
    """
    state = module.state_dict()
    found = dict(_converted(params))
    if found.keys() != state.keys():
        raise ValueError(f"parameters differ in {sorted(found.keys() ^ state.keys())}")
    for name, value in found.items():
        if value.shape != tuple(state[name].shape):
            raise ValueError(f"{name}: expected {tuple(state[name].shape)}, got {value.shape}")
    module.load_state_dict({name: torch.from_numpy(v.copy()) for name, v in found.items()})


def _converted(tree: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Name and value of each parameter of the twin."""
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _converted(value, (*path, name))
        else:
            yield _parameter((*path, name), np.asarray(value))


def _parameter(path: tuple[str, ...], value: np.ndarray) -> tuple[str, np.ndarray]:
    *layers, kind = path
    owner = ".".join(layers).replace("Conv_0", "conv").replace("GroupNorm_0", "norm")
    owner = owner.replace("Dense_0", "dense")
    name = {"kernel": "weight", "scale": "weight", "bias": "bias", "shift": "bias"}[kind]
    if owner.endswith("dense"):
        # Features come as (2, 2, F) here and are read as (F, 2, 2) by the pixel shuffle.
        value = value.reshape(*value.shape[:-1], 4, -1).swapaxes(-1, -2)
        value = value.reshape(*value.shape[:-2], -1)
    if kind == "kernel":
        if value.ndim == 2:
            value = value[None, None]
        value = value.transpose(3, 2, 0, 1)
    return f"{owner}.{name}", value
