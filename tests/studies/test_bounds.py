"""The factor of the odds of pathology, found by trying others."""

import numpy as np
import pytest

from jaxseg.anatomy import EMIDEC
from jaxseg.inference.predictor import Prediction
from jaxseg.presence import PresenceRule
from jaxseg.studies.bounds import fit_odds
from jaxseg.studies.held_out import HeldOut

SHAPE = (12, 10, 3)


def case(seed, sick, spacing=(1.0, 1.0, 5.0)):
    """Random probabilities in a part of the stack, and a reference with so many sick voxels."""
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet([1, 1, 2, 2, 1], (8, 10, 2)).astype(np.float32)
    reference = np.zeros(SHAPE, np.uint8)
    reference.ravel()[:sick] = rng.choice([3, 4], sick)
    box = (slice(2, 10), slice(0, 10), slice(1, 3))
    return HeldOut(
        f"case {seed}", 0, spacing, reference, probabilities, box, EMIDEC.inclusions,
        PresenceRule((None, None)), Prediction(np.empty(0)),
    )  # fmt: skip


def volume(cases, factor):
    maps = [(c.probabilities * [1, 1, 1, factor, 1]).argmax(-1) for c in cases]
    return sum(np.prod(c.spacing) * (m >= 3).sum() for c, m in zip(cases, maps, strict=True))


def test_the_total_volume_is_that_of_the_references():
    cases = [case(0, 40), case(1, 60, (1.5, 1.5, 8.0)), case(2, 0)]
    factor = fit_odds(cases)
    total = 40 * 5 + 60 * 18
    assert volume(cases[:2], factor * 0.9999) <= total <= volume(cases[:2], factor * 1.0001)
    assert 0.3 < factor < 1
    assert fit_odds([case(0, 110)]) > 1 > fit_odds([case(0, 50)])


def test_labels_with_the_factor():
    plain = case(0, 40)
    found = case(0, 40)
    np.testing.assert_array_equal(plain.labels[plain.box], plain.probabilities.argmax(-1))
    assert plain.labels[:2].max() == plain.labels[..., 0].max() == 0
    weighted = found.probabilities * [1, 1, 1, 0.4, 1]
    weighted /= weighted.sum(-1, keepdims=True)
    found = HeldOut(**{**vars(found), "odds": 0.4})
    np.testing.assert_array_equal(found.labels[found.box], weighted.argmax(-1))
    mask = weighted.argmax(-1) == 4
    no_reflow = 2 * weighted[mask, 4].sum() / (mask.sum() + weighted[..., 4].sum())
    assert found.expected_dice[0] == pytest.approx(no_reflow, rel=1e-5)


def test_without_a_label_in_one_inner_region_alone_the_factor_is_1():
    twice = (((3, 4), (2, 3, 4)), ((3, 4), (1, 2, 3, 4)))
    assert fit_odds([HeldOut(**{**vars(case(0, 40)), "inclusions": twice})]) == 1


def test_limits_of_the_factor():
    assert fit_odds([]) == fit_odds([case(2, 0)]) == 1
    assert fit_odds([case(0, 360)]) == 10
    assert fit_odds([case(0, 1)]) == 0.1
