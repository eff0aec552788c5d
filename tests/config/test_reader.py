"""The reader that a config asks for, and the label values that it reads by."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from configs import baseline
from jaxseg.config.reader import reader
from jaxseg.config.settings import replace
from jaxseg.config.setup import build
from jaxseg.data import DataError
from jaxseg.data.label_values import LabelValues
from jaxseg.data.phantom.write import write_phantom

VALUES = "0=background,500=cavity,200=myocardium,2221=infarct,7=no-reflow"


def reading(**changes):
    fields = {f"data.{name}": value for name, value in changes.items()}
    return reader(build(replace(baseline.get_config().to_dict(), fields)))


@pytest.mark.parametrize("layout", ["emidec", "nnunet"])
def test_values_that_the_config_states(layout):
    stated = reading(layout=layout, label_values=VALUES).values(Path("nowhere"))
    assert stated.written() == (0, 500, 200, 2221, 7)


def test_values_that_the_layout_has(tmp_path):
    assert reading().values(Path("nowhere")) == LabelValues.plain(5)
    with pytest.raises(DataError, match=r"dataset\.json"):
        reading(layout="nnunet").values(tmp_path)


def test_cases_by_name_and_a_case_without_reference(tmp_path):
    root = write_phantom(tmp_path / "phantom", seed=0, num_cases=2)
    read = reading()
    paths = read.by_name(root)
    assert len(paths) == 2
    name, path = next(iter(paths.items()))
    case, label = read.load_reference(path)
    assert case.name == name
    np.testing.assert_array_equal(label, case.label)
    shutil.rmtree(path / "Contours")
    with pytest.raises(DataError, match="no label map"):
        read.load_reference(path)
