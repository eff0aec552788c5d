"""Map the values stored in a label file to labels and back."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from jaxseg.data.nifti import DataError

# Floats saved under an integer header are scaled and come back slightly off: labels up to 4 in
# 8 bits by up to 4 / 255 / 2.
_TOLERANCE = 0.01
_REMEDY = "The field data.label_values says which values stand for which labels"


@dataclass(frozen=True)
class LabelValues:
    """The values by which a data set stores the labels 0 to L - 1.

    Attributes:
      of_labels: for each label the values that stand for it; the first one is written.
    """

    of_labels: tuple[tuple[float, ...], ...]

    @classmethod
    def plain(cls, num_labels: int) -> "LabelValues":
        """The mapping in which each label is its own value.

        Raises:
          ValueError: `num_labels` is not in 2 to 256.
        """
        if not 2 <= num_labels <= 256:
            raise ValueError(f"num_labels is {num_labels}; expected 2 to 256 with background")
        return cls(tuple((float(label),) for label in range(num_labels)))

    @classmethod
    def parse(cls, text: str, labels: Sequence[str]) -> "LabelValues":
        """Parse `VALUE=LABEL,...`, such as "0=background,600=background,200=myocardium".

        Args:
          text: the mapping, with at least one value for each label.
          labels: label names of the anatomy, background first.

        Raises:
          ValueError: the text is malformed; a name is not in `labels`; a label has no value; two
            values are less than 0.02 apart.
        """
        found: dict[str, list[float]] = {name: [] for name in labels}
        for part in text.split(","):
            number, equals, name = (piece.strip() for piece in part.partition("="))
            try:
                value = float(number)
            except ValueError:
                value = math.nan
            if not equals or not math.isfinite(value):
                raise ValueError(f"expected VALUE=LABEL, separated by commas, got {part.strip()!r}")
            if name not in found:
                raise ValueError(f"expected one of {', '.join(labels)}, got {name!r}")
            found[name].append(value)
        if missing := [name for name, values in found.items() if not values]:
            raise ValueError(f"expected a value for every label, got none for {missing[0]!r}")
        known = sorted(value for values in found.values() for value in values)
        for low, high in itertools.pairwise(known):
            if high - low < 2 * _TOLERANCE:
                raise ValueError(f"expected values that differ, got {low:g} and {high:g}")
        return cls(tuple(map(tuple, found.values())))

    def written(self) -> tuple[int, ...] | None:
        """The value of each label in written label maps; None if labels are written unchanged.

        They are written unchanged if each label is its own value. The same holds if a value is not
        a whole number from 0 to 65,535, as in interpolated label maps.
        """
        first = [values[0] for values in self.of_labels]
        if first == list(range(len(first))) or any(v % 1 or not 0 <= v < 2**16 for v in first):
            return None
        return tuple(int(value) for value in first)

    def to_labels(
        self, array: np.ndarray, path: Path, *, remedy: str = _REMEDY
    ) -> NDArray[np.uint8]:
        """Convert the array of a label file, of any shape, to labels 0 to L - 1.

        Raises:
          DataError: a value stands for no label. The message names `path` and ends in `remedy`.
        """
        pairs = sorted((value, k) for k, values in enumerate(self.of_labels) for value in values)
        known, labels = (np.array(column) for column in zip(*pairs, strict=True))
        values = array.astype(np.float64)
        nearest = np.searchsorted((known[1:] + known[:-1]) / 2, values)
        wrong = np.unique(values[np.abs(values - known[nearest]) >= _TOLERANCE])
        if wrong.size:
            shown = ", ".join(f"{value:g}" for value in wrong[:5])
            listed = ", ".join(f"{value:g}" for value in known)
            if known.tolist() == list(range(len(known))):
                listed = f"whole numbers 0 to {len(known) - 1}"
            raise DataError(
                f"{path}: label values {shown}{' ...' if wrong.size > 5 else ''}; expected"
                f" {listed}. {remedy}"
            )
        return labels[nearest].astype(np.uint8)
