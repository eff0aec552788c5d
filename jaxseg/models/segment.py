"""Apply a trained network to slices, in batches of one shape or as a StableHLO artifact."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxseg.models import UNet, convolve_xla

Params = Any
Segmenter = Callable[[Params, np.ndarray], np.ndarray]

PLATFORMS = ("cpu", "cuda")
"""Platforms for which an artifact is lowered; any machine can lower for both."""


def make_probabilities(network: UNet, *, batch_size: int) -> Segmenter:
    """Compile the prediction of label probabilities.

    Args:
      network: the segmentation generator.
      batch_size: slices per call; the last batch is padded, so that only one shape is compiled.
        With context at least 3, for stacks that are longer than it.

    Returns:
      A function of parameters and images (N, H, W) that returns (N, H, W, L) float32. With context
      (`UNet.context`), the images are one stack in order, or (N, H, W, 3), each slice followed by
      its two neighbors.
    """
    return _batched(network, jax.nn.softmax, batch_size)


def make_labels(network: UNet, *, batch_size: int) -> Segmenter:
    """Compile the prediction of label maps (N, H, W) uint8; arguments as `make_probabilities`."""
    return _batched(network, lambda x: jnp.argmax(x, axis=-1).astype(jnp.uint8), batch_size)


def export_probabilities(
    network: UNet, params: Params, size: tuple[int, int] | None
) -> jax.export.Exported:
    """Lower the prediction of label probabilities to StableHLO, with the parameters as constants.

    Args:
      network: the segmentation generator.
      params: its parameters.
      size: (H, W) of the network grid; None for every size that the network accepts.

    Returns:
      A function of images (B, H, W) float32 that returns (B, H, W, L) float32, for any B of at
      least 1, on `PLATFORMS`; with context, the images are one stack in order. Its `serialize()`
      gives the artifact.
    """
    probabilities = _portable(network, params)
    multiple = 2**network.depth
    batch, *sides = jax.export.symbolic_shape(f"batch, {multiple} * h, {multiple} * w")
    with _no_source_paths():
        return jax.export.export(jax.jit(probabilities), platforms=PLATFORMS)(
            jax.ShapeDtypeStruct((batch, *(size or sides)), jnp.float32)
        )


def _portable(network: UNet, params: Params) -> Callable[[Array], Array]:
    constants = jax.device_get(params)
    portable = network.clone(convolve=convolve_xla)

    def probabilities(images: Array) -> Array:
        return jax.nn.softmax(_logits(portable, constants, images))

    return probabilities


@contextmanager
def _no_source_paths() -> Iterator[None]:
    """Keep the paths of source files on this machine out of the lowered code."""
    name = "jax_hlo_source_file_canonicalization_regex"
    previous = getattr(jax.config, name)
    jax.config.update(name, ".*")
    try:
        yield
    finally:
        jax.config.update(name, previous)


def _logits(network: UNet, params: Params, images: Array) -> Array:
    if images.ndim == 3:
        images = images[..., None]
    return cast(Array, network.apply({"params": params}, images))


def _batched(network: UNet, output: Callable[[Array], Array], batch_size: int) -> Segmenter:
    """Compile an output of the logits, in batches."""
    context = network.context
    function = jax.jit(lambda params, images: output(_logits(network, params, images)))

    def run(params: Params, images: np.ndarray) -> np.ndarray:
        count, stack = len(images), images.ndim == 3
        if not count or not (stack or (context and images.shape[3:] == (3,))):
            wanted = "(N, H, W) or (N, H, W, 3)" if context else "(N, H, W)"
            raise ValueError(f"images must be {wanted} with N > 0, got shape {images.shape}")
        # Batches of a stack overlap, so that each slice has its neighbors in its own batch.
        overlap = int(context and stack and count > batch_size)
        own = batch_size - 2 * overlap
        results = []
        for start in range(0, count, own):
            # The first and the last slice fill up their batches, as their own neighbors.
            rows = np.arange(start - overlap, start - overlap + batch_size).clip(0, count - 1)
            result = np.asarray(function(params, jnp.asarray(images[rows])))
            results.append(result[overlap:][: min(own, count - start)])
        return np.concatenate(results)

    return run
