"""Sections of a config as typed values; `jaxseg.config.setup` builds them."""

from dataclasses import dataclass
from pathlib import Path, PurePath

from jaxseg.data.label_values import LabelValues
from jaxseg.home import expanded


@dataclass(frozen=True)
class DataSource:
    """The cases of a run: the user's cases in a folder, or a phantom to be written there.

    Attributes:
      root: folder of the cases; None for the default folder of a phantom, and in a bundle.
      layout: folder layout, "emidec" or "nnunet".
      label_values: values that stand for the labels in label files; None for those of the layout.
      apex_first: whether slice 0 is the apex, else the base.
      phantom_cases: number of cases of the phantom to write; 0 for the cases in `root`.
      phantom_seed: seed of the phantom.
    """

    root: Path | None
    layout: str
    label_values: LabelValues | None
    apex_first: bool
    phantom_cases: int
    phantom_seed: int

    @property
    def folder(self) -> Path:
        """Absolute folder of the cases; the default one of a phantom lies below the current one.

        Raises:
          HomeError: as in `expanded`.
        """
        folder = expanded(self.root, "data.root") if self.root else self._default_folder()
        return folder.absolute()

    def _default_folder(self) -> Path:
        kind = "phantom" if self.layout == "emidec" else f"phantom-{self.layout}"
        return Path("data") / f"{kind}-{self.phantom_cases}-cases-seed-{self.phantom_seed}"


@dataclass(frozen=True)
class Split:
    """The division of the cases into training and validation; see `jaxseg.data.split`.

    Attributes:
      kind: "slice" or "case".
      validation_fraction: fraction of slices or cases for validation, without folds; 0 to train on
        all of them.
      folds: number of folds; 0 for a single split.
      fold: index of the held-out fold.
      seed: seed of the random order.
      patients: regular expression for the patient in a case's name, or path of a CSV file; None if
        each case is a separate patient.
      file: path of a JSON or CSV file with a user-defined split; None for a random one.
    """

    kind: str
    validation_fraction: float
    folds: int
    fold: int
    seed: int
    patients: str | None
    file: str | None

    @property
    def fold_title(self) -> str | None:
        """The held-out fold, such as "fold 0 of 5"; None for a split by a fraction."""
        if self.file:
            return f"fold {self.fold} of {PurePath(self.file).name}"
        return f"fold {self.fold} of {self.folds}" if self.folds else None

    @property
    def title(self) -> str:
        """What is held out, such as "fold 0 of 5 held out" or "0.1 of them held out"."""
        share = f"{self.validation_fraction:.3g} of them" if self.validation_fraction else "nothing"
        return f"{self.fold_title or share} held out"


@dataclass(frozen=True)
class Architecture:
    """Size and kind of the network and of the weight generator.

    Attributes:
      width: channels of the network's finest level.
      depth: number of poolings.
      attention: whether blocks have attention branches.
      dense: whether blocks are densely connected.
      context: whether slices exchange features with their neighbors.
      groups: groups of group normalization in both; 0 for instance normalization.
      precision: compute dtype, "float32" or "bfloat16".
      weighted: whether there is a weight generator (Eq. 3).
      generator_width: channels of the weight generator's first convolution.
    """

    width: int
    depth: int
    attention: bool
    dense: bool
    context: bool
    groups: int
    precision: str
    weighted: bool
    generator_width: int


@dataclass(frozen=True)
class Course:
    """Length of a training, and what it starts from.

    Attributes:
      batch_size: slices in a batch, over all devices.
      epochs: number of passes over the training slices.
      validate_every: epochs between validations.
      init_from: folder of the run or bundle whose parameters it starts from; None for random ones.
    """

    batch_size: int
    epochs: int
    validate_every: int
    init_from: Path | None


@dataclass(frozen=True)
class RunOptions:
    """How a run is executed. These options may differ in a resumed run.

    They do not change the result beyond rounding.

    Attributes:
      devices: devices that each process uses; 0 for all of its own.
      convolution: one of `jaxseg.native.CHOICES`.
      log_every: steps between logged training metrics.
      pictures: slices in the sample picture of each validation; 0 for none.
      compilation_cache: folder of compiled functions; empty for none.
    """

    devices: int
    convolution: str
    log_every: int
    pictures: int
    compilation_cache: str
