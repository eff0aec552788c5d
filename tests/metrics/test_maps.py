"""What every metric refuses."""

import inspect

import numpy as np
import pytest

from jaxseg import metrics

A, B = np.ones((2, 3), int), np.ones((2, 3), int)
PAIRWISE = [
    lambda p, r, labels=1: metrics.dice(p, r, labels),
    lambda p, r, labels=1: metrics.hausdorff_distance(p, r, labels, (1, 1)),
    lambda p, r, labels=1: metrics.volume_difference(p, r, labels, (1, 1)),
]


@pytest.mark.parametrize("score", PAIRWISE)
def test_bad_maps_and_labels_are_refused(score):
    with pytest.raises(ValueError, match=r"\(2, 3\).*\(3, 2\)"):
        score(A, B.T)
    with pytest.raises(ValueError, match=r"^prediction: .*float64"):
        score(A * 0.5, B)
    with pytest.raises(ValueError, match=r"^reference: .*bool"):
        score(A, B > 0)
    with pytest.raises(ValueError, match=r"^prediction: "):
        score(1, 1)
    for labels in ((), 1.0, ("LV",), True, None):
        with pytest.raises(ValueError, match=r"^labels: "):
            score(A, B, labels)


def test_defaults_are_keyword_only():
    functions = [getattr(metrics, name) for name in metrics.__all__]
    own = [function for function in functions if inspect.isfunction(function)]
    assert len(own) > 8
    for function in own:
        for parameter in inspect.signature(function).parameters.values():
            keyword = parameter.kind is inspect.Parameter.KEYWORD_ONLY
            assert keyword == (parameter.default is not inspect.Parameter.empty), function
