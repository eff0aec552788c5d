"""Objectives of the weight generator: by hand, at their optima, and in a small joint training."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from jaxseg import label_weights
from jaxseg.label_weights import generator_objective, label_cross_entropy
from jaxseg.losses import automated_weighted_cross_entropy

LN2, LN3 = np.log(2), np.log(3)
each_method = pytest.mark.parametrize("method", label_weights.METHODS)

# By hand: four pixels of three labels; label 2 is absent. Probabilities of label 0 are 1/2, 1/2,
# 1/2 and 1/4, and the other two share the rest.
LOGITS = jnp.array([[[[LN2, 0, 0], [LN2, 0, 0]], [[LN2, 0, 0], [np.log(2 / 3), 0, 0]]]])
# Label 0 holds the first two pixels and half of the third.
TARGETS = jnp.array([[[[1.0, 0, 0], [1, 0, 0]], [[0.5, 0.5, 0], [0, 1, 0]]]])
# Label 0: (2 + 1/2) ln 2. Label 1: 1/2 ln 4 + ln 8/3 = 4 ln 2 - ln 3.
SUMS = np.array([2.5 * LN2, 4 * LN2 - LN3])
DIFFICULTY = SUMS / [2.5, 1.5]


def soft_case(seed: int, absent: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Float64 logits and targets (2, 6, 6, 4); the first image may lack a label."""
    rng = np.random.default_rng(seed)
    targets = rng.dirichlet(np.full(4, 0.3), size=(2, 6, 6))
    if absent is not None:
        targets[0, ..., absent] = 0
        targets[0] /= targets[0].sum(-1, keepdims=True)
    return rng.normal(scale=2, size=targets.shape), targets


def activate(scores: jax.Array) -> jax.Array:
    """As `WeightGenerator` does, on free scores."""
    return scores.shape[-1] * jax.nn.softmax(scores)


def objective(scores, logits, targets, method, strength):
    return generator_objective(logits, targets, activate(scores), method=method, strength=strength)


def descend(logits, targets, method, *, strength, rate, steps) -> np.ndarray:
    """Weights at the end of gradient descent on free scores, the logits fixed."""
    shape = logits.shape[0], logits.shape[-1]
    scores = minimize(
        lambda z: objective(z, logits, targets, method, strength), shape, rate=rate, steps=steps
    )
    return np.asarray(activate(scores))


def minimize(loss, shape, *, rate, steps) -> jax.Array:
    """Where gradient descent from zero ends."""
    gradient = jax.grad(loss)
    run = jax.jit(lambda z: jax.lax.fori_loop(0, steps, lambda _, z: z - rate * gradient(z), z))
    return run(jnp.zeros(shape))


# Terms


def test_label_cross_entropy_by_hand():
    difficulty = label_cross_entropy(LOGITS, TARGETS)
    np.testing.assert_allclose(difficulty, [[*DIFFICULTY, 0]], rtol=1e-6)


def test_label_cross_entropy_matches_float64_in_each_image():
    logits, targets = soft_case(0, absent=1)
    difficulty = jax.jit(label_cross_entropy)(jnp.float32(logits), jnp.float32(targets))
    losses = -targets * log_softmax(logits, axis=-1)
    mass = targets.sum((1, 2))
    expected = np.divide(losses.sum((1, 2)), mass, out=np.zeros((2, 4)), where=mass > 0)
    np.testing.assert_allclose(difficulty, expected, rtol=1e-5)
    assert (mass > 0).sum() == 7


# Objectives by hand

WEIGHTS = jnp.array([[1.5, 0.9, 0.6]])
Q = np.array([0.5, 0.3, 0.2])
PAPER = (1.5 * SUMS[0] + 0.9 * SUMS[1]) / 4  # Eq. 3, over four pixels


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        # The absent label adds entropy and no difficulty.
        ("adversarial", -(Q[:2] @ DIFFICULTY - 0.7 * (Q @ np.log(Q)))),
        ("minimize", PAPER),
    ],
)
def test_objective_by_hand(method, expected):
    value = generator_objective(LOGITS, TARGETS, WEIGHTS, method=method, strength=0.7)
    assert float(value) == pytest.approx(expected, rel=1e-6)
    # The mean over images: twice the same image changes nothing.
    twice = generator_objective(
        *(jnp.concatenate([a, a]) for a in (LOGITS, TARGETS, WEIGHTS)),
        method=method, strength=0.7,
    )  # fmt: skip
    assert float(twice) == pytest.approx(expected, rel=1e-6)


def test_other_methods_are_refused():
    with pytest.raises(ValueError, match="'none'"):
        generator_objective(LOGITS, TARGETS, WEIGHTS, method="none", strength=0.3)


# Optima


@pytest.mark.parametrize("strength", [0.3, 0.7])
def test_adversarial_weight_follows_difficulty(strength):
    logits, targets = soft_case(3, absent=2)
    logits, targets = jnp.float32(logits), jnp.float32(targets)
    difficulty = np.asarray(label_cross_entropy(logits, targets), np.float64)
    optimum = softmax(difficulty / strength, axis=-1)
    # At z = c / strength the gradient is zero, and elsewhere it is not.
    slope = jax.grad(objective)
    at_optimum = slope(jnp.float32(difficulty / strength), logits, targets, "adversarial", strength)
    np.testing.assert_allclose(at_optimum, 0, atol=1e-6)
    assert np.abs(slope(jnp.zeros((2, 4)), logits, targets, "adversarial", strength)).max() > 1e-2
    weights = descend(logits, targets, "adversarial", strength=strength, rate=1.0, steps=5000)
    np.testing.assert_allclose(weights, 4 * optimum, atol=2e-3)
    # Bounded below by the share of a label without difficulty among three of the greatest.
    floor = 4 / (1 + 3 * np.exp(difficulty.max(-1) / strength))
    assert (weights.min(-1) > floor).all()


def awce(logits, targets, weights) -> float:
    return float(automated_weighted_cross_entropy(logits, targets, jnp.asarray(weights)))


def test_minimizing_eq_3_weighs_only_the_absent_label():
    settings = {"strength": 0.7, "rate": 5.0, "steps": 3000}
    minimized = descend(LOGITS, TARGETS, "minimize", **settings)
    # Nothing was learned, and the loss is gone.
    np.testing.assert_allclose(minimized, [[0, 0, 3]], atol=0.01)
    assert awce(LOGITS, TARGETS, minimized) < 0.005 * awce(LOGITS, TARGETS, np.ones((1, 3)))
    # c = (0.69, 1.12, 0): the absent label ends with the least, exp(0) in exp(c / 0.7).
    kept = descend(LOGITS, TARGETS, "adversarial", **settings | {"rate": 1.0})
    np.testing.assert_allclose(kept, 3 * softmax([[*DIFFICULTY / 0.7, 0]], axis=-1), rtol=1e-3)
    assert kept[0, 2] < kept[0, 0] < kept[0, 1]
    assert awce(LOGITS, TARGETS, kept) > awce(LOGITS, TARGETS, np.ones((1, 3)))


def test_a_lower_bound_on_the_weights_only_scales_cross_entropy():
    # Why there is no such method: what lies above the floor goes to the absent label all the same.
    floor = 0.25

    def lifted(scores):
        return floor + (1 - floor) * activate(scores)

    def loss(scores):
        settings = {"method": "minimize", "strength": 0.0}
        return generator_objective(LOGITS, TARGETS, lifted(scores), **settings)

    weights = lifted(minimize(loss, (1, 3), rate=5.0, steps=3000))
    np.testing.assert_allclose(weights, [[floor, floor, 3 - 2 * floor]], atol=0.01)
    plain = awce(LOGITS, TARGETS, np.ones((1, 3)))
    np.testing.assert_allclose(awce(LOGITS, TARGETS, weights), floor * plain, rtol=0.01)


def test_minimizing_eq_3_weighs_only_the_easiest_label():
    targets = jnp.eye(3)[jnp.arange(6) % 3].reshape(1, 2, 3, 3)
    # All labels are equally frequent; the network predicts 0 well, 1 a little, and 1 instead of 2.
    knowledge = jnp.array([[6.0, 0, 0], [0, 1, 0], [0, 2, 0]])
    logits = (targets.reshape(6, 3) @ knowledge).reshape(1, 2, 3, 3)
    minimized = descend(logits, targets, "minimize", strength=0.0, rate=5.0, steps=3000)
    np.testing.assert_allclose(minimized, [[3, 0, 0]], atol=0.01)
    kept = descend(logits, targets, "adversarial", strength=0.7, rate=1.0, steps=2000)
    assert kept[0, 0] < kept[0, 1] < kept[0, 2]
    # c = (0.005, 0.55, 2.24): even the known label keeps exp(c/0.7) of 28 in 3.
    assert kept[0, 0] > 0.1


# Joint training of a linear per-pixel classifier and free label scores


def toy() -> tuple[jax.Array, np.ndarray]:
    """Features (1, 20, 50, 3) and labels (1000,): 90 % background, 8 % easy, 2 % rare and hard.

    A fourth label is absent, as no-reflow is from most slices.
    """
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], [900, 80, 20])
    points = np.array([[0, 0], [5, 0], [0, 2]])[labels] + rng.normal(size=(1000, 2))
    features = np.concatenate([points, np.ones((1000, 1))], axis=1)
    return jnp.float32(features.reshape(1, 20, 50, 3)), labels


def dsc(predicted: np.ndarray, truth: np.ndarray, label: int) -> float:
    both = ((predicted == label) & (truth == label)).sum()
    return 2 * both / ((predicted == label).sum() + (truth == label).sum())


def train_toy(method: str, rate: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Label weights (4,) and DSC of the three labels after training both parts together.

    The loss is that of a training step; `rate` is the scores', and 0 makes it cross-entropy.
    """
    features, labels = toy()
    targets = jax.nn.one_hot(labels, 4).reshape(1, 20, 50, 4)

    def loss(classifier, scores):
        logits = features @ classifier
        weights = jax.lax.stop_gradient(activate(scores))
        network = automated_weighted_cross_entropy(logits, targets, weights)
        return network + objective(scores, logits, targets, method, 0.7)

    def step(_, both):
        slopes = jax.grad(loss, (0, 1))(*both)
        return both[0] - 0.1 * slopes[0], both[1] - rate * slopes[1]

    start = (jnp.zeros((3, 4)), jnp.zeros((1, 4)))
    classifier, scores = jax.jit(lambda both: jax.lax.fori_loop(0, 1000, step, both))(start)
    predicted = np.asarray((features @ classifier).argmax(-1)).ravel()
    overlap = np.array([dsc(predicted, labels, i) for i in range(3)])
    return np.asarray(activate(scores))[0], overlap


def test_joint_training_learns_with_adversarial_weights_only():
    # Measured DSC of (background, easy, rare): cross-entropy (0.99, 0.98, 0.26), Eq. 3 minimized
    # (0.62, 0.32, 0.14), adversarial (0.98, 0.98, 0.43).
    _, plain = train_toy("minimize", rate=0.0)
    weights, overlap = train_toy("minimize")
    assert weights[3] > 3.9  # on the absent label, so that learning stops soon after the start
    assert overlap.max() < 0.75
    assert overlap[2] < 0.75 * plain[2]
    weights, overlap = train_toy("adversarial")
    assert weights[3] < weights[:3].min()
    assert weights[2] > 2 * weights[:2].max()  # the rare and hard label has the largest weight
    assert overlap[:2].min() > 0.95
    assert overlap[2] > 1.4 * plain[2]
