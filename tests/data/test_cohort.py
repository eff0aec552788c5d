"""Cohorts: order, heights, fingerprints, and splits that are exact, stable and stratified."""

import dataclasses
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest

from jaxseg.data.case import Case
from jaxseg.data.cohort import Cohort, build_cohort, relative_heights, split
from jaxseg.data.emidec import find_cases, load_case
from jaxseg.data.grid import Grid
from jaxseg.data.nifti import DataError
from jaxseg.data.preprocess import Preprocessing

GRID = Grid((12, 12), None)
HOW = Preprocessing(GRID, num_labels=5)


def make_case(name, slices, *, highest=2, seed=0):
    image = np.random.default_rng(seed).uniform(1, 2, (12, 12, slices)).astype(np.float32)
    label = np.zeros(image.shape, np.uint8)
    label[4:8, 4:8] = 1
    label[5, 5, slices // 2] = highest
    return Case(name, image, label, (1.0, 1.0, 8.0), nib.Nifti1Header())


def make_cohort(counts, highest=None, **arrays):
    """A cohort of tiny arrays; `highest` gives every case's highest label."""
    total, index = sum(counts), np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    highest = np.full(len(counts), 2) if highest is None else np.asarray(highest)
    return Cohort(
        images=np.arange(total * 4, dtype=np.float32).reshape(total, 2, 2),
        labels=np.broadcast_to(highest[index, None, None], (total, 2, 2)).astype(np.uint8),
        heights=np.concatenate([relative_heights(n) for n in counts]),
        case_index=index,
        slice_index=np.concatenate([np.arange(n, dtype=np.int32) for n in counts]),
        case_names=tuple(f"Case_{i:03d}" for i in range(len(counts))),
        **arrays,
    )


def test_arrays_follow_the_order_of_the_cases():
    cases = [make_case("B", 3), make_case("A", 1, seed=1), make_case("C", 2, seed=2)]
    cohort = build_cohort(iter(cases), HOW)
    assert len(cohort) == 6
    assert cohort.case_names == ("B", "A", "C")
    assert cohort.case_index.tolist() == [0, 0, 0, 1, 2, 2]
    assert cohort.slice_index.tolist() == [0, 1, 2, 0, 0, 1]
    assert cohort.heights.tolist() == [1, 0.5, 0, 0.5, 1, 0]
    assert cohort.images.shape == cohort.labels.shape == (6, 12, 12)
    types = [cohort.images, cohort.labels, cohort.heights, cohort.case_index, cohort.slice_index]
    assert [array.dtype for array in types] == ["f4", "u1", "f4", "i4", "i4"]
    assert cases[2].label is not None
    np.testing.assert_array_equal(cohort.labels[4], cases[2].label[..., 0])


def test_heights_run_from_base_0_to_apex_1():
    np.testing.assert_allclose(relative_heights(4), [1, 2 / 3, 1 / 3, 0], rtol=1e-6)
    np.testing.assert_allclose(relative_heights(3, apex_first=False), [0, 0.5, 1])
    np.testing.assert_array_equal(relative_heights(1), [0.5])
    cohort = build_cohort([make_case("A", 2)], HOW, apex_first=False)
    np.testing.assert_array_equal(cohort.heights, [0, 1])


def test_take_keeps_slices_together():
    cohort = make_cohort([3, 2])
    taken = cohort.take(np.array([4, 0]))
    np.testing.assert_array_equal(taken.images, cohort.images[[4, 0]])
    assert taken.case_index.tolist() == [1, 0]
    assert taken.slice_index.tolist() == [1, 0]
    assert taken.heights.tolist() == [0, 1]
    assert taken.case_names == cohort.case_names
    assert taken.titles() == ["Case_001 slice 1", "Case_000 slice 0"]
    assert len(cohort.take(np.array([], int))) == 0


def test_shares_of_a_pixel_are_kept_where_they_are_asked_for():
    case = make_case("A", 1)
    plain = build_cohort([case], HOW)
    assert plain.shares is None
    assert plain.targets is plain.labels
    soft = build_cohort([case, make_case("B", 2)], HOW, soft_labels=True)
    assert soft.shares is soft.targets
    np.testing.assert_array_equal(soft.shares, np.eye(5, dtype=np.float32)[soft.labels])
    np.testing.assert_array_equal(soft.take(np.array([2, 0])).shares, soft.shares[[2, 0]])


def test_fingerprint_notices_every_change():
    shares, scouts = np.zeros((5, 2, 2, 3), np.float32), np.zeros((5, 4, 4), np.float32)
    whole = {"shares": shares, "scouts": scouts, "hearts": scouts + 1}
    cohort = make_cohort([3, 2], **whole)
    prints = [make_cohort([3, 2], **whole).fingerprint()]
    assert prints == [cohort.fingerprint()]
    prints.append(make_cohort([3, 2]).fingerprint())
    # Of the native grid, which the arrays know nothing of.
    native = {
        "spacings": ((9.0, 9.0, 9.0),) * 2, "highest_labels": (4, 4), "orientations": ("LP",) * 2,
        "margin": 1,
    }  # fmt: skip
    for field in dataclasses.fields(cohort):
        value = getattr(cohort, field.name)
        if field.name in native:
            other = dataclasses.replace(cohort, **{field.name: native[field.name]})
            assert other.fingerprint() == cohort.fingerprint()
            continue
        if field.name == "case_names":
            changed = (*value[:-1], "Case_other")
        else:
            changed = value.copy()
            changed[-1] += 1
        prints.append(dataclasses.replace(cohort, **{field.name: changed}).fingerprint())
    prints.append(cohort.take(np.arange(4)).fingerprint())
    prints.append(dataclasses.replace(cohort, heights=cohort.heights.astype("f8")).fingerprint())
    assert len(set(prints)) == len(prints) == 13
    assert all(len(text) == 64 for text in prints)
    swapped = dataclasses.replace(cohort, heights=cohort.heights.astype(">f4"))
    assert swapped.fingerprint() == cohort.fingerprint(), "byte order is the machine's affair"


def test_facts_tell_the_voxel_edges_where_they_are_known():
    cohort = make_cohort([3, 2])
    assert cohort.facts() == {
        "fingerprint": cohort.fingerprint(), "cases": ["Case_000", "Case_001"],
    }  # fmt: skip
    known = dataclasses.replace(cohort, spacings=((1.0, 2.0, 8.0), (1.5, 1.5, 9.0)))
    assert known.facts()["spacing"] == [[1.0, 1.5, 8.0], [1.5, 2.0, 9.0]]


def test_facts_tell_the_orientations_that_are_stated():
    header = nib.Nifti1Header()
    header.set_sform(np.diag([-1.0, -1.0, 8.0, 1.0]), code=2)
    stated = [dataclasses.replace(make_case(name, 2), header=header) for name in "AB"]
    cohort = build_cohort([*stated, make_case("C", 2)], HOW)
    assert cohort.facts()["orientations"] == ["LP"]
    silent = build_cohort([make_case(name, 2) for name in "ABC"], HOW)
    assert "orientations" not in silent.facts()
    assert cohort.fingerprint() == silent.fingerprint()


def test_refuses_cases_that_make_no_cohort():
    unlabeled = dataclasses.replace(make_case("Case_123", 2), label=None)
    with pytest.raises(DataError, match="Case_123: no label map"):
        build_cohort([make_case("A", 2), unlabeled], HOW)
    with pytest.raises(DataError, match="A: two cases of this name"):
        build_cohort([make_case("A", 2), make_case("A", 3)], HOW)
    with pytest.raises(DataError, match="no case"):
        build_cohort([], HOW)


def test_labeled_voxels_outside_the_grid_are_never_silent():
    """On 2 x 12 pixels, 2 of the region's 4 rows remain: 2 x 4 x 3 voxels are lost of 4 x 4 x 3."""
    case, narrow = make_case("Case_P009", 3), Grid((2, 12), None)
    with pytest.raises(DataError, match="Case_P009: 24 of 48 labeled voxels"):
        build_cohort([case], replace(HOW, grid=narrow))
    with pytest.warns(UserWarning, match="Case_P009: 24 of 48 labeled voxels"):
        cohort = build_cohort([case], replace(HOW, grid=narrow), allow_outside=True)
    assert np.count_nonzero(cohort.labels) == 24


@pytest.mark.parametrize("kind", ["slice", "case"])
@pytest.mark.parametrize("folds", [2, 5])
def test_folds_partition_the_slices(kind, folds):
    cohort = make_cohort([4, 7, 5, 6, 8, 5, 9, 3], [2, 3, 4, 2, 3, 4, 2, 3])
    parts = [split(cohort, kind=kind, folds=folds, fold=k, seed=3) for k in range(folds)]
    for train, validation in parts:
        both = np.concatenate([train, validation])
        np.testing.assert_array_equal(np.sort(both), np.arange(len(cohort)))
        assert (np.diff(train) > 0).all()
        assert (np.diff(validation) > 0).all()
    together = np.concatenate([validation for _, validation in parts])
    np.testing.assert_array_equal(np.sort(together), np.arange(len(cohort)))
    counted = np.arange(len(cohort)) if kind == "slice" else cohort.case_index
    sizes = [len(np.unique(counted[validation])) for _, validation in parts]
    assert max(sizes) - min(sizes) <= 1


def test_case_split_keeps_patients_whole():
    cohort = make_cohort([4, 7, 5, 6, 8, 5, 9, 3] * 3)
    train, validation = split(cohort, kind="case", validation_fraction=0.3, seed=0)
    cases = set(cohort.case_index[validation])
    assert len(cases) == 7  # floor(0.3 * 24)
    assert cases.isdisjoint(cohort.case_index[train])


@pytest.mark.parametrize("seed", range(5))
def test_case_split_is_in_proportion(seed):
    """Of 33 normal, 27 infarcted and 40 no-reflow cases, a tenth of each; folds of 5 likewise."""
    highest = np.repeat([2, 3, 4], [33, 27, 40])
    cohort = make_cohort([1] * 100, highest)
    _, validation = split(cohort, kind="case", validation_fraction=0.1, seed=seed)
    assert len(validation) == 10
    counts = np.bincount(highest[validation], minlength=5)[2:]
    assert (np.abs(counts - [3.3, 2.7, 4.0]) < 1).all()
    for fold in range(5):
        _, validation = split(cohort, kind="case", folds=5, fold=fold, seed=seed)
        counts = np.bincount(highest[validation], minlength=5)[2:]
        assert (np.abs(counts - [6.6, 5.4, 8.0]) < 1).all()


def test_sizes_of_the_paper():
    """708 slices at 0.1 give 70; the paper's 69 come from naming the fraction."""
    cohort = make_cohort([7] * 100 + [8])
    assert len(split(cohort, kind="slice", seed=0)[1]) == 70
    train, validation = split(cohort, kind="slice", validation_fraction=69 / 708, seed=0)
    assert (len(train), len(validation)) == (639, 69)
    # patients on both sides, as the paper's split has them
    assert set(cohort.case_index[validation]) & set(cohort.case_index[train])


def test_fractions_are_not_bitten_by_rounding():
    cohort = make_cohort([1] * 100)  # 0.29 * 100 is 28.999999999999996
    assert len(split(cohort, kind="slice", validation_fraction=0.29, seed=0)[1]) == 29
    assert len(split(cohort, kind="slice", validation_fraction=0.001, seed=0)[1]) == 1
    assert len(split(cohort, kind="slice", validation_fraction=0.999, seed=0)[0]) == 1


@pytest.mark.parametrize("kind", ["slice", "case"])
def test_split_depends_on_the_seed_and_on_nothing_else(kind):
    cohort = make_cohort([5] * 30)
    draws = [tuple(split(cohort, kind=kind, seed=seed)[1]) for seed in (0, 1, 2, 0)]
    assert len(set(draws)) == 3
    assert draws[0] == draws[3]


@pytest.mark.parametrize("kind", ["slice", "case"])
def test_split_does_not_depend_on_the_order_of_the_cases(kind):
    cases = [make_case(f"Case_{i}", 2 + i % 3, highest=2 + i % 3) for i in range(9)]
    drawn = []
    for order in (cases, cases[::-1]):
        cohort = build_cohort(order, HOW)
        _, validation = split(cohort, kind=kind, validation_fraction=0.3, seed=1)
        drawn.append(
            {(cohort.case_names[cohort.case_index[i]], cohort.slice_index[i]) for i in validation}
        )
    assert drawn[0] == drawn[1]


def test_folds_do_not_depend_on_the_network_grid():
    """A pathology of one voxel is lost on a coarse grid; its case stays in its group."""
    cases = [make_case(f"Case_{i:03d}", 3, highest=4 if i % 3 else 2) for i in range(20)]
    grids = GRID, Grid((4, 4), 3.0)
    cohorts = [build_cohort(cases, replace(HOW, grid=grid)) for grid in grids]
    assert [cohort.labels.max() for cohort in cohorts] == [4, 1]
    folds = [
        [split(cohort, kind="case", folds=4, fold=fold, seed=0)[1].tolist() for fold in range(4)]
        for cohort in cohorts
    ]
    assert folds[0] == folds[1]


def test_split_is_pinned():
    """Stored runs name their split by its seed alone: the draw must not change with a release.

    The order is that of `printf "(0, ('Case_000', 0))" | sha256sum` over slices, and of
    `printf "(0, 'Case_000')" | sha256sum` over cases, of which an only one comes from the middle.
    """
    cohort = make_cohort([3] * 4)
    _, slices = split(cohort, kind="slice", validation_fraction=0.25, seed=0)
    _, cases = split(cohort, kind="case", validation_fraction=0.25, seed=0)
    assert slices.tolist() == [0, 3, 9]
    assert np.unique(cohort.case_index[cases]).tolist() == [2]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"kind": "patient"}, "kind is 'patient'"),
        ({"folds": 1}, "folds is 1"),
        ({"folds": -2}, "folds is -2"),
        ({"folds": 3, "fold": 3}, "fold is 3"),
        ({"folds": 3, "fold": -1}, "fold is -1"),
        ({"fold": 1}, "fold is 1.*folds=0"),
        ({"validation_fraction": 0.0}, "validation_fraction is 0"),
        ({"validation_fraction": 1.0}, "validation_fraction is 1"),
        ({"validation_fraction": float("nan")}, "validation_fraction is nan"),
        ({"folds": 4}, "3 cases; a split in 4"),
    ],
)
def test_refuses_arguments_that_do_not_fit(options, named):
    with pytest.raises(ValueError, match=named):
        split(make_cohort([2, 2, 2]), **{"kind": "case", "seed": 0, **options})
    with pytest.raises(ValueError, match="1 cases; a split in 2"):
        split(make_cohort([2]), kind="case", seed=0)


def test_real_cohort(emidec_root):
    """Eight cases, in order, on the default grid, labels 1 and 2 in every case."""
    folders = find_cases(emidec_root)[::10]
    how = Preprocessing(Grid(), num_labels=5)
    cohort = build_cohort((load_case(folder) for folder in folders), how)
    assert cohort.case_names == tuple(folder.name for folder in folders)
    assert cohort.images.shape[1:] == (96, 96)
    for case, name in enumerate(cohort.case_names):
        labels = cohort.labels[cohort.case_index == case]
        assert {1, 2} <= set(np.unique(labels))
        assert (labels.max() > 2) == name.startswith("Case_P")
    # The cavity narrows toward the apex, where the height is 1.
    area = (cohort.labels == 1).sum((1, 2))
    assert area[cohort.heights == 1].mean() < area[cohort.heights == 0].mean()
