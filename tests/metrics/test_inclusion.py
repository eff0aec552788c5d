"""Inclusion against maps drawn by hand, and expert contours."""

import nibabel
import numpy as np
import pytest

from jaxseg import metrics
from jaxseg.anatomy import EMIDEC
from tests.metrics.label_maps import drawn

INFARCT_PAIR = ((4,), (4, 3))
WALL_PAIR = ((3, 4), (2, 3, 4))
A = np.ones((2, 3), int)


def violation(label_map, pair, **options) -> tuple[int, int, int]:
    inner, detached, gap = metrics.inclusion_violation(label_map, *pair, **options)
    return int(inner), int(detached), int(gap)


def test_detached_no_reflow_by_hand():
    label_map = drawn("44....4.", "4..3....", "..4.3..4")
    # Only the left 4 of row 2 touches a 3, at a corner; in its row a gap lies between it and a 3.
    assert violation(label_map, INFARCT_PAIR, max_width=1) == (6, 5, 1)


def test_components_are_attached_by_one_contact_in_their_slice():
    touching = drawn("4444", "4..4", "...3")
    alone = drawn("4444", "4..4", "....")
    counts = metrics.inclusion_violation(np.stack([touching, alone]), *INFARCT_PAIR)
    np.testing.assert_array_equal(counts.inner, [6, 6])
    np.testing.assert_array_equal(counts.detached, [0, 6])
    # Infarct of the slice below at the same place does not count as a neighbor.
    counts = metrics.inclusion_violation(np.stack([alone, drawn("3333", *["...."] * 2)]), 4, (3, 4))
    np.testing.assert_array_equal(counts.detached, [6, 0])


def test_gap_by_hand():
    label_map = drawn(".........", "22.33..22", "22133...2", "222333222", ".........")
    # One background and one cavity pixel left of the infarct, runs of 2 and 3 right of it.
    assert violation(label_map, WALL_PAIR, max_width=1) == (7, 0, 2)
    assert violation(label_map, WALL_PAIR, max_width=2) == (7, 0, 4)
    assert violation(label_map, WALL_PAIR) == (7, 0, 7)
    assert violation(label_map.T, WALL_PAIR) == (7, 0, 7)
    assert violation(label_map[:, ::-1], WALL_PAIR) == (7, 0, 7)


def test_a_gap_belongs_to_one_pair():
    label_map = drawn("2222222", "2342332", "2222222")
    assert violation(label_map, INFARCT_PAIR) == (1, 0, 1)
    assert violation(label_map, WALL_PAIR) == (4, 0, 0)


@pytest.mark.parametrize(
    "rows",
    [
        ("........", ".223322.", ".223322.", "........"),  # a clean border of the two
        ("....33..", "...233..", "..223...", "..22...."),  # a staircase
        ("33.33...", "33333222"),  # a notch with infarct on both sides
        ("333....2",),  # wider than max_width
        ("33...", "....2"),  # nothing opposite in row or column
        ("3",),
    ],
)
def test_no_gap_without_two_opposite_sides(rows):
    assert violation(drawn(*rows), WALL_PAIR)[2] == 0


def test_gap_at_the_edge_and_wider_than_the_array():
    assert violation(drawn("3.2"), WALL_PAIR, max_width=9) == (1, 1, 1)
    assert violation(drawn("3", ".", ".", "2"), WALL_PAIR, max_width=9) == (1, 1, 2)
    assert violation(drawn("3..", "..2"), WALL_PAIR, max_width=9) == (1, 1, 0)


def test_leading_axes_are_kept():
    stack = np.stack([drawn("3.2", "..."), drawn("32.", "...")])
    counts = metrics.inclusion_violation(stack[None], *WALL_PAIR)
    assert [c.tolist() for c in counts] == [[[1, 1]], [[1, 0]], [[1, 0]]]


def test_reference_label_maps_satisfy_the_prior(emidec_root):
    """The measures are near 0 on reference maps: they separate sound maps from broken ones."""
    totals = np.zeros((len(EMIDEC.inclusions), 3))
    for folder in sorted(emidec_root.glob("Case_P*")):
        path = folder / "Contours" / f"{folder.name}.nii.gz"
        stack = np.moveaxis(np.asarray(nibabel.load(path).dataobj).astype(np.uint8), 2, 0)
        for k, pair in enumerate(EMIDEC.inclusions):
            totals[k] += [c.sum() for c in metrics.inclusion_violation(stack, *pair)]
    inner, detached, gap = totals.T
    assert (inner > 500).all()
    assert (detached <= 0.01 * inner).all()
    assert (gap <= 0.01 * inner).all()


def test_bad_inclusion_arguments_are_refused():
    for outer in (3, (3, 4)):
        with pytest.raises(ValueError, match=r"^inner: "):
            metrics.inclusion_violation(A, (3, 4), outer)
    with pytest.raises(ValueError, match=r"^max_width: "):
        metrics.inclusion_violation(A, 4, (3, 4), max_width=0)
    with pytest.raises(ValueError, match=r"^label_map: "):
        metrics.inclusion_violation(A[0], 4, (3, 4))
