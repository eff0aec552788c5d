"""Build the objects of a run's method from its config; `run_data` builds its data.

The modules of the method take plain values. Code that holds a config calls these functions.
"""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax

from jaxseg import native
from jaxseg.anatomy import Anatomy
from jaxseg.augment import Augmentation
from jaxseg.batch import Mixup
from jaxseg.config.settings import SettingsError
from jaxseg.data import Cohort, Grid, Preprocessing
from jaxseg.data.label_values import LabelValues
from jaxseg.localizer import make_localizer
from jaxseg.models import Convolve, UNet, WeightGenerator
from jaxseg.objective import Networks, Objective
from jaxseg.presence import smallest_volumes

Settings = Mapping[str, Any]


def anatomy(settings: Settings) -> Anatomy:
    """Labels, inclusion pairs and scored regions."""
    return Anatomy.from_dict(settings["anatomy"])


def label_values(settings: Settings) -> LabelValues | None:
    """Mapping from values in label files to labels; None if the config does not state one."""
    text = settings["data"]["label_values"]
    return LabelValues.parse(text, anatomy(settings).labels) if text else None


def grid(settings: Settings) -> Grid:
    """The network grid."""
    fields = settings["grid"]
    return Grid(
        size=tuple(fields["size"]),
        spacing=fields["spacing"] or None,
        center=tuple(fields["center"]) if fields["center"] is not None else None,
    )


def preprocessing(settings: Settings) -> Preprocessing:
    """Preprocessing of each case."""
    intensity = settings["intensity"]
    return Preprocessing(
        grid=grid(settings),
        num_labels=anatomy(settings).num_labels,
        normalization=intensity["method"],
        percentiles=(intensity["low"], intensity["high"]),
        even=intensity["even"],
    )


def networks(settings: Settings) -> Networks:
    """Sub-networks of the stage."""
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
        convolve=convolution(settings),
    )
    localizer = None
    if grid(settings).center is None:
        localizer = make_localizer(convolution(settings))
    if not settings["loss"]["weighted"]:
        return Networks(segmentation, None, localizer)
    generator = WeightGenerator(
        num_labels=num_labels,
        width=weights["width"],
        groups=model["groups"],
        dtype=dtype,
    )
    return Networks(segmentation, generator, localizer)


def convolution(settings: Settings) -> Convolve:
    """The implementation of the network's 3x3 convolutions on this machine.

    Raises:
      SettingsError: run.convolution is native, which is not available.
    """
    try:
        return native.choose(settings["run"]["convolution"], settings["model"]["precision"])
    except native.NativeError as error:
        raise SettingsError(
            f"run.convolution: expected auto or xla, got native; {error}"
        ) from error


def objective(settings: Settings) -> Objective:
    """Objective of the stage."""
    loss, weights, prior = settings["loss"], settings["balance"], anatomy(settings)
    return Objective(
        method=weights["method"],
        strength=weights["strength"],
        penalty=loss["penalty"],
        epsilon=loss["epsilon"],
        inclusions=prior.inclusions,
        dice=loss["dice"],
        dice_regions=prior.whole_regions if loss["dice_of"] == "regions" else (),
    )


def smallest_pathology(
    settings: Settings, cohort: Cohort, training: np.ndarray
) -> list[float | None]:
    """Volume of the smallest inner region of each inclusion pair over the training cases.

    Args:
      settings: config of the run.
      cohort: cohort of the run.
      training: indices of the training slices.

    Returns:
      Volumes in mm3, one for each pair; None if no training slice holds the inner region.
    """
    side = settings["grid"]["spacing"]
    voxels = [(side * side or x * y) * z for x, y, z in cohort.spacings]
    inclusions = anatomy(settings).inclusions
    labels, cases = cohort.labels[training], cohort.case_index[training]
    return smallest_volumes(labels, cases, voxels, inclusions)


def mixup(settings: Settings) -> Mixup:
    """Parameters of pathology mixup."""
    fields = settings["mixup"]
    return Mixup(probability=fields["probability"], tolerance=fields["tolerance"])


def augmentation(settings: Settings) -> Augmentation:
    """Parameters of ordinary augmentation, with lengths in pixels."""
    fields = dict(settings["augment"])
    shift_mm = fields.pop("shift")
    return Augmentation(**fields, shift=shift_mm / settings["grid"]["spacing"] if shift_mm else 0.0)


def margin(settings: Settings) -> int:
    """Pixels of surroundings that augmentation needs on each side of the network grid."""
    return augmentation(settings).reach(grid(settings).size)


def learning_rate(settings: Settings, steps: int, steps_per_epoch: float) -> optax.Schedule:
    """Linear warm-up, followed by the configured schedule.

    Args:
      settings: config of the run.
      steps: number of optimizer steps of the whole run.
      steps_per_epoch: number of training slices divided by the batch size.

    Returns:
      Learning rate as a function of the step. The last step has the final learning rate, unless the
      schedule is constant or the run has a single step.
    """
    fields = settings["optimizer"]
    first, last = fields["learning_rate"], fields["final_learning_rate"]
    epochs, wanted = settings["train"]["epochs"], fields["warmup_epochs"]
    rising = wanted if wanted < epochs else epochs / 2
    # Even a warm-up as long as the run leaves one step at the first rate and one at the last.
    warmup = min(round(rising * steps_per_epoch), max(steps - 2, 0))
    rest = max(steps - 1 - warmup, 1)
    match fields["schedule"]:
        case "cosine":
            decay = optax.cosine_decay_schedule(first, rest, alpha=last / first)
        case "linear":
            decay = optax.linear_schedule(first, last, rest)
        case _:
            decay = optax.constant_schedule(first)
    if not warmup:
        return decay
    # Start above 0: the first step would otherwise change nothing.
    rise = optax.linear_schedule(first / (warmup + 1), first, warmup)
    return optax.join_schedules([rise, decay], [warmup])


def optimizer(settings: Settings, schedule: optax.Schedule) -> optax.GradientTransformation:
    """Adam, optionally with the gradient of each sub-network clipped to its own norm."""
    clip_norm = settings["optimizer"]["clip_norm"]
    clip = clip_each(clip_norm) if clip_norm else optax.identity()
    return optax.chain(clip, optax.adam(schedule))


def clip_each(norm: float) -> optax.GradientTransformation:
    """Clip each top-level entry of the gradients by its own norm.

    With a joint norm, the gradient of one sub-network would rescale that of another.
    """
    clip = optax.clip_by_global_norm(norm)

    def clipped(gradients: Any, _: Any) -> dict[str, Any]:
        return {name: clip.update(part, optax.EmptyState())[0] for name, part in gradients.items()}

    return optax.stateless(clipped)
