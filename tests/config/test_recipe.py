"""Settings to objects: schedules and Adam by hand, networks by stage, cohorts from disk."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs import attention, awce, awce_penalty, baseline
from jaxseg.anatomy import EMIDEC
from jaxseg.config import recipe
from jaxseg.data import Grid
from jaxseg.train_step import Mixup


def settings(module=baseline, **changes):
    """A stage's settings with changes as section__field=value."""
    config = module.get_config().to_dict()
    for name, value in changes.items():
        section, field = name.split("__")
        config[section][field] = value
    return config


def rates(steps, steps_per_epoch, *, module=baseline, **fields):
    changes = {f"optimizer__{name}": value for name, value in fields.items()}
    schedule = recipe.learning_rate(settings(module, **changes), steps, steps_per_epoch)
    return np.array([float(np.asarray(schedule(step))) for step in range(steps)])


# 11 steps, 2 of them warm-up: the decay from 1e-2 to 1e-6 takes 8 steps, from step 2 to step 10.
@pytest.mark.parametrize(
    ("schedule", "at_4", "at_6", "at_10"),
    [
        # (1 + cos(pi / 4)) / 2 = 0.853553
        ("cosine", 1e-6 + 0.853553 * (1e-2 - 1e-6), (1e-2 + 1e-6) / 2, 1e-6),
        ("linear", 0.75e-2 + 0.25e-6, (1e-2 + 1e-6) / 2, 1e-6),
        ("constant", 1e-2, 1e-2, 1e-2),
    ],
)
def test_learning_rate_by_hand(schedule, at_4, at_6, at_10):
    found = rates(11, 2.0, schedule=schedule, warmup_epochs=1.0)
    expected = [1e-2 / 3, 2e-2 / 3, 1e-2, at_4, at_6, at_10]
    np.testing.assert_allclose(found[[0, 1, 2, 4, 6, 10]], expected, rtol=1e-4)


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
@pytest.mark.parametrize("warmup_epochs", [0.0, 0.5, 1.0, 3.0])
def test_the_rate_rises_then_falls_to_the_final_one(schedule, warmup_epochs):
    found = rates(41, 10.0, schedule=schedule, warmup_epochs=warmup_epochs)
    top = round(10 * warmup_epochs)
    assert found[top] == pytest.approx(1e-2, rel=1e-5)
    assert (np.diff(found[: top + 1]) > 0).all()
    assert (np.diff(found[top:]) < 0).all()
    assert found[0] > 0
    assert found[-1] == pytest.approx(1e-6, rel=1e-2)


def test_a_warm_up_as_long_as_the_run_still_ends_at_the_final_rate():
    found = rates(10, 10.0, warmup_epochs=0.98)
    assert found[8] == pytest.approx(1e-2)
    assert found[9] == pytest.approx(1e-6, rel=1e-2)
    np.testing.assert_allclose(rates(1, 0.5, warmup_epochs=0.9), [1e-2])


@pytest.mark.parametrize("warmup_epochs", [4.0, 5.0, 400.0])
def test_a_run_no_longer_than_its_warm_up_rises_for_its_first_half(warmup_epochs):
    config = settings(optimizer__warmup_epochs=warmup_epochs, train__epochs=4)
    schedule = recipe.learning_rate(config, 40, 10.0)
    found = np.array([float(np.asarray(schedule(step))) for step in range(40)])
    assert found.argmax() == 20
    assert found[20] == pytest.approx(1e-2)
    assert found[-1] == pytest.approx(1e-6, rel=1e-2)


def test_the_paper_s_run_starts_at_1e_2_and_ends_at_1e_6():
    """639 slices in batches of 16, 400 epochs: 15975 steps, the first 5 epochs (200) warm up."""
    schedule = recipe.learning_rate(baseline.get_config("emidec").to_dict(), 15975, 639 / 16)
    assert float(np.asarray(schedule(199))) < 1e-2
    assert float(np.asarray(schedule(200))) == pytest.approx(1e-2)
    assert float(np.asarray(schedule(15974))) == pytest.approx(1e-6, rel=1e-2)


def adam_by_hand(gradients, rate):
    """Kingma and Ba, algorithm 1."""
    x = m = v = np.zeros(2)
    for t, gradient in enumerate(gradients, start=1):
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        x = x - rate * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    return x


@pytest.mark.parametrize("clip_norm", [0.0, 1.0])
def test_optimizer_is_adam_with_the_gradient_clipped_before_it(clip_norm):
    gradients = [np.array([3.0, 4.0]), np.array([0.3, -0.4])]  # norms 5 and 0.5
    huge = 1e3  # another sub-network's gradient, by which this one is not rescaled
    config = settings(optimizer__clip_norm=clip_norm)
    optimizer = recipe.optimizer(config, optax.constant_schedule(0.1))
    params: Any = {"network": jnp.zeros(2), "generator": jnp.zeros(1)}
    state = optimizer.init(params)
    for g in gradients:
        tree = {"network": jnp.array(g), "generator": jnp.array([huge])}
        updates, state = optimizer.update(tree, state, params)
        params = optax.apply_updates(params, updates)
    clipped = [gradients[0] / 5, gradients[1]]
    expected = adam_by_hand(clipped if clip_norm else gradients, 0.1)
    np.testing.assert_allclose(params["network"], expected, rtol=1e-5)
    assert abs(adam_by_hand(clipped, 0.1) - adam_by_hand(gradients, 0.1)).max() > 1e-3


@pytest.mark.parametrize(
    ("module", "has_attention", "has_generator"),
    [
        (baseline, False, False),
        (attention, True, False),
        (awce, True, True),
        (awce_penalty, True, True),
    ],
)
def test_networks_by_stage(module, has_attention, has_generator):
    networks = recipe.networks(settings(module, model__depth=2, model__groups=4))
    assert networks.segmentation.attention is has_attention
    assert (networks.generator is not None) is has_generator
    unet = networks.segmentation
    assert (unet.num_labels, unet.width, unet.depth, unet.groups) == (5, 8, 2, 4)
    assert unet.dense is False
    assert unet.dtype == jnp.float32


def test_the_generator_and_the_precision_of_both_networks():
    config = settings(awce, balance__width=4, model__precision="bfloat16", model__dense=True)
    networks = recipe.networks(config)
    generator = networks.generator
    assert generator is not None
    assert (generator.num_labels, generator.width, generator.groups) == (5, 4, 8)
    assert generator.dtype == networks.segmentation.dtype == jnp.bfloat16
    assert networks.segmentation.dense is True


def test_objective_of_the_last_stage():
    found = recipe.objective(settings(awce_penalty))
    assert (found.method, found.strength) == ("adversarial", 0.7)
    assert (found.penalty, found.epsilon) == (0.01, 1e-3)
    assert found.inclusions == EMIDEC.inclusions
    hash(found)  # a static argument of compiled functions


def test_objective_of_the_baseline():
    assert recipe.objective(settings()).penalty == 0.0


def test_dice_of_labels_or_of_whole_regions():
    assert recipe.objective(settings()).dice_regions == ()
    found = recipe.objective(settings(loss__dice_of="regions"))
    assert found.dice_regions == ((0,), (1,), (2, 3, 4), (3, 4), (4,))


def test_anatomy_grid_and_mixup():
    assert recipe.anatomy(settings()) == EMIDEC
    assert recipe.mixup(settings(mixup__probability=0.5)) == Mixup(probability=0.5, tolerance=0.1)
    found = recipe.grid(settings(grid__size=[96, 64], grid__spacing=1.4, grid__center=[0.5, 0.25]))
    assert found == Grid((96, 64), 1.4, (0.5, 0.25))
    assert recipe.grid(settings(grid__spacing=0.0)).spacing is None  # native pixels
