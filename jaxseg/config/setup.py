"""The config of a run as typed values, which are built once and passed to other modules.

The modules of the method take plain values. `build` reads the config; `run_data` reads the cases.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import jax.numpy as jnp

from jaxseg import native
from jaxseg.anatomy import Anatomy
from jaxseg.augment import Augmentation
from jaxseg.batch import Mixup
from jaxseg.batch_schedule import Plan
from jaxseg.config.optimization import Optimization
from jaxseg.config.preprocessing import preprocessing
from jaxseg.config.sections import Architecture, Course, DataSource, RunOptions, Split
from jaxseg.config.settings import SettingsError
from jaxseg.data import Grid, Preprocessing
from jaxseg.data.label_values import LabelValues
from jaxseg.localizer import make_localizer
from jaxseg.models import Convolve, UNet, WeightGenerator
from jaxseg.objective import Networks, Objective
from jaxseg.pretrained import folder_of


@dataclass(frozen=True)
class Setup:
    """The config of a run as typed values.

    Attributes:
      name: name of the stage.
      seed: root of initialization, batch order and mixup.
      anatomy: labels, inclusion pairs and scored regions.
      source: the user's cases, or a phantom.
      split: division of the cases into training and validation.
      preprocessing: preprocessing of each case, with the network grid.
      allow_outside: whether labels may extend beyond the network grid.
      soft_labels: whether targets are label fractions of each pixel rather than labels.
      mixup: parameters of pathology mixup and of transplants.
      augmentation: parameters of ordinary augmentation.
      architecture: size and kind of the sub-networks.
      objective: loss terms and their coefficients.
      optimization: optimizer and learning rate.
      course: length of the training, and what it starts from.
      options: options that do not change the result.
    """

    name: str
    seed: int
    anatomy: Anatomy
    source: DataSource
    split: Split
    preprocessing: Preprocessing
    allow_outside: bool
    soft_labels: bool
    mixup: Mixup
    augmentation: Augmentation
    architecture: Architecture
    objective: Objective
    optimization: Optimization
    course: Course
    options: RunOptions

    @property
    def grid(self) -> Grid:
        """The network grid."""
        return self.preprocessing.grid

    @property
    def margin(self) -> int:
        """Pixels of surroundings that augmentation needs on each side of the network grid."""
        return self.augmentation.reach(self.grid.size)

    @cached_property
    def convolve(self) -> Convolve:
        """The implementation of the network's 3x3 convolutions on this machine.

        Raises:
          SettingsError: run.convolution is native, which is not available.
        """
        try:
            return native.choose(self.options.convolution, self.architecture.precision)
        except native.NativeError as error:
            raise SettingsError(
                f"run.convolution: expected auto or xla, got native; {error}"
            ) from error

    @cached_property
    def networks(self) -> Networks:
        """The sub-networks of the stage.

        Raises:
          SettingsError: as `convolve`.
        """
        wanted, num_labels = self.architecture, self.anatomy.num_labels
        dtype = jnp.dtype(wanted.precision)
        segmentation = UNet(
            num_labels=num_labels,
            width=wanted.width,
            depth=wanted.depth,
            attention=wanted.attention,
            dense=wanted.dense,
            context=wanted.context,
            groups=wanted.groups,
            dtype=dtype,
            convolve=self.convolve,
        )
        generator = WeightGenerator(
            num_labels=num_labels,
            width=wanted.generator_width,
            groups=wanted.groups,
            dtype=dtype,
        )
        return Networks(
            segmentation,
            generator if wanted.weighted else None,
            make_localizer(self.convolve) if self.grid.center is None else None,
        )

    def plan(self, num_slices: int) -> Plan:
        """The schedule of batches for a number of training slices."""
        return Plan(
            num_slices=num_slices,
            batch_size=self.course.batch_size,
            epochs=self.course.epochs,
            validate_every=self.course.validate_every,
            seed=self.seed,
        )

    def with_convolution(self, choice: str) -> "Setup":
        """The setup with another choice of `jaxseg.native.CHOICES`; parameters fit all of them."""
        return replace(self, options=replace(self.options, convolution=choice))

    def with_center(self, center: tuple[float, float]) -> "Setup":
        """The setup with a given center of the network grid, as fractions of the field of view.

        Raises:
          ValueError: `center` is not two fractions from 0 to 1.
        """
        grid = replace(self.grid, center=center)
        return replace(self, preprocessing=replace(self.preprocessing, grid=grid))


def build(settings: Mapping[str, Any]) -> Setup:
    """Read a config.

    Args:
      settings: config with the fields of `configs/default.py`, which has passed
        `jaxseg.config.settings.check`.
    """
    anatomy = Anatomy.from_dict(settings["anatomy"])
    steps = preprocessing(settings)
    return Setup(
        name=settings["name"],
        seed=settings["seed"],
        anatomy=anatomy,
        source=_source(settings["data"], anatomy),
        split=_split(settings["data"]),
        preprocessing=steps,
        allow_outside=settings["grid"]["allow_outside"],
        soft_labels=settings["grid"]["soft_labels"],
        mixup=Mixup(**settings["mixup"], inclusions=anatomy.inclusions),
        augmentation=_augmentation(settings["augment"], steps.grid),
        architecture=Architecture(
            **settings["model"],
            weighted=settings["loss"]["weighted"],
            generator_width=settings["balance"]["width"],
        ),
        objective=_objective(settings["loss"], settings["balance"], anatomy),
        optimization=Optimization(**settings["optimizer"]),
        course=_course(settings["train"]),
        options=RunOptions(**settings["run"]),
    )


def _source(fields: Mapping[str, Any], anatomy: Anatomy) -> DataSource:
    text = fields["label_values"]
    return DataSource(
        root=Path(fields["root"]) if fields["root"] else None,
        layout=fields["layout"],
        label_values=LabelValues.parse(text, anatomy.labels) if text else None,
        apex_first=fields["apex_first"],
        phantom_cases=fields["phantom_cases"],
        phantom_seed=fields["phantom_seed"],
    )


def _split(fields: Mapping[str, Any]) -> Split:
    return Split(
        kind=fields["split"],
        validation_fraction=fields["validation_fraction"],
        folds=fields["folds"],
        fold=fields["fold"],
        seed=fields["split_seed"],
        patients=fields["patients"] or None,
        file=fields["splits"] or None,
    )


def _augmentation(fields: Mapping[str, Any], grid: Grid) -> Augmentation:
    """Augmentation with its shift in pixels; pixels of no known size are never shifted."""
    shift = fields["shift"] / grid.spacing if fields["shift"] and grid.spacing else 0.0
    return Augmentation(**{**fields, "shift": shift})


def _objective(loss: Mapping[str, Any], balance: Mapping[str, Any], anatomy: Anatomy) -> Objective:
    return Objective(
        method=balance["method"],
        strength=balance["strength"],
        penalty=loss["penalty"],
        epsilon=loss["epsilon"],
        inclusions=anatomy.inclusions,
        dice=loss["dice"],
        dice_regions=anatomy.whole_regions if loss["dice_of"] == "regions" else (),
    )


def _course(fields: Mapping[str, Any]) -> Course:
    source = fields["init_from"] and folder_of(fields["init_from"], "train.init_from")
    return Course(**{**fields, "init_from": source})
