"""Which value in a label file stands for which label."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from jaxseg.data.nifti import DataError

# Floats saved under an integer header are scaled, and come back a little off: 4 labels in 8 bits by
# up to 4 / 255 / 2.
_TOLERANCE = 0.01


@dataclass(frozen=True)
class LabelValues:
    """A data set's own values of the labels 0 to L - 1.

    Attributes:
      of_labels: by label the values that stand for it, the first of which is written.
    """

    of_labels: tuple[tuple[float, ...], ...]

    @classmethod
    def plain(cls, num_labels: int) -> "LabelValues":
        """Each label is its own value.

        Raises:
          ValueError: `num_labels` is not 2 to 256.
        """
        if not 2 <= num_labels <= 256:
            raise ValueError(f"num_labels is {num_labels}; expected 2 to 256 with background")
        return cls(tuple((float(label),) for label in range(num_labels)))

    @classmethod
    def parse(cls, text: str, labels: Sequence[str]) -> "LabelValues":
        """From `VALUE=LABEL,...`, such as "0=background,600=background,200=myocardium".

        Args:
          text: at least one value for each label.
          labels: the anatomy's names, the background first.

        Raises:
          ValueError: not of this form; a name that is none of `labels`; a label without a value;
            two values that are less than 0.02 apart.
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
        """Each label's value in label maps that are written; None where labels stand as they are.

        That is so where each label is its own value, or where the values are no whole numbers from
        0 to 65,535, as in label maps that were interpolated.
        """
        first = [values[0] for values in self.of_labels]
        if first == list(range(len(first))) or any(v % 1 or not 0 <= v < 2**16 for v in first):
            return None
        return tuple(int(value) for value in first)

    def to_labels(self, array: np.ndarray, path: Path) -> NDArray[np.uint8]:
        """A label file's array of any shape as labels 0 to L - 1.

        Raises:
          DataError: a value that stands for no label; the message names `path` and
            `data.label_values`.
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
                f" {listed}. The field data.label_values says which values stand for which labels"
            )
        return labels[nearest].astype(np.uint8)
