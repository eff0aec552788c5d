"""Find the stacks to predict: NIfTI files, each under the name of its case, or a DICOM series."""

from dataclasses import dataclass
from pathlib import Path

import nibabel as nib

from jaxseg.data import Case, DataError, read_case
from jaxseg.data.folders import is_volume, walk
from jaxseg.data.nifti import is_nifti, without_suffix
from jaxseg.data.readers import dicom, nnunet
from jaxseg.data.readers.emidec import CONTOURS

# Folder names of reference label maps in the supported layouts.
_REFERENCES = {CONTOURS, *nnunet.LABELS.values()}


@dataclass(frozen=True)
class Stack:
    """A stack to predict.

    Attributes:
      path: NIfTI file, or the file or folder of a DICOM series.
      series: the series; None for a NIfTI file.
    """

    path: Path
    series: dicom.Series | None = None

    def read(self, name: str) -> Case:
        """Read the stack; raises DataError as `read_case` or `Series.read`."""
        return self.series.read(name) if self.series else read_case(name, self.path)

    def geometry(self, case: Case) -> "Path | nib.Nifti1Header":
        """Where `write_like` takes the geometry of the results for the case that was read."""
        return case.header if self.series else self.path


def find_inputs(
    source: Path, output: Path, layout: str, series: str | None = None
) -> tuple[dict[str, Stack], list[str]]:
    """Find the stacks by case name, and the reasons why other files are rejected.

    If several files have the same name, all are rejected, since one of them may be a label map. A
    folder without NIfTI files is searched for DICOM files, which are recognized by content.

    Args:
      source: a NIfTI file, or a folder that is searched recursively, following links. Hidden files
        and folders of reference label maps are skipped. Or a DICOM file, or a folder of them.
      output: folder of the outputs, which is skipped.
      layout: layout of the training data, `data.layout`, which determines the names.
      series: the DICOM series to take, as in `dicom.find_series`.

    Raises:
      DataError: if there is no stack, a single file has no suitable name, or `dicom.find_series`
        fails.
    """
    if source.is_file() and is_nifti(source.name) and not series:
        return {_case_name(source, layout): Stack(source)}, []
    if not source.exists():
        raise DataError(f"{source}: no such file or folder")
    paths = _stacks(source, output) if source.is_dir() and not series else []
    if not paths:
        return _find_series(source, series), []
    named: dict[str, list[Path]] = {}
    failures = []
    for path in paths:
        try:
            named.setdefault(_case_name(path, layout), []).append(path)
        except DataError as error:
            failures.append(str(error))
    inputs = {name: Stack(paths[0]) for name, paths in named.items() if len(paths) == 1}
    failures += [
        f"{paths[0]}: {len(paths)} files of this name, also {', '.join(map(str, paths[1:]))}; "
        "expected one"
        for paths in named.values()
        if len(paths) > 1
    ]
    return inputs, failures


def _find_series(source: Path, choice: str | None) -> dict[str, Stack]:
    files = dicom.dicom_files(source)
    if not files:
        expected = "expected DICOM files" if choice else "expected .nii, .nii.gz or DICOM files"
        raise DataError(f"{source}: no stack; {expected}, or a folder of them")
    series = dicom.find_series(source, files, choice)
    return {series.name: Stack(source, series)}


def _stacks(source: Path, output: Path) -> list[Path]:
    """List the NIfTI files in a folder, following links, except references and earlier outputs."""
    # The output folder may lie within the source folder, but not the reverse.
    earlier = output.resolve() if source.resolve() in output.resolve().parents else None
    found = []
    for parent, names, files in walk(source):
        names[:] = [
            name
            for name in names
            if name not in _REFERENCES and (parent / name).resolve() != earlier
        ]
        found += [parent / name for name in files if is_volume(name)]
    return sorted(found)


def _case_name(path: Path, layout: str) -> str:
    return nnunet.case_name(path) if layout == "nnunet" else without_suffix(path.name)
