"""The labels of an anatomy by their part in the heart, as the measures need them."""

from dataclasses import dataclass

from jaxseg.anatomy import Anatomy, LabelSet
from jaxseg.errors import UserError


class MeasureError(UserError, ValueError):
    """A label map, or an anatomy, that cannot be measured; the message names what is missing."""


@dataclass(frozen=True)
class HeartLabels:
    """Labels of the left ventricle by their part in it.

    Attributes:
      cavity: labels of the cavity.
      myocardium: labels of the whole wall, pathology included.
      infarct: labels of the whole infarct, no-reflow included.
      no_reflow: labels of no-reflow; empty if the anatomy does not know it.
    """

    cavity: LabelSet
    myocardium: LabelSet
    infarct: LabelSet
    no_reflow: LabelSet

    @classmethod
    def of(cls, anatomy: Anatomy) -> "HeartLabels":
        """Find the parts of an anatomy by the names of its labels.

        The cavity is the label `cavity`. The whole wall is the union of the case regions that hold
        `myocardium`, and of the infarct. That is `infarct` or `scar`, together with `no-reflow`.

        Raises:
          MeasureError: if there is no such cavity, wall or infarct.
        """
        values = {name: value for value, name in enumerate(anatomy.labels)}
        wall = {
            value
            for _, region in anatomy.case_regions
            for value in region
            if values.get("myocardium") in region
        }
        no_reflow = tuple(values[name] for name in ("no-reflow",) if name in values)
        infarct = tuple(values[name] for name in ("infarct", "scar") if name in values)
        if "cavity" not in values or not wall or not infarct:
            raise MeasureError(
                f"labels {', '.join(anatomy.labels)}; measures need cavity, myocardium (in a case "
                "region) and infarct or scar"
            )
        return cls(
            cavity=(values["cavity"],),
            myocardium=tuple(sorted(wall.union(infarct, no_reflow))),
            infarct=infarct + no_reflow,
            no_reflow=no_reflow,
        )


def percent(part: float | None, whole: float) -> float | None:
    """The percentage of `part` in `whole`; None for a part that is None or a whole of 0."""
    return None if part is None or not whole else 100 * part / whole
