"""Mapping between the values in label files and labels."""

from pathlib import Path

import numpy as np
import pytest

from jaxseg.data.label_values import LabelValues
from jaxseg.data.nifti import DataError

LABELS = ("background", "cavity", "myocardium", "scar")
MYOPS = "0=background, 600=background, 500=cavity, 200=myocardium, 2221=scar"
FILE = Path("scan.nii.gz")


def test_values_are_mapped_to_labels():
    values = LabelValues.parse(MYOPS, LABELS)
    stored = np.array([[0, 600, 500], [200, 2221, 200]], np.int16)
    found = values.to_labels(stored, FILE)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, [[0, 0, 1], [2, 3, 2]])


def test_the_first_value_of_each_label_is_written():
    assert LabelValues.parse(MYOPS, LABELS).written() == (0, 500, 200, 2221)
    assert LabelValues.plain(4).written() is None
    assert LabelValues.parse("3=scar,0=background,1=cavity,2=myocardium", LABELS).written() is None


def test_interpolated_values_are_read_but_not_written():
    values = LabelValues.parse("0=background,0.985=cavity,1.97=myocardium,2.955=scar", LABELS)
    stored = np.array([0, 0.985, 1.9699, 2.955], np.float32)
    np.testing.assert_array_equal(values.to_labels(stored, FILE), [0, 1, 2, 3])
    assert values.written() is None


@pytest.mark.parametrize("stored", [[0, 100], [0, 500.02], [-0.5], [0, 3000]])
def test_an_unknown_value_is_refused(stored):
    values = LabelValues.parse(MYOPS, LABELS)
    with pytest.raises(DataError, match=rf"scan\.nii\.gz: .* {stored[-1]:g}; .*data\.label_values"):
        values.to_labels(np.array(stored), FILE)


@pytest.mark.parametrize(
    "text",
    [
        "", "0", "zero=background", "nan=background", "0=wall",
        "0=background,1=cavity,2=myocardium",
        "0=background,1=cavity,2=myocardium,2=scar",
        "0=background,1=cavity,2=myocardium,2.01=scar",
    ],
)  # fmt: skip
def test_malformed_assignments_are_refused(text):
    with pytest.raises(ValueError, match="expected"):
        LabelValues.parse(text, LABELS)


@pytest.mark.parametrize("count", [0, 1, 257])
def test_a_label_set_has_2_to_256_labels(count):
    with pytest.raises(ValueError, match=str(count)):
        LabelValues.plain(count)
