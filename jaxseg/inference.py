"""The trained network on a stack of slices, in batches of one shape."""

from collections.abc import Callable
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxseg.models import UNet

Params = Any
Segmenter = Callable[[Params, np.ndarray], np.ndarray]


def make_probabilities(network: UNet, *, batch_size: int) -> Segmenter:
    """Compile label probabilities.

    Args:
      network: the segmentation generator.
      batch_size: slices a call; the last batch is filled up, so that one shape is compiled.

    Returns:
      A function of parameters and images (N, H, W), giving (N, H, W, L) float32.
    """

    def probabilities(params: Params, images: Array) -> Array:
        return jax.nn.softmax(_logits(network, params, images))

    return _batched(jax.jit(probabilities), batch_size)


def make_labels(network: UNet, *, batch_size: int) -> Segmenter:
    """Compile label maps: as `make_probabilities`, the most probable label (N, H, W) uint8."""

    def labels(params: Params, images: Array) -> Array:
        return jnp.argmax(_logits(network, params, images), axis=-1).astype(jnp.uint8)

    return _batched(jax.jit(labels), batch_size)


def _logits(network: UNet, params: Params, images: Array) -> Array:
    return cast(Array, network.apply({"params": params}, images[..., None]))


def _batched(function: Callable[[Params, Array], Array], batch_size: int) -> Segmenter:
    def run(params: Params, images: np.ndarray) -> np.ndarray:
        if images.ndim != 3 or not len(images):
            raise ValueError(f"images must be (N, H, W) with N > 0, got shape {images.shape}")
        results = []
        for start in range(0, len(images), batch_size):
            batch = images[start : start + batch_size]
            filled = np.pad(batch, ((0, batch_size - len(batch)), (0, 0), (0, 0)))
            results.append(np.asarray(function(params, jnp.asarray(filled)))[: len(batch)])
        return np.concatenate(results)

    return run
