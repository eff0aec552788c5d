"""Trained networks for inference, loaded from a run folder or a bundle."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxseg.anatomy import Anatomy
from jaxseg.config.settings import SettingsError, check, check_without_places
from jaxseg.config.setup import Setup, build
from jaxseg.data import Grid
from jaxseg.data.scout import SIZE
from jaxseg.machine.devices import check_flags, describe_networks
from jaxseg.models import UNet
from jaxseg.models.segment import Params
from jaxseg.objective import Networks
from jaxseg.runs import bundle
from jaxseg.runs.checkpoint import Checkpoints
from jaxseg.runs.config_file import SETTINGS, read_settings
from jaxseg.runs.data_file import DATA, read_data
from jaxseg.runs.files import WorkdirError
from jaxseg.runs.params import load_params


@dataclass(frozen=True, eq=False)
class Trained:
    """A run's network, with all that inference needs.

    Attributes:
      folder: folder that it was loaded from, for messages.
      checkpoint: checkpoint of the run, "best" or "last".
      step: number of optimizer steps of the checkpoint.
      setup: config of the run as typed values.
      data: training and validation data, as returned by `jaxseg.runs.data_file.read_data`.
      network: the segmentation generator.
      params: its parameters, on the first local device.
      localizer: the network that finds the heart; None if the grid's center is given.
      localizer_params: parameters of the localizer.
    """

    folder: Path
    checkpoint: str
    step: int
    setup: Setup
    data: Mapping[str, Any]
    network: UNet
    params: Params
    localizer: UNet | None = None
    localizer_params: Params = None

    @property
    def anatomy(self) -> Anatomy:
        """Label set of the run."""
        return self.setup.anatomy

    @property
    def grid(self) -> Grid:
        """The network grid."""
        return self.setup.grid

    def describe(self) -> str:
        """Return a line with the run, its number of parameters and its convolutions."""
        network = describe_networks({"network": self.params}, self.network.convolve)
        return f"{self.folder}: {self.checkpoint} checkpoint, step {self.step}; {network}"

    def written(self, labels: np.ndarray) -> np.ndarray:
        """Convert a label map to the label values of the training data's files."""
        values = self.data.get("label_values")
        return np.asarray(values)[labels] if values else labels

    def centered(self, center: tuple[float, float]) -> "Trained":
        """Return the same network with a given grid center, so that the heart is not located.

        Raises:
          ValueError: `center` is not two fractions from 0 to 1.
        """
        setup = self.setup.with_center(center)
        return replace(self, setup=setup, localizer=None, localizer_params=None)


def load_run(folder: Path, *, checkpoint: str | None = None) -> Trained:
    """Load the network of a run, without its data set or optimizer state.

    Args:
      folder: run folder, trained on any number of devices, or a bundle exported from one.
      checkpoint: "best" by validation score, or "last". The default is the last checkpoint of a
        run, or the only one of a bundle.

    Raises:
      WorkdirError: if there is no run or bundle, no such checkpoint, or it cannot be read.
      SettingsError: if the config does not describe a run.
      DeviceError: as in `check_flags`.
    """
    check_flags()
    _check_folder(folder)
    if bundle.is_bundle(folder):
        return _load_bundle(folder, checkpoint)
    checkpoint = checkpoint or "last"
    setup, data = build(_run_config(folder)), read_data(folder)
    networks = _networks(setup)
    step, params = _restore(folder, checkpoint, _templates(networks, setup.grid))
    return _trained(folder, checkpoint, step, setup, data, networks, params)


def _check_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise WorkdirError(f"{folder}: no such folder; expected the workdir of a run, or a bundle")


def _trained(
    folder: Path,
    checkpoint: str,
    step: int,
    setup: Setup,
    data: Mapping[str, Any],
    networks: Networks,
    params: Mapping[str, Params],
) -> Trained:
    return Trained(
        folder=folder,
        checkpoint=checkpoint,
        step=step,
        setup=setup,
        data=data,
        network=networks.segmentation,
        params=params["network"],
        localizer=networks.localizer,
        localizer_params=params.get("localizer"),
    )


def read_config(folder: Path) -> dict[str, Any]:
    """Read and check the config of a run or bundle; the files of a bundle are checked, too.

    Raises:
      WorkdirError: if there is no run or bundle, its config cannot be read, or a bundle is damaged.
      SettingsError: if the config does not describe a run; every line names its file.
    """
    _check_folder(folder)
    if bundle.is_bundle(folder):
        return _bundle_config(folder, bundle.read_manifest(folder))
    return _run_config(folder)


def read_setup(folder: Path) -> Setup:
    """Read the config of a run or bundle as typed values; raises as `read_config`."""
    return build(read_config(folder))


def _run_config(folder: Path) -> dict[str, Any]:
    return _checked(folder, check)


def _checked(folder: Path, check_config: Callable[[Mapping[str, Any]], None]) -> dict[str, Any]:
    config = read_settings(folder)
    try:
        check_config(config)
    except SettingsError as error:
        file = folder / SETTINGS
        lines = "\n".join(f"{file}: {line}" for line in str(error).splitlines())
        raise SettingsError(lines) from None
    return config


def _load_bundle(folder: Path, checkpoint: str | None) -> Trained:
    manifest = bundle.read_manifest(folder)
    if checkpoint not in (None, manifest.checkpoint):
        raise WorkdirError(
            f"{folder}: a bundle with only the {manifest.checkpoint} checkpoint; "
            f"expected checkpoint={manifest.checkpoint}, got {checkpoint}"
        )
    setup, data = build(_bundle_config(folder, manifest)), read_data(folder)
    networks = _networks(setup)
    places = {"network": bundle.PARAMS, "localizer": bundle.LOCALIZER_PARAMS}
    try:
        params = {
            name: load_params(folder / places[name], template)
            for name, template in _templates(networks, setup.grid).items()
        }
    except (ValueError, KeyError, OSError) as error:
        raise _unreadable(folder, "parameters", error) from error
    return _trained(folder, manifest.checkpoint, manifest.step, setup, data, networks, params)


def _bundle_config(folder: Path, manifest: bundle.Manifest) -> dict[str, Any]:
    bundle.verify(folder, manifest)
    # A bundle does not contain the path of the data set, which inference does not need.
    return _checked(folder, check_without_places)


def _networks(setup: Setup) -> Networks:
    """Build the networks with the fastest convolution here, whichever was used in training."""
    return setup.with_convolution("auto").networks


def _templates(networks: Networks, grid: Grid) -> dict[str, Params]:
    """Return the shapes of the parameters of the sub-networks that inference uses."""
    sizes = {"network": (networks.segmentation, grid.size)}
    if networks.localizer is not None:
        sizes["localizer"] = (networks.localizer, SIZE)
    return {
        name: jax.eval_shape(
            network.init, jax.random.key(0), jax.ShapeDtypeStruct((1, *size, 1), jnp.float32)
        )["params"]
        for name, (network, size) in sizes.items()
    }


def _restore(
    folder: Path, checkpoint: str, templates: Mapping[str, Params]
) -> tuple[int, dict[str, Params]]:
    try:
        with Checkpoints(folder, read_only=True) as checkpoints:
            if checkpoints.latest_step is None:
                raise WorkdirError(f"{folder}: the run has no checkpoint yet")
            steps = {"best": checkpoints.best_step, "last": checkpoints.latest_step}
            step = steps[checkpoint]
            if step is None:
                raise WorkdirError(
                    f"{folder}: no checkpoint has a score, because none was validated or no "
                    "validation slice has a scored region; expected --checkpoint=last"
                )
            return step, {
                name: checkpoints.restore_network(template, step, item=name)
                for name, template in templates.items()
            }
    except (ValueError, KeyError, OSError) as error:
        raise _unreadable(folder, "checkpoint", error) from error


def _unreadable(folder: Path, what: str, error: Exception) -> WorkdirError:
    """Build the error of a damaged or mismatched file, with the first line of Orbax's message."""
    reason = (str(error).strip("\"'") or type(error).__name__).splitlines()[0]
    return WorkdirError(f"{folder}: its {what} cannot be read ({reason})")


def check_data(folder: Path, data: Mapping[str, Any]) -> None:
    """Check that the data of the run in a folder, as of `read_data`, is complete.

    Raises:
      WorkdirError: if a part is missing, such as the digests in runs of older versions.
    """
    missing = {"cases", "digests", "training", "validation"} - set(data)
    if missing:
        raise WorkdirError(
            f"{folder}: its {DATA} lacks {', '.join(sorted(missing))}; "
            "expected a run of this version of jaxseg"
        )
