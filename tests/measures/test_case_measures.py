"""All measures of a case."""

import numpy as np
import pytest

from jaxseg.anatomy import EMIDEC
from jaxseg.data import load_case
from jaxseg.measures.aha import Septum
from jaxseg.measures.case_measures import measure_case
from jaxseg.measures.heart import HeartLabels, MeasureError
from tests.measures.shapes import ring

HEART = HeartLabels.of(EMIDEC)
PIXEL = (0.5, 0.5)
SPACING = (*PIXEL, 10.0)


def stack(*slices):
    return np.stack(slices, -1)


def test_a_case_is_the_sum_of_its_slices():
    small = ring(PIXEL, endo=15, epi=25, infarct=(0, 1, 8.9, 90))
    found = measure_case(stack(small, ring(PIXEL)), HEART, SPACING, apex_first=True)
    first, second = (mass for mass, _ in found.slices)
    assert found.masses.cavity_ml == pytest.approx(first.cavity_ml + second.cavity_ml)
    assert found.masses.infarct_g == pytest.approx(first.infarct_g)
    assert first.cavity_ml == pytest.approx(np.pi * 15**2 * 10 / 1000, rel=0.01)
    assert second.myocardium_g == pytest.approx(1.05 * np.pi * (35**2 - 25**2) / 100, rel=0.01)
    assert [one.infarcted_percent_of_chords for _, one in found.slices] == [25, 0]
    assert found.transmurality.infarcted_percent_of_chords == 12.5
    assert found.segments is None
    assert found.remarks == ()
    assert measure_case(
        stack(*[small] * 3), HEART, SPACING, apex_first=True, septum=Septum(120)
    ).segments


def test_unusual_slices_are_remarked_on():
    cap, opened = ring(PIXEL, endo=0, epi=9), ring(PIXEL, gap=(0, 45))
    label_map = stack(cap, ring(PIXEL, endo=15), ring(PIXEL, endo=20), opened)
    found = measure_case(label_map, HEART, SPACING, apex_first=True).remarks
    assert len(found) == 2
    assert "slice 3" in found[0]
    assert "slice 0" in found[1]
    turned = measure_case(label_map, HEART, SPACING, apex_first=False).remarks
    assert "apex" in turned[-1]
    assert len(turned) == 3


def test_a_label_map_without_myocardium_is_refused():
    for label_map in (np.zeros((5, 5, 3), np.uint8), np.ones((5, 5, 3), np.uint8)):
        with pytest.raises(MeasureError, match="myocardium"):
            measure_case(label_map, HEART, SPACING, apex_first=True)


def test_a_real_case(emidec_root):
    """A transmural infarct of half the wall; its stack runs from the apex to the base."""
    case = load_case(emidec_root / "Case_P001")
    assert case.label is not None
    found = measure_case(case.label, HEART, case.spacing, apex_first=True)
    assert found.remarks == ()
    assert found.transmurality.chords_open == 0
    assert 5 < found.transmurality.wall_thickness_mm < 15
    # Along chords and by volume, the infarct is about the same share of the wall.
    along = 100 * float(np.nanmean(found.chords.infarct))
    assert along == pytest.approx(found.masses.infarct_percent_of_myocardium, abs=5)
    turned = measure_case(case.label, HEART, case.spacing, apex_first=False)
    assert "order" in turned.remarks[0]
