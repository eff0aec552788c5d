"""Methods that are scored side by side: the network, and thresholds within the myocardium."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from jaxseg.anatomy import Anatomy
from jaxseg.config.settings import SettingsError
from jaxseg.measures.thresholds import THRESHOLDS, enclosed

NAMES = ("network", *THRESHOLDS)
WITHIN = ("reference", "predicted")
_TITLES = {name: name.replace("sd", " SD") for name in THRESHOLDS} | {
    "fwhm": "FWHM",
    "fwhm_remote": "FWHM above remote",
    "otsu": "Otsu",
}


@dataclass(frozen=True)
class Method:
    """A method of segmentation.

    Attributes:
      name: one of `NAMES`.
      within: whose myocardium a threshold is applied to, one of `WITHIN`; None for the network.
    """

    name: str
    within: str | None = None

    @property
    def folder(self) -> str:
        """Name of the folder for the files of a threshold method."""
        return f"{self.name}-{self.within}"

    @property
    def title(self) -> str:
        """Description for tables."""
        if self.within is None:
            return self.name
        return f"{_TITLES[self.name]}, {self.within} myocardium"

    @property
    def uses_network(self) -> bool:
        """Whether the method needs the network's prediction."""
        return self.within != "reference"

    def notes(self) -> tuple[str, ...]:
        """Return sentences for readers of the scores."""
        if self.within is None:
            return ()
        whose = "the reference" if self.within == "reference" else "the network's prediction"
        return (
            f"Infarct by a threshold on the signal of the stack, within the myocardium of {whose}; "
            "dark areas that it encloses are no-reflow.",
        )


NETWORK = Method("network")


def choose_methods(names: Sequence[str], within: Sequence[str], anatomy: Anatomy) -> list[Method]:
    """Combine the names of methods with the myocardia that thresholds are applied to.

    Args:
      names: methods in the order of tables; none for the network alone.
      within: myocardia in the order of tables; none for the reference's.
      anatomy: label set of the cases.

    Raises:
      SettingsError: if a name is unknown, or the label set has no inclusion pairs, which tell the
        infarct from the myocardium around it.
    """
    for flag, given, known in (("--method", names, NAMES), ("--within", within, WITHIN)):
        for value in given:
            if value not in known:
                raise SettingsError(f"{flag}: expected one of {', '.join(known)}, got {value!r}")
    found = [
        Method(name, None if name == "network" else where)
        for name, where in product(names or ("network",), within or ("reference",))
    ]
    if not anatomy.inclusions and any(method != NETWORK for method in found):
        raise SettingsError(
            "--method: the label set has no inclusion pair; expected one of infarct in myocardium "
            "for a threshold"
        )
    return list(dict.fromkeys(found))  # the network once, whatever `within` is


def threshold_labels(
    method: Method, image: NDArray[np.floating], labels: NDArray[np.integer], anatomy: Anatomy
) -> NDArray[np.uint8]:
    """Segment the infarct within the myocardium of a label map by a threshold.

    The myocardium is the largest outer region of the inclusion pairs, and the infarct is the inner
    region of that pair. If the infarct encloses a region by another pair, its label marks the dark
    areas that the bright infarct encloses, and else they are infarct.

    Args:
      method: a threshold method.
      image: (X, Y, slices) signal.
      labels: (X, Y, slices) label map with the myocardium; its other labels are kept.
      anatomy: label set with at least one inclusion pair.
    """
    infarct, myocardium = max(anatomy.inclusions, key=lambda pair: len(pair[1]))
    cores = [inner for inner, outer in anatomy.inclusions if set(outer) == set(infarct)]
    core = cores[0] if cores else ()
    bright = next(label for label in infarct if label not in core)
    dark = core[0] if core else bright
    wall = next(label for label in myocardium if label not in infarct)
    within = np.moveaxis(np.isin(labels, myocardium), -1, 0)
    enhanced = THRESHOLDS[method.name](np.moveaxis(image, -1, 0), within)
    found = np.moveaxis(labels, -1, 0).astype(np.uint8)
    found[within] = wall
    found[enhanced] = bright
    found[enclosed(enhanced, within)] = dark
    return np.moveaxis(found, 0, -1)
