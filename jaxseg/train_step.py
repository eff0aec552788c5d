"""The training state, one step as a pure function, and its compilation by jit and pmap."""

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol, cast

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding, SingleDeviceSharding

from jaxseg.augment import Augmentation
from jaxseg.batch import DeviceCohort, Mixup, augmented_batch, mixed_batch
from jaxseg.localizer import scout_batch
from jaxseg.models import initialize
from jaxseg.objective import Networks, Objective, loss_and_logs

# Each purpose of randomness is folded into the root key as a stream of its own, so that a new
# purpose does not change the random numbers of the others.
_INIT, _MIXUP, _AUGMENT, _SCOUT = 0, 1, 3, 4  # 2: jaxseg.batch_schedule
AXIS = "devices"
_NO_AUGMENTATION = Augmentation()


class TrainState(flax.struct.PyTreeNode):
    """Everything that a training run carries from one step to the next.

    Attributes:
      params: {"network": ..., "generator": ..., "localizer": ...}, float32. The generator is only
        present if Eq. 3 is in use, the localizer only if the grid has no fixed center.
      opt_state: state of the optimizer.
      step: () int32, number of completed steps.
      seed: () uint32, root of all randomness.
    """

    params: dict
    opt_state: optax.OptState
    step: Array
    seed: Array


class TrainStep(Protocol):
    """(state, cohort, indices) -> (state, logs)."""

    def __call__(  # noqa: D102
        self, state: TrainState, cohort: DeviceCohort, indices: Array
    ) -> tuple[TrainState, dict[str, Array]]: ...


def placement(num_devices: int) -> Sharding:
    """Placement of state and cohort: on the first local device, or replicated on several.

    Raises:
      ValueError: there are fewer local devices.
    """
    devices = jax.local_devices()
    if not 1 <= num_devices <= len(devices):
        raise ValueError(f"expected 1 to {len(devices)} devices, got {num_devices}")
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
    """Initialize parameters and optimizer from the seed, in one compiled function.

    Args:
      networks: the sub-networks.
      optimizer: the optimizer.
      seed: non-negative, below 2^32.
      size: (H, W) of the network grid.
      sharding: result of `placement`; the first device by default.

    Returns:
      A state at step 0.
    """

    def init(seed: Array) -> TrainState:
        key = jax.random.fold_in(jax.random.key(seed), _INIT)
        network_key, generator_key = jax.random.split(key)
        image = jnp.zeros((1, *size, 1))
        params = {"network": initialize(networks.segmentation, network_key, image)}
        if networks.generator is not None:
            params["generator"] = initialize(networks.generator, generator_key, image)
        if networks.localizer is not None:
            # The size is arbitrary. A separate key keeps the draws of the other sub-networks.
            multiple = 2**networks.localizer.depth
            params["localizer"] = initialize(
                networks.localizer,
                jax.random.fold_in(key, 2),
                jnp.zeros((1, multiple, multiple, 1)),
            )
        return TrainState(params, optimizer.init(params), jnp.int32(0), seed)

    return jax.jit(init, out_shardings=sharding)(jnp.uint32(seed))


def make_train_step(
    networks: Networks,
    optimizer: optax.GradientTransformation,
    objective: Objective,
    mixup: Mixup,
    *,
    augmentation: Augmentation = _NO_AUGMENTATION,
) -> Callable[..., tuple[TrainState, dict[str, Array]]]:
    """Create the pure training step of a stage.

    Args:
      networks: the sub-networks.
      optimizer: optimizer of all sub-networks.
      objective: objective of the stage.
      mixup: parameters of mixup and of transplants.
      augmentation: parameters of ordinary augmentation, which follows mixup.

    Returns:
      `train_step(state, cohort, indices, *, axis_name=None) -> (state, logs)`. Indices (B,) are
      slices of the cohort: the whole batch, or a device's share of it if `axis_name` names the
      mapped axis. Shares must be equal, so that the mean of their gradients is that of the batch.
    """

    def train_step(
        state: TrainState, cohort: DeviceCohort, indices: Array, *, axis_name: str | None = None
    ) -> tuple[TrainState, dict[str, Array]]:
        if networks.segmentation.context != (cohort.neighbors is not None):
            raise ValueError(
                "cohort: expected neighbors in DeviceCohort.from_slices for a network with context,"
                " and for no other"
            )

        def key(purpose: int) -> Array:
            root = jax.random.fold_in(jax.random.key(state.seed), purpose)
            return jax.random.fold_in(root, state.step)

        first = 0 if axis_name is None else jax.lax.axis_index(axis_name) * indices.shape[0]
        images, targets = mixed_batch(
            key(_MIXUP), cohort, indices, first, mixup, networks.segmentation.num_labels
        )
        if augmentation.probability:
            images, targets = augmented_batch(
                key(_AUGMENT), images, targets, first, augmentation, margin=cohort.margin
            )
        scouts = None
        if networks.localizer is not None:
            scouts = scout_batch(key(_SCOUT), cohort, indices, first)
        (_, logs), gradients = jax.value_and_grad(loss_and_logs, has_aux=True)(
            state.params, networks, objective, images, targets, scouts
        )
        if axis_name is not None:
            gradients, logs = jax.lax.pmean((gradients, logs), axis_name)
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        params = cast(dict, optax.apply_updates(state.params, updates))
        logs |= {
            "gradient_norm": optax.tree.norm(gradients),
            "update_norm": optax.tree.norm(updates),
        }
        return TrainState(params, opt_state, state.step + 1, state.seed), logs

    return train_step


def batch_devices(num_devices: int) -> list[Any]:
    """The devices that share each batch, in the order of their shares.

    Args:
      num_devices: number of devices in each process.

    Raises:
      ValueError: a process has fewer devices.
    """
    placement(num_devices)
    processes = [jax.local_devices(process_index=k) for k in range(jax.process_count())]
    for devices in processes:
        if len(devices) < num_devices:
            raise ValueError(
                f"expected at most {len(devices)} devices per process, got {num_devices}"
            )
    return [device for devices in processes for device in devices[:num_devices]]


def compile_step(
    train_step: Callable[..., tuple[TrainState, dict[str, Array]]], num_devices: int
) -> TrainStep:
    """Compile a step for one device (jit) or several (pmap), of this process or of all processes.

    State and cohort have no device axis in either case, and every process holds them. Indices (B,)
    are those of the global batch, with B divisible by the total number of devices. State and cohort
    should be placed by `placement`, or every step moves them. On one device the old state is
    donated.

    Args:
      train_step: step from `make_train_step`.
      num_devices: number of devices in each process.

    Raises:
      ValueError: a process has fewer devices. The compiled step raises it if the batch is not
        divisible by the number of devices.
    """
    devices = batch_devices(num_devices)
    if len(devices) == 1:
        return jax.jit(train_step, donate_argnums=0)
    mapped = jax.pmap(
        partial(train_step, axis_name=AXIS),
        axis_name=AXIS,
        in_axes=(None, None, 0),
        out_axes=None,
        devices=devices,
    )
    first = num_devices * jax.process_index()

    def step(
        state: TrainState, cohort: DeviceCohort, indices: Array
    ) -> tuple[TrainState, dict[str, Array]]:
        if indices.shape[0] % len(devices):
            raise ValueError(
                f"expected a batch size divisible by {len(devices)} devices, got {indices.shape[0]}"
            )
        shares = indices.reshape(len(devices), -1)
        if len(devices) > num_devices:
            shares = shares[first : first + num_devices]
        return mapped(state, cohort, shares)

    return step
