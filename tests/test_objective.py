"""The Dice term by hand. The stages' own terms are tested in test_train_step.py."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import softmax

from jaxseg.models import UNet
from jaxseg.objective import Networks, Objective, loss_and_logs

L, SIZE = 3, 8
FIELDS = {
    "method": "adversarial", "strength": 0.7, "penalty": 0.0, "epsilon": 1e-3,
    "inclusions": (((2,), (2, 1)),),
}  # fmt: skip


def test_the_dice_term_of_regions_by_hand():
    rng = np.random.default_rng(0)
    images = jnp.float32(rng.normal(size=(2, SIZE, SIZE, 1)))
    targets = np.eye(L)[rng.integers(0, L, (2, SIZE, SIZE))]
    network = UNet(L, width=4, depth=1, groups=2, attention=False)
    params = {"network": network.init(jax.random.key(1), images)["params"]}
    objective = Objective(**FIELDS, dice=0.5, dice_regions=((0,), (1, 2)))
    total, logs = loss_and_logs(
        params, Networks(network, None), objective, images, jnp.float32(targets)
    )
    logits = network.apply({"params": params["network"]}, images)
    p = softmax(np.asarray(logits, np.float64), -1)
    p, y = (np.stack([x[..., 0], x[..., 1:].sum(-1)], -1) for x in (p, targets))
    dice = 1 - (2 * (p * y).sum((1, 2)) / (p + y).sum((1, 2))).mean()
    assert logs.keys() == {"cross_entropy", "dice_loss", "loss"}
    assert float(logs["dice_loss"]) == pytest.approx(dice, rel=1e-5)
    expected = float(logs["cross_entropy"]) + 0.5 * dice
    assert float(total) == float(logs["loss"]) == pytest.approx(expected, rel=1e-5)
