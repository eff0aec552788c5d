"""The 17 segments: sectors at known directions, and the orientation of headers."""

import numpy as np
import pytest

from jaxseg.anatomy import EMIDEC
from jaxseg.measures.aha import Septum, caps, rings, segments, septum_of_affine
from jaxseg.measures.heart import HeartLabels
from jaxseg.measures.transmurality import measure_chords
from tests.measures.shapes import ring

HEART = HeartLabels.of(EMIDEC)
PIXEL = (0.5, 0.5)
SPACING = (*PIXEL, 10.0)
CAP = ring(PIXEL, endo=0, epi=12, infarct=(0, 1, 0, 90))


def chords(*slices):
    return measure_chords(np.stack(slices, -1), HEART, SPACING)


def infarcted(found):
    """Share of the chords with infarct, by segment, where there is any."""
    return {
        one.segment: one.infarcted_percent_of_chords
        for one in found
        if one.infarcted_percent_of_chords
    }


def test_names_and_order():
    found = segments(chords(*[ring(PIXEL)] * 3), Septum(120), apex_first=True)
    assert found is not None
    assert [one.segment for one in found] == list(range(1, 18))
    names = {one.segment: one.name for one in found}
    # Cerqueira et al., Fig. 4.
    assert (names[1], names[2], names[5]) == (
        "basal anterior", "basal anteroseptal", "basal inferolateral",
    )  # fmt: skip
    assert (names[9], names[10], names[12]) == (
        "mid inferoseptal", "mid inferior", "mid anterolateral",
    )  # fmt: skip
    assert (names[14], names[16], names[17]) == ("apical septal", "apical lateral", "apex")
    counts = [one.chords_measured for one in found]
    assert sum(counts) == 300
    assert set(counts[:12]) == {16, 17}
    assert counts[12:] == [25, 25, 25, 25, 0]


# An infarct in the directions of the middle of the septum, between its two basal segments.
MIDDLE = {2: 50, 3: 50, 8: 50, 9: 50, 14: 100 * 60 / 90}


@pytest.mark.parametrize(
    ("septum", "first"),
    [
        (Septum(120), 150),  # the usual view: septum on the left
        (Septum(30), 60),
        (Septum(0), 30),
        (Septum(-120, -120), 150),  # upside down
        (Septum.between(350, 110), 20),
        (Septum.between(60, -60), -30),  # left and right exchanged
    ],
)
def test_the_septum_turns_and_mirrors_the_segments(septum, first):
    found = segments(chords(*[ring(PIXEL, infarct=(0, 1, first, 60))] * 3), septum, apex_first=True)
    assert infarcted(found) == pytest.approx(MIDDLE, abs=7)  # a chord more or less of 17


def test_a_mirrored_picture_has_the_same_segments():
    label_map = ring(PIXEL, infarct=(0, 0.7, 70, 85), shift=(0.5, 0.5))
    seen = segments(chords(*[label_map] * 3), Septum(110), apex_first=True)
    mirrored = segments(chords(*[label_map[::-1]] * 3), Septum.between(70, -50), apex_first=True)
    assert infarcted(seen) == pytest.approx(infarcted(mirrored), abs=7)
    # In the standard map, from 80 to 165 degrees.
    wanted = {1: 67, 2: 75, 7: 67, 8: 75, 13: 100 * 55 / 90, 14: 100 / 3}
    assert infarcted(seen) == pytest.approx(wanted, abs=7)


def test_the_septum_between_two_insertions():
    assert Septum.between(120, 240) == Septum(120)
    assert Septum.between(10, 290) == Septum(10, -80)
    np.testing.assert_allclose(Septum.between(100, 240).standard([170, 80]), [180, 90])
    np.testing.assert_allclose(Septum(60, -120).standard([0, 60, 90]), [180, 120, 90])


def test_segments_by_hand():
    """Half the wall over a quarter of the circle, from lateral to anterior, in the basal slice."""
    sector = ring(PIXEL, infarct=(0, 0.5, 0, 60), no_reflow=(0, 0.2, 0, 60))
    found = segments(chords(ring(PIXEL), ring(PIXEL), sector), Septum(120), apex_first=True)
    six = found[5]
    assert six.slices == (2,)
    assert six.infarct_percent_of_wall == pytest.approx(50, abs=2)
    assert six.no_reflow_percent_of_wall == pytest.approx(20, abs=2)
    assert six.transmurality_mean_percent == pytest.approx(50, abs=2)
    assert found[11].infarct_percent_of_wall == 0
    assert found[11].transmurality_mean_percent is None


@pytest.mark.parametrize("apex_first", [True, False])
def test_rings_are_thirds_from_base_to_apex(apex_first):
    def counts(number):
        divided = rings(chords(*[ring(PIXEL)] * number), apex_first=apex_first)
        order = [k for one in divided for k in one]
        assert order == sorted(range(number), reverse=apex_first)
        return [len(one) for one in divided]

    assert [counts(n) for n in (3, 4, 5, 6, 7, 8)] == [
        [1, 1, 1], [1, 2, 1], [2, 1, 2], [2, 2, 2], [2, 3, 2], [3, 2, 3],
    ]  # fmt: skip
    assert rings(chords(ring(PIXEL), ring(PIXEL)), apex_first=apex_first) is None
    assert segments(chords(ring(PIXEL)), Septum(120), apex_first=apex_first) is None


def test_open_slices_and_slices_without_cavity_are_in_no_ring():
    opened = ring(PIXEL, gap=(10, 60))
    nicked = ring(PIXEL, gap=(10, 20))
    stack = chords(CAP, ring(PIXEL), ring(PIXEL), nicked, opened)
    assert rings(stack, apex_first=True) == [[3], [2], [1]]


def test_the_apical_cap():
    stack = chords(CAP, CAP * 0, ring(PIXEL), ring(PIXEL), ring(PIXEL), CAP)
    assert caps(stack, apex_first=True) == [0]
    assert caps(stack, apex_first=False) == [5]
    found = segments(stack, Septum(120), apex_first=True)[16]
    assert (found.slices, found.infarct_percent_of_wall) == ((0,), pytest.approx(25, abs=1))
    assert caps(chords(CAP, CAP), apex_first=True) == []


def typical(apex_first=True):
    """Affine of a stack in the usual view of a typical heart, written down axis by axis (RAS)."""
    apex = np.array([-0.6, 0.6, -0.53]) / np.linalg.norm([-0.6, 0.6, -0.53])
    septal = np.array([1, 1, 0]) / np.sqrt(2)  # the body's right and front
    anterior = np.cross(septal, apex)  # the left, the front, and mostly up
    assert anterior @ (-1, 1, 3) > 0
    affine = np.eye(4)
    affine[:3, :3] = np.stack(
        [-1.4 * septal, -0.9 * anterior, (-10 if apex_first else 10) * apex]
    ).T
    return affine


def close(septum, anterior, extent):
    assert septum is not None
    assert (septum.anterior, septum.extent) == pytest.approx((anterior, extent))


@pytest.mark.parametrize("apex_first", [True, False])
def test_the_usual_view(apex_first):
    close(septum_of_affine(typical(apex_first), apex_first=apex_first), 120, 120)
    assert septum_of_affine(typical(not apex_first), apex_first=apex_first) is None


def test_turned_and_mirrored_pictures():
    turned = typical()[:, [1, 0, 2, 3]]
    turned[:, 1] *= -1  # right is down, down is left: the picture turned by 90 degrees left
    close(septum_of_affine(turned, apex_first=True), 210, 120)
    mirrored = typical()
    mirrored[:, 0] *= -1
    close(septum_of_affine(mirrored, apex_first=True), 60, -120)
    swapped = typical()[:, [1, 0, 2, 3]]  # transposed, as some converters leave it
    close(septum_of_affine(swapped, apex_first=True), 150, -120)  # septum above, anterior left


@pytest.mark.parametrize("apex_first", [True, False])
def test_stacks_along_the_body_or_without_orientation(apex_first):
    axes = np.eye(3)
    for order in ([0, 1, 2], [0, 2, 1], [1, 2, 0]):
        for signs in ((1, 1, 1), (-1, -1, 1), (1, 1, -1)):
            affine = np.eye(4)
            affine[:3, :3] = axes[:, order] * signs
            assert septum_of_affine(affine, apex_first=apex_first) is None
