"""One step by hand, its dependence on seed and step, and one device against four."""

import dataclasses
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.special import log_softmax, softmax

from jaxseg import train_step
from jaxseg.augment import Augmentation
from jaxseg.batch import DeviceCohort, Mixup
from jaxseg.config.optimization import clip_each
from jaxseg.label_weights import generator_objective
from jaxseg.losses import automated_weighted_cross_entropy, cross_entropy, neighboring_loss
from jaxseg.models import UNet, WeightGenerator
from jaxseg.objective import Networks, Objective, loss_and_logs
from jaxseg.train_step import TrainState, compile_step, init_state, make_train_step, placement
from tests.toy_cohort import QUICK, SIZE, L, cohort, mixing

PAIRS = (((4,), (4, 3)), ((4, 3), (4, 3, 2)))
RATE, EPSILON = 1e-2, 1e-3
STAGES = {
    "baseline": {"attention": False, "weighted": False, "penalty": 0.0},
    "attention": {"attention": True, "weighted": False, "penalty": 0.0},
    "awce": {"attention": True, "weighted": True, "penalty": 0.0},
    "awce_penalty": {"attention": True, "weighted": True, "penalty": 0.01},
}
MIXUP = Mixup(probability=1.0, tolerance=0.3)
AUGMENTATION = Augmentation(
    probability=0.7, flip=True, rotation=20.0, zoom=0.2, gamma=0.3, contrast=0.2, brightness=0.2,
    noise=0.1,
)  # fmt: skip
INDICES = jnp.array([0, 1, 2, 3])
each_stage = pytest.mark.parametrize("stage", list(STAGES))
STAGES["context"] = STAGES["awce_penalty"] | {"context": True}  # no stage of the paper


def networks(stage: str, dtype=jnp.float32) -> Networks:
    attention, weighted = STAGES[stage]["attention"], STAGES[stage]["weighted"]
    context = "context" in STAGES[stage]
    segmentation = UNet(
        L, width=4, depth=0, attention=attention, context=context, groups=2, dtype=dtype
    )
    generator = WeightGenerator(L, width=2, groups=2, dtype=dtype)
    return Networks(segmentation, generator if weighted else None)


def objective(stage: str, **changes) -> Objective:
    fields = {"method": "adversarial", "strength": 0.7, "penalty": STAGES[stage]["penalty"]}
    return Objective(**fields | {"epsilon": 1e-3, "inclusions": PAIRS} | changes)


def optimizer() -> optax.GradientTransformation:
    # With so large an epsilon a step is a smooth function of the gradient.
    return optax.adam(RATE, eps=EPSILON)


@cache
def shapes(stage: str) -> TrainState:
    return jax.eval_shape(lambda: init_state(networks(stage), optimizer(), 0, SIZE))


def new_state(stage: str, *, seed: int = 3, step: int = 0) -> TrainState:
    """A state with parameters drawn by NumPy; compiling their own initialization takes longer."""
    rng = np.random.default_rng(1)

    def fill(path, leaf):
        if path[-1].key == "kernel":
            scale = np.sqrt(2 / np.prod(leaf.shape[:-1]))
            return jnp.array(rng.normal(0, scale, leaf.shape), jnp.float32)
        return jnp.full(leaf.shape, float(path[-1].key == "scale"), jnp.float32)

    params = jax.tree.map_with_path(fill, shapes(stage).params)
    return TrainState(params, optimizer().init(params), jnp.int32(step), jnp.uint32(seed))


def optimized_less(function, *arguments):
    """Compile without optimizations: tiny nets compile far longer than they run."""
    return jax.jit(function).lower(*arguments).compile(compiler_options=QUICK)


@cache
def step_of(stage: str, dtype=jnp.float32):
    step = compile_step(
        make_train_step(networks(stage, dtype), optimizer(), objective(stage), MIXUP), 1
    )
    return step.lower(new_state(stage), cohort(), INDICES).compile(compiler_options=QUICK)


def batch_of_step(seed: int, step: int):
    """As documented: root key of the seed, purpose, step, then the place in the global batch."""
    key = jax.random.fold_in(jax.random.key(seed), train_step._MIXUP)
    return mixing(4)(jax.random.fold_in(key, step), INDICES, 0, 1.0, MIXUP.tolerance)


def same(a, b) -> bool:
    leaves = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(np.array_equal(x, y) for x, y in leaves)


# ---- one step by hand


def terms_by_hand(stage: str, logits, generated, targets) -> dict[str, np.ndarray]:
    """Every logged term, written out in NumPy float64 from the networks' outputs."""
    logits, targets = np.asarray(logits, np.float64), np.asarray(targets, np.float64)
    log_p = log_softmax(logits, -1)
    terms = {"cross_entropy": -(targets * log_p).sum(-1).mean()}
    terms["loss"] = terms["cross_entropy"]
    if STAGES[stage]["weighted"]:
        generated = np.asarray(generated, np.float64)
        awce = -(generated[:, None, None] * targets * log_p).sum(-1).mean()
        difficulty = -(targets * log_p).sum((1, 2)) / np.maximum(targets.sum((1, 2)), 1e-30)
        q = generated / L
        reward = (q * difficulty).sum(-1) - 0.7 * (q * np.log(q)).sum(-1)
        terms |= {
            "weighted_cross_entropy": awce,
            "generator_objective": -reward.mean(),
            "label_weights": generated.mean(0),
            "loss": awce,
        }
    if STAGES[stage]["penalty"]:
        p, total = softmax(logits, -1), 0.0
        for a, b in ((p[..., 4], p[..., 3:].sum(-1)), (p[..., 3:].sum(-1), p[..., 2:].sum(-1))):
            total += np.where(a * b < 1 - 1e-3, 1 - a - b, 0).mean()
        terms["neighboring_loss"] = total
        terms["loss"] = terms["loss"] + 0.01 * total
    return terms


def gradients_by_hand(stage: str, params, images, targets):
    """Two separate objectives: the network's with weights as numbers, and the generator's.

    Returns:
      Gradients, logits, generated weights (None where there is no generator).
    """
    nets, rules = networks(stage), STAGES[stage]

    def network_loss(network, weights):
        logits = nets.segmentation.apply({"params": network}, images)
        if rules["weighted"]:
            loss = automated_weighted_cross_entropy(logits, targets, weights)
        else:
            loss = cross_entropy(logits, targets)
        if rules["penalty"]:
            loss += 0.01 * neighboring_loss(jax.nn.softmax(logits), PAIRS, epsilon=1e-3)
        return loss, logits

    def generator_loss(generator, logits):
        generated = nets.generator.apply({"params": generator}, images)
        return generator_objective(logits, targets, generated, method="adversarial", strength=0.7)

    gradients, generated = {}, None
    if rules["weighted"]:
        generated = nets.generator.apply({"params": params["generator"]}, images)
    slope = jax.grad(network_loss, has_aux=True)
    gradients["network"], logits = slope(params["network"], generated)
    if rules["weighted"]:
        gradients["generator"] = jax.grad(generator_loss)(params["generator"], logits)
    return gradients, logits, generated


@each_stage
def test_one_step_by_hand(stage):
    before = new_state(stage, seed=3, step=7)
    after, logs = step_of(stage)(new_state(stage, seed=3, step=7), cohort(), INDICES)
    images, targets = batch_of_step(3, 7)

    def reference(params):
        return gradients_by_hand(stage, params, images, targets)

    slope, *outputs = optimized_less(reference, before.params)(before.params)
    expected = terms_by_hand(stage, *outputs, targets)
    assert logs.keys() == expected.keys() | {"gradient_norm", "update_norm"}
    for name, value in expected.items():
        assert logs[name].shape == ((L,) if name == "label_weights" else ())
        np.testing.assert_allclose(logs[name], value, rtol=1e-5, err_msg=name)
    # The first step of Adam: both moments, bias-corrected, are the gradient's own.
    moves = jax.tree.map(lambda g: -RATE * g / (jnp.abs(g) + EPSILON), slope)
    assert all(np.abs(leaf).max() > 1e-5 for leaf in jax.tree.leaves(moves["network"]["logits"]))
    jax.tree.map(
        lambda old, move, new: np.testing.assert_allclose(new - old, move, rtol=1e-3, atol=2e-6),
        before.params, moves, after.params,
    )  # fmt: skip
    for name, tree in (("gradient_norm", slope), ("update_norm", moves)):
        norm = np.sqrt(sum((np.asarray(x, np.float64) ** 2).sum() for x in jax.tree.leaves(tree)))
        np.testing.assert_allclose(logs[name], norm, rtol=1e-4)
    assert (int(after.step), int(after.seed)) == (8, 3)


def test_the_generator_s_objective_has_no_gradient_for_the_network():
    stage = "awce_penalty"
    params = new_state(stage).params
    images, targets = batch_of_step(0, 0)

    def slope(params, strength):
        terms = objective(stage, strength=strength)
        return jax.grad(loss_and_logs, has_aux=True)(
            params, networks(stage), terms, images, targets
        )[0]

    compiled = optimized_less(slope, params, 0.7)
    weak, strong = compiled(params, 0.7), compiled(params, 7.0)
    assert same(weak["network"], strong["network"])
    assert not same(weak["generator"], strong["generator"])


def test_the_generator_s_gradient_does_not_rescale_the_network_s():
    """However large the gradient of the generator is, the network's update is the same."""
    stage = "awce"
    clipped = optax.chain(clip_each(1.0), optax.sgd(1.0))
    moved = {}
    for strength in (0.7, 70.0):
        step = make_train_step(networks(stage), clipped, objective(stage, strength=strength), MIXUP)
        start = new_state(stage)
        start = start.replace(opt_state=clipped.init(start.params))
        after, _ = optimized_less(step, start, cohort(), INDICES)(start, cohort(), INDICES)
        moved[strength] = jax.tree.map(lambda new, old: new - old, after.params, start.params)
    assert same(moved[0.7]["network"], moved[70.0]["network"])
    assert float(optax.tree.norm(moved[70.0]["generator"])) == pytest.approx(1.0, rel=1e-4)


# ---- what a step depends on


def test_a_step_is_deterministic():
    def run(**changes):
        return step_of("awce_penalty")(new_state("awce_penalty", **changes), cohort(), INDICES)

    first, again = run(seed=3, step=2), run(seed=3, step=2)
    assert same(first, again)
    for other in (run(seed=4, step=2), run(seed=3, step=1)):  # other draws of mixup, nothing else
        assert float(other[1]["loss"]) != float(first[1]["loss"])


@each_stage
def test_the_loss_falls_on_a_toy_cohort(stage):
    state, losses = new_state(stage), []
    for step in range(20):
        indices = jnp.array([(4 * step + k) % 8 for k in range(4)])
        state, logs = step_of(stage)(state, cohort(), indices)
        losses.append(float(logs["loss"]))
    assert int(state.step) == 20
    assert np.mean(losses[-4:]) < 0.85 * np.mean(losses[:4])


def test_bfloat16_keeps_parameters_and_loss_in_float32():
    stage = "awce_penalty"
    _, exact = step_of(stage)(new_state(stage), cohort(), INDICES)
    state, logs = step_of(stage, jnp.bfloat16)(new_state(stage), cohort(), INDICES)
    floats = jax.tree.leaves((state.params, state.opt_state[0].mu, logs))
    assert {leaf.dtype for leaf in floats} == {jnp.dtype("float32")}
    assert float(logs["loss"]) != float(exact["loss"])
    np.testing.assert_allclose(logs["loss"], exact["loss"], rtol=0.02)


def test_initialization_depends_on_the_seed():
    nets = networks("awce")
    init = optimized_less(lambda seed: init_state(nets, optimizer(), seed, SIZE), jnp.uint32(0))
    one, again, other = init(jnp.uint32(5)), init(jnp.uint32(5)), init(jnp.uint32(6))
    assert same(one, again)
    kernels = [s.params["network"]["bottleneck"]["conv1"]["Conv_0"]["kernel"] for s in (one, other)]
    assert np.abs(kernels[0] - kernels[1]).max() > 0.1
    assert (int(one.step), int(one.seed), one.seed.dtype) == (0, 5, jnp.dtype("uint32"))
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(one.opt_state))
    assert set(one.params) == {"network", "generator"}
    assert set(shapes("attention").params) == {"network"}


# ---- augmentation


@pytest.mark.slow
def test_augmentation_does_not_change_the_draws_of_mixup(monkeypatch):
    """The augmented batch of a step is the mixed one, moved: mixup's draws stay what they were."""
    seen = {}

    def record(key, images, targets, first, settings, *, margin):
        seen.update(images=images, targets=targets, first=first, settings=settings, margin=margin)
        return images, targets

    monkeypatch.setattr(train_step, "augmented_batch", record)
    step = make_train_step(
        networks("baseline"), optimizer(), objective("baseline"), MIXUP, augmentation=AUGMENTATION
    )
    with jax.disable_jit():
        step(new_state("baseline", seed=3, step=7), cohort(), INDICES)
    images, targets = batch_of_step(3, 7)
    np.testing.assert_allclose(seen["images"], images, atol=1e-6)
    np.testing.assert_allclose(seen["targets"], targets, atol=1e-6)
    assert (seen["first"], seen["settings"], seen["margin"]) == (0, AUGMENTATION, 0)


# ---- devices


def test_more_devices_than_there_are_is_refused():
    count = jax.local_device_count() + 1
    step = make_train_step(networks("baseline"), optimizer(), objective("baseline"), MIXUP)
    for number in (0, count):
        message = rf"devices.*\b{number}$"
        with pytest.raises(ValueError, match=message):
            compile_step(step, number)
        with pytest.raises(ValueError, match=message):
            placement(number)


def test_context_needs_neighbors_and_nothing_else_does():
    neighbors = np.tile(np.arange(8)[:, None], 2)
    for stage, slices in (
        ("context", cohort()),
        ("awce_penalty", cohort().replace(neighbors=neighbors)),
    ):
        step = make_train_step(networks(stage), optimizer(), objective(stage), MIXUP)
        with pytest.raises(ValueError, match="neighbors"):
            jax.eval_shape(step, new_state(stage), slices, INDICES)


def test_the_weight_generator_sees_the_slice_alone():
    rng = np.random.default_rng(0)
    images = rng.normal(size=(2, *SIZE, 3)).astype(np.float32)
    targets = np.eye(L, dtype=np.float32)[rng.integers(0, L, (2, *SIZE))]
    nets, params = networks("context"), new_state("context").params
    params["generator"] = jax.tree.map(
        lambda x: jnp.float32(rng.normal(size=x.shape)), params["generator"]
    )
    _, logs = loss_and_logs(params, nets, objective("context"), images, targets)
    assert nets.generator is not None
    weights = nets.generator.apply({"params": params["generator"]}, images[..., :1])
    np.testing.assert_allclose(logs["label_weights"], np.mean(weights, 0), rtol=1e-5)
    assert np.ptp(logs["label_weights"]) > 0.01


def compare_jit_and_pmap() -> None:
    """Three steps on one device and on four; runs in a process that has four."""
    stage = "context"
    terms = objective(stage, dice=0.5)
    mixup = Mixup(probability=0.5, tolerance=1.0, transplant=1.0, inclusions=PAIRS)
    step = make_train_step(networks(stage), optimizer(), terms, mixup, augmentation=AUGMENTATION)
    plain, ends = cohort(), []
    healthy = jnp.where(
        jnp.arange(8)[:, None, None] < 4, jnp.minimum(plain.labels, 2), plain.labels
    )
    made = DeviceCohort.from_slices(
        plain.images[..., 0],
        healthy,
        plain.heights,
        pathologies=mixup.pathologies,
        neighbors=np.stack([np.maximum(np.arange(8) - 1, 0), np.minimum(np.arange(8) + 1, 7)], -1),
    )
    for devices in (1, 4):
        state = jax.device_put(new_state(stage), placement(devices))
        slices = jax.device_put(made, placement(devices))
        run = compile_step(step, devices)
        for k in range(3):
            state, logs = run(state, slices, jnp.array([k, 1, 2, 3, 5, 6, 7, 4]))
        assert jax.tree.leaves(state.params)[0].sharding.num_devices == devices
        ends.append(jax.device_get((state, logs)))
        with pytest.raises(ValueError, match=r"4 devices, got 6"):
            compile_step(step, 4)(state, slices, jnp.arange(6))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), *ends)
    moved = np.asarray(ends[1][0].params["network"]["logits"]["kernel"])
    start = np.asarray(new_state(stage).params["network"]["logits"]["kernel"])
    assert np.abs(moved - start).max() > 1e-3
    print("equal")


@pytest.mark.slow
def test_four_devices_give_the_parameters_of_one():
    flags = "--xla_force_host_platform_device_count=4 --xla_backend_optimization_level=0"
    script = "import runpy, sys; runpy.run_path(sys.argv[1])['compare_jit_and_pmap']()"
    root = Path(__file__).parents[1]
    result = subprocess.run(
        [sys.executable, "-c", script, __file__],
        env=os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags, "PYTHONPATH": str(root)},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert (result.returncode, result.stdout) == (0, "equal\n"), result.stderr


def test_settings_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        MIXUP.probability = 0.5
