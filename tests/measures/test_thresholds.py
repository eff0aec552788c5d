"""Thresholds on stacks drawn by hand, by brute force and against SimpleITK."""

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from jaxseg.measures.thresholds import (
    THRESHOLDS,
    enclosed,
    full_width_half_maximum,
    half_maximum_above_remote,
    n_sd,
    otsu,
    remote_myocardium,
)

RNG = np.random.default_rng(0)


def ring(size=25, inner=5, outer=10):
    """An annulus (1, size, size) and the angle of each of its pixels in degrees."""
    rows, columns = np.mgrid[:size, :size] - size // 2
    radius = np.hypot(rows, columns)
    angle = np.degrees(np.arctan2(rows, columns)) % 360
    return ((radius >= inner) & (radius <= outer))[None], angle[None]


def line(*signal):
    """A myocardium of a single row with these signals."""
    return np.array(signal, np.float32)[None, None], np.ones((1, 1, len(signal)), bool)


def test_n_sd_by_hand():
    image, myocardium = line(10, 14, 16, 17, 18, 40)
    remote = np.array([[[1, 1, 0, 0, 0, 0]]], bool)  # mean 12, standard deviation 2
    assert n_sd(image, myocardium, 2, remote=remote)[0, 0].tolist() == [0, 0, 0, 1, 1, 1]
    assert n_sd(image, myocardium, 3, remote=remote)[0, 0].tolist() == [0, 0, 0, 0, 0, 1]
    myocardium[..., -1] = False
    assert not n_sd(image, myocardium, 3, remote=remote).any()


def test_half_maximum_by_hand():
    image, myocardium = line(10, 20, 21, 40)
    assert full_width_half_maximum(image, myocardium)[0, 0].tolist() == [0, 0, 1, 1]
    found = full_width_half_maximum(image, myocardium, base=10)
    assert found[0, 0].tolist() == [0, 0, 0, 1]


def test_the_maximum_is_that_of_the_stack():
    image = np.array([[[10.0, 20.0]], [[30.0, 100.0]]])
    found = full_width_half_maximum(image, np.ones(image.shape, bool))
    assert found.tolist() == [[[False, False]], [[False, True]]]


def test_remote_is_the_inner_part_of_the_darkest_sector():
    myocardium, angle = ring()
    both, angles = np.repeat(myocardium, 2, axis=0), np.repeat(angle, 2, axis=0)
    image = RNG.normal(100, 1, both.shape)
    image[0][(angles[0] >= 120) & (angles[0] < 180)] -= 20
    image[1][(angles[1] >= 300) & (angles[1] < 360)] -= 20
    remote = remote_myocardium(image, both)
    assert (remote <= both).all()
    assert set(angles[0][remote[0]] // 60) == {2}
    assert set(angles[1][remote[1]] // 60) == {5}
    # Every pixel of that sector with four neighbors in the myocardium.
    inner = both[0].copy()
    for axis in (0, 1):
        inner &= np.roll(both[0], 1, axis) & np.roll(both[0], -1, axis)
    np.testing.assert_array_equal(remote[0], inner & (angles[0] // 60 == 2))


def test_a_thin_wall_has_a_remote_region():
    myocardium, _ = ring(inner=9)
    remote = remote_myocardium(RNG.normal(size=myocardium.shape), myocardium)
    assert remote.any()
    assert (remote <= myocardium).all()


def test_a_bright_sector_is_found_by_all_methods_but_fwhm():
    """Remote 100 +- 2, infarct 150 +- 2: from zero, half of the maximum is below both."""
    myocardium, angle = ring()
    infarct = myocardium & (angle >= 30) & (angle < 110)
    image = np.where(infarct, 150.0, 100.0) + RNG.normal(0, 2, myocardium.shape)
    # n SD of a normal distribution mark 2.3 % and less of the remote part.
    for name in ("3sd", "4sd", "5sd", "6sd", "otsu", "fwhm_remote"):
        found = THRESHOLDS[name](image, myocardium)
        assert (found | ~infarct).all(), name
        assert (found & ~infarct).sum() <= 2, name
    assert (full_width_half_maximum(image, myocardium) == myocardium).all()
    assert (half_maximum_above_remote(image + 1000, myocardium) == infarct).all()


def test_more_deviations_mark_less():
    myocardium, _ = ring()
    image = RNG.gamma(2, 10, myocardium.shape)
    counts = [int(THRESHOLDS[f"{n}sd"](image, myocardium).sum()) for n in range(2, 7)]
    assert counts == sorted(counts, reverse=True)
    assert counts[0] > counts[-1]


@pytest.mark.parametrize("seed", range(5))
def test_otsu_agrees_with_brute_force_and_simpleitk(seed):
    rng = np.random.default_rng(seed)
    signal = np.concatenate([rng.normal(80, 12, 300), rng.normal(150, 20, 100)])
    image = np.clip(signal, 0, 255).round().reshape(4, 10, 10)
    everywhere = np.ones(image.shape, bool)
    found = otsu(image, everywhere)
    within = {}
    for cut in np.unique(image)[:-1]:
        low, high = image[image <= cut], image[image > cut]
        within[cut] = low.size * low.var() + high.size * high.var()
    np.testing.assert_array_equal(found, image > min(within, key=within.get))
    # 256 bins, one for each integer from 0 to 255.
    pixels = image.astype(np.uint8)
    pixels[0, 0, :2] = 0, 255
    tool = sitk.OtsuThresholdImageFilter()
    tool.SetNumberOfHistogramBins(256)
    tool.SetInsideValue(0)
    tool.SetOutsideValue(1)
    theirs = sitk.GetArrayFromImage(tool.Execute(sitk.GetImageFromArray(pixels))).astype(bool)
    ours = otsu(pixels, everywhere)
    # Cuts between two values that occur are the same threshold up to the bin that holds it.
    assert (ours != theirs).sum() <= np.bincount(pixels.ravel()).max()
    assert (ours != theirs).mean() < 0.02


def test_otsu_ignores_what_is_outside():
    image, myocardium = line(10, 11, 50, 52, 1000)
    myocardium[..., -1] = False
    assert otsu(image, myocardium)[0, 0].tolist() == [0, 0, 1, 1, 0]
    assert not otsu(np.ones_like(image), myocardium).any()


def test_enclosed_dark_areas_belong_to_the_infarct():
    myocardium, angle = ring()
    infarct = myocardium & (angle < 90)
    core = np.zeros_like(myocardium)
    core[0, 16:18, 16:18] = True  # in the middle of the wall
    assert (core <= infarct).all()
    np.testing.assert_array_equal(enclosed(infarct & ~core, myocardium), core)
    # At the cavity, dark from angle 20 to 70, under a rim that stays bright.
    rows, columns = np.mgrid[:25, :25] - 12
    below = infarct & (angle > 20) & (angle < 70) & (np.hypot(rows, columns) < 7)[None]
    assert below.any()
    np.testing.assert_array_equal(enclosed(infarct & ~below, myocardium), below)
    # An open rim encloses nothing.
    wedge = infarct & (angle > 20) & (angle < 70)
    assert not enclosed(infarct & ~wedge, myocardium).any()


def test_nothing_is_enclosed_across_slices():
    """A dark pixel between bright slices, open in its own."""
    myocardium = np.zeros((3, 5, 5), bool)
    myocardium[:, 1:4, 1:4] = True
    infarct = myocardium.copy()
    infarct[1] = False
    assert not enclosed(infarct, myocardium).any()


@pytest.mark.parametrize("name", THRESHOLDS)
def test_no_myocardium_has_no_infarct(name):
    image = RNG.normal(size=(2, 4, 4)).astype(np.float32)
    assert not THRESHOLDS[name](image, np.zeros(image.shape, bool)).any()


def test_arrays_that_do_not_fit_are_refused():
    image, myocardium = line(1, 2, 3)
    for function in THRESHOLDS.values():
        for arguments in ((image[0], myocardium[0]), (image, myocardium.astype(np.uint8))):
            with pytest.raises(ValueError, match="expected"):
                function(*arguments)
    for name, remote in (("remote", ~myocardium), ("remote", myocardium[0])):
        with pytest.raises(ValueError, match=name):
            n_sd(image, myocardium, 2, remote=remote)
    with pytest.raises(ValueError, match=r"^n: "):
        n_sd(image, myocardium, 0)
