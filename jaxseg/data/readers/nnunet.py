"""Read cases from nnU-Net's raw layout (Isensee et al., Nature Methods 18:203, 2021).

    root/dataset.json                       label names, channels, file ending, number of cases
    root/imagesTr/scan7_0000.nii.gz         training image, channel 0
    root/labelsTr/scan7.nii.gz              its label map
    root/imagesTs/scan9_0000.nii.gz         test image; labelsTs/scan9.nii.gz is optional

Stacks are read as stored: the spacing is that of the header, and the affine reorients no axis.
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
# Folder of the label maps for each folder of images.
LABELS = {TRAINING: "labelsTr", TEST: "labelsTs"}


def find_cases(root: Path | str, *, folder: str = TRAINING) -> list[Path]:
    """Find the images of the training or the test cases, sorted by case name.

    Other kinds of files and hidden files are ignored.

    Args:
      root: folder of the data set, e.g. `.../Dataset501_Scar`; or of its images, e.g.
        `.../Dataset501_Scar/imagesTs`, which overrides `folder`.
      folder: `TRAINING` or `TEST`.

    Raises:
      DataError: `read_dataset` fails; the folder does not exist or holds no case; a NIfTI file does
        not follow the layout's naming or is a second channel; a training image has no label map or
        vice versa; the number of training cases is not `numTraining`.
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
    """Load one case; its label is None for a test image without a label map.

    Args:
      image: image of the case, in `imagesTr` or `imagesTs` of its data set.
      labels: label names of the anatomy, background first. The case's label map has this order,
        independent of the values in `dataset.json`.
      values: mapping from the values in label maps to labels; by default that of `dataset.json`.

    Raises:
      DataError: `read_dataset`, `Dataset.label_values` or `jaxseg.data.case.read_case` fails; the
        image is in another folder; a training image has no label map.
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
    """Values by which a data set stores the anatomy's labels, given its folder or that of images.

    Raises:
      DataError: `read_dataset` or `Dataset.label_values` fails.
    """
    return read_dataset(root.parent if root.name in LABELS else root).label_values(labels)


def case_name(image: Path) -> str:
    """Name of the case of an image: `scan7` for `scan7_0000.nii.gz` and for `scan7.nii.gz`.

    Raises:
      DataError: the image is of another channel than 0000.
    """
    stem = without_suffix(image.name)
    found = re.fullmatch("(.+)_([0-9]{4})", stem)
    if found is None:
        return stem
    if found[2] != "0000":
        raise DataError(f"{image}: channel {found[2]}; exactly one channel, 0000, is supported")
    return found[1]


def _volumes(folder: Path, dataset: Dataset) -> list[Path]:
    """The NIfTI files in a folder, all of which must have the data set's file ending."""
    found = volumes(folder)
    for path in found:
        if not path.name.lower().endswith(dataset.file_ending):
            raise DataError(
                f"{path}: expected files ending in {dataset.file_ending}, the file_ending in"
                f" {dataset.path}"
            )
    return found


def _label_path(folder: Path, name: str, dataset: Dataset) -> Path:
    """Path of a case's label map, its ending in any case; the usual path if there is none."""
    usual = folder / f"{name}{dataset.file_ending}"
    if usual.exists() or not folder.is_dir():
        return usual
    named = (p for p in _volumes(folder, dataset) if _stem(p, dataset) == name)
    return next(named, usual)


def _stem(path: Path, dataset: Dataset) -> str:
    return path.name[: -len(dataset.file_ending)]


def _case_name(image: Path, dataset: Dataset) -> str:
    """Name of the case of an image, whose file name ends in the channel number."""
    if not re.search("._[0-9]{4}$", _stem(image, dataset)):
        raise DataError(f"{image}: expected a name such as scan7_0000{dataset.file_ending}")
    return case_name(image)


def _check_pairs(images: dict[str, Path], labels: dict[str, Path], folder: Path) -> None:
    for name in sorted(images.keys() - labels.keys()):
        raise DataError(f"{images[name]}: no label map of this case in {folder}")
    for name in sorted(labels.keys() - images.keys()):
        raise DataError(f"{labels[name]}: no image {name}_0000 of this case in {TRAINING}")
