"""The training state, one step as a pure function, and its jit and pmap compilations."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol, Self

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding, SingleDeviceSharding
from jax.typing import ArrayLike

from jaxseg.mixup import choose_partner, pathology_mixup
from jaxseg.models import initialize
from jaxseg.models.weight_generator import ZERO_LAYER
from jaxseg.objective import Networks, Objective, loss_and_logs

# Purposes that the root key is folded with: one stream each, so that a new use of randomness never
# shifts an old one.
_INIT, _MIXUP = 0, 1
AXIS = "devices"


class TrainState(flax.struct.PyTreeNode):
    """Everything that a training run carries from one step to the next.

    Attributes:
      params: {"network": ..., "generator": ...}, the latter only where Eq. 3 is in use; float32.
      opt_state: of the optimizer.
      step: () int32, steps done.
      seed: () uint32, root of all randomness.
    """

    params: dict
    opt_state: optax.OptState
    step: Array
    seed: Array


class DeviceCohort(flax.struct.PyTreeNode):
    """The training slices, on the device for the whole run.

    Attributes:
      images: (N, H, W) float32, normalized.
      labels: (N, H, W) uint8.
      heights: (N,) float32, 0 base .. 1 apex.
      eligible: (N,) bool, slices with foreground, which may be partners in mixup.
    """

    images: Array
    labels: Array
    heights: Array
    eligible: Array

    @classmethod
    def from_slices(cls, images: ArrayLike, labels: ArrayLike, heights: ArrayLike) -> Self:
        """Put slices on the first device; what a step would compute again and again, once."""
        labels = jnp.asarray(labels)
        foreground = (labels > 0).any((1, 2))
        return cls(jnp.asarray(images), labels, jnp.asarray(heights), foreground)


@dataclass(frozen=True)
class Mixup:
    """Settings of pathology mixup.

    Attributes:
      probability: share of the examples that are mixed; 0 turns mixup off.
      tolerance: largest difference of relative height between partners.
    """

    probability: float
    tolerance: float


class TrainStep(Protocol):
    """(state, cohort, indices) -> (state, logs)."""

    def __call__(  # noqa: D102
        self, state: TrainState, cohort: DeviceCohort, indices: Array
    ) -> tuple[TrainState, dict[str, Array]]: ...


def placement(num_devices: int) -> Sharding:
    """Where state and cohort live: on the first local device, or on each of several.

    Raises:
      ValueError: if there are fewer local devices.
    """
    devices = jax.local_devices()
    if not 1 <= num_devices <= len(devices):
        raise ValueError(f"asked for {num_devices} devices, {len(devices)} are there")
    if num_devices == 1:
        return SingleDeviceSharding(devices[0])
    return NamedSharding(Mesh(np.array(devices[:num_devices]), (AXIS,)), PartitionSpec())


def init_state(
    networks: Networks,
    optimizer: optax.GradientTransformation,
    seed: int,
    size: tuple[int, int],
    sharding: Sharding | None = None,
) -> TrainState:
    """Initialize parameters and optimizer from the seed, compiled.

    Args:
      networks: the sub-networks.
      optimizer: its state starts at zero.
      seed: non-negative, below 2^32.
      size: (H, W) of the network grid.
      sharding: from `placement`; default the first device.

    Returns:
      A state at step 0.
    """

    def init(seed: Array) -> TrainState:
        key = jax.random.fold_in(jax.random.key(seed), _INIT)
        network_key, generator_key = jax.random.split(key)
        image = jnp.zeros((1, *size, 1))
        params = {"network": initialize(networks.segmentation, network_key, image)}
        if networks.generator is not None:
            params["generator"] = initialize(
                networks.generator, generator_key, image, zero=(ZERO_LAYER,)
            )
        return TrainState(params, optimizer.init(params), jnp.int32(0), seed)

    return jax.jit(init, out_shardings=sharding)(jnp.uint32(seed))


def mixed_batch(
    key: Array,
    cohort: DeviceCohort,
    indices: Array,
    first: Array | int,
    mixup: Mixup,
    num_labels: int,
) -> tuple[Array, Array]:
    """Gather a batch and mix each example with a partner of its own.

    Args:
      key: of this step.
      cohort: the training slices.
      indices: (B,) integer, slices of this device's share of the batch.
      first: position of the first of them in the global batch, so that an example draws the same
        numbers on whatever device it lands.
      mixup: settings.
      num_labels: L.

    Returns:
      Images (B, H, W, 1) float32 and label probabilities (B, H, W, L) float32.
    """

    def example(position: Array, index: Array) -> tuple[Array, Array]:
        chance_key, lam_key, partner_key = jax.random.split(jax.random.fold_in(key, position), 3)
        partner, found = choose_partner(
            partner_key, index, cohort.heights, cohort.eligible, tolerance=mixup.tolerance
        )
        mixed = found & (jax.random.uniform(chance_key) < mixup.probability)
        # lambda = 1 is the fixed slice itself: one code path, whether mixed or not.
        lam = jnp.where(mixed, jax.random.uniform(lam_key), 1.0)
        return pathology_mixup(
            cohort.images[index], cohort.labels[index],
            cohort.images[partner], cohort.labels[partner],
            lam, num_labels=num_labels,
        )  # fmt: skip

    positions = first + jnp.arange(indices.shape[0])
    images, targets = jax.vmap(example)(positions, indices)
    return images[..., None], targets


def make_train_step(
    networks: Networks,
    optimizer: optax.GradientTransformation,
    objective: Objective,
    mixup: Mixup,
) -> Callable[..., tuple[TrainState, dict[str, Array]]]:
    """Bind the stage's settings; what remains is the pure step.

    Returns:
      `train_step(state, cohort, indices, *, axis_name=None) -> (state, logs)`. Indices (B,) are
      slices of the cohort: the whole batch, or a device's share of it where `axis_name` names the
      mapped axis. Shares must be equal, so that the mean of their gradients is the batch's.
    """

    def train_step(
        state: TrainState, cohort: DeviceCohort, indices: Array, *, axis_name: str | None = None
    ) -> tuple[TrainState, dict[str, Array]]:
        key = jax.random.fold_in(jax.random.key(state.seed), _MIXUP)
        key = jax.random.fold_in(key, state.step)
        first = 0 if axis_name is None else jax.lax.axis_index(axis_name) * indices.shape[0]
        images, targets = mixed_batch(
            key, cohort, indices, first, mixup, networks.segmentation.num_labels
        )
        (_, logs), gradients = jax.value_and_grad(loss_and_logs, has_aux=True)(
            state.params, networks, objective, images, targets, axis_name=axis_name
        )
        if axis_name is not None:
            gradients, logs = jax.lax.pmean((gradients, logs), axis_name)
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        logs |= {
            "gradient_norm": optax.tree.norm(gradients),
            "update_norm": optax.tree.norm(updates),
        }
        return state.replace(params=params, opt_state=opt_state, step=state.step + 1), logs

    return train_step


def compile_step(
    train_step: Callable[..., tuple[TrainState, dict[str, Array]]], num_devices: int
) -> TrainStep:
    """Compile a step for one device (jit) or several local ones (pmap).

    State and cohort carry no device axis either way; indices are those of the global batch (B,),
    B divisible by `num_devices`. Both should lie where `placement` says, or every step moves them.
    On one device the old state is donated.

    Raises:
      ValueError: if there are fewer local devices, or the batch does not divide.
    """
    placement(num_devices)
    if num_devices == 1:
        return jax.jit(train_step, donate_argnums=0)
    mapped = jax.pmap(
        partial(train_step, axis_name=AXIS),
        axis_name=AXIS,
        in_axes=(None, None, 0),
        out_axes=None,
        devices=jax.local_devices()[:num_devices],
    )

    def step(
        state: TrainState, cohort: DeviceCohort, indices: Array
    ) -> tuple[TrainState, dict[str, Array]]:
        if indices.shape[0] % num_devices:
            raise ValueError(
                f"a batch of {indices.shape[0]} cannot be shared by {num_devices} devices"
            )
        return mapped(state, cohort, indices.reshape(num_devices, -1))

    return step
