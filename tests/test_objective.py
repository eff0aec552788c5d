"""Deep supervision by hand. The stages' own terms are tested in test_train_step.py."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from jaxseg.models import COARSE, UNet, WeightGenerator
from jaxseg.objective import Networks, Objective, loss_and_logs

L, SIZE = 3, 8
FIELDS = {
    "method": "adversarial", "strength": 0.7, "factors": (1.0, 2.0, 0.5), "penalty": 0.0,
    "epsilon": 1e-3, "support": 0.0, "inclusions": (((2,), (2, 1)),),
}  # fmt: skip


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, L, (2, SIZE, SIZE))
    return jnp.float32(rng.normal(size=(2, SIZE, SIZE, 1))), jnp.float32(np.eye(L)[labels])


def built(weighted: bool):
    """A network of three levels with its parameters, and the weight generator where asked."""
    network = UNet(L, width=4, depth=2, groups=2, attention=False, coarse_logits=True)
    generator = WeightGenerator(L, width=2, groups=2) if weighted else None
    image = jnp.zeros((1, SIZE, SIZE, 1))
    params = {"network": network.init(jax.random.key(1), image)["params"]}
    if generator is not None:
        params["generator"] = generator.init(jax.random.key(2), image)["params"]
    return Networks(network, generator), params


def fine_and_coarse(networks: Networks, params, images) -> tuple[np.ndarray, np.ndarray]:
    """Logits of the finest level and of the one coarser level, in float64."""
    fine, kept = networks.segmentation.apply(
        {"params": params["network"]}, images, mutable=[COARSE]
    )
    (coarse,) = kept[COARSE]["levels"]
    return np.asarray(fine, np.float64), np.asarray(coarse, np.float64)


def halved(targets) -> np.ndarray:
    """Means over squares of two by two pixels, one square after the other."""
    targets = np.asarray(targets, np.float64)
    means = np.zeros((2, SIZE // 2, SIZE // 2, L))
    for row in range(SIZE // 2):
        for column in range(SIZE // 2):
            square = targets[:, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
            means[:, row, column] = square.reshape(2, 4, L).mean(1)
    return means


@pytest.mark.parametrize("weighted", [False, True])
def test_the_coarser_level_by_hand(batch, weighted):
    images, targets = batch
    networks, params = built(weighted)
    objective = Objective(**FIELDS, dice=0.5, dice_smooth=8.0, deep=0.25)
    total, logs = jax.jit(loss_and_logs, static_argnums=(1, 2))(
        params, networks, objective, images, targets
    )
    _, logits = fine_and_coarse(networks, params, images)
    means, weights = halved(targets), np.ones((2, L))
    if weighted:
        assert networks.generator is not None
        generated = networks.generator.apply({"params": params["generator"]}, images)
        weights = np.asarray(generated) * np.array(FIELDS["factors"])
    entropy = -(weights[:, None, None] * means * log_softmax(logits, -1)).sum(-1).mean()
    p = softmax(logits, -1)
    overlap = 2 * (p * means).sum((1, 2)) + 2.0  # 8 pixels are 2 of the coarse ones
    dice = 1 - (overlap / ((p + means).sum((1, 2)) + 2.0)).mean()
    expected = 0.25 * (entropy + 0.5 * dice)
    assert float(logs["deep_supervision"]) == pytest.approx(expected, rel=1e-5)
    # Beside it, everything is as without it.
    plain = Objective(**FIELDS, dice=0.5, dice_smooth=8.0)
    alone, fewer = jax.jit(loss_and_logs, static_argnums=(1, 2))(
        params, networks, plain, images, targets
    )
    assert logs.keys() - fewer.keys() == {"deep_supervision"}
    assert float(total - alone) == pytest.approx(expected, rel=1e-4)
    assert float(logs["loss"] - fewer["loss"]) == pytest.approx(expected, rel=1e-4)


def test_dice_of_regions_at_the_finest_level_and_at_the_coarser_one(batch):
    images, targets = batch
    networks, params = built(weighted=False)
    regions = ((0,), tuple(range(1, L)))
    objective = Objective(**FIELDS, dice=0.5, dice_regions=regions, deep=0.25)
    _, logs = loss_and_logs(params, networks, objective, images, targets)
    logits, coarse = fine_and_coarse(networks, params, images)

    def dice(logits, targets):
        p = softmax(logits, -1)
        p, y = (np.stack([x[..., 0], x[..., 1:].sum(-1)], -1) for x in (p, np.asarray(targets)))
        return 1 - (2 * (p * y).sum((1, 2)) / (p + y).sum((1, 2))).mean()

    means = halved(targets)
    entropy = -(means * log_softmax(coarse, -1)).sum(-1).mean()
    assert float(logs["dice_loss"]) == pytest.approx(dice(logits, targets), rel=1e-5)
    expected = 0.25 * (entropy + 0.5 * dice(coarse, means))
    assert float(logs["deep_supervision"]) == pytest.approx(expected, rel=1e-5)


def test_coarser_levels_weigh_less_and_less(batch):
    """Of two levels alike, one weighs `deep`, the other its square."""
    images, targets = batch
    network = UNet(L, width=2, depth=3, groups=2, attention=False, coarse_logits=True)
    params = {"network": network.init(jax.random.key(1), images)["params"]}
    flat = {name: jax.tree.map(jnp.zeros_like, params["network"][name]) for name in
            ("logits1", "logits2")}  # fmt: skip
    params["network"] = params["network"] | flat  # logits 0 everywhere: log L of cross-entropy
    for deep in (1.0, 0.5):
        objective = Objective(**FIELDS, deep=deep)
        _, logs = loss_and_logs(params, Networks(network, None), objective, images, targets)
        expected = (deep + deep**2) * np.log(L)
        assert float(logs["deep_supervision"]) == pytest.approx(expected, rel=1e-5)
