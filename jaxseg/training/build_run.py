"""Build the objects of the training loop on the devices of this machine."""

import logging
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxseg import native
from jaxseg.batch import DeviceCohort
from jaxseg.config.settings import SettingsError
from jaxseg.config.setup import Setup
from jaxseg.data import Cohort
from jaxseg.home import HomeError, expanded
from jaxseg.models.segment import make_labels
from jaxseg.runs import hosts
from jaxseg.train_step import (
    TrainState,
    batch_devices,
    compile_step,
    init_state,
    make_train_step,
    placement,
)
from jaxseg.training.loop import Run
from jaxseg.training.validation import Validation

_LOG = logging.getLogger(__name__)


def count_devices(setup: Setup) -> int:
    """Number of local devices to use, the same in every process.

    Raises:
      SettingsError: there are fewer devices, or the batch cannot be divided among them.
    """
    devices, batch_size = setup.options.devices, setup.course.batch_size
    available = jax.local_device_count()
    if devices > available:
        raise SettingsError(
            f"run.devices: expected at most the {available} of this machine, got {devices}"
        )
    devices = devices or available
    total = devices * hosts.count()
    if batch_size % total:
        raise SettingsError(
            f"train.batch_size: expected a multiple of the {total} devices in use, "
            f"got {batch_size}; or set run.devices"
        )
    return devices


def use_compilation_cache(folder: str) -> None:
    """Keep compiled functions in a folder; do nothing if its name is empty or has no such home."""
    if not folder:
        return
    try:
        place = expanded(folder, "run.compilation_cache")
    except HomeError as error:
        _LOG.warning(f"every function is compiled anew: {error}")
        return
    jax.config.update("jax_compilation_cache_dir", str(place))


def log_slow_convolution(setup: Setup) -> None:
    """Report a CPU without the native convolution, where a step takes about 1.5 times as long."""
    if jax.default_backend() == "cpu" and setup.options.convolution == "auto":
        why = native.why_not(setup.architecture.precision)
        if why is not None:
            _LOG.info(f"convolutions by XLA, slower here than the native ones: {why}")


def build_run(
    setup: Setup,
    folder: Path,
    cohort: Cohort,
    parts: tuple[np.ndarray, np.ndarray],
    devices: int,
) -> tuple[Run, TrainState]:
    """Build what the loop needs, and the initial state.

    Args:
      setup: setup of the run.
      folder: the run folder.
      cohort: cohort of all cases.
      parts: indices of the training slices and of the validation slices.
      devices: number of local devices to use.
    """
    plan = setup.plan(len(parts[0]))
    rates = setup.optimization.rates(plan.epochs, plan.steps, plan.steps_per_epoch)
    networks, optimizer = setup.networks, setup.optimization.optimizer(rates)
    context = networks.segmentation.context
    step = make_train_step(
        networks, optimizer, setup.objective, setup.mixup, augmentation=setup.augmentation
    )
    place = placement(devices)
    # Validation uses a device's share of the training batch, which is known to fit in its memory.
    share = plan.batch_size // len(batch_devices(devices))

    def training(array: np.ndarray) -> jax.Array:
        # Arrays are moved to the device one by one, so that the host holds no second cohort.
        return jnp.asarray(array[parts[0]])

    arrays = DeviceCohort.from_slices(
        training(cohort.images),
        training(cohort.targets),
        training(cohort.heights),
        scouts=None if cohort.scouts is None else training(cohort.scouts),
        hearts=None if cohort.hearts is None else training(cohort.hearts),
        margin=cohort.margin,
        pathologies=setup.mixup.pathologies,
        neighbors=cohort.neighbors(parts[0]) if context else None,
    )
    inner = cohort.cropped()
    run = Run(
        setup=setup,
        folder=folder,
        plan=plan,
        cohort=jax.device_put(arrays, place),
        schedule=rates,
        step=compile_step(step, devices),
        validation=Validation(
            cohort=inner.take(parts[1]),
            images=inner.inputs(parts[1], context=context),
            segment=hosts.shared(make_labels(networks.segmentation, batch_size=share)),
            anatomy=setup.anatomy,
        ),
    )
    return run, init_state(networks, optimizer, setup.seed, setup.grid.size, place)
