"""The analytic count of FLOPs against two independent counters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.roofline import Work, convolution, step_work
from benchmarks.workload import Workload
from jaxseg.config.setup import build

SMALL = Workload("jaxseg", "bare step", size=32, width=8, batch=2)


def test_one_convolution():
    """4 pixels, 3 to 5 channels, 3x3: 4 * 3 * 5 * 9 products, thrice, two FLOPs each."""
    work = convolution(4, 3, 5, 9)
    assert work == Work(3 * 2 * 540, 3 * 4 * (4 * 8 + 135))
    assert convolution(4, 3, 5, 9, first=True).flops == 2 / 3 * work.flops


def test_xla_counts_as_many_flops_but_for_the_padding():
    """Of a 3x3 kernel at n x n pixels XLA leaves out what falls on padding: 1 - (1 - 2 / 3n)^2.

    That is 1 % at 96 pixels and 21 % at the 6 of the bottleneck; other operations make up for some.
    """
    # It counts its own convolutions alone.
    workload = Workload("jaxseg", "bare step", size=96, width=8, batch=1, convolution="xla")
    network = build(workload.settings()).networks.segmentation
    image = jnp.zeros((1, 96, 96, 1))
    params = jax.eval_shape(network.init, jax.random.key(0), image)
    lowered = jax.jit(jax.grad(lambda p, x: network.apply(p, x).sum())).lower(params, image)
    counted = (lowered.cost_analysis() or {})["flops"]
    assert 0.9 < counted / step_work(workload).flops < 1.0


def test_torch_counts_as_many_flops():
    torch = pytest.importorskip("torch", reason="torch, the benchmark's requirement, is missing")
    from torch.utils.flop_counter import FlopCounterMode

    from benchmarks.twin_objective import Stage

    stage = Stage.from_settings(SMALL.settings())
    targets = torch.from_numpy(np.full((2, 5, 32, 32), 0.2, np.float32))
    with FlopCounterMode(display=False) as counter:
        stage(torch.zeros(2, 1, 32, 32), targets).backward()
    assert counter.get_total_flops() == step_work(SMALL).flops
