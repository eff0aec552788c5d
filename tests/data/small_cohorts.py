"""Cases of random images and cohorts of tiny arrays: for tests of cohorts and of their splits."""

import nibabel as nib
import numpy as np

from jaxseg.data.case import Case
from jaxseg.data.cohort import Cohort, relative_heights
from jaxseg.data.grid import Grid
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
