"""Cohorts: order, heights, and what distinguishes them."""

import dataclasses
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest

from jaxseg.data.cohort import build_cohort, relative_heights
from jaxseg.data.grid import Grid
from jaxseg.data.identity import digests
from jaxseg.data.nifti import DataError
from jaxseg.data.preprocess import Preprocessing
from jaxseg.data.readers.emidec import find_cases, load_case
from tests.data.small_cohorts import HOW, make_case, make_cohort
from tests.logged import logged


def test_arrays_are_in_the_order_of_the_cases():
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


def test_heights_are_0_at_the_base_and_1_at_the_apex():
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


def test_neighbors_are_the_slices_before_and_after_in_the_same_case():
    cohort = make_cohort([3, 1, 2])
    every = cohort.neighbors(np.arange(6))
    assert every.tolist() == [[0, 1], [0, 2], [1, 2], [3, 3], [4, 5], [4, 5]]
    chosen = np.array([4, 1])
    np.testing.assert_array_equal(cohort.inputs(chosen, context=False), cohort.images[chosen])
    found = cohort.inputs(chosen, context=True)
    assert (found.shape, found.dtype) == ((2, *cohort.images.shape[1:], 3), np.float32)
    for image, positions in zip(found, [[4, 4, 5], [1, 0, 2]], strict=True):
        np.testing.assert_array_equal(image, np.moveaxis(cohort.images[positions], 0, -1))
    some = cohort.neighbors(np.array([0, 2, 3, 5]))  # of a split by slice
    assert some.tolist() == [[0, 1], [0, 1], [2, 2], [3, 3]]
    assert cohort.neighbors(np.array([], int)).shape == (0, 2)


def test_empty_slices_are_nobodys_neighbors():
    cohort = make_cohort([4])
    cohort.images[[0, 2]] = 0
    assert cohort.neighbors(np.arange(4)).tolist() == [[0, 0], [1, 3], [2, 2], [1, 3]]


def test_soft_labels_add_shares():
    case = make_case("A", 1)
    plain = build_cohort([case], HOW)
    assert plain.shares is None
    assert plain.targets is plain.labels
    soft = build_cohort([case, make_case("B", 2)], HOW, soft_labels=True)
    assert soft.shares is soft.targets
    np.testing.assert_array_equal(soft.shares, np.eye(5, dtype=np.float32)[soft.labels])
    np.testing.assert_array_equal(soft.take(np.array([2, 0])).shares, soft.shares[[2, 0]])


def test_facts_have_the_range_of_voxel_sizes():
    cohort = make_cohort([3, 2])
    assert cohort.facts() == {"cases": ["Case_000", "Case_001"], "digests": {}, "slices": [2, 3]}
    known = dataclasses.replace(cohort, spacings=((1.0, 2.0, 8.0), (1.5, 1.5, 9.0)))
    assert known.facts()["spacing"] == [[1.0, 1.5, 8.0], [1.5, 2.0, 9.0]]


def test_facts_have_orientations_by_frequency():
    def stated(name, x, y):
        header = nib.Nifti1Header()
        header["pixdim"][1:4] = (1.0, 1.0, 8.0)
        header.set_sform(np.diag([x, y, 8.0, 1.0]), code=2)
        return dataclasses.replace(make_case(name, 2), header=header)

    cases = [stated("A", -1.0, 1.0), stated("B", -1.0, -1.0), make_case("C", 2)]
    cohort = build_cohort([*cases, stated("D", -1.0, -1.0)], HOW)
    assert cohort.facts()["orientations"] == ["LP", "LA"]
    silent = build_cohort([make_case(name, 2) for name in "ABC"], HOW)
    assert "orientations" not in silent.facts()


def test_digests_do_not_depend_on_the_grid():
    cases = [make_case("A", 2), make_case("B", 3)]
    known = build_cohort(cases, HOW).facts()["digests"]
    assert known == {case.name: digests(case)._asdict() for case in cases}
    coarse = replace(HOW, grid=Grid((4, 4), 3.0), normalization="none")
    assert build_cohort(cases, coarse).facts()["digests"] == known


def test_unlabeled_repeated_and_missing_cases_are_refused():
    unlabeled = dataclasses.replace(make_case("Case_123", 2), label=None)
    with pytest.raises(DataError, match="Case_123"):
        build_cohort([make_case("A", 2), unlabeled], HOW)
    with pytest.raises(DataError, match=r"^A: "):
        build_cohort([make_case("A", 2), make_case("A", 3)], HOW)
    with pytest.raises(DataError, match="no case"):
        build_cohort([], HOW)


def test_labeled_voxels_outside_the_grid_are_reported():
    """On 2 x 12 pixels, 2 of the region's 4 rows remain: 2 x 4 x 3 voxels are lost of 4 x 4 x 3."""
    case, narrow = make_case("Case_P009", 3), Grid((2, 12), None)
    with pytest.raises(DataError, match=r"Case_P009: .*\b24\b"):
        build_cohort([case], replace(HOW, grid=narrow))
    with logged() as lines:
        cohort = build_cohort([case], replace(HOW, grid=narrow), allow_outside=True)
    assert len(lines) == 1
    assert lines[0].startswith("warning: Case_P009: ")
    assert np.count_nonzero(cohort.labels) == 24


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
