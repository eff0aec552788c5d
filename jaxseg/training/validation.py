"""Validation during a run: DSC of each slice, the sample picture and the final table."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from jaxseg.anatomy import Anatomy
from jaxseg.config.setup import Setup
from jaxseg.data import Cohort
from jaxseg.metrics import Summary, slice_scores, summarize
from jaxseg.models.segment import Params, Segmenter
from jaxseg.reports import pictures, tables


@dataclass(frozen=True)
class Validation:
    """Validation slices and the means to score them.

    Attributes:
      cohort: the validation slices on the network grid.
      images: the same slices as the network takes them, as of `Cohort.inputs`.
      segment: result of `jaxseg.models.segment.make_labels`.
      anatomy: anatomy whose slice regions are scored.
    """

    cohort: Cohort
    images: np.ndarray
    segment: Segmenter
    anatomy: Anatomy

    @property
    def regions(self) -> tuple[str, ...]:
        """Names of the scored regions."""
        return tuple(name for name, _ in self.anatomy.slice_regions)

    def predict(self, params: Params) -> np.ndarray:
        """Predict label maps (N, H, W) uint8 of the validation slices."""
        return self._predict(params, self.images)

    def predict_first(self, params: Params) -> np.ndarray:
        """Predict the first slice, (1, H, W) uint8, which compiles everything for `predict`."""
        return self._predict(params, self.images[:1])

    def _predict(self, params: Params, images: np.ndarray) -> np.ndarray:
        return self.segment(params, images) if len(images) else np.zeros(images.shape[:3], np.uint8)

    def score(self, predictions: np.ndarray) -> Summary:
        """Mean, standard deviation and number of DSC over the slices that hold each region."""
        regions = self.anatomy.slice_regions
        return summarize(slice_scores(predictions, self.cohort.labels, regions))

    def picture(self, predictions: np.ndarray, count: int) -> Figure:
        """Draw image, reference and prediction of `count` representative slices, one per case."""
        labels = self.cohort.labels
        chosen = pictures.representative_slices(labels, self.cohort.case_index, count)
        slices = self.cohort.take(chosen)
        return pictures.comparison(
            slices.images,
            {"reference": slices.labels, "prediction": predictions[chosen]},
            slices.titles(),
            self.anatomy.labels,
        )


def foreground_mean(summary: Summary) -> float:
    """Mean DSC over the regions that are present in the slices; NaN if there is none."""
    held = summary.mean[summary.n > 0]
    return float(held.mean()) if len(held) else math.nan


def score_table(
    setup: Setup,
    regions: tuple[str, ...],
    rows: Mapping[str, Summary],
    slices: tuple[int, int],
) -> tuple[str, str]:
    """The run's table, together with split, seed and other conditions of its scores.

    Args:
      setup: setup of the run.
      regions: names of the columns.
      rows: summaries by checkpoint.
      slices: numbers of training and of validation slices.

    Returns:
      The table as Markdown and as CSV.
    """
    split = setup.split
    chosen = (
        "`best` was chosen on these very slices by mean foreground DSC, so it is optimistic.\n"
        if any(name.startswith("best") for name in rows)
        else ""
    )
    text = (
        f"# {setup.name}: DSC on the validation slices\n\n"
        "Mean ± standard deviation over the slices that hold the label (their number).\n"
        f"Split by {split.kind}, {split.title}: {slices[0]} slices trained on, {slices[1]} "
        f"validated. Seed {setup.seed}.\n"
        f"{chosen}\n"
    )
    return (
        text + tables.score_markdown("checkpoint", regions, rows),
        tables.score_csv("checkpoint", regions, rows),
    )
