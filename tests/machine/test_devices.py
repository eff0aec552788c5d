"""Devices and environment variables of JAX."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from jaxseg.machine import devices
from jaxseg.models import convolve_xla
from jaxseg.native.convolution import convolve_native

ASK = (
    "from jaxseg.machine import devices\ntry:\n    print(devices.describe())\n"
    "except devices.DeviceError as error:\n    print(f'refused: {error}')\n"
)


def ask(**environment: str) -> str:
    known = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_", "CUDA_", "XLA_"))}
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", ASK], cwd=Path(__file__).parents[2], text=True,
        env=known | environment, check=True, capture_output=True,
    ).stdout  # fmt: skip


@pytest.mark.parametrize(
    "variable",
    ["JAX_ENABLE_X64=1", "JAX_NUMPY_DTYPE_PROMOTION=strict", "JAX_DEFAULT_PRNG_IMPL=rbg",
     "JAX_THREEFRY_PARTITIONABLE=0"],
)  # fmt: skip
def test_variables_that_change_results_are_refused(variable):
    name, _, value = variable.partition("=")
    answer = ask(JAX_PLATFORMS="cpu", **{name: value})
    assert answer.startswith(f"refused: {name}: expected ")
    assert answer.count("\n") == 1


@pytest.mark.parametrize(
    "variable",
    ["JAX_DEFAULT_DTYPE_BITS=64", "JAX_NUMPY_RANK_PROMOTION=raise", "JAX_DEBUG_NANS=1",
     "JAX_DISABLE_JIT=1", "JAX_DEFAULT_MATMUL_PRECISION=highest"],
)  # fmt: skip
def test_other_variables_are_accepted(variable):
    name, _, value = variable.partition("=")
    assert ask(JAX_PLATFORMS="cpu", **{name: value}).startswith(f"jax {jax.__version__} on 1 x cpu")


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="of machines with a CPU alone")
@pytest.mark.parametrize("platforms", ["cuda", "gpu,cpu", "tpu", "nonsense"])
def test_missing_platforms_are_refused(platforms):
    answer = ask(JAX_PLATFORMS=platforms)
    assert answer.startswith(f"refused: JAX_PLATFORMS={platforms}: ")
    assert "(cpu)" in answer
    assert answer.count("\n") == 1


def test_flags_of_the_caller_are_checked():
    with jax.enable_x64(True), pytest.raises(devices.DeviceError, match="JAX_ENABLE_X64"):
        devices.check_flags()
    devices.check_flags()


def test_an_unused_gpu_is_reported(tmp_path, monkeypatch):
    class Here:
        """/dev of a machine with a GPU."""

        def glob(self, pattern: str) -> list[str]:
            return ["nvidia0"]

    monkeypatch.setattr(devices, "Path", lambda _: Here())
    monkeypatch.setattr(devices.jax, "default_backend", lambda: "cpu")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    platforms = jax.config.jax_platforms
    try:
        jax.config.update("jax_platforms", "")
        assert devices.describe().count("\n") == 1
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
        assert devices.describe().count("\n") == 0
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
        jax.config.update("jax_platforms", "cpu")
        assert devices.describe().count("\n") == 0
    finally:
        jax.config.update("jax_platforms", platforms)


def test_networks_are_described_by_size_and_convolution():
    params = {"network": {"a": jnp.zeros((1000, 2)), "b": jnp.zeros(5)}}
    assert "2,005" in devices.describe_networks(params, convolve_xla)
    assert "native" in devices.describe_networks(params, convolve_native)
