"""Read nnU-Net's `dataset.json`: label names, channels, file ending and number of cases.

Both version 2 (`"labels": {"scar": 1}`, `channel_names`, `file_ending`) and version 1 (`"labels":
{"1": "scar"}`, `modality`) are supported.
"""

import dataclasses
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard

from jaxseg.data.label_values import LabelValues
from jaxseg.data.nifti import SUFFIXES, DataError

DESCRIPTION = "dataset.json"

# A version 1 file lists every case in about 100 bytes.
MAX_DESCRIPTION_BYTES = 2**22
_MAX_LABELS = 256  # label maps are uint8 in memory
_MAX_VALUE = 2**16 - 1


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Contents of `dataset.json`.

    Attributes:
      path: path of the file, used in messages.
      labels: value in label maps by label name; 0 is the background.
      file_ending: suffix of images and label maps, ".nii.gz" or ".nii".
      num_training: number of cases in imagesTr.
    """

    path: Path
    labels: Mapping[str, int]
    file_ending: str
    num_training: int

    def label_values(self, labels: Sequence[str]) -> LabelValues:
        """Values by which this data set's label maps store the given labels.

        Args:
          labels: label names of the anatomy, background first.

        Raises:
          DataError: the data set has other label names or another background.
        """
        unknown = [repr(name) for name in self.labels if name not in labels]
        missing = [repr(name) for name in labels if name not in self.labels]
        if unknown or missing:
            parts = (("has also", unknown), ("lacks", missing))
            differ = " and ".join(f"{verb} {', '.join(names)}" for verb, names in parts if names)
            raise DataError(
                f"{self.path}: labels: {differ}; expected the names that the config's anatomy"
                f" has: {', '.join(labels)}"
            )
        if self.labels[labels[0]] != 0:
            zero = next(name for name, value in self.labels.items() if value == 0)
            raise DataError(
                f"{self.path}: labels: value 0 is {zero!r}; expected {labels[0]!r}, the"
                " background of the config's anatomy"
            )
        return LabelValues(tuple((float(self.labels[name]),) for name in labels))


def read_dataset(root: Path | str) -> Dataset:
    """Read and check `root/dataset.json`.

    Raises:
      DataError: the folder or file does not exist; the file is not JSON or exceeds
        `MAX_DESCRIPTION_BYTES`; there is more than one channel; the file ending is not that of
        NIfTI; `numTraining` is not a whole number; labels are regions; label values are not
        distinct whole numbers that include 0; or files are listed explicitly.
    """
    root = Path(root)
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; expected an nnU-Net data set")
    path = root / DESCRIPTION
    fields = _read_json(path)
    if "dataset" in fields:
        raise DataError(f"{path}: dataset: lists of files are not read; expected imagesTr")
    _check_one_channel(path, fields)
    ending = fields.get("file_ending", ".nii.gz")  # the only one in version 1
    if ending not in SUFFIXES:
        raise DataError(f"{path}: file_ending is {_show(ending)}; expected .nii.gz or .nii")
    count = fields.get("numTraining")
    if not _is_whole(count):
        raise DataError(f"{path}: numTraining is {_show(count)}; expected the number of cases")
    return Dataset(path, _label_names(path, fields.get("labels")), ending, count)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_DESCRIPTION_BYTES + 1)
    except FileNotFoundError:
        raise DataError(
            f"{path}: no such file; expected it in an nnU-Net data set's folder"
        ) from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    if len(content) > MAX_DESCRIPTION_BYTES:
        raise DataError(f"{path}: expected at most {MAX_DESCRIPTION_BYTES} bytes")
    try:
        fields = json.loads(content, object_pairs_hook=_without_repeats)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read as JSON ({error})") from None
    if not isinstance(fields, dict):
        raise DataError(f"{path}: expected a JSON object, got {_show(fields)}")
    return fields


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build a dict and reject repeated keys, for which JSON defines no meaning."""
    fields = dict(pairs)
    if len(fields) != len(pairs):
        twice, _ = Counter(key for key, _ in pairs).most_common(1)[0]
        raise ValueError(f"{_show(twice)} appears twice")
    return fields


def _check_one_channel(path: Path, fields: dict[str, Any]) -> None:
    field = "channel_names" if "channel_names" in fields else "modality"
    channels = fields.get(field)
    if not isinstance(channels, dict):
        raise DataError(f'{path}: channel_names: expected {{"0": NAME}}, got {_show(channels)}')
    if list(channels) != ["0"]:
        raise DataError(
            f"{path}: {field}: {len(channels)} channels ({_show(channels)}); exactly one, '0', is"
            " supported"
        )


def _label_names(path: Path, labels: Any) -> dict[str, int]:
    """Label values by name, from {"scar": 1} or, in version 1, {"1": "scar"}."""
    if not isinstance(labels, dict):
        raise DataError(f'{path}: labels: expected {{"NAME": VALUE}}, got {_show(labels)}')
    values: dict[str, int] = {}
    for key, entry in labels.items():
        name, value = _label(path, key, entry)
        if name in values:
            raise DataError(f"{path}: labels: {_show(name)} appears twice")
        values[name] = value
    known = sorted(values.values())
    distinct = known == sorted(set(known)) and known[:1] == [0] and known[-1] <= _MAX_VALUE
    if not (distinct and 2 <= len(known) <= _MAX_LABELS):
        raise DataError(
            f"{path}: labels: values {_show(known)}; expected 0 for the background and 1 to"
            f" {_MAX_LABELS - 1} other whole numbers, all distinct, none above {_MAX_VALUE}"
        )
    return values


def _label(path: Path, key: str, entry: Any) -> tuple[str, int]:
    """Name and value of one entry of either version."""
    if isinstance(entry, list):
        raise DataError(
            f"{path}: labels: {_show(key)} is a region, {_show(entry)}; expected one value per "
            "label: regions are the config's (anatomy.slice_regions, anatomy.inclusions)"
        )
    name, value = key, entry
    if isinstance(entry, str) and re.fullmatch("[0-9]{1,5}", key):  # version 1
        name, value = entry, int(key)
    if not name.strip() or not _is_whole(value):
        raise DataError(
            f"{path}: labels: {_show(key)}: {_show(entry)}; expected a name and a whole number"
        )
    if name == "ignore":
        raise DataError(f"{path}: labels: nnU-Net's 'ignore' label is not supported")
    return name, value


def _is_whole(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _show(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
