"""dataset.json: both versions are read, everything else is refused by name."""

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


def test_a_byte_order_mark_is_no_error(tmp_path):
    (tmp_path / "dataset.json").write_text(json.dumps(FIELDS), encoding="utf-8-sig")
    assert read_dataset(tmp_path).num_training == 2


def test_names_of_numbers_are_names_in_version_2(tmp_path):
    found = read_dataset(describe(tmp_path, {**FIELDS, "labels": {"background": 0, "17": 1}}))
    assert found.labels == {"background": 0, "17": 1}


def test_a_key_that_is_there_twice_is_found_among_many(tmp_path):
    """In one pass: comparing all pairs of 100 000 keys takes minutes."""
    keys = ", ".join(f'"{k}": 0' for k in range(100_000))
    (tmp_path / "dataset.json").write_text(f'{{{keys}, "99999": 1}}')
    with pytest.raises(DataError, match=r"\('99999' is there twice\)"):
        read_dataset(tmp_path)


def test_values_may_leave_gaps(tmp_path):
    labels = {"background": 0, "cavity": 500, "scar": 2221}
    assert read_dataset(describe(tmp_path, {**FIELDS, "labels": labels})).labels == labels
    older = {str(value): name for name, value in labels.items()}
    assert read_dataset(describe(tmp_path, {**FIELDS, "labels": older})).labels == labels
    with pytest.raises(DataError, match=r"70000.*none above 65535"):
        read_dataset(describe(tmp_path, {**FIELDS, "labels": {"background": 0, "scar": 70000}}))


def test_label_values(tmp_path):
    dataset = read_dataset(describe(tmp_path, FIELDS))
    values = dataset.label_values(("background", "muscle", "scar"))
    assert values.of_labels == ((0,), (2,), (1,))
    with pytest.raises(DataError, match=r"has also 'scar'; expected .*: background, muscle$"):
        dataset.label_values(("background", "muscle"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"channel_names": {"0": "LGE", "1": "T2"}}, "channel_names: 2 channels .* exactly one"),
        ({"channel_names": {}}, "channel_names: 0 channels"),
        ({"channel_names": {"1": "LGE"}}, "channel_names: 1 channels .*'1': 'LGE'.*one, '0'"),
        ({"channel_names": ["LGE"]}, r"channel_names: expected \{.*got \['LGE'\]"),
        ({"channel_names": None}, "channel_names: expected .*got None"),
        ({"file_ending": ".png"}, r"file_ending is '\.png'; expected \.nii\.gz or \.nii"),
        ({"file_ending": [".nii"]}, r"file_ending is \['\.nii'\]"),
        ({"numTraining": None}, "numTraining is None; expected the number of cases"),
        ({"numTraining": "2"}, "numTraining is '2'"),
        ({"numTraining": True}, "numTraining is True"),
        ({"numTraining": -2}, "numTraining is -2"),
        ({"labels": None}, "labels: expected .*got None"),
        ({"labels": ["background", "scar"]}, "labels: expected .*got \\['background', 'scar'\\]"),
        ({"labels": {"background": 0, "whole": [1, 2]}}, r"'whole' is a region, \[1, 2\]"),
        ({"labels": {"background": 0, "scar": 1.0}}, "'scar': 1.0; expected a name and a whole"),
        ({"labels": {"background": 0, "scar": True}}, "'scar': True; expected"),
        ({"labels": {"background": 0, "scar": "1"}}, "'scar': '1'; expected"),
        ({"labels": {"background": 0, "scar": -1}}, "'scar': -1; expected"),
        ({"labels": {"background": 0, " ": 1}}, "' ': 1; expected"),
        ({"labels": {"background": 0, "a": 1, "b": 1}}, r"values \[0, 1, 1\]"),
        ({"labels": {"muscle": 1, "scar": 2}}, r"values \[1, 2\]"),
        ({"labels": {"background": 0}}, r"values \[0\]"),
        (
            {"labels": {f"l{k}": k for k in range(257)}},
            r"values .*\.\.\.; .* 1 to 255 other",
        ),
        ({"labels": {"0": "background", "1": "scar", "2": "scar"}}, "'scar' is there twice"),
        (
            {"labels": {"background": 0, "scar": 1, "ignore": 2}},
            "nnU-Net's 'ignore' label is not supported",
        ),
        ({"dataset": {"a": {"images": ["a.nii.gz"]}}}, "dataset: lists of files are not read"),
    ],
)
def test_a_description_of_something_else_is_refused(tmp_path, changes, message):
    describe(tmp_path, {**FIELDS, **changes})
    with pytest.raises(DataError, match=rf"dataset\.json: (labels: )?{message}") as error:
        read_dataset(tmp_path)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400


def test_a_hostile_description_is_refused(tmp_path):
    path = tmp_path / "dataset.json"
    contents = {
        b"{": "cannot be read as JSON",
        b"\xff\xfe\xfd": "cannot be read as JSON",
        b"[1]": r"expected a JSON object, got \[1\]",
        b"[" * 200_000: "cannot be read as JSON",
        b" " * MAX_DESCRIPTION_BYTES + b"{}": f"expected at most {MAX_DESCRIPTION_BYTES} bytes",
        b'{"labels": {"scar": 1, "scar": 2}}': r"cannot be read as JSON \('scar' is there twice",
        b'{"numTraining": ' + b"9" * 5000 + b"}": "cannot be read as JSON",
    }
    for content, message in contents.items():
        path.write_bytes(content)
        with pytest.raises(DataError, match=rf"dataset\.json: {message}"):
            read_dataset(tmp_path)
