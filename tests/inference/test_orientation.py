"""Views that turn a stack into the orientation of the training data."""

import dataclasses

import nibabel as nib
import numpy as np
import pytest

from jaxseg.data import Case, Grid
from jaxseg.inference.locate import TURNS_AND_FLIPS, View
from jaxseg.inference.orientation import (
    grid_back,
    turned_case,
    view_to_training,
    volume_back,
)


def trained_on(run, *orientations):
    return dataclasses.replace(run, data={**run.data, "orientations": list(orientations)})


@pytest.mark.parametrize(
    ("stored", "trained", "view"),
    [
        ("LP", "LP", View()),
        ("RP", "LP", View((1,))),
        ("LA", "LP", View((2,))),
        ("RA", "LP", View((1, 2))),
        ("PL", "LP", View((), True)),
        ("AL", "LP", View((2,), True)),  # columns of the view lead to A, and are mirrored
        ("PR", "LP", View((1,), True)),
        ("AR", "LP", View((1, 2), True)),
        ("SR", "LI", View((1, 2), True)),
        ("LI", "PI", None),  # no turn leads to P: only the columns decide, between two views
    ],
)
def test_views_by_hand(run, case, stored, trained, view):
    found, ambiguous = view_to_training(trained_on(run, trained, "RA"), case, stored)
    assert ambiguous == (view is None)
    assert view is None or found == view


def test_without_an_orientation_the_stored_order_is_kept(run, case):
    assert case.directions is None, "EMIDEC's affine, of voxels of 1 mm"
    assert view_to_training(trained_on(run, "RA"), case) == (View(), False)


@pytest.mark.parametrize("code", ["LP", "LI", "PI"])
def test_without_recorded_orientations_the_usual_display_is_assumed(run, case, code):
    assert "orientations" not in run.data
    assert view_to_training(run, case, code) == (View(), False)


@pytest.mark.parametrize("view", TURNS_AND_FLIPS)
def test_turned_cases_are_turned_back(view):
    image = np.random.default_rng(0).uniform(size=(5, 7, 3)).astype(np.float32)
    case = Case("A", image, image.astype(np.uint8), (1.0, 2.0, 8.0), nib.Nifti1Header())
    turned = turned_case(case, view)
    assert turned.spacing == ((2.0, 1.0, 8.0) if view.transposed else case.spacing)
    np.testing.assert_array_equal(volume_back(turned.image, view), image)
    both = np.stack([turned.image] * 2, -1)
    np.testing.assert_array_equal(volume_back(both, view), np.stack([image] * 2, -1))
    last = (turned.image.shape[0] - 1, turned.image.shape[1] - 1)
    point = view.point((4, 2), last)
    np.testing.assert_array_equal(turned.image[point], image[4, 2])
    assert view.point_back(point, last) == (4, 2)
    grid = Grid((4, 6), 2.0).at(point, turned.image.shape)
    back = grid_back(grid, view)
    assert back.size == ((6, 4) if view.transposed else (4, 6))
    assert back.center == pytest.approx(Grid((4, 6), 2.0).at((4, 2), image.shape).center)
