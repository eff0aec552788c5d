"""Eq. 3-5 and cross-entropy, values and gradients, by hand and against float64 references."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from jaxseg.losses import (
    automated_weighted_cross_entropy,
    cross_entropy,
    neighborhood_penalty,
    neighboring_loss,
    soft_dice_loss,
)

LN2, LN3 = np.log(2), np.log(3)
SHAPE = (2, 3, 4, 5)
# EMIDEC: no-reflow in the whole infarct, that in the whole myocardium.
INCLUSIONS = (((4,), (4, 3)), ((4, 3), (4, 3, 2)))
EPSILON = 0.05
penalties = partial(neighboring_loss, inclusions=INCLUSIONS, epsilon=EPSILON)


def softmax_neighboring_loss(logits):
    return penalties(jax.nn.softmax(logits.astype(jnp.float32)))


def soft_case(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Float64 logits, soft targets that sum to 1, and weights of each image."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=3, size=SHAPE)
    targets = rng.dirichlet(np.full(SHAPE[-1], 0.4), size=SHAPE[:-1])
    return logits, targets, rng.gamma(2, size=(SHAPE[0], SHAPE[-1]))


def single(*arrays: np.ndarray) -> tuple[jax.Array, ...]:
    return tuple(jnp.asarray(array, jnp.float32) for array in arrays)


def awce64(logits, targets, weights) -> float:
    """Eq. 3 as it reads: a sum over pixels and labels, over the number of pixels."""
    total = 0.0
    for b, row, column in np.ndindex(logits.shape[:3]):
        log_probabilities = log_softmax(logits[b, row, column])
        total -= (weights[b] * targets[b, row, column] * log_probabilities).sum()
    return total / np.prod(logits.shape[:3])


def penalty64(a, b, epsilon) -> float:
    """Eq. 4 as it reads, pixel by pixel."""
    terms = [
        (1 - x - y) * (x > 0) * (y > 0) * (x * y < 1 - epsilon)
        for x, y in zip(a.ravel(), b.ravel(), strict=True)
    ]
    return float(np.mean(terms))


def region(probabilities, labels):
    return probabilities[..., list(labels)].sum(-1)


# By hand: two pixels, two labels. The first pixel has probabilities (1/2, 1/2) and label 0; the
# second (3/4, 1/4), and half of each label.
LOGITS = jnp.array([[[[0.0, 0.0], [LN3, 0.0]]]])
TARGETS = jnp.array([[[[1.0, 0.0], [0.5, 0.5]]]])


def test_cross_entropy_by_hand():
    # Pixel 1: ln 2. Pixel 2: 1/2 ln 4/3 + 1/2 ln 4 = 2 ln 2 - 1/2 ln 3.
    expected = (LN2 + 2 * LN2 - LN3 / 2) / 2
    assert float(cross_entropy(LOGITS, TARGETS)) == pytest.approx(expected, rel=1e-6)
    # (softmax - target) / N, N = 2 pixels.
    gradient = jax.grad(cross_entropy)(LOGITS, TARGETS)
    np.testing.assert_allclose(gradient[0, 0], [[-0.25, 0.25], [0.125, -0.125]], rtol=1e-6)


def test_weighted_cross_entropy_by_hand():
    # w = (2, 3). Pixel 1: 2 ln 2. Pixel 2: 2/2 ln 4/3 + 3/2 ln 4 = 5 ln 2 - ln 3.
    weights = jnp.array([[2.0, 3.0]])
    loss = automated_weighted_cross_entropy(LOGITS, TARGETS, weights)
    assert float(loss) == pytest.approx((7 * LN2 - LN3) / 2, rel=1e-6)
    gradients = jax.grad(automated_weighted_cross_entropy, (0, 2))(LOGITS, TARGETS, weights)
    # (sum_i w_i t_i) p - w t, over N. Pixel 1: 2 (1/2, 1/2) - (2, 0). Pixel 2: 5/2 (3/4, 1/4) -
    # (1, 3/2) = (7/8, -7/8).
    expected = [[-0.5, 0.5], [7 / 16, -7 / 16]]
    np.testing.assert_allclose(gradients[0][0, 0], expected, rtol=1e-6)
    # A weight's gradient is its label's share of plain cross-entropy.
    shares = [[(LN2 + (2 * LN2 - LN3) / 2) / 2, (2 * LN2 / 2) / 2]]
    np.testing.assert_allclose(gradients[1], shares, rtol=1e-6)


def test_every_image_has_its_own_weights():
    logits, targets = (jnp.concatenate([a, a]) for a in (LOGITS, TARGETS))
    loss = automated_weighted_cross_entropy(logits, targets, jnp.array([[2.0, 3.0], [0.0, 0.0]]))
    # The second image weighs nothing and its pixels still count in N.
    assert float(loss) == pytest.approx((7 * LN2 - LN3) / 4, rel=1e-6)


def test_neighborhood_penalty_by_hand():
    # a b: 0.9 (shut: not below 0.8), 0.25 (1 - a - b = 1/4), a = 0 (shut), b = 0 (shut),
    # 0.125 (1/4), 0.78 (-0.78).
    a = jnp.array([[[0.9, 0.5, 0.0, 0.7, 0.25, 1.0]]])
    b = jnp.array([[[1.0, 0.25, 0.6, 0.0, 0.5, 0.78]]])
    penalty = partial(neighborhood_penalty, epsilon=0.2)
    assert float(penalty(a, b)) == pytest.approx((0.25 + 0.25 - 0.78) / 6, rel=1e-6)
    # -1/6 to both where the gate is open, nothing elsewhere.
    for gradient in jax.grad(penalty, (0, 1))(a, b):
        expected = np.array([0, -1, 0, 0, -1, -1]) / 6
        np.testing.assert_allclose(gradient[0, 0], expected, rtol=1e-6)


def test_the_product_gate_is_strict():
    a, b = jnp.full((1, 1, 1), 0.5), jnp.full((1, 1, 1), 0.25)  # a b = 0.125, exact in binary
    assert neighborhood_penalty(a, b, epsilon=0.875) == 0
    assert neighborhood_penalty(a, b, epsilon=0.874) == 0.25


def test_neighboring_loss_by_hand():
    # Infarct regions 0.15 and 0.4: 1 - 0.55. Wall regions 0.4 and 0.7: 1 - 1.1.
    probabilities = jnp.array([[[[0.1, 0.2, 0.3, 0.25, 0.15]]]])
    assert float(penalties(probabilities)) == pytest.approx(0.45 - 0.1, rel=1e-5)
    # Each label counts once for every region that holds it: no-reflow is in all four.
    gradient = jax.grad(penalties)(probabilities)
    np.testing.assert_allclose(gradient[0, 0, 0], [0, 0, -1, -3, -4])


def test_perfect_nesting_has_no_penalty():
    # All no-reflow: a = b = 1 in both pairs, a b not below 1 - epsilon.
    assert penalties(jnp.array([[[[0.0, 0, 0, 0, 1]]]])) == 0
    # All infarct: the first inner region is empty (shut), the second pair is perfect.
    assert penalties(jnp.array([[[[0.0, 0, 0, 1, 0]]]])) == 0


@pytest.mark.parametrize("seed", range(3))
def test_cross_entropies_match_float64(seed):
    logits, targets, weights = soft_case(seed)
    plain = jax.value_and_grad(cross_entropy)(*single(logits, targets))
    weighted = jax.value_and_grad(automated_weighted_cross_entropy, (0, 2))(
        *single(logits, targets, weights)
    )
    assert float(plain[0]) == pytest.approx(awce64(logits, targets, np.ones((2, 5))), rel=1e-5)
    assert float(weighted[0]) == pytest.approx(awce64(logits, targets, weights), rel=1e-5)

    pixels = np.prod(SHAPE[:3])
    probabilities = softmax(logits, axis=-1)
    np.testing.assert_allclose(plain[1], (probabilities - targets) / pixels, rtol=1e-4, atol=1e-7)
    pulls = weights[:, None, None] * targets
    expected = (pulls.sum(-1, keepdims=True) * probabilities - pulls) / pixels
    np.testing.assert_allclose(weighted[1][0], expected, rtol=1e-4, atol=1e-6)
    shares = -(targets * log_softmax(logits, axis=-1)).sum((1, 2)) / pixels
    np.testing.assert_allclose(weighted[1][1], shares, rtol=1e-5)


@pytest.mark.parametrize("epsilon", [0.05, 0.7])
def test_neighboring_loss_matches_float64(epsilon):
    # Concentrated, so that gates are met open and shut.
    rng = np.random.default_rng(4)
    probabilities = rng.dirichlet(np.full(5, 0.3), size=SHAPE[:3]).astype(np.float32)
    probabilities[0, 0, :2] = np.eye(5, dtype=np.float32)[[4, 0]]
    exact = probabilities.astype(np.float64)
    expected, slope, opened = 0.0, np.zeros(SHAPE), 0
    for inner, outer in INCLUSIONS:
        a, b = region(exact, inner), region(exact, outer)
        expected += penalty64(a, b, epsilon)
        gate = (a > 0) & (b > 0) & (a * b < 1 - epsilon)
        opened += gate.sum()
        for labels in (inner, outer):
            slope[..., list(labels)] -= gate[..., None] / gate.size
    assert 0 < opened < 2 * np.prod(SHAPE[:3])
    loss = partial(neighboring_loss, inclusions=INCLUSIONS, epsilon=epsilon)
    value, gradient = jax.value_and_grad(loss)(probabilities)
    assert float(value) == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose(gradient, slope, rtol=1e-5, atol=1e-8)


def test_neighboring_loss_through_softmax_matches_finite_differences():
    logits, _, _ = soft_case(5)

    def loss64(z):
        p = softmax(z, axis=-1)
        return sum(penalty64(region(p, a), region(p, b), EPSILON) for a, b in INCLUSIONS)

    gradient = jax.grad(softmax_neighboring_loss)(*single(logits))
    rng = np.random.default_rng(6)
    for _ in range(4):
        step = rng.normal(size=SHAPE)
        slope = (loss64(logits + 1e-6 * step) - loss64(logits - 1e-6 * step)) / 2e-6
        assert float((gradient * step).sum()) == pytest.approx(slope, rel=1e-4)


def test_soft_dice_by_hand():
    """Two images of two pixels: one holds both labels, the other label 0 alone."""
    p = np.array([[[[0.8, 0.2], [0.4, 0.6]]], [[[0.9, 0.1], [0.7, 0.3]]]])
    y = np.array([[[[1.0, 0.0], [0.0, 1.0]]], [[[1.0, 0.0], [1.0, 0.0]]]])
    first = 1 - (2 * 0.8 / (1.2 + 1) + 2 * 0.6 / (0.8 + 1)) / 2
    second = 1 - 2 * 1.6 / (1.6 + 2)  # label 1 is not held: what it is given costs label 0 alone
    loss = soft_dice_loss(*single(np.log(p), y))
    np.testing.assert_allclose(loss, (first + second) / 2, rtol=1e-6)


def test_soft_dice_of_regions_by_hand():
    """One row of four pixels, labels 0, 1, 2, 2; regions 0, the union of 1 and 2, and 2 in it."""
    p = np.array([[[[0.7, 0.2, 0.1], [0.1, 0.4, 0.5], [0.2, 0.6, 0.2], [0.1, 0.1, 0.8]]]])
    y = np.eye(3)[np.array([[[0, 1, 2, 2]]])]
    outside = 2 * 0.7 / (1.1 + 1)
    union = 2 * (0.9 + 0.8 + 0.9) / (2.9 + 3)  # 1 and 2 taken for each other cost nothing here
    inner = 2 * (0.2 + 0.8) / (1.6 + 2)
    loss = soft_dice_loss(*single(np.log(p), y), regions=((0,), (1, 2), (2,)))
    np.testing.assert_allclose(loss, 1 - (outside + union + inner) / 3, rtol=1e-6)
    # An image without a region is not scored on it.
    healthy = np.eye(3)[np.array([[[0, 1, 1, 1]]])]
    union = 2 * 2.6 / (2.9 + 3)
    loss = soft_dice_loss(*single(np.log(p), healthy), regions=((0,), (1, 2), (2,)))
    np.testing.assert_allclose(loss, 1 - (outside + union) / 2, rtol=1e-6)
    with pytest.raises(ValueError, match="regions: "):
        soft_dice_loss(*single(np.log(p), y), regions=((0,), (1, 3)))


def test_soft_dice_of_single_label_regions_equals_that_of_labels():
    logits, targets = single(*soft_case(4)[:2])
    each = tuple((label,) for label in range(logits.shape[-1]))
    found = soft_dice_loss(logits, targets, regions=each)
    np.testing.assert_allclose(found, soft_dice_loss(logits, targets), rtol=1e-6)


def test_soft_dice_gradient_matches_finite_differences():
    logits, targets, _ = soft_case(8)
    gradient = np.asarray(jax.grad(soft_dice_loss)(*single(logits, targets)), np.float64)

    def dice64(z):
        p = np.exp(z) / np.exp(z).sum(-1, keepdims=True)
        overlap, total = 2 * (p * targets).sum((1, 2)), (p + targets).sum((1, 2))
        return (1 - overlap / total).mean()  # soft targets: every label is held

    assert (targets.sum((1, 2)) > 0).all()
    rng = np.random.default_rng(0)
    for _ in range(20):
        place = tuple(rng.integers(logits.shape))
        step = np.zeros_like(logits)
        step[place] = 1e-5
        slope = (dice64(logits + step) - dice64(logits - step)) / 2e-5
        np.testing.assert_allclose(gradient[place], slope, rtol=1e-3, atol=1e-7)


ALL = {
    "dice": lambda z, t: soft_dice_loss(z, t),
    "cross_entropy": lambda z, t: cross_entropy(z, t),
    "weighted": lambda z, t: automated_weighted_cross_entropy(z, t, jnp.full((2, 5), 1.7)),
    "penalty": lambda z, t: neighborhood_penalty(
        jax.nn.softmax(z)[..., 1], jax.nn.softmax(z)[..., 2], epsilon=EPSILON
    ),
    "neighboring": lambda z, t: softmax_neighboring_loss(z),
}
each_loss = pytest.mark.parametrize("loss", ALL.values(), ids=ALL.keys())


@each_loss
def test_compiled_losses_are_float32_scalars(loss):
    logits, targets = single(*soft_case(8)[:2])
    value, gradient = jax.jit(jax.value_and_grad(loss))(logits, targets)
    assert (value.shape, value.dtype) == ((), jnp.float32)
    plain_value, plain_gradient = jax.value_and_grad(loss)(logits, targets)
    assert float(value) == pytest.approx(float(plain_value), rel=1e-5)
    np.testing.assert_allclose(gradient, plain_gradient, rtol=1e-4, atol=1e-7)
    assert np.abs(gradient).max() > 0


def test_bfloat16_logits_are_summed_in_float32():
    logits, targets, weights = soft_case(11)
    rounded = jnp.asarray(logits, jnp.bfloat16)
    exact = np.asarray(rounded, np.float64)
    loss = partial(automated_weighted_cross_entropy, rounded, *single(targets, weights))
    assert loss().dtype == jnp.float32
    assert float(loss()) == pytest.approx(awce64(exact, targets, weights), rel=1e-5)
    plain, gradient = jax.value_and_grad(cross_entropy)(rounded, *single(targets))
    assert float(plain) == pytest.approx(awce64(exact, targets, np.ones((2, 5))), rel=1e-5)
    assert gradient.dtype == jnp.bfloat16
    expected = (softmax(exact, axis=-1) - targets) / np.prod(SHAPE[:3])
    np.testing.assert_allclose(gradient.astype(jnp.float32), expected, rtol=2**-8, atol=1e-6)
    # (1 - 2^-8)^2 = 1 - 2^-7 + 2^-16 is below this 1 - epsilon, though not once rounded to 8 bits.
    a = jnp.full((1, 1, 1), 1 - 2**-8, jnp.bfloat16)
    assert neighborhood_penalty(a, a, epsilon=2**-7 - 2**-15) == 2**-7 - 1


def test_shapes_that_differ_are_refused():
    z, w = jnp.zeros(SHAPE), jnp.ones((2, 5))
    for logits, targets in ((z, z[..., :4]), (z[0], z[0]), (z, jnp.zeros(SHAPE[:3]))):
        for loss in (cross_entropy, partial(automated_weighted_cross_entropy, weights=w)):
            with pytest.raises(ValueError, match="logits and targets"):
                loss(logits, targets)
    for weights in (w[0], w[:1], w[:, :4]):
        with pytest.raises(ValueError, match="weights"):
            automated_weighted_cross_entropy(z, z, weights)
    for inner, outer in ((z, z), (z[..., 0], z[:1, ..., 0])):
        with pytest.raises(ValueError, match="inner and outer"):
            neighborhood_penalty(inner, outer, epsilon=EPSILON)
    with pytest.raises(ValueError, match="probabilities"):
        penalties(z[0])


def test_inclusions_of_unknown_labels_are_refused():
    for pairs in ((), (((5,), (4, 5)),), (((4,), (4, -1)),)):
        with pytest.raises(ValueError, match=r"inclusions|pair"):
            neighboring_loss(jnp.zeros(SHAPE), pairs, epsilon=EPSILON)
