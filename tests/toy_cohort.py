"""Eight slices to train on, and batches of them: for tests of batches and of steps."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np

from jaxseg.batch import DeviceCohort, Mixup, mixed_batch

L, SIZE = 5, (16, 16)
QUICK = {"xla_backend_optimization_level": 0}
"""Tiny nets compile far longer than they run."""


@cache
def cohort() -> DeviceCohort:
    """Eight slices: disks in disks, brighter by label; the fifth has no foreground."""
    rng = np.random.default_rng(0)
    row, column = np.mgrid[:16, :16]
    radius = np.hypot(row - rng.uniform(6, 9, (8, 1, 1)), column - rng.uniform(6, 9, (8, 1, 1)))
    labels = (radius[..., None] < np.array([6, 5, 3.5, 2])).sum(-1).astype(np.uint8)
    labels[4] = 0
    images = labels + rng.normal(0, 0.1, labels.shape)
    return DeviceCohort.from_slices(
        images.astype(np.float32), labels, np.linspace(0, 1, 8, dtype=np.float32)
    )


@cache
def mixing(count: int):
    """Compiled `mixed_batch` of (key, indices, first, probability, tolerance)."""
    slices = cohort()  # made here: made while tracing, the cache would keep tracers

    def batch(key, indices, first, probability, tolerance):
        mixup = Mixup(probability=probability, tolerance=tolerance)
        return mixed_batch(key, slices, indices, first, mixup, L)

    arguments = (jax.random.key(0), jnp.arange(count), 0, 0.0, 0.0)
    return jax.jit(batch).lower(*arguments).compile(compiler_options=QUICK)
