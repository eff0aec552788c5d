"""Presence of pathology: volumes, expected DSC, relabeling and bounds worked out by hand."""

import re

import numpy as np
import pytest

from jaxseg.anatomy import EMIDEC
from jaxseg.presence import (
    PresenceRule,
    believed,
    expected_dice,
    label_map,
    presence_bound,
    smallest_volumes,
    with_odds,
)

PAIRS = EMIDEC.inclusions
SPACING = (2.0, 1.0, 5.0)  # voxels of 10 mm3


@pytest.fixture
def labels():
    """Two slices: 3 voxels of no-reflow and 5 of infarct in myocardium, 80 mm3 of pathology."""
    volume = np.full((4, 4, 2), 2, np.uint8)
    volume[0, :, 0] = 0
    volume[1, :3, 0] = 4
    volume[2:, :, 1] = np.array([[3, 3, 3, 3], [3, 1, 1, 1]])
    return volume


def test_smallest_volumes_by_hand():
    labels = np.zeros((4, 2, 3), np.uint8)
    labels[0, 0] = [3, 3, 4]  # case 0: 2 infarct and 1 no-reflow here,
    labels[1, 1] = [0, 3, 2]  # 1 infarct there: 4 voxels of 10 mm3 with no-reflow, 1 without
    labels[2, 0] = [4, 4, 2]  # case 1: 2 voxels of 7 mm3, all of them no-reflow
    labels[3] = 2  # case 2 holds none
    found = smallest_volumes(labels, np.array([0, 0, 1, 2]), [10.0, 7.0, 1.0], PAIRS)
    assert found == [10.0, 14.0]
    assert smallest_volumes(labels[3:], np.array([2]), [10.0, 7.0, 1.0], PAIRS) == [None, None]
    # No-reflow is measured alone where infarct is held without it.
    assert smallest_volumes(labels[1:2], np.array([0]), [10.0], PAIRS) == [None, 10.0]


def drop_small(labels, *smallest):
    return believed(labels, None, SPACING, PAIRS, PresenceRule(smallest, drop_small=True))


def test_pathology_above_the_limits_stays(labels):
    for smallest in ([30.0, 80.0], [None, None], [0.5, 80.0]):
        np.testing.assert_array_equal(drop_small(labels, *smallest), labels)
    np.testing.assert_array_equal(believed(labels, None, SPACING, PAIRS, PresenceRule()), labels)


def test_small_no_reflow_becomes_infarct(labels):
    found = drop_small(labels, 31.0, 80.0)
    assert found.dtype == np.uint8
    expected = np.where(labels == 4, 3, labels)
    np.testing.assert_array_equal(found, expected)


def test_a_small_infarct_becomes_myocardium_with_its_no_reflow(labels):
    expected = np.where(labels >= 3, 2, labels)
    for smallest in ([31.0, 80.5], [30.0, 81.0], [None, 81.0]):
        before = labels.copy()
        np.testing.assert_array_equal(drop_small(labels, *smallest), expected)
        np.testing.assert_array_equal(labels, before)


@pytest.mark.parametrize(
    ("dsc", "expected"),
    [
        ([0.5, 0.9], {}),  # at the bound it stays
        ([0.49, 0.9], {4: 3}),
        ([0.5, 0.89], {3: 2, 4: 2}),
    ],
)
def test_doubtful_pathology_gets_the_surrounding_label(labels, dsc, expected):
    rule = PresenceRule((30.0, 80.0), min_dice=(0.5, 0.9))
    found = believed(labels, np.array(dsc), SPACING, PAIRS, rule)
    wanted = labels.copy()
    for old, new in expected.items():
        wanted[labels == old] = new
    np.testing.assert_array_equal(found, wanted)


def test_odds_by_hand():
    """Infarct of 0.4 has odds of 2/3, with a factor of 1/2 of 1/3; no-reflow is not multiplied."""
    p = np.array([[0.3, 0.0, 0.1, 0.4, 0.2], [1, 0, 0, 0, 0], [0, 0, 0, 1, 0]], np.float32)
    found = with_odds(p, PAIRS, 0.5)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[0], [0.375, 0, 0.125, 0.25, 0.25], rtol=1e-6)
    np.testing.assert_array_equal(found[1:], p[1:])  # certain voxels stay
    np.testing.assert_allclose(with_odds(found, PAIRS, 2.0), p, atol=1e-6)
    np.testing.assert_array_equal(with_odds(p, (), 2.0), p)


def test_the_label_map_and_its_expected_dice_are_of_the_corrected_odds():
    """The first voxel is no infarct any more; of the second, 0.8 becomes 2/3."""
    p = np.zeros((2, 1, 1, 5), np.float32)
    p[:, 0, 0] = [[0, 0, 0.4, 0.6, 0], [0, 0, 0.2, 0.8, 0]]
    expected = 2 * (2 / 3) / (1 + 2 / 3 + 0.3 / 0.7)
    for bound, wanted in [(expected - 1e-3, [2, 3]), (expected + 1e-3, [2, 2])]:
        rule = PresenceRule(min_dice=(0.0, bound), odds=0.5)
        assert label_map(p, SPACING, PAIRS, rule).ravel().tolist() == wanted
    assert label_map(p, SPACING, PAIRS, PresenceRule()).ravel().tolist() == [3, 3]


def test_bounds_need_an_expected_dice(labels):
    with pytest.raises(ValueError, match="expected"):
        believed(labels, None, SPACING, PAIRS, PresenceRule(min_dice=(0.5, 0.5)))


def test_expected_dice_by_hand():
    infarct, no_reflow = np.array([0.5, 0.1, 0.3, 0.0]), np.array([0.2, 0.6, 0.0, 0.1])
    rest = 1 - infarct - no_reflow
    probabilities = np.stack([rest, rest * 0, rest * 0, infarct, no_reflow], axis=-1)
    found = expected_dice(probabilities.reshape(2, 1, 2, 5), PAIRS)
    # No-reflow is predicted in the second voxel, infarct in the first two.
    assert found == pytest.approx([2 * 0.6 / (1 + 0.9), 2 * (0.7 + 0.7) / (2 + 1.8)])


def test_expected_dice_of_sure_and_of_missing_pathology(labels):
    assert expected_dice(np.eye(5)[labels], PAIRS).tolist() == [1, 1]
    assert expected_dice(np.eye(5)[labels * 0], PAIRS).tolist() == [0, 0]


def test_expected_dice_is_the_mean_over_draws():
    rng = np.random.default_rng(0)
    p = rng.uniform(size=2000)
    predicted = p > 0.5
    draws = rng.uniform(size=(200, 2000)) < p
    dsc = 2 * (draws & predicted).sum(1) / (draws.sum(1) + predicted.sum())
    rest = p * 0
    probabilities = np.stack([1 - p, rest, rest, p, rest], axis=-1)
    assert expected_dice(probabilities, PAIRS)[1] == pytest.approx(dsc.mean(), abs=1e-3)


def test_probabilities_to_a_label_map():
    """One voxel each of background, myocardium, infarct, sure infarct: expected DSC 2.8 / 3.4."""
    probabilities = np.zeros((4, 1, 1, 5), np.float32)
    for voxel, (label, probability) in enumerate([(0, 1.0), (2, 1.0), (3, 0.6), (3, 0.8)]):
        probabilities[voxel, 0, 0, label] = probability
        probabilities[voxel, 0, 0, 1] += 1 - probability
    plain = [0, 2, 3, 3]
    for bound, expected in [(0.82, plain), (0.83, [0, 2, 2, 2])]:
        rule = PresenceRule((None, 40.0), min_dice=(0.0, bound))
        found = label_map(probabilities, SPACING, PAIRS, rule)
        assert found.dtype == np.uint8
        assert found.ravel().tolist() == expected
    rule = PresenceRule((None, 21.0), drop_small=True)
    assert label_map(probabilities, SPACING, PAIRS, rule).ravel().tolist() == [0, 2, 2, 2]
    assert label_map(probabilities, SPACING, PAIRS, PresenceRule()).ravel().tolist() == plain


def bound(expected, holds, kept):
    return presence_bound(np.array(expected), np.array(holds, bool), np.array(kept, float))


MIRRORED = [0.1, 0.3, 0.7, 0.9]


def test_the_bound_is_where_keeping_and_dropping_score_the_same():
    """Cases symmetric about one half; a kept infarct that scores 1 needs P(holds) of one half."""
    assert bound(MIRRORED, [0, 0, 1, 1], [0, 0, 1, 1]) == pytest.approx(0.5, abs=1e-6)
    assert bound(MIRRORED, [0, 1, 0, 1], [0, 1, 0, 1]) == pytest.approx(0.5, abs=1e-6)
    # With a lower score the bound rises; scores of the other cases do not count.
    bounds = [bound(MIRRORED, [0, 1, 0, 1], [1, d, 1, d]) for d in (1, 0.7, 0.4)]
    assert bounds == sorted(bounds)
    assert bounds[0] == pytest.approx(0.5, abs=1e-6)


def test_the_probability_is_a_fitted_logistic_function():
    dsc = np.array([0.2, 0.5, 0.6, 0.7, 0.85, 0.9, 0.95, 0.97])
    holds = np.array([0, 0, 1, 0, 1, 0, 1, 1], bool)
    x = np.stack([np.ones(8), np.log(dsc / (1 - dsc))], axis=1)
    at = np.zeros(2)
    for _ in range(50):
        p = 1 / (1 + np.exp(-x @ at))
        gradient = x.T @ (p - holds) + [0, 0.01 * at[1]]
        hessian = (x * (p * (1 - p))[:, None]).T @ x + np.diag([0, 0.01])
        at -= np.linalg.solve(hessian, gradient)
    # It scores 0.6 if kept, so that P(holds) must exceed 1 / 1.6.
    expected = (np.log(0.625 / 0.375) - at[0]) / at[1]
    assert bound(dsc, holds, 0.6 * holds) == pytest.approx(1 / (1 + np.exp(-expected)), rel=1e-5)


def test_bounds_without_both_kinds_of_cases():
    assert bound([0.2, 0.8], [1, 1], [0.5, 0.7]) == 0.0  # all hold it
    assert bound([0.2, 0.8], [0, 0], [0.0, 1.0]) == 1.0  # none does
    # A falling fit: all are kept if most cases hold it.
    assert bound(MIRRORED, [1, 1, 1, 0], [1, 1, 1, 0]) == 0.0
    assert bound(MIRRORED, [1, 0, 0, 0], [1, 0, 0, 0]) == 1.0
    # Certain to the last digit.
    assert 0 < bound([0.0, 0.0, 1.0, 1.0], [0, 0, 1, 1], [0, 0, 1, 1]) < 1


def test_a_rule_is_described_with_its_limits():
    """Volumes in ml, then expected DSC; pairs without a limit are left out."""
    rule = PresenceRule((390.0, 2417.0), drop_small=True, min_dice=(0.5, 0.875))
    volumes, bounds = rule.described(EMIDEC)
    assert re.search(r"no-reflow below 0\.39 ml.*infarct below 2\.42 ml", volumes)
    assert re.search(r"no-reflow below 0\.5\b.*infarct below 0\.875", bounds)
    (sentence,) = PresenceRule((None, 2417.0), drop_small=True).described(EMIDEC)
    assert "0.39" not in sentence
    assert len(PresenceRule((None, None), drop_small=True).described(EMIDEC)) == 1
    (sentence,) = PresenceRule(min_dice=(0.0, 0.25)).described(EMIDEC)
    assert "infarct below 0.25" in sentence
    assert "below 0," not in sentence
    (sentence,) = PresenceRule(odds=0.57).described(EMIDEC)
    assert "odds of infarct were multiplied by 0.57" in sentence
    assert PresenceRule().described(EMIDEC) == ()
