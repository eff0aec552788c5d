"""Find the stacks to predict in a folder, each under the name of its case."""

from pathlib import Path

from jaxseg.data import DataError
from jaxseg.data.folders import is_volume, walk
from jaxseg.data.nifti import is_nifti, without_suffix
from jaxseg.data.readers import nnunet
from jaxseg.data.readers.emidec import CONTOURS

# Folder names of reference label maps in the supported layouts.
_REFERENCES = {CONTOURS, *nnunet.LABELS.values()}


def find_inputs(source: Path, output: Path, layout: str) -> tuple[dict[str, Path], list[str]]:
    """Find the input files by case name, and the reasons why others are rejected.

    If several files have the same name, all are rejected, since one of them may be a label map.

    Args:
      source: a NIfTI file, or a folder that is searched recursively, following links. Hidden files
        and folders of reference label maps are skipped.
      output: folder of the outputs, which is skipped.
      layout: layout of the training data, `data.layout`, which determines the names.

    Raises:
      DataError: if there is no NIfTI file, or a single file has no suitable name.
    """
    if source.is_file():
        if not is_nifti(source.name):
            raise DataError(f"{source}: expected a file ending in .nii or .nii.gz, or a folder")
        return {_case_name(source, layout): source}, []
    if not source.is_dir():
        raise DataError(f"{source}: no such file or folder")
    named: dict[str, list[Path]] = {}
    failures = []
    for path in _stacks(source, output):
        try:
            named.setdefault(_case_name(path, layout), []).append(path)
        except DataError as error:
            failures.append(str(error))
    if not (named or failures):
        raise DataError(f"{source}: no NIfTI file; expected files ending in .nii or .nii.gz")
    inputs = {name: paths[0] for name, paths in named.items() if len(paths) == 1}
    failures += [
        f"{paths[0]}: {len(paths)} files of this name, also {', '.join(map(str, paths[1:]))}; "
        "expected one"
        for paths in named.values()
        if len(paths) > 1
    ]
    return inputs, failures


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
    return sorted(path for path in found if path.is_file())


def _case_name(path: Path, layout: str) -> str:
    return nnunet.case_name(path) if layout == "nnunet" else without_suffix(path.name)
