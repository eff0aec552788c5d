"""Course of a run: every slice once an epoch, steps and validations worked out by hand."""

import dataclasses

import numpy as np
import pytest

from jaxseg.batch_schedule import Plan

# 4 epochs of 5 slices are 20 examples: 7 batches of 3, the last one reaching into a fifth epoch.
PLAN = Plan(num_slices=5, batch_size=3, epochs=4, validate_every=2, seed=0)


def examples(plan, steps):
    return np.concatenate([plan.indices(step) for step in range(steps)])


def test_steps_by_hand():
    assert PLAN.steps == 7
    assert PLAN.steps_per_epoch == pytest.approx(5 / 3)
    assert dataclasses.replace(PLAN, batch_size=5).steps == 4
    assert dataclasses.replace(PLAN, batch_size=20).steps == 1
    assert dataclasses.replace(PLAN, batch_size=64).steps == 1
    # The paper: 639 training slices, batches of 16, 400 epochs.
    assert Plan(num_slices=639, batch_size=16, epochs=400, validate_every=5, seed=0).steps == 15975


@pytest.mark.parametrize("batch_size", [1, 2, 3, 5, 7, 12])
def test_every_slice_exactly_once_an_epoch(batch_size):
    plan = dataclasses.replace(PLAN, batch_size=batch_size, epochs=6)
    assert (plan.indices(0).dtype, plan.indices(0).shape) == (np.int32, (batch_size,))
    seen = examples(plan, plan.steps)
    assert len(seen) == plan.steps * batch_size >= 30
    for epoch in seen[:30].reshape(6, 5):
        assert sorted(epoch) == [0, 1, 2, 3, 4]


def test_a_batch_larger_than_the_cohort_holds_whole_epochs():
    batch = dataclasses.replace(PLAN, batch_size=12).indices(0)
    assert sorted(batch[:5]) == sorted(batch[5:10]) == [0, 1, 2, 3, 4]
    assert batch[10] != batch[11]


def test_order_does_not_depend_on_the_batch_size():
    small, large = (dataclasses.replace(PLAN, batch_size=b) for b in (2, 7))
    np.testing.assert_array_equal(examples(small, 7), examples(large, 2))


def test_the_order_differs_by_epoch_and_seed():
    plan = Plan(num_slices=50, batch_size=50, epochs=3, validate_every=1, seed=0)
    orders = [tuple(plan.indices(step)) for step in range(3)]
    orders += [tuple(dataclasses.replace(plan, seed=1).indices(0))]
    orders += [tuple(range(50))]
    assert len(set(orders)) == 5


def test_a_resumed_run_sees_the_same_batches():
    whole = [PLAN.indices(step).tolist() for step in range(7)]
    resumed = dataclasses.replace(PLAN)  # another process: nothing remembered
    assert [resumed.indices(step).tolist() for step in range(4, 7)] == whole[4:]
    assert PLAN.indices(2).tolist() == whole[2]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, {4, 7}),  # ceil(2 * 5 / 3), and the end
        ({"validate_every": 1}, {2, 4, 5, 7}),  # ceil of 5/3, 10/3, 15/3, 20/3
        ({"validate_every": 3}, {5, 7}),
        ({"validate_every": 4}, {7}),
        ({"validate_every": 9}, {7}),
        ({"batch_size": 5, "validate_every": 1}, {1, 2, 3, 4}),
        ({"batch_size": 12, "validate_every": 1}, {1, 2}),  # epochs 1 and 2 end in one batch
        ({"batch_size": 64, "validate_every": 1}, {1}),
    ],
)
def test_validations_by_hand(changes, expected):
    plan = dataclasses.replace(PLAN, **changes)
    assert {step for step in range(30) if plan.validates_after(step)} == expected


def test_epochs_done():
    assert PLAN.epoch(0) == 0
    assert PLAN.epoch(2) == pytest.approx(1.2)
    assert PLAN.epoch(5) == 3
    assert PLAN.epoch(7) == 4  # not 4.2: the last batch's surplus is no epoch
