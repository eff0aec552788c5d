"""Properties of warp, mixup, losses, metrics and resampling that hold for any input.

Shapes are fixed, so that each function is compiled once; draws are the same in every run.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from jaxseg import metrics
from jaxseg.anatomy import EMIDEC
from jaxseg.data.grid import (
    Grid,
    labels_to_network,
    probabilities_to_native,
    to_network,
)
from jaxseg.data.preprocess import normalize
from jaxseg.label_weights import METHODS, generator_objective
from jaxseg.losses import (
    automated_weighted_cross_entropy,
    cross_entropy,
    neighboring_loss,
    soft_dice_loss,
)
from jaxseg.mixup import pathology_mixup, registration_matrix, warp
from jaxseg.models import UNet, initialize
from tests.by_hand import labels_back

repeatable = settings(max_examples=30, deadline=None, derandomize=True, database=None)

H, W, L = 9, 11, 5
finite = partial(st.floats, allow_nan=False, allow_subnormal=False, width=32)
images = arrays(np.float32, (H, W), elements=finite(-1e4, 1e4))
label_maps = arrays(np.uint8, (H, W), elements=st.integers(0, L - 1))
shares = finite(0, 1)

jit_warp = jax.jit(warp)
jit_mixup = jax.jit(partial(pathology_mixup, num_labels=L))
jit_matrix = jax.jit(registration_matrix)


def similarity(scale, row, column):
    return np.array([[scale, 0, row], [0, scale, column], [0, 0, 1]], np.float32)


similarities = st.builds(similarity, finite(0.25, 4), finite(-15, 15), finite(-15, 15))


# Warp and mixup


@repeatable
@given(images, st.integers(-12, 12), st.integers(-12, 12))
def test_integer_shifts_are_exact(image, row, column):
    """Shift 0 is the identity; values from outside the image are 0."""
    padded = np.pad(image, 12)
    expected = padded[12 - row :, 12 - column :][:H, :W]
    np.testing.assert_array_equal(jit_warp(image, similarity(1, row, column)), expected)


@repeatable
@given(images, similarities)
def test_a_warp_stays_in_the_range_of_the_image(image, matrix):
    """Bilinear weights are not negative and sum to at most 1."""
    warped = np.asarray(jit_warp(image, matrix))
    slack = 1e-5 * np.abs(image).max()
    assert warped.min() >= min(image.min(), 0) - slack
    assert warped.max() <= max(image.max(), 0) + slack


@repeatable
@given(images, images, similarities)
def test_a_warp_is_linear(first, second, matrix):
    together = jit_warp(2 * first - second, matrix)
    apart = 2 * jit_warp(first, matrix) - jit_warp(second, matrix)
    np.testing.assert_allclose(together, apart, atol=2e-5 * 3e4)


@repeatable
@given(label_maps)
def test_a_foreground_is_registered_onto_itself_by_the_identity(label):
    np.testing.assert_allclose(jit_matrix(label > 0, label > 0), np.eye(3), atol=1e-5)


@repeatable
@given(label_maps, label_maps)
def test_registration_scales_by_a_positive_finite_number(fixed, moving):
    matrix = np.asarray(jit_matrix(fixed > 0, moving > 0))
    assert np.isfinite(matrix).all()
    assert matrix[0, 0] == matrix[1, 1] > 0


@repeatable
@given(images, label_maps, images, label_maps, shares)
def test_mixed_labels_are_probabilities(fixed_image, fixed, moving_image, moving, share):
    image, probabilities = jit_mixup(fixed_image, fixed, moving_image, moving, share)
    np.testing.assert_allclose(probabilities.sum(-1), 1, atol=1e-5)
    assert probabilities.min() >= 0
    assert np.isfinite(image).all()
    outside = fixed == 0
    np.testing.assert_array_equal(np.asarray(image)[outside], fixed_image[outside])
    np.testing.assert_array_equal(np.asarray(probabilities)[outside, 0], 1)


@repeatable
@given(images, label_maps, images, label_maps)
def test_lambda_1_and_an_empty_partner_leave_the_slice_unchanged(image, label, other, moving):
    for partner, share in ((moving, 1.0), (np.zeros_like(moving), 0.3)):
        mixed, probabilities = jit_mixup(image, label, other, partner, share)
        np.testing.assert_array_equal(mixed, image)
        np.testing.assert_array_equal(probabilities, np.eye(L)[label])


@repeatable
@given(images, label_maps, shares)
def test_a_slice_mixed_with_itself_is_unchanged(image, label, share):
    mixed, probabilities = jit_mixup(image, label, image, label, share)
    # A scale that is 1 but for rounding moves a pixel by 1e-5 of its neighbors' difference.
    np.testing.assert_allclose(mixed, image, atol=2e-4 * max(1, np.abs(image).max()))
    np.testing.assert_allclose(probabilities, np.eye(L)[label], atol=2e-4)


# Losses

SHAPE = (2, 3, 4, L)


@jax.jit
def losses(logits, targets, weights):
    probabilities = jax.nn.softmax(logits.astype(jnp.float32))
    return {
        "cross-entropy": cross_entropy(logits, targets),
        "weighted": automated_weighted_cross_entropy(logits, targets, weights),
        "penalty": neighboring_loss(probabilities, EMIDEC.inclusions, epsilon=1e-3),
        "literal": neighboring_loss(targets, EMIDEC.inclusions, epsilon=1e-3),
    }


@jax.jit
def gradients(logits, targets, weights):
    return jax.grad(lambda x: sum(losses(x, targets, weights).values()))(logits)


def extreme(logits, labels, weights, dtype, case):
    """Logits, targets and weights at their limits, with the name of the case."""
    targets = np.eye(L, dtype=np.float32)[labels]
    match case:
        case "no label":
            targets = np.zeros_like(targets)
        case "zero logits":
            logits = np.zeros_like(logits)
        case "zero weights":
            weights = np.zeros_like(weights)
        case "one-hot logits":
            logits = 1e4 * targets
    return case, (jnp.asarray(logits, dtype), jnp.asarray(targets), jnp.asarray(weights))


extremes = st.builds(
    extreme,
    arrays(np.float32, SHAPE, elements=finite(-1e4, 1e4)),
    arrays(np.uint8, SHAPE[:3], elements=st.integers(0, L - 1)),
    arrays(np.float32, (2, L), elements=finite(0, 1e3)),
    st.sampled_from(["float32", "bfloat16"]),
    st.sampled_from(["one-hot", "no label", "zero logits", "zero weights", "one-hot logits"]),
)


@repeatable
@given(extremes)
def test_losses_and_gradients_are_finite(drawn):
    case, arguments = drawn
    found = losses(*arguments)
    for name, loss in found.items():
        assert loss.dtype == jnp.float32, name
        assert np.isfinite(loss), name
    assert min(found["cross-entropy"], found["weighted"]) >= 0
    # 1 - a - b of two pairs of probabilities.
    assert -2 <= found["penalty"] <= 2
    assert np.isfinite(gradients(*arguments).astype(jnp.float32)).all()
    if case == "no label" or case == "one-hot logits":
        assert found["cross-entropy"] == 0


@partial(jax.jit, static_argnums=4)
def jit_objective(logits, targets, weights, strength, method):
    def objective(logits, weights):
        return generator_objective(logits, targets, weights, method=method, strength=strength)

    return jax.value_and_grad(objective, (0, 1))(logits, weights)


NETWORK = UNet(L, width=2, depth=1, groups=2, dtype=jnp.bfloat16)


@jax.jit
def jit_network(seed, images, targets):
    def loss(params):
        logits = NETWORK.apply({"params": params}, images)
        return cross_entropy(logits, targets) + soft_dice_loss(logits, targets), logits

    params = initialize(NETWORK, jax.random.key(seed), images[:1])
    slopes, logits = jax.grad(loss, has_aux=True)(params)
    return logits, slopes


jit_dice = jax.jit(jax.value_and_grad(soft_dice_loss))


@repeatable
@given(extremes)
def test_the_dice_loss_is_between_0_and_1(drawn):
    case, (logits, targets, _) = drawn
    loss, gradient = jit_dice(logits, targets)
    assert loss.dtype == jnp.float32
    assert -1e-6 <= loss <= 1 + 1e-6
    assert np.isfinite(gradient.astype(jnp.float32)).all()
    if case in ("one-hot logits", "no label"):
        assert abs(loss) <= 1e-6


@repeatable
@given(extremes, finite(0, 10))
def test_the_generator_s_objective_and_gradient_are_finite(drawn, strength):
    """For every method; no gradient reaches the logits."""
    _, (logits, targets, weights) = drawn
    for method in METHODS:
        objective, slopes = jit_objective(logits, targets, weights, strength, method)
        assert objective.dtype == jnp.float32
        assert np.isfinite(objective), method
        assert np.isfinite(slopes[1]).all(), method
        np.testing.assert_array_equal(slopes[0].astype(jnp.float32), 0)


@repeatable
@given(
    st.integers(0, 2**32 - 1),
    arrays(np.uint8, (2, 8, 8), elements=st.integers(0, L - 1)),
    st.sampled_from([0.0, 1.0, -1e3]),
)
def test_a_network_in_bfloat16_is_finite_on_an_image_without_contrast(seed, labels, level):
    """All zero, as beyond the tissue, or another constant: the variance is 0."""
    targets = np.eye(L, dtype=np.float32)[labels]
    logits, slopes = jit_network(np.uint32(seed), np.full((2, 8, 8, 1), level, np.float32), targets)
    assert logits.dtype == jnp.float32
    for array in (logits, *jax.tree.leaves(slopes)):
        assert np.isfinite(array).all()


@repeatable
@given(
    arrays(np.float32, SHAPE, elements=finite(-50, 50)),
    arrays(np.uint8, SHAPE[:3], elements=st.integers(0, L - 1)),
    finite(0, 10),
    st.permutations(range(SHAPE[0])),
)
def test_equal_weights_scale_cross_entropy(logits, labels, weight, order):
    targets = np.eye(L, dtype=np.float32)[labels]
    weights = np.full((2, L), weight, np.float32)
    found = losses(logits, targets, weights)
    np.testing.assert_allclose(found["weighted"], weight * found["cross-entropy"], rtol=1e-5)
    turned = losses(logits[np.array(order)], targets[np.array(order)], weights)
    for name in found:
        np.testing.assert_allclose(turned[name], found[name], rtol=1e-5, atol=1e-6)


# Metrics

stacks = arrays(np.uint8, (5, 6, 3), elements=st.integers(0, 2))
SPACING = (1.4, 0.9, 9.5)


@repeatable
@given(stacks, stacks, st.sampled_from([1, (1, 2), 4]))
def test_metrics_are_symmetric_and_perfect_on_a_map_itself(first, second, labels):
    scores = [
        partial(metrics.dice, labels=labels),
        partial(metrics.hausdorff_distance, labels=labels, spacing=SPACING),
        partial(metrics.hausdorff_distance, labels=labels, spacing=SPACING, percentile=95),
        partial(metrics.volume_difference, labels=labels, spacing=SPACING),
    ]
    for score, perfect in zip(scores, (1, 0, 0, 0), strict=True):
        assert np.array_equal(score(first, second), score(second, first), equal_nan=True)
        own = score(first, first)
        assert own == perfect or np.isnan(own)
        if np.isin(first, labels).any():
            assert own == perfect


@repeatable
@given(stacks, stacks)
def test_metrics_stay_in_their_bounds(first, second):
    dice = metrics.dice(first, second, 1, empty=1.0)
    assert 0 <= dice <= 1
    assert (dice == 1) == np.array_equal(first == 1, second == 1)
    if (first == 1).any() and (second == 1).any():
        whole = metrics.hausdorff_distance(first, second, 1, SPACING)
        most = metrics.hausdorff_distance(first, second, 1, SPACING, percentile=95)
        diagonal = np.linalg.norm((np.array(first.shape) - 1) * SPACING)
        assert 0 <= most <= whole <= diagonal + 1e-9
    counts = metrics.inclusion_violation(np.moveaxis(first, -1, 0), (1,), (1, 2))
    assert (counts.detached <= counts.inner).all()
    assert counts.inner.sum() == (first == 1).sum()


# The network grid and back

grids = st.builds(
    Grid,
    size=st.tuples(st.integers(1, 24), st.integers(1, 24)),
    spacing=st.none() | st.floats(0.3, 9),
    center=st.tuples(st.floats(0, 1), st.floats(0, 1)),
)
spacings = st.tuples(st.floats(0.3, 9), st.floats(0.3, 9), st.just(10.0))


@repeatable
@given(stacks, spacings, grids)
def test_labels_stay_labels_on_any_grid(label, spacing, grid):
    network = labels_to_network(label, spacing, grid, 3)
    assert network.shape == (3, *grid.size)
    back = labels_back(network, label.shape, spacing, grid)
    assert back.shape == label.shape
    for there in (network, back):
        assert set(np.unique(there)) <= {0, *np.unique(label)}


@repeatable
@given(arrays(np.uint8, (5, 6, 3), elements=st.integers(0, 255)), spacings, grids)
def test_intensities_stay_in_their_range_on_any_grid(image, spacing, grid):
    network, tissue = to_network(image, spacing, grid, image > 0)
    np.testing.assert_array_equal(network[~tissue], 0)
    assert network.shape == (3, *grid.size)
    if tissue.any():
        inside = image[image > 0]
        assert inside.min() - 1e-3 <= network[tissue].min()
        assert network[tissue].max() <= inside.max() + 1e-3


@repeatable
@given(arrays(np.float32, (3, 8, 7, L), elements=finite(1 / 64, 1)), spacings, st.floats(0.3, 9))
def test_probabilities_stay_probabilities_on_the_native_grid(weights, spacing, edge):
    probabilities = weights / weights.sum(-1, keepdims=True)
    grid = Grid(size=(8, 7), spacing=edge)
    native = probabilities_to_native(probabilities, (5, 6, 3), spacing, grid)
    assert native.shape == (5, 6, 3, L)
    np.testing.assert_allclose(native.sum(-1), 1, atol=1e-5)
    assert native.min() >= -1e-6


@repeatable
@given(
    stacks, spacings,
    st.sampled_from([(5, 6), (8, 8), (9, 6), (31, 32)]),
)  # fmt: skip
def test_native_pixels_round_trip_exactly(label, spacing, size):
    grid = Grid(size=size, spacing=None)
    network = labels_to_network(label, spacing, grid, 3)
    np.testing.assert_array_equal(labels_back(network, label.shape, spacing, grid), label)
    images, _ = to_network(label, spacing, grid, label > 0)
    np.testing.assert_array_equal(images, network)


@repeatable
@given(
    arrays(np.float32, (3, 6, 5), elements=st.sampled_from([0, 1, 2, 5, 9, 1000])),
    st.sampled_from(["zscore", "percentile"]),
)
def test_normalization_is_scale_invariant_and_keeps_padding(images, method):
    images[0, 0, :2] = 3, 700  # some contrast
    shown = images != 0
    normal = normalize(images, shown, method=method, percentiles=(0, 100))
    np.testing.assert_array_equal(normal[~shown], 0)
    tissue = normal[shown]
    scaled = normalize(images * 4, shown, method=method, percentiles=(0, 100))
    np.testing.assert_allclose(scaled, normal, rtol=1e-5, atol=1e-6)
    if method == "zscore":
        assert abs(tissue.mean()) < 1e-5
        assert abs(tissue.std() - 1) < 1e-5
    else:
        assert (tissue.min(), tissue.max()) == (0, 1)
