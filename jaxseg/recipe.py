"""From a run's settings to the objects that they describe.

The only file, beside the loop itself, that sees settings as a whole: everything below it takes the
values it uses.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
from tqdm import tqdm

from jaxseg import balance
from jaxseg.anatomy import Anatomy
from jaxseg.data import Cohort, DataError, Grid, build_cohort, find_cases, load_case
from jaxseg.data.phantom import write_phantom
from jaxseg.models import UNet, WeightGenerator
from jaxseg.train_step import Mixup, Networks, Objective

Settings = Mapping[str, Any]


def anatomy(settings: Settings) -> Anatomy:
    """Labels, inclusion pairs and scored regions."""
    return Anatomy.from_dict(settings["anatomy"])


def grid(settings: Settings) -> Grid:
    """The network grid."""
    fields = settings["grid"]
    return Grid(
        size=tuple(fields["size"]),
        spacing=fields["spacing"] or None,
        center=tuple(fields["center"]),
    )


def load_cohort(settings: Settings) -> Cohort:
    """Read every case of the run's data on the network grid, writing the phantom first if asked.

    Raises:
      DataError: if a case cannot be used, or the phantom cannot be written; the message names the
        file or folder.
    """
    intensity = settings["intensity"]
    num_labels = anatomy(settings).num_labels
    folders = tqdm(find_cases(data_root(settings)), desc="reading cases", unit="case", disable=None)
    return build_cohort(
        (load_case(folder, num_labels=num_labels) for folder in folders),
        grid(settings),
        num_labels=num_labels,
        normalization=intensity["method"],
        percentiles=(intensity["low"], intensity["high"]),
    )


def data_root(settings: Settings) -> Path:
    """Folder of the run's cases, writing the phantom first if asked.

    Raises:
      DataError: if the phantom cannot be written.
    """
    data = settings["data"]
    root = Path(data["root"]).expanduser() if data["root"] else _phantom_root(data)
    if data["phantom_cases"]:
        _write_phantom(root, seed=data["phantom_seed"], num_cases=data["phantom_cases"])
    return root


def _phantom_root(data: Settings) -> Path:
    return Path("data") / f"phantom-{data['phantom_cases']}-cases-seed-{data['phantom_seed']}"


def _write_phantom(root: Path, *, seed: int, num_cases: int) -> None:
    with tqdm(total=num_cases, desc="writing the phantom", unit="case", disable=None) as bar:
        try:
            write_phantom(root, seed=seed, num_cases=num_cases, progress=lambda *_: bar.update())
        except ValueError as error:
            raise DataError(
                f"data.root: expected a folder for the phantom: {error}; for cases of your own "
                "set data.phantom_cases=0, or take the config's emidec variant"
            ) from error
        except OSError as error:
            raise DataError(f"{root}: cannot write the phantom here ({error.strerror})") from error


def networks(settings: Settings) -> Networks:
    """The sub-networks of the stage."""
    model, weights = settings["model"], settings["balance"]
    num_labels = anatomy(settings).num_labels
    dtype = jnp.dtype(model["precision"])
    segmentation = UNet(
        num_labels=num_labels,
        width=model["width"],
        depth=model["depth"],
        attention=model["attention"],
        dense=model["dense"],
        groups=model["groups"],
        dtype=dtype,
    )
    if not settings["loss"]["weighted"]:
        return Networks(segmentation, None)
    generator = WeightGenerator(
        num_labels=num_labels,
        width=weights["width"],
        groups=model["groups"],
        activation=balance.ACTIVATIONS[weights["method"]],
        dtype=dtype,
    )
    return Networks(segmentation, generator)


def objective(settings: Settings, labels: np.ndarray) -> Objective:
    """What the stage minimizes.

    Args:
      settings: of the run.
      labels: (N, H, W) integer, the training slices, whose label prevalence Eq. 3's weights may be
        asked to make up for.
    """
    loss, weights, prior = settings["loss"], settings["balance"], anatomy(settings)
    counts = np.bincount(labels.ravel(), minlength=prior.num_labels)
    factors = balance.prevalence_factors(
        jnp.asarray(counts / counts.sum()), power=weights["prevalence_power"]
    )
    return Objective(
        weighted=loss["weighted"],
        method=weights["method"],
        strength=weights["strength"],
        factors=tuple(float(factor) for factor in factors),
        penalty=loss["penalty"],
        epsilon=loss["epsilon"],
        support=loss["support"],
        inclusions=prior.inclusions,
    )


def mixup(settings: Settings) -> Mixup:
    """Settings of pathology mixup."""
    return Mixup(**settings["mixup"])


def learning_rate(settings: Settings, steps: int, steps_per_epoch: float) -> optax.Schedule:
    """Linear warm-up from 0, then the decreasing schedule.

    Args:
      settings: of the run.
      steps: optimizer steps of the whole run.
      steps_per_epoch: training slices over batch size.

    Returns:
      Learning rate by step; the last step's is the final one, unless the schedule is constant or
      the run a single step.
    """
    fields = settings["optimizer"]
    first, last = fields["learning_rate"], fields["final_learning_rate"]
    # A warm-up as long as the run still leaves a step at the first rate and one at the last.
    warmup = min(round(fields["warmup_epochs"] * steps_per_epoch), max(steps - 2, 0))
    rest = max(steps - 1 - warmup, 1)
    match fields["schedule"]:
        case "cosine":
            decay = optax.cosine_decay_schedule(first, rest, alpha=last / first)
        case "exponential":
            decay = optax.exponential_decay(first, rest, last / first, end_value=last)
        case "linear":
            decay = optax.linear_schedule(first, last, rest)
        case _:
            decay = optax.constant_schedule(first)
    if not warmup:
        return decay
    # The first step moves already: a rate of exactly 0 would waste it.
    rise = optax.linear_schedule(first / (warmup + 1), first, warmup)
    return optax.join_schedules([rise, decay], [warmup])


def optimizer(settings: Settings, schedule: optax.Schedule) -> optax.GradientTransformation:
    """Adam, with the gradient's global norm clipped if asked."""
    clip_norm = settings["optimizer"]["clip_norm"]
    clip = optax.clip_by_global_norm(clip_norm) if clip_norm else optax.identity()
    return optax.chain(clip, optax.adam(schedule))
