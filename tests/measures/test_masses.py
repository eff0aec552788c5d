"""Volumes and masses, counted by hand."""

import numpy as np
import pytest

from jaxseg.anatomy import EMIDEC
from jaxseg.data import load_case
from jaxseg.measures.heart import HeartLabels
from jaxseg.measures.masses import masses

HEART = HeartLabels.of(EMIDEC)


def test_by_hand():
    label_map = np.repeat([0, 1, 2, 3, 4], [5, 4, 6, 3, 1]).astype(np.uint8).reshape(19, 1, 1)
    found = masses(label_map, HEART, (2.0, 5.0, 10.0))  # 0.1 ml a voxel
    assert found.cavity_ml == pytest.approx(0.4)
    assert found.myocardium_g == pytest.approx(1.05)
    assert found.infarct_g == pytest.approx(0.42)
    assert found.infarct_percent_of_myocardium == pytest.approx(40)
    assert found.no_reflow_g == pytest.approx(0.105)
    assert found.no_reflow_percent_of_myocardium == pytest.approx(10)
    assert found.no_reflow_percent_of_infarct == pytest.approx(25)


def test_undefined_shares_are_none():
    found = masses(np.full((2, 2, 2), 2, np.uint8), HEART, (1, 1, 1))
    assert (found.infarct_g, found.infarct_percent_of_myocardium) == (0, 0)
    assert found.no_reflow_percent_of_infarct is None
    found = masses(np.zeros((2, 2, 2), np.uint8), HEART, (1, 1, 1))
    assert (found.myocardium_g, found.infarct_percent_of_myocardium) == (0, None)


def test_an_anatomy_without_no_reflow():
    found = masses(np.full((2, 2, 2), 3, np.uint8), HeartLabels((1,), (2, 3), (3,), ()), (1, 1, 1))
    assert found.infarct_percent_of_myocardium == 100
    assert found.no_reflow_g is None
    assert found.no_reflow_percent_of_myocardium is None
    assert found.no_reflow_percent_of_infarct is None


def test_volumes_of_a_real_case(emidec_root):
    """The official volumes are of the release's own grid, on which labels were then resampled."""
    case = load_case(emidec_root / "Case_P001")
    assert case.label is not None
    found = masses(case.label, HEART, case.spacing)
    assert found.myocardium_g == pytest.approx(1.05 * 200.3662, rel=1e-4)
    assert found.infarct_g == pytest.approx(1.05 * 103.4668, rel=0.02)
    assert found.no_reflow_g == pytest.approx(1.05 * 36.7432, rel=0.02)
