"""Panels by their data."""

import numpy as np
import pytest

from jaxseg.reports import pictures
from jaxseg.reports.agreement_figure import bland_altman


def test_points_and_lines_are_those_of_the_pairs():
    prediction, reference = np.array([2.0, 4.0, 6.0]), np.array([1.0, 2.0, 3.0])
    pairs = {"mass, g": (prediction, reference), "share, %": (reference, prediction)}
    figure = bland_altman(pairs)
    first, second = figure.axes
    np.testing.assert_allclose(
        np.asarray(first.collections[0].get_offsets()), [[1.5, 1], [3, 2], [4.5, 3]]
    )
    heights = [float(np.asarray(line.get_ydata())[0]) for line in first.lines]
    assert heights == pytest.approx([2, 2 - 1.96, 2 + 1.96, 0])
    assert first.get_title() == "mass, g (n = 3)"
    assert float(np.asarray(second.lines[0].get_ydata())[0]) == -2
    assert pictures.png(figure).startswith(b"\x89PNG")


def test_more_quantities_than_fit_a_row():
    pairs = {str(k): (np.arange(3.0), np.ones(3)) for k in range(5)}
    assert len(bland_altman(pairs).axes) == 5


def test_undefined_values_are_not_drawn():
    """One pair has a bias but no limits, and none has nothing."""
    nan = np.nan
    one = bland_altman({"g": (np.array([1.0, nan]), np.array([0.0, 1.0]))})
    assert len(one.axes[0].lines) == 2
    none = bland_altman({"g": (np.array([nan]), np.array([0.0]))})
    assert len(none.axes[0].lines) == 1
    with pytest.raises(ValueError, match="no quantity"):
        bland_altman({})
