"""Checkpoints: bitwise round trips, retention of latest and best, atomic writes."""

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from orbax.checkpoint import CheckpointManager

from jaxseg.runs.checkpoint import Checkpoints
from jaxseg.runs.files import WorkdirError
from jaxseg.train_step import TrainState


def new_state(step: int, *, size: int = 3, localizer: bool = False) -> TrainState:
    """A state whose every number depends on the step; float32 that no short decimal gives."""
    rng = np.random.default_rng([5, step])

    def draw(*shape: int) -> jax.Array:
        return jnp.array(rng.normal(size=shape), jnp.float32)

    params: dict = {
        "network": {"conv": {"kernel": draw(3, 3, 2, size), "shift": draw(size)}},
        "generator": {"kernel": draw(4, 5)},
    }
    if localizer:
        params["localizer"] = {"kernel": draw(6)}
    moments = {"count": jnp.int32(step), "mu": jax.tree.map(lambda x: x / 3, params)}
    return TrainState(params, (moments, ()), jnp.int32(step), jnp.uint32(2**32 - 1 - step))


def copy(state: TrainState) -> TrainState:
    return jax.tree.map(lambda x: np.array(x, copy=True), state)


def assert_bitwise(a, b) -> None:
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


def kept(folder) -> set[str]:
    return {path.name for path in (folder / "checkpoints").iterdir()}


def save_all(folder, scores: dict[int, float | None]) -> None:
    with Checkpoints(folder) as checkpoints:
        for step, score in scores.items():
            checkpoints.save(new_state(step), score)


def test_a_localizer_is_a_separate_item(tmp_path):
    state = new_state(7, localizer=True)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(state, 0.5)
    assert (tmp_path / "checkpoints" / "7" / "localizer").is_dir()
    with Checkpoints(tmp_path) as checkpoints:
        assert_bitwise(checkpoints.restore(copy(state), 7), state)
        for item in ("localizer", "network"):
            params = state.params[item]
            assert_bitwise(checkpoints.restore_network(copy(params), 7, item=item), params)
        other = {"kernel": jnp.zeros(5)}
        with pytest.raises(ValueError, match="kernel"):
            checkpoints.restore_network(other, 7, item="localizer")


def test_a_state_is_restored_bitwise(tmp_path):
    state = new_state(7)
    special = jnp.array([np.nan, np.inf, -0.0, 1e-45], jnp.float32)
    state.params["generator"]["kernel"] = special
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(state, 0.5)
    with Checkpoints(tmp_path) as checkpoints:
        template = jax.tree.map(jnp.zeros_like, state)
        restored = checkpoints.restore(template, 7)
    assert_bitwise(restored, state)
    found = restored.params["generator"]["kernel"]
    np.testing.assert_array_equal(np.signbit(found), np.signbit(special))
    assert isinstance(restored, TrainState)
    assert restored.step.sharding == state.step.sharding


@pytest.mark.parametrize(
    ("scores", "latest", "best"),
    [
        ({3: 0.1, 6: 0.5, 9: 0.3}, 9, 6),
        ({3: 0.1, 6: 0.2, 9: 0.3}, 9, 9),
        ({3: 0.4, 6: 0.4, 9: 0.4}, 9, 3),  # of equals the earliest
        ({3: 0.4, 6: math.nan, 9: None}, 9, 3),
        ({3: math.nan, 6: 0.0, 9: None}, 9, 6),
        ({3: None, 6: math.nan}, 6, None),
        ({0: None, 5: 0.2}, 5, 5),
    ],
)
def test_only_latest_and_best_are_kept(tmp_path, scores, latest, best):
    save_all(tmp_path, scores)
    with Checkpoints(tmp_path, read_only=True) as checkpoints:
        assert (checkpoints.latest_step, checkpoints.best_step) == (latest, best)
        if best is not None:
            assert checkpoints.score(best) == scores[best]
        expected = {latest} if best is None else {latest, best}
        unscored = [step for step in expected if scores[step] is None]
        assert all(checkpoints.score(step) == -1 for step in unscored)
        for step in expected:
            assert_bitwise(checkpoints.restore(new_state(0), step), new_state(step))
    assert kept(tmp_path) == {str(step) for step in expected}


def test_the_best_is_kept_across_sessions(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        assert (checkpoints.latest_step, checkpoints.best_step) == (None, None)
    save_all(tmp_path, {3: 0.5, 6: 0.2})
    save_all(tmp_path, {9: 0.4, 12: 0.5})
    assert kept(tmp_path) == {"3", "12"}
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.best_step == 3


def test_an_existing_step_is_not_overwritten(tmp_path):
    state = new_state(4)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(state, 0.3)
        checkpoints.save(state.replace(seed=jnp.uint32(0)), None)  # its write may still run
        checkpoints.wait()
        checkpoints.save(state.replace(seed=jnp.uint32(0)), None)
        checkpoints.wait()
        assert checkpoints.score(4) == 0.3
        assert_bitwise(checkpoints.restore(state, 4), state)


def test_the_network_is_restored_without_the_rest_and_other_shapes_refused(tmp_path):
    save_all(tmp_path, {2: 0.1})
    network = new_state(2).params["network"]
    shapes = jax.eval_shape(lambda: network)
    with Checkpoints(tmp_path, read_only=True) as checkpoints:
        for template in (shapes, network):
            assert_bitwise(checkpoints.restore_network(template, 2), network)
        with pytest.raises(ValueError, match="shape"):
            checkpoints.restore(new_state(0, size=5), 2)


def test_reading_creates_and_deletes_nothing(tmp_path):
    save_all(tmp_path / "run", {2: 0.1, 4: 0.0})
    unfinished = tmp_path / "run" / "checkpoints" / "6.orbax-checkpoint-tmp"
    unfinished.mkdir()
    before = sorted(tmp_path.rglob("*"))
    with Checkpoints(tmp_path / "run", read_only=True) as checkpoints:
        assert checkpoints.latest_step == 4
        checkpoints.restore(new_state(0), 4)
    assert sorted(tmp_path.rglob("*")) == before


def test_an_unfinished_checkpoint_is_ignored(tmp_path):
    save_all(tmp_path, {2: 0.1})
    folder = tmp_path / "checkpoints"
    # As a killed process leaves it: what is complete lies under a temporary name.
    (folder / "2").rename(folder / "5.orbax-checkpoint-tmp")
    save_all(tmp_path, {2: 0.1})
    with Checkpoints(tmp_path) as checkpoints:
        assert (checkpoints.latest_step, checkpoints.best_step) == (2, 2)
        checkpoints.save(new_state(5), 0.2)
    assert kept(tmp_path) == {"5"}


def test_opening_removes_unfinished_checkpoints_before_it_returns(tmp_path):
    """Later, the removal could hit what another manager of the folder has begun to write."""
    unfinished = tmp_path / "checkpoints" / "6.orbax-checkpoint-tmp"
    (unfinished / "network").mkdir(parents=True)
    with Checkpoints(tmp_path):
        assert not unfinished.exists()


def test_a_write_is_complete_after_wait(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(new_state(3), 0.25)
        checkpoints.wait()
        # Read by another manager while the first one is open.
        with Checkpoints(tmp_path, read_only=True) as other:
            assert (other.latest_step, other.score(3)) == (3, 0.25)
            assert_bitwise(other.restore(new_state(0), 3), new_state(3))
        metrics = json.loads((tmp_path / "checkpoints" / "3" / "metrics" / "metrics").read_text())
        assert (metrics["score"], metrics["step"]) == (0.25, 3)


def test_donating_a_state_during_its_save_is_safe(tmp_path):
    # Large enough that writing takes far longer than the next step.
    shape = (1500, 1500)
    rng = np.random.default_rng(0)

    def large() -> jax.Array:
        return jnp.array(rng.normal(size=shape), jnp.float32)

    params = {"network": {"kernel": large()}, "generator": {"kernel": large()}}
    state = TrainState(params, (large(),), jnp.int32(1), jnp.uint32(0))

    def advance(state: TrainState) -> TrainState:
        double = jax.tree.map(lambda x: x * 2 + 1, (state.params, state.opt_state))
        return state.replace(params=double[0], opt_state=double[1], step=state.step + 1)

    step = jax.jit(advance, donate_argnums=0)
    spare = jax.tree.map(jnp.copy, state)
    step(spare)  # compiled before it matters
    assert spare.params["network"]["kernel"].is_deleted()
    before = copy(state)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(state, None)
        for _ in range(5):
            state = step(state)
        jax.block_until_ready(state)
        checkpoints.wait()
        restored = checkpoints.restore(state, 1)
    assert_bitwise(restored, before)


def test_a_failed_write_raises(tmp_path, monkeypatch):
    def fail(self, *args, **kwargs):
        raise OSError("disk full")

    monkeypatch.setattr(CheckpointManager, "save", fail)
    with Checkpoints(tmp_path) as checkpoints, pytest.raises(WorkdirError, match="disk full"):
        checkpoints.save(new_state(1), 0.1)
