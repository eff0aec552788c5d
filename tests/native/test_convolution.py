"""The C++ convolution against XLA and by hand: values, gradients and threads."""

import os
import platform
import subprocess
import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg.models import UNet, convolve_xla
from jaxseg.native import convolve_native

ROOT = Path(__file__).parents[2]
# Sizes, then channels in and out: those of the networks, one and many rows, odd sides, groups of
# channels that are not full, images that 4 x 4 tiles do not fill, several groups of tiles.
SHAPES = [
    (2, 96, 96, 1, 16), (2, 96, 96, 16, 16), (1, 96, 96, 32, 16), (3, 48, 48, 16, 32),
    (2, 24, 24, 64, 64), (2, 12, 12, 128, 128), (2, 6, 6, 128, 256), (5, 4, 4, 64, 64),
    (2, 64, 64, 8, 8), (2, 64, 64, 16, 8), (2, 32, 32, 8, 16), (1, 11, 23, 24, 40),
    (2, 1, 1, 8, 8), (1, 1, 37, 8, 16), (1, 37, 1, 16, 8), (4, 7, 5, 3, 24), (1, 130, 200, 8, 48),
    (17, 8, 8, 40, 72), (1, 5, 1000, 8, 32), (2, 2, 2, 512, 8), (1, 4, 4, 16, 16),
    (2, 5, 11, 16, 48), (3, 7, 130, 32, 32), (1, 3, 40, 32, 16), (1, 9, 6, 80, 96),
]  # fmt: skip


def random(*shape: int, seed: int = 0) -> jax.Array:
    # Not JAX's: it would compile a program for each shape.
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape, np.float32))


def in_float64(images: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """The sum itself, nine shifted products."""
    images, kernel = images.astype(np.float64), kernel.astype(np.float64)
    _, height, width, _ = images.shape
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
    return sum(
        padded[:, dy : dy + height, dx : dx + width] @ kernel[dy, dx]
        for dy in range(3) for dx in range(3)
    )  # fmt: skip


def close(given: jax.Array, wanted: np.ndarray, *, terms: int) -> None:
    """Within what sums of so many float32 products may be off, of numbers of about 1."""
    np.testing.assert_allclose(given, wanted, rtol=0, atol=2e-6 * np.sqrt(terms) + 1e-6 * terms)


@pytest.mark.parametrize("shape", SHAPES)
def test_values_and_gradients_match_float64(shape):
    *size, channels, features = shape
    images, kernel = random(*size, channels), random(3, 3, channels, features, seed=1)
    cotangents = random(*size, features, seed=2)
    result, pullback = jax.vjp(lambda x, k: convolve_native(x, k, 1), images, kernel)
    close(result, in_float64(np.asarray(images), np.asarray(kernel)), terms=9 * channels)
    by_images, by_kernel = pullback(cotangents)
    turned = np.asarray(kernel)[::-1, ::-1].swapaxes(2, 3)
    close(by_images, in_float64(np.asarray(cotangents), turned), terms=9 * features)
    padded = np.pad(np.asarray(images, np.float64), ((0, 0), (1, 1), (1, 1), (0, 0)))
    _, height, width = size
    wanted = [
        [np.einsum("bhwi,bhwo->io", padded[:, dy : dy + height, dx : dx + width], cotangents)
         for dx in range(3)] for dy in range(3)
    ]  # fmt: skip
    terms = int(np.prod(size))
    np.testing.assert_allclose(by_kernel, wanted, rtol=0, atol=2e-5 * np.sqrt(terms))


def test_by_hand():
    """One pixel of 2 in a corner: the kernel, turned half round and cut off at the edge, twice."""
    image = jnp.zeros((1, 3, 3, 1)).at[0, 0, 0, 0].set(2.0)
    kernel = jnp.arange(9.0).reshape(3, 3, 1, 1) * jnp.ones((1, 1, 1, 8))
    result = convolve_native(image, kernel, 1)
    np.testing.assert_array_equal(result[0, :, :, 5], [[8, 6, 0], [2, 0, 0], [0, 0, 0]])


def test_works_inside_vmap_and_loops():
    images, kernel = random(3, 2, 8, 8, 8), random(3, 3, 8, 16, seed=1)
    plain = jnp.stack([convolve_native(x, kernel, 1) for x in images])
    one = partial(convolve_native, kernel=kernel, stride=1)
    np.testing.assert_array_equal(jax.vmap(one)(images), plain)
    np.testing.assert_array_equal(jax.jit(lambda x: jax.lax.map(one, x))(images), plain)


@pytest.mark.parametrize(
    ("images", "kernel", "stride"),
    [
        (random(2, 8, 8, 8), random(3, 3, 8, 16), 2),
        (random(2, 8, 8, 8), random(3, 3, 8, 5), 1),
        (random(2, 8, 8, 8).astype(jnp.bfloat16), random(3, 3, 8, 8).astype(jnp.bfloat16), 1),
        (jnp.zeros((0, 8, 8, 8)), random(3, 3, 8, 8), 1),
        (random(2, 8, 8, 8), jnp.zeros((3, 3, 8, 0)), 1),
    ],
    ids=["stride", "channels", "bfloat16", "no images", "no channels"],
)
def test_unsupported_arguments_use_xla(images, kernel, stride):
    lowered = jax.jit(convolve_native, static_argnums=2).lower(images, kernel, stride).as_text()
    assert "jaxseg_convolve" not in lowered
    native = jax.jit(convolve_native, static_argnums=2)
    arrays = random(2, 8, 8, 8), random(3, 3, 8, 16)
    assert "jaxseg_convolve" in native.lower(*arrays, 1).as_text()
    given = convolve_native(images, kernel, stride)
    np.testing.assert_array_equal(given, convolve_xla(images, kernel, stride))


@pytest.mark.parametrize(
    ("images", "kernel"), [((8, 8, 8), (3, 3, 8, 8)), ((1, 8, 8, 8), (3, 3, 4, 8)),
                           ((1, 8, 8, 8), (5, 5, 8, 8))],
)  # fmt: skip
def test_shapes_that_do_not_fit_are_refused(images, kernel):
    with pytest.raises(ValueError, match=r"\(B, H, W, I\)"):
        convolve_native(jnp.zeros(images), jnp.zeros(kernel), 1)


def test_nan_only_reaches_its_neighbors():
    """Three channels fill no vector, and are not computed by tiles."""
    images = jnp.zeros((1, 9, 9, 3)).at[0, 4, 4, 2].set(jnp.nan)
    result = convolve_native(images, jnp.ones((3, 3, 3, 8)), 1)
    there = np.isnan(result[0]).all(-1)
    assert there[3:6, 3:6].all()
    assert there.sum() == 9


def test_by_tiles_nan_reaches_at_most_the_tiles_of_its_neighbors():
    images = jnp.zeros((2, 24, 24, 32)).at[0, 4, 4, 2].set(jnp.nan)
    result = np.array(convolve_native(images, jnp.ones((3, 3, 32, 32)), 1))
    assert np.isnan(result[0, 3:6, 3:6]).all()
    result[0, :8, :8] = 0.0
    assert np.isfinite(result).all()


def test_rounding_errors_are_those_of_float32():
    """Mean error of a sum of 576 products, which has a standard deviation of 24."""
    images, kernel = random(1, 24, 24, 64), random(3, 3, 64, 64, seed=1)
    wanted = in_float64(np.asarray(images), np.asarray(kernel))
    assert np.abs(convolve_native(images, kernel, 1) - wanted).mean() < 24 * 1e-6
    cotangents = random(1, 24, 24, 64, seed=2)
    _, pullback = jax.vjp(lambda k: convolve_native(images, k, 1), kernel)
    shifted = np.pad(np.asarray(images, np.float64), ((0, 0), (1, 1), (1, 1), (0, 0)))[:, :24, 2:]
    by_kernel = np.einsum("bhwi,bhwo->io", shifted, np.asarray(cotangents, np.float64))
    assert np.abs(pullback(cotangents)[0][0, 2] - by_kernel).mean() < 24 * 1e-6


THREADS = """
import os, sys
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: int(sys.argv[2])])
import jax
import numpy as np
from jaxseg.native import convolve_native
arrays = []
for size, channels, features in ((64, 16, 16), (24, 64, 32), (6, 128, 64)):
    x = jax.random.normal(jax.random.key(0), (6, size, size, channels))
    k = jax.random.normal(jax.random.key(1), (3, 3, channels, features))
    y, pullback = jax.vjp(lambda x, k: convolve_native(x, k, 1), x, k)
    arrays += [y, *pullback(y)]
np.savez(sys.argv[1], *arrays)
"""


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one core alone")
def test_results_do_not_depend_on_the_number_of_threads(tmp_path):
    results = []
    for count in (1, 2):
        file = tmp_path / f"{count}.npz"
        command = [sys.executable, "-c", THREADS, str(file), str(count)]
        done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        with np.load(file) as arrays:
            results.append([arrays[name] for name in arrays.files])
    assert len(results[0]) == 9
    for one, two in zip(*results, strict=True):
        np.testing.assert_array_equal(one, two)


def check_every_tile() -> None:
    """Rows as wide as each tile can be, on each number of vectors that tiles have."""
    for size, channels, features in (((2, 9, 13), 16, 16), ((2, 20, 8), 32, 64)):
        images, kernel = random(*size, channels), random(3, 3, channels, features, seed=1)
        wanted = in_float64(np.asarray(images), np.asarray(kernel))
        close(convolve_native(images, kernel, 1), wanted, terms=9 * channels)
    for width in (*range(1, 9), 10, 12, 14, 16, 20, 24, 28, 29):
        for features in (8, 16, 32, 64):
            images, kernel = random(1, 2, width, 8), random(3, 3, 8, features, seed=1)
            wanted = in_float64(np.asarray(images), np.asarray(kernel))
            close(convolve_native(images, kernel, 1), wanted, terms=72)


def check_gradients() -> None:
    for *size, channels, features in ((3, 40, 41, 8, 8), (3, 25, 9, 16, 16), (2, 9, 3, 11, 64)):
        arrays = random(*size, channels), random(3, 3, channels, features, seed=1)
        given, wanted = (
            (result, *pullback(result))
            for result, pullback in (
                jax.vjp(partial(convolve, stride=1), *arrays)
                for convolve in (convolve_native, convolve_xla)
            )
        )
        for one, other in zip(given, wanted, strict=True):
            assert jnp.abs(one - other).max() < 1e-5 * jnp.abs(other).max()


def test_every_tile_size():
    check_every_tile()
    check_gradients()


@pytest.mark.skipif(platform.machine() != "x86_64", reason="processors of one family")
@pytest.mark.parametrize(
    ("flag", "macro"), [("-mno-avx512f", "__AVX512F__"), ("-mno-avx", "__AVX__")]
)
def test_on_processors_with_shorter_vectors(flag, macro, tmp_path):
    macros = subprocess.run(
        ["c++", "-march=native", flag, "-dM", "-E", "-x", "c++", os.devnull],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert f"{macro} " not in macros.stdout
    places = {"CXX": f"c++ {flag}", "XDG_CACHE_HOME": str(tmp_path)}
    script = f"from {Path(__file__).stem} import *; check_every_tile(); check_gradients()"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=Path(__file__).parent, check=False, text=True,
        env=os.environ | places | {"PYTHONPATH": str(ROOT)}, capture_output=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_results_are_deterministic():
    images, kernel = random(4, 48, 48, 32), random(3, 3, 32, 32, seed=1)

    def loss(images, kernel):
        return jnp.square(convolve_native(images, kernel, 1)).sum()

    gradient = jax.jit(jax.grad(loss, argnums=(0, 1)))
    first, *rest = [gradient(images, kernel) for _ in range(5)]
    for again in rest:
        jax.tree.map(np.testing.assert_array_equal, again, first)


def test_concurrent_calls_do_not_deadlock():
    """Independent branches run on one pool of threads, each of which shares its work there."""
    kernels = random(24, 3, 3, 16, 16)
    images = random(2, 32, 32, 16)

    @jax.jit
    def branches(images):
        return sum(convolve_native(images, kernel, 1) for kernel in kernels)

    for _ in range(20):
        result = branches(images)
    wanted = convolve_xla(images, kernels.sum(0), 1)
    np.testing.assert_allclose(result, wanted, atol=1e-3)


@pytest.mark.parametrize("attention", [True, False])
def test_a_network_agrees_with_xla(attention):
    images = random(2, 32, 32, 1)
    plain = UNet(num_labels=5, width=8, depth=1, attention=attention)
    params = plain.init(jax.random.key(0), images)

    def loss(params, network):
        return jnp.square(network.apply(params, images)).mean()

    both = jax.jit(jax.value_and_grad(loss), static_argnums=1)
    value, gradient = both(params, plain)
    fast_value, fast_gradient = both(params, plain.clone(convolve=convolve_native))
    np.testing.assert_allclose(fast_value, value, rtol=1e-5)
    scale = max(jnp.abs(leaf).max() for leaf in jax.tree.leaves(gradient))
    jax.tree.map(
        partial(np.testing.assert_allclose, rtol=0, atol=1e-5 * scale), fast_gradient, gradient
    )
