"""Predict the cases of a fold by the networks that hold them out."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects

from jaxseg.config import run_data
from jaxseg.config.reader import reader
from jaxseg.config.setup import Setup
from jaxseg.data import DataError, most_probable
from jaxseg.inference.predictor import Prediction, make_predictor, presence_rule
from jaxseg.presence import Inclusions, PresenceRule, believed, expected_dice, with_odds
from jaxseg.runs.trained import Trained


@dataclass(frozen=True, eq=False)
class HeldOut:
    """The prediction of a case by the networks of the fold that holds it out.

    Attributes:
      name: name of the case.
      fold: fold that holds it out.
      spacing: voxel size in mm.
      reference: reference label map.
      probabilities: label probabilities in a box, outside of which everything is background.
      box: the box, slices of the first three axes.
      inclusions: inclusion pairs of the anatomy.
      rule: rule that removes pathology below the smallest training volume; without bounds.
      heart: position of the heart, without probabilities.
      odds: factor of the odds of pathology, by default 1.
    """

    name: str
    fold: int
    spacing: tuple[float, float, float]
    reference: NDArray[np.uint8]
    probabilities: NDArray[np.float32]
    box: tuple[slice, ...]
    inclusions: Inclusions
    rule: PresenceRule
    heart: Prediction
    odds: float = 1.0

    @cached_property
    def labels(self) -> NDArray[np.uint8]:
        """The most probable label of every voxel, with `odds`."""
        labels = np.zeros_like(self.reference)
        labels[self.box] = most_probable(self._with_odds())
        return labels

    @cached_property
    def large_only(self) -> NDArray[np.uint8]:
        """`labels` without pathology that is smaller than in any training case."""
        return believed(self.labels, None, self.spacing, self.inclusions, self.rule)

    @cached_property
    def expected_dice(self) -> NDArray[np.float64]:
        """(pairs,), as computed by `jaxseg.presence.expected_dice`."""
        return expected_dice(self._with_odds(), self.inclusions)

    def _with_odds(self) -> NDArray[np.floating]:
        return with_odds(self.probabilities, self.inclusions, self.odds)


def predict_fold(
    fold: int, networks: Sequence[Trained], setup: Setup, mirror: bool
) -> Iterator[HeldOut]:
    """Predict the cases that a fold holds out.

    Args:
      fold: index of the fold.
      networks: the networks of the fold, whose probabilities are averaged.
      setup: setup of the study, with the folder where the cases lie now.
      mirror: as in `make_predictor`.

    Raises:
      DataError: if a case has disappeared or cannot be read.
    """
    predict = make_predictor(networks, mirror=mirror)
    inclusions = networks[0].anatomy.inclusions
    rule = presence_rule(networks, drop_small=bool(inclusions))
    # The data set may have moved since training, so the folder is taken from the current config.
    read = reader(setup)
    folders = read.by_name(run_data.root(setup.source))
    for name in networks[0].data["validation"]["cases"]:
        if name not in folders:
            raise DataError(f"{name}: a case of the study that is no longer where its cases lie")
        case, reference = read.load_reference(folders[name])
        prediction = predict(case)
        box = _box(prediction.probabilities[..., 0] < 1)
        yield HeldOut(
            name=name,
            fold=fold,
            spacing=case.spacing,
            reference=reference,
            probabilities=prediction.probabilities[box].copy(),
            box=box,
            inclusions=inclusions,
            rule=rule,
            heart=prediction.heart(),
        )


def _box(mask: NDArray[np.bool_]) -> tuple[slice, ...]:
    """The smallest box that contains a mask."""
    (box,) = find_objects(mask.astype(np.uint8)) or [(slice(0),) * mask.ndim]
    return box
