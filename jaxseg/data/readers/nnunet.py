"""nnU-Net's raw layout to cases (Isensee et al., Nature Methods 18:203, 2021).

    root/dataset.json                       label names, channels, file ending, number of cases
    root/imagesTr/scan7_0000.nii.gz         training image, channel 0
    root/labelsTr/scan7.nii.gz              its label map
    root/imagesTs/scan9_0000.nii.gz         test image; labelsTs/scan9.nii.gz may lie beside

Stacks are taken as they are stored: spacing is the header's, and no axis is turned by the affine.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from jaxseg.data.case import Case, read_case
from jaxseg.data.folders import volumes
from jaxseg.data.label_values import LabelValues
from jaxseg.data.nifti import DataError, without_suffix
from jaxseg.data.readers.dataset_json import Dataset, read_dataset

TRAINING = "imagesTr"
TEST = "imagesTs"
# Folder of the label maps by folder of the images.
LABELS = {TRAINING: "labelsTr", TEST: "labelsTs"}


def find_cases(root: Path | str, *, folder: str = TRAINING) -> list[Path]:
    """Finds the images of the training or the test cases, sorted by case name.

    Files of other kinds and hidden files are passed over.

    Args:
      root: the data set's folder, e.g. `.../Dataset501_Scar`, or that of its images, e.g.
        `.../Dataset501_Scar/imagesTs`, which stands for both arguments.
      folder: `TRAINING` or `TEST`.

    Raises:
      DataError: what `read_dataset` refuses; no such folder; no case; a NIfTI file whose name is
        not the layout's, or of a second channel; a training image without label map or the
        other way round; a number of training cases that is not `numTraining`.
    """
    root = Path(root)
    if root.name in LABELS:
        root, folder = root.parent, root.name
    dataset = read_dataset(root)
    images = {_case_name(p, dataset): p for p in _volumes(root / folder, dataset)}
    if not images:
        raise DataError(f"{root / folder}: no case; expected NAME_0000{dataset.file_ending}")
    if folder == TRAINING:
        labels = root / LABELS[folder]
        _check_pairs(images, {_stem(p, dataset): p for p in _volumes(labels, dataset)}, labels)
        if len(images) != dataset.num_training:
            raise DataError(
                f"{dataset.path}: numTraining is {dataset.num_training}, but {root / folder} holds"
                f" {len(images)} cases; expected the same number"
            )
    return [images[name] for name in sorted(images)]


def load_case(
    image: Path | str, *, labels: Sequence[str], values: LabelValues | None = None
) -> Case:
    """Loads one case; its label is None for a test image without label map.

    Args:
      image: the case's image, in `imagesTr` or `imagesTs` of its data set.
      labels: the anatomy's names, the background first; the case's label map holds their order,
        whatever values `dataset.json` gives them.
      values: which values stand for which labels; default those of `dataset.json`.

    Raises:
      DataError: what `read_dataset`, `Dataset.label_values` and `jaxseg.data.case.read_case`
        refuse; an image elsewhere; a training image without label map.
    """
    image = Path(image)
    folder = image.absolute().parent
    if folder.name not in LABELS:
        raise DataError(f"{image}: expected an image in a folder {TRAINING} or {TEST}")
    dataset = read_dataset(folder.parent)
    values = values or dataset.label_values(labels)
    name = _case_name(image, dataset)
    path = _label_path(folder.parent / LABELS[folder.name], name, dataset)
    has_label = folder.name == TRAINING or path.exists()
    return read_case(name, image, path if has_label else None, values)


def label_values(root: Path, labels: Sequence[str]) -> LabelValues:
    """A data set's own values of the anatomy's labels, given its folder or that of its images.

    Raises:
      DataError: as `read_dataset` and `Dataset.label_values`.
    """
    return read_dataset(root.parent if root.name in LABELS else root).label_values(labels)


def case_name(image: Path) -> str:
    """Name of the case of an image: `scan7` of `scan7_0000.nii.gz`."""
    return without_suffix(image.name).removesuffix("_0000")


def _volumes(folder: Path, dataset: Dataset) -> list[Path]:
    """The NIfTI files in a folder; all of them must have the data set's ending."""
    found = volumes(folder)
    for path in found:
        if not path.name.lower().endswith(dataset.file_ending):
            raise DataError(
                f"{path}: expected files ending in {dataset.file_ending}, the file_ending in"
                f" {dataset.path}"
            )
    return found


def _label_path(folder: Path, name: str, dataset: Dataset) -> Path:
    """A case's label map, its ending in capitals or not; the usual name where there is none."""
    usual = folder / f"{name}{dataset.file_ending}"
    if usual.exists() or not folder.is_dir():
        return usual
    named = (p for p in _volumes(folder, dataset) if _stem(p, dataset) == name)
    return next(named, usual)


def _stem(path: Path, dataset: Dataset) -> str:
    return path.name[: -len(dataset.file_ending)]


def _case_name(image: Path, dataset: Dataset) -> str:
    """Name of the case of an image, whose own name ends in the channel's number."""
    found = re.fullmatch("(.+)_([0-9]{4})", _stem(image, dataset))
    if not found:
        raise DataError(f"{image}: expected a name such as scan7_0000{dataset.file_ending}")
    if found[2] != "0000":
        raise DataError(f"{image}: channel {found[2]}; exactly one channel, 0000, is supported")
    return found[1]


def _check_pairs(images: dict[str, Path], labels: dict[str, Path], folder: Path) -> None:
    for name in sorted(images.keys() - labels.keys()):
        raise DataError(f"{images[name]}: no label map of this case in {folder}")
    for name in sorted(labels.keys() - images.keys()):
        raise DataError(f"{labels[name]}: no image {name}_0000 of this case in {TRAINING}")
