"""From a case to its label map: check it, predict it, and apply the rule on pathology."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from jaxseg.data import Case
from jaxseg.inference.case_checks import check_case
from jaxseg.inference.predictor import Prediction, make_predictor
from jaxseg.presence import PresenceRule, label_map
from jaxseg.runs.trained import Trained

CaseSegmenter = Callable[[Case, Path], tuple[NDArray[np.uint8], Prediction]]


def make_segmenter(
    runs: Sequence[Trained],
    *,
    mirror: bool,
    rule: PresenceRule,
    center: tuple[float, float] | None = None,
    orientation: str | None = None,
) -> CaseSegmenter:
    """Create a function that segments a case; the other arguments are as in `make_predictor`.

    Args:
      rule: how much pathology is predicted, and when it stays in the label map.

    Returns:
      A function of a case and the path that its errors name, which returns the label map
      (X, Y, slices) and the prediction. It raises as `check_case`, and as the function
      from `make_predictor`.

    Raises:
      WorkdirError: as in `make_predictor`.
    """
    predict = make_predictor(runs, mirror=mirror, center=center, orientation=orientation)
    inclusions = runs[0].anatomy.inclusions

    def segment(case: Case, path: Path) -> tuple[NDArray[np.uint8], Prediction]:
        check_case(runs, case, path, orientation)
        prediction = predict(case)
        return label_map(prediction.probabilities, case.spacing, inclusions, rule), prediction

    return segment
