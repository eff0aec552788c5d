"""Agreement of predicted masses and shares with those of the reference, over the cases."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jaxseg.anatomy import enclosing_region
from jaxseg.evaluation.bootstrap import mean_interval
from jaxseg.evaluation.case_scores import MEASURES
from jaxseg.evaluation.scores import Evaluation
from jaxseg.measures.masses import DENSITY
from jaxseg.metrics import agreement

_REFERENCE, _PREDICTION = MEASURES.index("reference_mm3"), MEASURES.index("prediction_mm3")


@dataclass(frozen=True, eq=False)
class Quantity:
    """A measured quantity of every case.

    Attributes:
      region: name of the case region.
      unit: "g", or "%" of the region around it.
      title: both, for tables and figures.
      prediction: (cases,); nan where it is undefined.
      reference: (cases,), in the same unit.
      holds: (cases,), whether the reference holds the region.
    """

    region: str
    unit: str
    title: str
    prediction: NDArray[np.float64]
    reference: NDArray[np.float64]
    holds: NDArray[np.bool_]


def quantities(evaluation: Evaluation) -> list[Quantity]:
    """Return the mass of every case region in g, and its share of the region around it in %.

    The mass is the volume times the density of myocardium, 1.05 g/ml. The share of a case whose
    surrounding region is empty is undefined.
    """
    regions = evaluation.anatomy.case_regions
    names = [name for name, _ in regions]
    scores = np.stack([case.regions for case in evaluation.cases])
    volumes = scores[..., [_PREDICTION, _REFERENCE]]
    found = []
    for k, (name, labels) in enumerate(regions):
        holds = volumes[:, k, 1] > 0
        prediction, reference = volumes[:, k].T / 1000 * DENSITY
        found.append(Quantity(name, "g", f"{name}, g", prediction, reference, holds))
        around = enclosing_region(labels, regions)
        if around is not None:
            whole = [values for _, values in regions].index(around)
            outer = np.where(volumes[:, whole] > 0, volumes[:, whole], np.nan)
            prediction, reference = 100 * volumes[:, k].T / outer.T
            title = f"{name}, % of {names[whole]}"
            found.append(Quantity(name, "%", title, prediction, reference, holds))
    return found


def agreement_statistics(evaluation: Evaluation) -> list[dict[str, Any]]:
    """Summarize the agreement of every quantity, over all cases and over those that hold it.

    Each entry has region, unit, title, cases ("all" or "holding"), the fields of
    `jaxseg.metrics.Agreement`, and the 95 % bootstrap interval of the bias over cases.
    """
    entries = []
    for quantity in quantities(evaluation):
        for group in ("all", "holding"):
            chosen = quantity.holds | (group == "all")
            x, y = quantity.prediction[chosen], quantity.reference[chosen]
            bias_low, bias_high = _bias_interval(x - y)
            entries.append(
                {
                    "region": quantity.region,
                    "unit": quantity.unit,
                    "title": quantity.title,
                    "cases": group,
                    **agreement(x, y)._asdict(),
                    "bias_low": bias_low,
                    "bias_high": bias_high,
                }
            )
    return entries


def _bias_interval(differences: Sequence[float] | NDArray[np.float64]) -> tuple[float, float]:
    if not len(differences):
        return float("nan"), float("nan")
    low, high = mean_interval(np.asarray(differences)[:, None], np.arange(len(differences)))
    return float(low[0]), float(high[0])
