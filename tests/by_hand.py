"""Steps of a prediction written out, for tests of what puts them together."""

import numpy as np

from jaxseg.data import Case, preprocess_case
from jaxseg.trained import Trained


def prepared(run: Trained, case: Case) -> np.ndarray:
    """The case's images (slices, H, W) as the run's settings normalize them."""
    intensity = run.settings["intensity"]
    percentiles = intensity["low"], intensity["high"]
    return preprocess_case(
        case, run.grid, normalization=intensity["method"], percentiles=percentiles
    )[0]
