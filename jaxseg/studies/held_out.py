"""Predict the cases of a fold by the networks that hold them out."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from jaxseg.config import run_data
from jaxseg.config.reader import reader
from jaxseg.config.setup import Setup
from jaxseg.data import DataError, most_probable
from jaxseg.inference.predictor import Prediction, make_predictor, presence_rule
from jaxseg.presence import PresenceRule, believed, expected_dice
from jaxseg.runs.trained import Trained


@dataclass(frozen=True, eq=False)
class HeldOut:
    """The prediction of a case by the networks of the fold that holds it out.

    Attributes:
      name: name of the case.
      fold: fold that holds it out.
      spacing: voxel size in mm.
      reference: reference label map.
      labels: the most probable label of every voxel.
      large_only: `labels` without pathology that is smaller than in any training case.
      expected_dice: (pairs,), as computed by `jaxseg.presence.expected_dice`.
      rule: rule that removes pathology below the smallest training volume; without bounds.
      heart: position of the heart, without probabilities.
    """

    name: str
    fold: int
    spacing: tuple[float, float, float]
    reference: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    large_only: NDArray[np.uint8]
    expected_dice: NDArray[np.float64]
    rule: PresenceRule
    heart: Prediction


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
        probabilities = prediction.probabilities
        labels = most_probable(probabilities)
        yield HeldOut(
            name=name,
            fold=fold,
            spacing=case.spacing,
            reference=reference,
            labels=labels,
            large_only=believed(labels, None, case.spacing, inclusions, rule),
            expected_dice=expected_dice(probabilities, inclusions),
            rule=rule,
            heart=prediction.heart(),
        )
