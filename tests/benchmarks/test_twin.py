"""The twin is the project's network and loss: logits, loss, gradients and a step of Adam agree.

Tolerances are those of float32 sums in another order: 1e-4 of a tensor's largest number.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from benchmarks.workload import Workload
from jaxseg.config.optimization import clip_each
from jaxseg.config.setup import build
from jaxseg.objective import loss_and_logs

torch = pytest.importorskip("torch", reason="torch, the benchmark's own requirement, is missing")

from benchmarks.twin import copy_parameters, pad_same  # noqa: E402
from benchmarks.twin_objective import Stage  # noqa: E402

TOLERANCE = 1e-4
CLIP = 0.1
Settings = dict[str, Any]
Arrays = tuple[np.ndarray, np.ndarray]


@pytest.fixture(params=["attention", "awce_penalty"])
def settings(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Of a small network that has every kind of layer."""
    settings = dict(Workload("jaxseg", "step", stage=request.param, size=32, width=4).settings())
    settings["model"]["depth"] = 2
    return settings


@pytest.fixture
def batch() -> Arrays:
    """Images (3, 32, 32, 1) and soft targets (3, 32, 32, 5); the last image lacks label 4."""
    rng = np.random.default_rng(0)
    images = rng.normal(size=(3, 32, 32, 1)).astype(np.float32)
    targets = rng.dirichlet(np.full(5, 0.3), size=(3, 32, 32)).astype(np.float32)
    targets[2, ..., 0] += targets[2, ..., 4]
    targets[2, ..., 4] = 0.0
    return images, targets


def random_params(settings: Settings) -> dict[str, Any]:
    """Normally distributed parameters: by their initialization, some would be zero."""
    networks = build(settings).networks
    image = jnp.zeros((1, 32, 32, 1))
    parts = {"network": networks.segmentation, "generator": networks.generator}
    shapes = {
        name: jax.eval_shape(part.init, jax.random.key(0), image)["params"]
        for name, part in parts.items()
        if part is not None
    }
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda leaf: (0.2 * rng.normal(size=leaf.shape)).astype("f"), shapes)


def quick(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compiled with few optimizations, which takes a fraction of the time."""
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0})


def stage_of(settings: Settings, params: dict[str, Any]) -> Stage:
    stage = Stage.from_settings(settings)
    load(stage, params)
    return stage


def load(stage: Stage, params: dict[str, Any]) -> None:
    for name, part in params.items():
        copy_parameters(stage.get_submodule(name), part)


def to_torch(batch: Arrays) -> tuple[torch.Tensor, torch.Tensor]:
    images, targets = (torch.from_numpy(array).movedim(-1, 1) for array in batch)
    return images, targets


def loss_gradient(settings: Settings, params: dict[str, Any], batch: Arrays) -> tuple[Any, Any]:
    objective = build(settings).objective
    networks = build(settings).networks
    return quick(jax.value_and_grad(lambda p: loss_and_logs(p, networks, objective, *batch)[0]))(
        params
    )


def assert_parameters_agree(settings: Settings, found: Stage, expected: dict[str, Any]) -> None:
    """Compare by name what a stage holds with a tree of the original's form."""
    reference = dict(stage_of(settings, expected).named_parameters())
    for name, value in found.named_parameters():
        want = reference[name].detach().numpy()
        atol = TOLERANCE * np.abs(want).max() + 1e-7
        np.testing.assert_allclose(value.detach().numpy(), want, rtol=0, atol=atol, err_msg=name)


def test_logits_agree_and_every_parameter_is_in_use(settings: Settings, batch: Arrays):
    params = random_params(settings)
    network = build(settings).networks.segmentation
    expected = np.asarray(quick(network.apply)({"params": params["network"]}, batch[0]))
    found = stage_of(settings, params).network(to_torch(batch)[0]).detach().movedim(1, -1).numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE * np.abs(expected).max())


def test_parameter_count(settings: Settings):
    params = random_params(settings)
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    assert sum(p.numel() for p in stage_of(settings, params).parameters()) == count


@pytest.mark.parametrize("settings", ["awce_penalty"], indirect=True)
def test_label_weights_agree(settings: Settings, batch: Arrays):
    params = random_params(settings)
    generator = build(settings).networks.generator
    assert generator is not None
    expected = np.asarray(quick(generator.apply)({"params": params["generator"]}, batch[0]))
    twin = stage_of(settings, params).generator
    assert twin is not None
    found = twin(to_torch(batch)[0]).detach().numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE)
    assert np.ptp(found) > 0.01


def test_loss_and_gradients_agree(settings: Settings, batch: Arrays):
    params = random_params(settings)
    expected, gradients = loss_gradient(settings, params, batch)
    stage = stage_of(settings, params)
    loss = stage(*to_torch(batch))
    loss.backward()
    np.testing.assert_allclose(loss.item(), expected, rtol=1e-5)
    with torch.no_grad():
        for parameter in stage.parameters():
            assert parameter.grad is not None
            parameter.copy_(parameter.grad)
    assert_parameters_agree(settings, stage, gradients)


def test_one_step_of_adam_agrees(settings: Settings, batch: Arrays):
    """A large epsilon: by Adam's own, the first step is the gradient's sign, rounding and all."""
    params = random_params(settings)
    _, gradients = loss_gradient(settings, params, batch)
    optimizer = optax.chain(clip_each(CLIP), optax.adam(0.1, eps=1e-3))
    updates, _ = quick(lambda g: optimizer.update(g, optimizer.init(g)))(gradients)
    stage = stage_of(settings, params)
    twin = torch.optim.Adam(stage.parameters(), lr=0.1, eps=1e-3, fused=True)
    stage(*to_torch(batch)).backward()
    norms = [
        torch.nn.utils.clip_grad_norm_(network.parameters(), CLIP) for network in stage.children()
    ]
    assert min(norms) > CLIP, "the clipping must be part of what is compared"
    twin.step()
    assert_parameters_agree(settings, stage, jax.tree.map(np.add, params, updates))


def test_autocast_gives_about_the_same_loss(settings: Settings, batch: Arrays):
    stage = stage_of(settings, random_params(settings))
    images, targets = to_torch(batch)
    with torch.autocast("cpu", torch.bfloat16):
        half = stage(images, targets)
    assert half.dtype == torch.float32
    assert half.item() != stage(images, targets).item()
    np.testing.assert_allclose(half.item(), stage(images, targets).item(), rtol=0.05)


@pytest.mark.parametrize(("size", "padded"), [(6, 7), (7, 9), (2, 3), (1, 3)])
def test_padding_matches_xla(size: int, padded: int):
    """SAME: enough for ceil(size / 2) windows of 3, the odd pixel behind."""
    x = pad_same(torch.ones(1, 1, size, size), 2)[0, 0, 1]
    assert len(x) == padded
    assert x[-1] == 0


def test_other_parameters_are_refused(settings: Settings):
    params = random_params(settings)
    twin = Stage.from_settings(settings).network
    logits = params["network"].pop("logits")
    with pytest.raises(ValueError, match="logits"):
        copy_parameters(twin, params["network"])
    params["network"]["logits"] = {"kernel": logits["kernel"][:2], "bias": logits["bias"]}
    with pytest.raises(ValueError, match=r"logits.weight: "):
        copy_parameters(twin, params["network"])


def test_dense_blocks_are_refused(settings: Settings):
    settings["model"]["dense"] = True
    with pytest.raises(ValueError, match="dense"):
        Stage.from_settings(settings)
