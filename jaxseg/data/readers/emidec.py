"""Read cases from EMIDEC folders (Lalande et al., Data 5(4):89, 2020).

    root/.../Case_P001/Images/Case_P001.nii.gz      image
    root/.../Case_P001/Contours/Case_P001.nii.gz    label map; a test case has no Contours folder

Names are `Case_N...` (normal), `Case_P...` (pathological) or `Case_...` (test set). Other files,
such as the release's clinical `Case P001.txt`, may lie beside the case folders.
"""

from pathlib import Path

from jaxseg.data.case import Case, read_case
from jaxseg.data.folders import volumes, walk
from jaxseg.data.label_values import LabelValues
from jaxseg.data.nifti import DataError, without_suffix

IMAGES = "Images"
CONTOURS = "Contours"
PREFIX = "Case_"
EMIDEC_VALUES = LabelValues.plain(5)


def find_cases(root: Path | str) -> list[Path]:
    """Find the case folders at any depth under `root`, sorted by case name.

    A case is a folder that is named `Case_*` or holds an `Images` folder; `root` itself may be one.

    Raises:
      DataError: the folder does not exist or holds no case; a case does not have exactly one image;
        two cases share a name.
    """
    root = Path(root)
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; expected a folder of EMIDEC cases")
    found: dict[str, Path] = {}
    for folder in _case_folders(root):
        name = case_name(folder)
        _only_volume(folder / IMAGES, name)
        if name in found:
            raise DataError(f"{folder}: a second case named {name}; the first is {found[name]}")
        found[name] = folder
    if not found:
        raise DataError(f"{root}: no case; expected folders such as Case_P001/Images")
    return [found[name] for name in sorted(found)]


def load_case(folder: Path | str, *, values: LabelValues = EMIDEC_VALUES) -> Case:
    """Load one case; its label is None if there is no `Contours` folder.

    Args:
      folder: folder of the case, e.g. `.../Case_P001`.
      values: mapping from the values in label maps to labels; by default EMIDEC's, 0 to 4.

    Raises:
      DataError: a folder is missing; there is not exactly one image, or not exactly one label map
        in `Contours`; or `jaxseg.data.case.read_case` rejects the case.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"{folder}: no such case folder")
    name = case_name(folder)
    image = _only_volume(folder / IMAGES, name)
    contours = folder / CONTOURS
    label = _only_volume(contours, name) if contours.exists() else None
    return read_case(name, image, label, values)


def case_name(folder: Path) -> str:
    """Name of the case in a folder, which is the folder's name."""
    return folder.absolute().name


def _case_folders(root: Path) -> list[Path]:
    if (root / IMAGES).is_dir():
        return [root]
    cases = []
    for parent, names, _ in walk(root):
        here = [
            name for name in names if name.startswith(PREFIX) or (parent / name / IMAGES).is_dir()
        ]
        cases += [parent / name for name in here]
        names[:] = [name for name in names if name not in here]
    return cases


def _only_volume(folder: Path, name: str) -> Path:
    """The only NIfTI file in `folder`, which must have the name of the case."""
    expected = f"expected one file {name}.nii.gz or {name}.nii"
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; {expected} in it")
    found = volumes(folder)
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise DataError(f"{folder}: {len(found)} NIfTI files ({names}); {expected}")
    if without_suffix(found[0].name) != name:
        raise DataError(f"{found[0]}: file of another case; {expected}")
    return found[0]
