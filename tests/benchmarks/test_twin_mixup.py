"""Both of PyTorch's mixups give what `jaxseg.mixup` gives.

To 1e-4: float32 moments summed in another order move the warp's samples by some 1e-6 pixels.
"""

from functools import partial

import jax
import numpy as np
import pytest

from jaxseg.mixup import pathology_mixup

torch = pytest.importorskip("torch", reason="torch, the benchmark's own requirement, is missing")

from benchmarks import loaders, twin_mixup  # noqa: E402

SIZE, NUM_LABELS = 24, 5
LAM = np.array([0.3, 0.0, 1.0, 0.6, 0.5], np.float32)


def disc(row: float, column: float, radius: float) -> np.ndarray:
    """Labels 1-4 in rings around a point."""
    rows, columns = np.mgrid[:SIZE, :SIZE]
    distance = np.hypot(rows - row, columns - column)
    return np.where(distance < radius, 1 + (distance * 4 // max(radius, 1)), 0).astype(np.uint8)


@pytest.fixture
def pairs() -> tuple[np.ndarray, ...]:
    """Fixed image and label, moving image and label; the last two pairs have an empty side."""
    rng = np.random.default_rng(2)
    images = rng.normal(size=(2, 5, SIZE, SIZE)).astype(np.float32)
    fixed = np.stack(
        [disc(10, 12, 6), disc(9, 9, 4), disc(12, 12, 1), disc(12, 12, 5), disc(0, 0, 0)]
    )
    moving = np.stack([disc(14, 8, 9), disc(3, 4, 7), disc(9, 9, 5), disc(0, 0, 0), disc(9, 9, 5)])
    return images[0], fixed, images[1], moving


@pytest.fixture
def expected(pairs: tuple[np.ndarray, ...]) -> tuple[np.ndarray, np.ndarray]:
    mix = jax.vmap(partial(pathology_mixup, num_labels=NUM_LABELS))
    image, target = mix(*pairs, LAM)
    return np.asarray(image), np.asarray(target)


def test_vectorized_mixup_agrees(pairs, expected):
    tensors = [torch.from_numpy(array) for array in pairs]
    image, target = twin_mixup.mix(*tensors, torch.from_numpy(LAM), NUM_LABELS)
    np.testing.assert_allclose(image[:, 0], expected[0], atol=1e-4)
    np.testing.assert_allclose(target.movedim(1, -1), expected[1], atol=1e-4)


def test_scipy_mixup_agrees(pairs, expected):
    mixed = [
        loaders.mix(*pair, lam, NUM_LABELS) for *pair, lam in zip(*pairs, LAM.tolist(), strict=True)
    ]
    image, target = (np.stack(part) for part in zip(*mixed, strict=True))
    assert image.dtype == target.dtype == np.float32
    np.testing.assert_allclose(image, expected[0], atol=1e-4)
    np.testing.assert_allclose(np.moveaxis(target, 1, -1), expected[1], atol=1e-4)


def test_partners_are_near_have_foreground_and_are_others():
    heights = torch.tensor([0.0, 0.05, 0.1, 0.5, 0.08])
    eligible = torch.tensor([True, False, True, True, True])
    indices = torch.tensor([0, 1, 3]).repeat(200)
    partners, lam = twin_mixup.draw(
        heights, eligible, indices, tolerance=0.1, probability=0.5,
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    drawn = {i: set(partners[indices == i].tolist()) for i in (0, 1, 3)}
    assert drawn == {0: {2, 4}, 1: {0, 2, 4}, 3: {3}}
    assert (lam[indices == 3] == 1).all(), "without a candidate there is nothing to mix"
    share = (lam[indices != 3] < 1).float().mean().item()
    assert 0.4 < share < 0.6


def test_loader_gives_mixed_batches():
    labels = np.stack([disc(10 + i % 3, 12, 5 + i % 2) for i in range(7)])
    images = np.ones((7, SIZE, SIZE), np.float32)
    dataset = loaders.MixupSlices(
        images, labels, np.zeros(7, np.float32), tolerance=0.1, probability=1.0, num_labels=5
    )
    batches = list(loaders.make_loader(dataset, batch_size=3, workers=0, pin=False))
    assert len(batches) == 2, "the seventh slice does not fill a batch"
    for image, target in batches:
        assert image.shape == (3, 1, SIZE, SIZE)
        assert target.shape == (3, 5, SIZE, SIZE)
        assert image.dtype == target.dtype == torch.float32
        np.testing.assert_allclose(target.sum(1), 1.0, atol=1e-5)
    targets = torch.cat([target for _, target in batches])
    assert ((targets > 0.01) & (targets < 0.99)).any(), "some pixels must be mixtures"


def test_loader_leaves_slices_unmixed_at_probability_zero():
    labels = np.stack([disc(10, 12, 5), disc(12, 9, 7)])
    dataset = loaders.MixupSlices(
        np.ones((2, SIZE, SIZE), np.float32), labels, np.zeros(2, np.float32),
        tolerance=0.1, probability=0.0, num_labels=5,
    )  # fmt: skip
    image, target = dataset[1]
    np.testing.assert_array_equal(image[0], np.ones((SIZE, SIZE)))
    np.testing.assert_array_equal(target.argmax(0), labels[1])
    assert target.max() == 1
