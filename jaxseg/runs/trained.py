"""A trained network as inference needs it: a run read back, from its workdir or a bundle."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxseg.anatomy import Anatomy
from jaxseg.config import recipe, settings
from jaxseg.config.settings import SettingsError
from jaxseg.data import Grid
from jaxseg.data.scout import SIZE
from jaxseg.machine.devices import check_flags, describe_networks
from jaxseg.models import UNet
from jaxseg.models.segment import Params
from jaxseg.objective import Networks
from jaxseg.runs import bundle, workdir
from jaxseg.runs.checkpoint import Checkpoints, load_params
from jaxseg.runs.workdir import WorkdirError


@dataclass(frozen=True, eq=False)
class Trained:
    """A run's network and what its predictions stand on.

    Attributes:
      folder: where it was read from; names it in messages.
      checkpoint: which of the run's it is, "best" or "last".
      step: optimizer steps that its parameters have seen.
      settings: of the run.
      data: what the run was trained and validated on, as `jaxseg.runs.workdir.read_data`.
      anatomy: its label set.
      grid: the network grid.
      network: the segmentation generator.
      params: its parameters, on the first local device.
      localizer: the network that finds the heart; None where the grid's center is given.
      localizer_params: its parameters.
    """

    folder: Path
    checkpoint: str
    step: int
    settings: Mapping[str, Any]
    data: Mapping[str, Any]
    anatomy: Anatomy
    grid: Grid
    network: UNet
    params: Params
    localizer: UNet | None = None
    localizer_params: Params = None

    def describe(self) -> str:
        """A line that names the run, its number of parameters and its convolutions."""
        network = describe_networks({"network": self.params}, self.network.convolve)
        return f"{self.folder}: {self.checkpoint} checkpoint, step {self.step}; {network}"

    def written(self, labels: np.ndarray) -> np.ndarray:
        """A label map in the values that the label files of the training data have."""
        values = self.data.get("label_values")
        return np.asarray(values)[labels] if values else labels

    def centered(self, center: tuple[float, float]) -> "Trained":
        """The same network with its grid's center given, so that no heart is looked for.

        Raises:
          SettingsError: the center is not two fractions from 0 to 1.
        """
        try:
            grid = replace(self.grid, center=center)
        except ValueError as error:
            raise SettingsError(f"--center: {error}") from None
        return replace(self, grid=grid, localizer=None, localizer_params=None)


def load_run(folder: Path, *, checkpoint: str | None = None) -> Trained:
    """Read the network of a run; neither its data nor its optimizer is touched.

    Args:
      folder: workdir of the run, trained on any number of devices, or a bundle exported from it.
      checkpoint: "best" by validation score, or "last"; default the last of a run, and the one that
        a bundle holds.

    Raises:
      WorkdirError: no run and no bundle, no such checkpoint, or one that cannot be read.
      SettingsError: settings that do not describe a run.
      DeviceError: as `check_flags`.
    """
    check_flags()
    _check_folder(folder)
    if bundle.is_bundle(folder):
        return _load_bundle(folder, checkpoint)
    checkpoint = checkpoint or "last"
    config, data = run_settings(folder), workdir.read_data(folder)
    networks = _networks(config)
    step, params = _restore(folder, checkpoint, _templates(networks, config))
    return _trained(folder, checkpoint, step, config, data, networks, params)


def _check_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise WorkdirError(f"{folder}: no such folder; expected the workdir of a run, or a bundle")


def _trained(
    folder: Path,
    checkpoint: str,
    step: int,
    config: Mapping[str, Any],
    data: Mapping[str, Any],
    networks: Networks,
    params: Mapping[str, Params],
) -> Trained:
    return Trained(
        folder=folder,
        checkpoint=checkpoint,
        step=step,
        settings=config,
        data=data,
        anatomy=recipe.anatomy(config),
        grid=recipe.grid(config),
        network=networks.segmentation,
        params=params["network"],
        localizer=networks.localizer,
        localizer_params=params.get("localizer"),
    )


def read_config(folder: Path) -> dict[str, Any]:
    """The settings of a run or of a bundle, checked; the files of a bundle are checked, too.

    Raises:
      WorkdirError: there is neither, its settings cannot be read, or a bundle is damaged.
      SettingsError: as `run_settings`.
    """
    _check_folder(folder)
    if bundle.is_bundle(folder):
        return _bundle_settings(folder, bundle.read_manifest(folder))
    return run_settings(folder)


def run_settings(folder: Path) -> dict[str, Any]:
    """The settings of the run in a workdir, checked.

    Raises:
      WorkdirError: there is no run, or its settings cannot be read.
      SettingsError: they do not describe a run; every line names their file.
    """
    config = workdir.read_settings(folder)
    _check(folder, config)
    return config


def _check(folder: Path, config: Mapping[str, Any]) -> None:
    try:
        settings.check(config)
    except SettingsError as error:
        file = folder / workdir.SETTINGS
        lines = "\n".join(f"{file}: {line}" for line in str(error).splitlines())
        raise SettingsError(lines) from None


def _load_bundle(folder: Path, checkpoint: str | None) -> Trained:
    manifest = bundle.read_manifest(folder)
    if checkpoint not in (None, manifest.checkpoint):
        raise WorkdirError(
            f"{folder}: a bundle of the {manifest.checkpoint} checkpoint alone; "
            f"expected checkpoint={manifest.checkpoint}, got {checkpoint}"
        )
    config, data = _bundle_settings(folder, manifest), workdir.read_data(folder)
    networks = _networks(config)
    places = {"network": bundle.PARAMS, "localizer": bundle.LOCALIZER_PARAMS}
    try:
        params = {
            name: load_params(folder / places[name], template)
            for name, template in _templates(networks, config).items()
        }
    except (ValueError, KeyError, OSError) as error:
        raise _unreadable(folder, "parameters", error) from error
    return _trained(folder, manifest.checkpoint, manifest.step, config, data, networks, params)


def _bundle_settings(folder: Path, manifest: bundle.Manifest) -> dict[str, Any]:
    bundle.verify(folder, manifest)
    config = workdir.read_settings(folder)
    # A bundle does not say where its cases lay, which inference has no need of.
    root = "not in the bundle"
    part = config.get("data")
    _check(folder, config | {"data": {**part, "root": root}} if isinstance(part, dict) else config)
    return config


def _networks(config: Mapping[str, Any]) -> Networks:
    """The run's networks, as fast as this machine can run them: not those that trained."""
    return recipe.networks(settings.replace(config, {"run.convolution": "auto"}))


def _templates(networks: Networks, config: Mapping[str, Any]) -> dict[str, Params]:
    """Shapes of the parameters of the sub-networks that inference uses."""
    sizes = {"network": (networks.segmentation, recipe.grid(config).size)}
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
                    f"{folder}: no checkpoint has a score, as none was validated yet or the "
                    "validation slices hold no scored region; expected --checkpoint=last"
                )
            return step, {
                name: checkpoints.restore_network(template, step, item=name)
                for name, template in templates.items()
            }
    except (ValueError, KeyError, OSError) as error:
        raise _unreadable(folder, "checkpoint", error) from error


def _unreadable(folder: Path, what: str, error: Exception) -> WorkdirError:
    """What Orbax says, whatever is damaged or does not fit."""
    reason = (str(error).strip("\"'") or type(error).__name__).splitlines()[0]
    return WorkdirError(f"{folder}: its {what} cannot be read ({reason})")


def check_data(run: Trained) -> None:
    """Make sure that a run's note of its data says what it was trained and validated on.

    Raises:
      WorkdirError: the note lacks a part, as those of older versions lack digests.
    """
    check_facts(run.folder, run.data)


def check_facts(folder: Path, data: Mapping[str, Any]) -> None:
    """The same of a run in a folder, which is not read."""
    missing = {"cases", "digests", "training", "validation"} - set(data)
    if missing:
        raise WorkdirError(
            f"{folder}: its {workdir.DATA} lacks {', '.join(sorted(missing))}; "
            "expected a run of this version of jaxseg"
        )
