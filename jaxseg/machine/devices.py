"""Describe the devices of JAX, and reject flags under which results would differ."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from jaxseg.errors import UserError
from jaxseg.models import Convolve, convolve_xla

# Flags of JAX, also set by environment variables of the same names, that would change dtypes or
# random numbers. Tested, and without such an effect: default_dtype_bits, numpy_rank_promotion,
# debug_nans, debug_infs, disable_jit.
_REQUIRED = {
    "jax_enable_x64": False,
    "jax_numpy_dtype_promotion": "standard",
    "jax_default_prng_impl": "threefry2x32",
    "jax_threefry_partitionable": True,
}
_INSTALL = 'pip install "jax[cuda13]" for NVIDIA GPUs, "jax[tpu]" for TPUs'


class DeviceError(UserError):
    """Raised if JAX cannot run with its environment variables; the message names the variable."""


def check_flags() -> None:
    """Reject flags of JAX that would change the results of a run.

    Raises:
      DeviceError: such a flag is set; each line names its environment variable.
    """
    lines = []
    for name, expected in _REQUIRED.items():
        found = getattr(jax.config, name, expected)
        found = getattr(found, "value", found)  # for an enum
        if found != expected:
            lines.append(f"{name.upper()}: expected {expected}, the default, got {found}")
    if lines:
        raise DeviceError("\n".join(lines))


def describe() -> str:
    """Describe the JAX version and the devices of this process in one line.

    A second line reports an NVIDIA GPU that JAX does not use although the user did not disable it.

    Raises:
      DeviceError: JAX_PLATFORMS names devices that JAX does not have here; or as `check_flags`.
    """
    check_flags()
    try:
        devices = jax.local_devices()
    except (RuntimeError, AssertionError) as error:  # an assertion means no plugin for CUDA
        raise _missing(error) from error
    names = [f"{device.platform} {device.device_kind}" for device in devices]
    counts = [
        f"{names.count(name)} x {name.replace('cpu cpu', 'cpu')}" for name in sorted(set(names))
    ]
    line = f"jax {jax.__version__} on {', '.join(counts)}"
    return (
        line
        + f"\nthis machine has an NVIDIA GPU that JAX does not use: {_INSTALL}" * _gpu_is_unused()
    )


def describe_networks(params: Mapping[str, Any], convolve: Convolve) -> str:
    """Describe networks by their parameter counts and the implementation of their convolutions.

    Args:
      params: trees of arrays, or of their shapes, by network name.
      convolve: convolution of the segmentation generator.
    """
    sizes = {name: sum(x.size for x in jax.tree.leaves(tree)) for name, tree in params.items()}
    counts = ", ".join(f"{name}: {size:,} parameters" for name, size in sizes.items())
    return f"{counts}; convolutions by {'XLA' if convolve is convolve_xla else 'native code'}"


def _missing(error: Exception) -> DeviceError:
    name, wanted = "JAX_PLATFORMS", _asked_for()
    if not wanted:  # fall back to the deprecated variable
        name, wanted = "JAX_PLATFORM_NAME", os.environ.get("JAX_PLATFORM_NAME", "")
    try:
        jax.config.update("jax_platforms", "")  # any platform
        here = ", ".join(sorted({device.platform for device in jax.local_devices()}))
    except (RuntimeError, AssertionError):
        here = "cpu"
    finally:
        jax.config.update("jax_platforms", wanted)
    reason = (str(error).strip() or "JAX has no plugin for it").splitlines()[0]
    reason = reason.split(" (set JAX_PLATFORMS")[0].rstrip(".")
    return DeviceError(
        f"{name}={wanted}: expected devices that JAX has here ({here}), or no value; "
        f"{reason:.200}. To install support: {_INSTALL}"
    )


def _asked_for() -> str | None:
    return getattr(jax.config, "jax_platforms", None)


def _gpu_is_unused() -> bool:
    """Whether JAX uses the CPU although there is an NVIDIA GPU that the user did not disable."""
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1", "NoDevFiles")
    asked = bool(_asked_for())
    there = any(Path("/dev").glob("nvidia[0-9]*"))
    return there and jax.default_backend() == "cpu" and not asked and not hidden
