"""A trained network as inference needs it: from a run's folder to label maps on the native grid."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxseg import recipe, settings, workdir
from jaxseg.anatomy import Anatomy
from jaxseg.checkpoint import Checkpoints
from jaxseg.data import Case, DataError, Grid, preprocess_case, probabilities_to_native
from jaxseg.inference import Params, Segmenter, make_probabilities
from jaxseg.models import UNet
from jaxseg.workdir import WorkdirError

# A stack has about seven slices, and one shape is compiled.
_BATCH_SIZE = 8
# A voxel edge may lie outside the training cases' range by this factor.
_SPACING_TOLERANCE = 2.0
# Axes of (slices, H, W, ...) that are mirrored at test time.
_FLIPS = ((), (1,), (2,), (1, 2))

# A case to label probabilities (X, Y, slices, L) float32 on its own grid.
Predictor = Callable[[Case], np.ndarray]


@dataclass(frozen=True, eq=False)
class Trained:
    """A run's network and what its predictions stand on.

    Attributes:
      folder: where it was read from; names it in messages.
      step: optimizer steps that its parameters have seen.
      settings: of the run.
      data: what the run was trained and validated on, as `jaxseg.workdir.read_data`.
      anatomy: its label set.
      grid: the network grid.
      network: the segmentation generator.
      params: its parameters, on the first local device.
    """

    folder: Path
    step: int
    settings: Mapping[str, Any]
    data: Mapping[str, Any]
    anatomy: Anatomy
    grid: Grid
    network: UNet
    params: Params


def load_run(folder: Path, *, checkpoint: str = "best") -> Trained:
    """Read the network of a run; neither its data nor its optimizer is touched.

    Args:
      folder: workdir of the run, trained on any number of devices.
      checkpoint: "best" by validation score, or "last".

    Raises:
      WorkdirError: no run, no such checkpoint, or one that cannot be read.
      SettingsError: settings that do not describe a run.
    """
    if not folder.is_dir():
        raise WorkdirError(f"{folder}: no such folder; expected the workdir of a run")
    config, data = workdir.read_settings(folder), workdir.read_data(folder)
    settings.check(config)
    network, grid = recipe.networks(config).segmentation, recipe.grid(config)
    step, params = _restore(folder, checkpoint, network, grid.size)
    return Trained(folder, step, config, data, recipe.anatomy(config), grid, network, params)


def _restore(
    folder: Path, checkpoint: str, network: UNet, size: tuple[int, int]
) -> tuple[int, Params]:
    template = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, *size, 1)))["params"]
    try:
        with Checkpoints(folder, read_only=True) as checkpoints:
            if checkpoints.latest_step is None:
                raise WorkdirError(f"{folder}: the run has no checkpoint yet")
            steps = {"best": checkpoints.best_step, "last": checkpoints.latest_step}
            step = steps[checkpoint]
            if step is None:
                raise WorkdirError(f"{folder}: no checkpoint was validated yet; ask for the last")
            return step, checkpoints.restore_network(template, step)
    except (ValueError, KeyError, OSError) as error:  # Orbax, whatever is damaged or does not fit
        reason = str(error).strip("\"'").splitlines()[0]
        raise WorkdirError(f"{folder}: its checkpoint cannot be read ({reason})") from error


def make_predictor(runs: Sequence[Trained], *, mirror: bool = False) -> Predictor:
    """Compile the prediction of a case.

    Args:
      runs: one or more, of one label set; their probabilities are averaged on the native grid.
      mirror: average over the four mirror images of every slice, too.

    Returns:
      A function of a case, giving (X, Y, slices, L) float32; it raises DataError as
      `preprocess_case`.

    Raises:
      WorkdirError: runs of different label sets.
    """
    for run in runs[1:]:
        if run.anatomy.labels != runs[0].anatomy.labels:
            raise WorkdirError(
                f"{run.folder}: a run of the labels {', '.join(run.anatomy.labels)}; expected "
                f"those of {runs[0].folder}: {', '.join(runs[0].anatomy.labels)}"
            )
    flips = _FLIPS if mirror else _FLIPS[:1]
    # Folds share one network, which is compiled once.
    segmenters = {
        run.network: make_probabilities(run.network, batch_size=_BATCH_SIZE) for run in runs
    }

    def predict(case: Case) -> np.ndarray:
        total = np.zeros((*case.image.shape, runs[0].anatomy.num_labels), np.float32)
        for run in runs:
            intensity = run.settings["intensity"]
            images, _ = preprocess_case(
                case,
                run.grid,
                num_labels=run.anatomy.num_labels,
                normalization=intensity["method"],
                percentiles=(intensity["low"], intensity["high"]),
            )
            probabilities = _mirrored(segmenters[run.network], run.params, images, flips)
            total += probabilities_to_native(
                probabilities, case.image.shape, case.spacing, run.grid
            )
        return total / np.float32(len(runs))

    return predict


def _mirrored(
    segment: Segmenter, params: Params, images: np.ndarray, flips: Sequence[tuple[int, ...]]
) -> np.ndarray:
    views = [np.flip(segment(params, np.flip(images, axes)), axes) for axes in flips]
    return np.mean(views, axis=0)


def check_spacing(run: Trained, case: Case, path: Path) -> None:
    """Make sure that a case's voxels are about as large as those that the run was trained on.

    What it stops: a unit that is not mm, a stack whose slices lie along another axis, another kind
    of scan. A run older than the note of its spacing cannot tell, and lets everything pass.

    Raises:
      DataError: a voxel edge is outside the training cases' range by more than a factor of 2.
    """
    if "spacing" not in run.data:
        return
    low, high = (np.asarray(edges) for edges in run.data["spacing"])
    edges = np.asarray(case.spacing)
    if ((edges < low / _SPACING_TOLERANCE) | (edges > high * _SPACING_TOLERANCE)).any():
        expected = " x ".join(f"{a:.3g}-{b:.3g}" for a, b in zip(low, high, strict=True))
        raise DataError(
            f"{path}: voxels of {' x '.join(f'{edge:.3g}' for edge in edges)} mm are far from "
            f"those trained on, {expected} mm"
        )
