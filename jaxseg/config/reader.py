"""The reader for the folder layout of a run's cases."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from jaxseg.config.setup import Setup
from jaxseg.data import Case, DataError
from jaxseg.data.label_values import LabelValues
from jaxseg.data.readers import emidec, nnunet


@dataclass(frozen=True)
class Reader:
    """Functions that read one folder layout.

    Attributes:
      find: maps the folder of a data set to the paths of its cases, sorted by name. For nnU-Net
        these are the training cases, or the test cases of `DIR/imagesTs`. Raises DataError.
      load: maps such a path to its case, with labels in the anatomy's order. Raises DataError.
      name: maps such a path to the name of its case.
      values: maps the folder of a data set to the values by which it stores labels.
    """

    find: Callable[[Path], list[Path]]
    load: Callable[[Path], Case]
    name: Callable[[Path], str]
    values: Callable[[Path], LabelValues]

    def by_name(self, root: Path) -> dict[str, Path]:
        """Paths of a data set's cases by case name; raises DataError as `find`."""
        return {self.name(path): path for path in self.find(root)}

    def load_reference(self, path: Path) -> tuple[Case, NDArray[np.uint8]]:
        """Load a case together with its label map.

        Raises:
          DataError: `load` fails, or there is no label map.
        """
        case = self.load(path)
        if case.label is None:
            raise DataError(f"{path}: no label map; scores need one of every case")
        return case, case.label


def reader(setup: Setup) -> Reader:
    """The reader for the cases of a run."""
    stated, labels = setup.source.label_values, setup.anatomy.labels
    if setup.source.layout == "nnunet":
        return Reader(
            nnunet.find_cases,
            partial(nnunet.load_case, labels=labels, values=stated),
            nnunet.case_name,
            lambda root: stated or nnunet.label_values(root, labels),
        )
    values = stated or LabelValues.plain(len(labels))
    return Reader(
        emidec.find_cases,
        partial(emidec.load_case, values=values),
        emidec.case_name,
        lambda _: values,
    )
