"""dataset.json of both versions, and descriptions that are refused."""

import json

import pytest

from jaxseg.data import DataError
from jaxseg.data.readers.dataset_json import MAX_DESCRIPTION_BYTES, Dataset, read_dataset

FIELDS = {
    "channel_names": {"0": "LGE"},
    "labels": {"background": 0, "muscle": 2, "scar": 1},
    "numTraining": 2,
    "file_ending": ".nii.gz",
}


def describe(root, fields):
    """Writes dataset.json; a field of None is left out."""
    kept = {name: value for name, value in fields.items() if value is not None}
    (root / "dataset.json").write_text(json.dumps(kept))
    return root


def test_version_2(tmp_path):
    found = read_dataset(describe(tmp_path, {**FIELDS, "file_ending": ".nii", "name": "Mine"}))
    path = tmp_path / "dataset.json"
    assert found == Dataset(path, {"background": 0, "scar": 1, "muscle": 2}, ".nii", 2)
    assert read_dataset(str(tmp_path)) == found


def test_version_1(tmp_path):
    labels = {"2": "muscle", "0": "background", "1": "scar"}
    fields = {"modality": {"0": "MRI"}, "labels": labels, "numTraining": 7, "training": []}
    found = read_dataset(describe(tmp_path, fields))
    assert found.labels == {"background": 0, "scar": 1, "muscle": 2}
    assert (found.file_ending, found.num_training) == (".nii.gz", 7)


def test_a_byte_order_mark_is_skipped(tmp_path):
    (tmp_path / "dataset.json").write_text(json.dumps(FIELDS), encoding="utf-8-sig")
    assert read_dataset(tmp_path).num_training == 2


def test_numeric_names_are_allowed_in_version_2(tmp_path):
    found = read_dataset(describe(tmp_path, {**FIELDS, "labels": {"background": 0, "17": 1}}))
    assert found.labels == {"background": 0, "17": 1}


def test_repeated_keys_are_found_in_linear_time(tmp_path):
    """In one pass: comparing all pairs of 100 000 keys takes minutes."""
    keys = ", ".join(f'"{k}": 0' for k in range(100_000))
    (tmp_path / "dataset.json").write_text(f'{{{keys}, "99999": 1}}')
    with pytest.raises(DataError, match="'99999'"):
        read_dataset(tmp_path)


def test_label_values_may_have_gaps(tmp_path):
    labels = {"background": 0, "cavity": 500, "scar": 2221}
    assert read_dataset(describe(tmp_path, {**FIELDS, "labels": labels})).labels == labels
    older = {str(value): name for name, value in labels.items()}
    assert read_dataset(describe(tmp_path, {**FIELDS, "labels": older})).labels == labels
    with pytest.raises(DataError, match="70000"):
        read_dataset(describe(tmp_path, {**FIELDS, "labels": {"background": 0, "scar": 70000}}))


def test_label_values(tmp_path):
    dataset = read_dataset(describe(tmp_path, FIELDS))
    values = dataset.label_values(("background", "muscle", "scar"))
    assert values.of_labels == ((0,), (2,), (1,))
    with pytest.raises(DataError, match="'scar'"):
        dataset.label_values(("background", "muscle"))


REGION, SCAR = {"background": 0, "whole": [1, 2]}, {"background": 0, "scar": 1}
REFUSED = {
    "channel_names": [{"0": "LGE", "1": "T2"}, {}, {"1": "LGE"}, ["LGE"], None],
    "file_ending": [".png", [".nii"]],
    "numTraining": [None, "2", True, -2],
    "labels": [
        None, ["background", "scar"], REGION, SCAR | {"scar": 1.0}, SCAR | {"scar": True},
        SCAR | {"scar": "1"}, SCAR | {"scar": -1}, SCAR | {" ": 2}, SCAR | {"b": 1},
        {"muscle": 1, "scar": 2}, {"background": 0}, {f"l{k}": k for k in range(257)},
        {"0": "background", "1": "scar", "2": "scar"}, SCAR | {"ignore": 2},
    ],
    "dataset": [{"a": {"images": ["a.nii.gz"]}}],
}  # fmt: skip


@pytest.mark.parametrize(("field", "value"), [(f, v) for f, vs in REFUSED.items() for v in vs])
def test_invalid_fields_are_named(tmp_path, field, value):
    describe(tmp_path, {**FIELDS, field: value})
    with pytest.raises(DataError, match=rf"dataset\.json: .*{field}") as error:
        read_dataset(tmp_path)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400


@pytest.mark.parametrize(
    "content",
    [
        b"{", b"\xff\xfe\xfd", b"[1]", b"[" * 200_000, b" " * MAX_DESCRIPTION_BYTES + b"{}",
        b'{"labels": {"scar": 1, "scar": 2}}', b'{"numTraining": ' + b"9" * 5000 + b"}",
    ],
    ids=["cut", "not UTF-8", "list", "nested", "long", "repeated key", "large number"],
)  # fmt: skip
def test_unreadable_descriptions_are_refused(tmp_path, content):
    (tmp_path / "dataset.json").write_bytes(content)
    with pytest.raises(DataError, match=r"dataset\.json: "):
        read_dataset(tmp_path)
