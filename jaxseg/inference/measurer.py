"""Measure label maps one by one, and write the files of each."""

from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from jaxseg.data.case import stated_affine
from jaxseg.inference import measure_files
from jaxseg.measures.aha import Septum, septum_of_affine
from jaxseg.measures.case_measures import measure_case
from jaxseg.measures.heart import HeartLabels, MeasureError
from jaxseg.reports import pictures
from jaxseg.reports.bullseye import bullseye
from jaxseg.runs.files import atomic


@dataclass(frozen=True)
class Measurer:
    """Measures label maps in one way and writes the files of each.

    Attributes:
      labels: parts of the heart by label.
      apex_first: whether slice 0 is the apex, else the base.
      septum: where the septum lies in the pictures; None if it is read from the headers.
      output: folder of the files.
      overwrite: whether to replace existing files.
    """

    labels: HeartLabels
    apex_first: bool
    septum: Septum | None
    output: Path
    overwrite: bool

    def files(self, name: str) -> list[Path]:
        """Paths of the picture and of the measures of a case."""
        return measure_files.case_paths(self.output, name)

    def write(
        self,
        name: str,
        label_map: NDArray[np.integer],
        spacing: tuple[float, float, float],
        header: nib.Nifti1Header,
    ) -> None:
        """Measure a case and write its files.

        Raises:
          MeasureError: if there is no myocardium; files of an earlier label map are removed.
          ExistsError: if a file exists and may not be replaced.
        """
        septum, orientation = self._septum(header)
        try:
            measures = measure_case(
                label_map, self.labels, spacing, apex_first=self.apex_first, septum=septum
            )
        except MeasureError:
            for path in self.files(name) if self.overwrite else ():
                path.unlink(missing_ok=True)
            raise
        if septum and measures.segments is None:
            orientation = "fewer than three slices with a closed wall, so there are no segments"
        figure = bullseye(
            measures.chords,
            apex_first=self.apex_first,
            no_reflow=bool(self.labels.no_reflow),
            septum=septum,
            note="rings are slices, base outside; " + orientation,
        )
        text = measure_files.record(
            name,
            measures,
            spacing,
            apex_first=self.apex_first,
            septum=septum,
            orientation=orientation,
        )
        picture, numbers = self.files(name)
        pictures.save(figure, picture, overwrite=self.overwrite)
        numbers.parent.mkdir(parents=True, exist_ok=True)
        with atomic(numbers, overwrite=self.overwrite) as temporary:
            temporary.write_text(text, encoding="utf-8")

    def _septum(self, header: nib.Nifti1Header) -> tuple[Septum | None, str]:
        """Find the septum of a case, and a phrase on its source or on why it is unknown."""
        if self.septum:
            return self.septum, "septum as given by --septum"
        remedy = "angles are those of the picture; --septum names the AHA segments"
        affine = stated_affine(header)
        if affine is None:
            return None, f"the header states no orientation; {remedy}"
        if septum := septum_of_affine(affine, apex_first=self.apex_first):
            return septum, "septum estimated from the header's orientation; --septum is better"
        if septum_of_affine(affine, apex_first=not self.apex_first):
            order = "base" if self.apex_first else "apex"
            return None, f"by its header, slice 0 is the {order}, which contradicts the slice order"
        return None, f"the header's orientation is not short-axis; {remedy}"
