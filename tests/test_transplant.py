"""Transplants between drawn rings, whose walls and sectors are known."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg.anatomy import EMIDEC
from jaxseg.transplant import Wall, transplant

WALL = Wall((3, 4), (2,))
L = 5
transplanted = jax.jit(partial(transplant, wall=WALL))


def ring(center, inner, outer, *, size=(64, 64), sector=(0.0, 0.0), depth=0.5):
    """Fractions (H, W, L) of a ring, whose inner part in a sector of angles is infarct.

    Pixels are divided into 8 x 8 points. Angles lead from the columns' axis to the rows'.
    """
    rows, columns = (np.arange(8 * n) / 8 - 7 / 16 for n in size)
    down, across = rows[:, None] - center[0], columns[None, :] - center[1]
    radius, angle = np.hypot(down, across), np.arctan2(down, across)
    labels = np.where(radius < inner, 1, np.where(radius < outer, 2, 0))
    within = (angle > sector[0]) & (angle < sector[1])
    infarct = within & (radius >= inner) & (radius < inner + depth * (outer - inner))
    labels[infarct] = 3
    return np.eye(L, dtype=np.float32)[labels].reshape(size[0], 8, size[1], 8, L).mean((1, 3))


def image_of(shares, *, blood, tissue, infarct):
    return shares @ np.array([0, blood, tissue, infarct, 0], np.float32)


def overlap(first, second):
    """DSC of the pixels that are mostly covered."""
    first, second = np.asarray(first) > 0.5, np.asarray(second) > 0.5
    return 2 * (first & second).sum() / (first.sum() + second.sum())


@pytest.mark.parametrize("rotation", [0.0, 0.7])
def test_an_infarct_keeps_its_direction_and_its_relative_depth(rotation):
    fixed, sector = ring((32, 30), 12, 22), (-0.4, 1.1)
    moving = ring((27.5, 35), 8, 13, sector=sector)
    image, shares = transplanted(fixed[..., 1], fixed, moving[..., 1], moving, rotation)
    expected = ring((32, 30), 12, 22, sector=(sector[0] + rotation, sector[1] + rotation))
    assert overlap(shares[..., 3], expected[..., 3]) > 0.95
    np.testing.assert_allclose(shares.sum(-1), 1, atol=1e-5)
    np.testing.assert_array_equal(shares[..., :2], fixed[..., :2])
    assert (np.asarray(shares[..., 2]) <= fixed[..., 2] + 1e-6).all()
    untouched = np.asarray(shares[..., 3]) == 0
    np.testing.assert_array_equal(np.asarray(image)[untouched], fixed[..., 1][untouched])


@pytest.mark.parametrize(
    ("blood", "tissue", "expected"),
    [
        (100, 20, 23),  # 20 + 2 * (2.5 - 1): the factor (100 - 20) / (3 - 1) is limited to 2
        (5, 2, 2 + 1.5 * 1.5),
    ],
)
def test_intensities_are_scaled_to_blood_and_tissue_of_the_fixed_slice(blood, tissue, expected):
    fixed, moving = ring((32, 32), 10, 20), ring((32, 32), 10, 20, sector=(0.0, 2.0))
    image, shares = transplanted(
        image_of(fixed, blood=blood, tissue=tissue, infarct=0),
        fixed,
        image_of(moving, blood=3, tissue=1, infarct=2.5),
        moving,
        0.0,
    )
    whole = np.asarray(shares[..., 3]) > 0.999
    assert whole.sum() > 50
    np.testing.assert_allclose(np.asarray(image)[whole], expected, rtol=0.02)


def test_a_heart_without_pathology_changes_nothing():
    fixed, moving = ring((32, 32), 10, 20), ring((30, 33), 8, 15)
    given = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)
    image, shares = transplanted(given, fixed, given[::-1], moving, 0.3)
    np.testing.assert_array_equal(image, given)
    np.testing.assert_array_equal(shares, fixed)


@pytest.mark.parametrize("empty", ["fixed", "moving", "both"])
def test_a_slice_without_a_heart_changes_nothing(empty):
    nothing = np.eye(L, dtype=np.float32)[np.zeros((32, 32), int)]
    scar = ring((16, 16), 5, 10, size=(32, 32), sector=(0.0, 2.0))
    fixed = scar if empty == "moving" else nothing
    moving = scar if empty == "fixed" else nothing
    given = np.ones((32, 32), np.float32)
    image, shares = transplanted(given, fixed, 2 * given, moving, 0.0)
    np.testing.assert_array_equal(image, given)
    np.testing.assert_allclose(shares, fixed, atol=1e-6)


def test_an_organ_without_a_cavity():
    """The wall then reaches to the center, and intensities are only shifted."""
    wall = Wall((2,), (1,))

    def disk(radius, lesion):
        shares = ring((24, 24), lesion, radius, size=(48, 48))
        return np.stack([shares[..., 0], shares[..., 2], shares[..., 1]], -1)

    fixed, moving = disk(20, 0), disk(10, 4)
    image, shares = jax.jit(partial(transplant, wall=wall))(
        10 * fixed[..., 1], fixed, moving[..., 1] + 3 * moving[..., 2], moving, 0.0
    )
    assert overlap(shares[..., 2], disk(20, 8)[..., 2]) > 0.95
    lesion = np.asarray(shares[..., 2]) > 0.999
    np.testing.assert_allclose(np.asarray(image)[lesion], 10 + (3 - 1), rtol=0.01)
    assert math.pi * 64 * 0.9 < float(jnp.sum(shares[..., 2])) < math.pi * 64 * 1.1


def test_what_lies_beyond_the_wall_is_not_enclosed():
    """Another label beside the ring, such as the right ventricle, does not move it."""
    fixed, moving = ring((32, 32), 10, 18), ring((32, 32), 10, 18, sector=(-1.0, 1.0))
    expected, _ = transplanted(fixed[..., 1], fixed, moving[..., 1], moving, 0.0)
    beside = np.hypot(*np.ogrid[-32:32, -52:12]) < 12
    both = [
        np.where((beside & (x[..., 0] == 1))[..., None], np.eye(L)[1], x) for x in (fixed, moving)
    ]
    image, _ = transplanted(
        fixed[..., 1], *map(jnp.float32, both[:1]), moving[..., 1], both[1], 0.0
    )
    np.testing.assert_allclose(image, expected, atol=0.02)


def test_the_relative_depth_in_a_wall_that_leaves_the_image():
    """Rays end at the border; a border pixel repeated beyond it would make the wall thick."""
    fixed, moving = ring((32, 54), 10, 20), ring((32, 32), 10, 20, sector=(-1.5, 1.5))
    _, shares = transplanted(fixed[..., 1], fixed, moving[..., 1], moving, np.pi)
    infarct = np.asarray(shares[..., 3])
    radius = np.hypot(*np.ogrid[-32:32, -54:10])
    assert infarct.sum() > 100
    assert infarct[(radius > 9) & (radius < 16)].sum() > 0.9 * infarct.sum()


def test_the_wall_of_an_anatomy():
    assert Wall.of(EMIDEC.inclusions) == WALL
