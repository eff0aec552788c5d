"""Polar maps, read back from their colors and texts."""

import numpy as np
import pytest

from jaxseg.anatomy import EMIDEC
from jaxseg.measures.aha import Septum
from jaxseg.measures.heart import HeartLabels
from jaxseg.measures.transmurality import measure_chords
from jaxseg.reports.bullseye import bullseye
from jaxseg.reports.pictures import pixels
from tests.measures.shapes import ring

HEART = HeartLabels.of(EMIDEC)
PIXEL = (0.5, 0.5)
CAP = ring(PIXEL, endo=0, epi=12, infarct=(0, 1, 0, 90))


def chords(*slices):
    return measure_chords(np.stack(slices, -1), HEART, (*PIXEL, 10.0))


def texts(axis):
    return {text.get_text() for text in axis.texts}


def color_at(shown, axis, degrees, radius):
    """The color drawn at a direction and a radius, in the pixels of the figure."""
    x, y = axis.transData.transform((np.deg2rad(degrees), radius))
    return tuple(shown[shown.shape[0] - 1 - round(y), round(x)].tolist())


SECTOR = ring(PIXEL, infarct=(0, 1, 80, 20))  # above, in the picture
DARK, GRAY = (128, 0, 38), (191, 191, 191)


@pytest.mark.parametrize("apex_first", [True, False])
def test_the_base_is_outside(apex_first):
    slices = [ring(PIXEL), ring(PIXEL), SECTOR]
    stack = chords(*slices[:: 1 if apex_first else -1])
    figure = bullseye(stack, apex_first=apex_first)
    infarct, shown = figure.axes[0], pixels(figure)
    outer = infarct.get_ylim()[1]
    assert color_at(shown, infarct, 90, outer - 0.5) == DARK
    assert color_at(shown, infarct, 90, outer - 1.5) != DARK
    assert color_at(shown, infarct, 270, outer - 0.5) != DARK
    assert color_at(shown, figure.axes[1], 90, outer - 0.5) != DARK


def test_the_septum_turns_the_map():
    stack = chords(SECTOR, SECTOR, SECTOR)
    for septum, at in ((Septum(120), 90), (Septum(30), 180), (Septum.between(60, -60), 90)):
        figure = bullseye(stack, apex_first=True, septum=septum)
        shown, axis = pixels(figure), figure.axes[0]
        colors = {turn: color_at(shown, axis, turn - 4, 3) for turn in (90, 180, 270)}
        assert [turn for turn, color in colors.items() if color == DARK] == [at]
        names = [label.get_text() for label in axis.get_xticklabels()]
        assert names == ["lateral", "anterior", "septal", "inferior"]


def test_segments_are_numbered():
    stack = chords(CAP, SECTOR, SECTOR, SECTOR)
    with_cap = bullseye(stack, apex_first=True, septum=Septum(120)).axes[0]
    assert texts(with_cap) == {str(k) for k in range(1, 18)}
    without_cap = bullseye(chords(*[SECTOR] * 3), apex_first=True, septum=Septum(120)).axes[0]
    assert texts(without_cap) == {str(k) for k in range(1, 17)}
    few = bullseye(chords(SECTOR), apex_first=True, septum=Septum(120)).axes[0]
    without = bullseye(stack, apex_first=True).axes[0]
    assert texts(few) == texts(without) == set()
    assert [label.get_text() for label in without.get_xticklabels()][:3] == ["0°", "45°", "90°"]


def test_unmeasured_parts_are_gray():
    opened = bullseye(chords(ring(PIXEL, gap=(60, 60))), apex_first=True)
    shown, axis = pixels(opened), opened.axes[0]
    assert color_at(shown, axis, 85, 0.9) == GRAY
    assert color_at(shown, axis, 265, 0.9) != GRAY
    without_cavity = bullseye(chords(CAP), apex_first=True)
    assert color_at(pixels(without_cavity), without_cavity.axes[0], 20, 0.5) == GRAY


def test_an_anatomy_without_no_reflow_has_one_map():
    figure = bullseye(chords(SECTOR), apex_first=True, no_reflow=False, note="a note")
    assert len(figure.axes) == 2  # with the color bar
    assert figure.texts[0].get_text() == "a note"
