"""Split a cohort into training and validation slices."""

import hashlib
from collections.abc import Hashable, Mapping, Sequence

import numpy as np

from jaxseg.data.cohort import Cohort

SPLITS = ("slice", "case")


def split(
    cohort: Cohort,
    *,
    kind: str,
    validation_fraction: float = 0.1,
    folds: int = 0,
    fold: int = 0,
    seed: int,
    patients: Mapping[str, str] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Split the slices of a cohort into training and validation slices.

    "slice" draws slices at random, as the paper does. Slices of one patient then lie on both sides,
    and scores are optimistic. "case" draws whole patients, stratified by their highest label (no
    pathology, infarction, no-reflow). It uses `highest_labels` if known, so that the split is the
    same on every network grid.

    The random order is that of SHA-256 over seed, case name and slice number. It is the same on
    every platform and NumPy version, and independent of the order of the cases.

    Args:
      cohort: the cohort.
      kind: "slice" or "case".
      validation_fraction: fraction of slices or cases for validation, rounded down to at least one
        if it is not 0. A fraction of 0.1 of the paper's 708 slices is 70; the paper's own 69
        follows from no simple rounding. Ignored with `folds`.
      folds: number of folds into which slices or cases are divided, or 0 for a single split.
      fold: index of the held-out fold, in [0, folds).
      seed: seed of the random order.
      patients: patient of each case by case name. With "case", all cases of a patient are drawn
        together. By default every case is a separate patient.

    Returns:
      Sorted int indices (train,) and (validation,), which together hold every slice once.

    Raises:
      ValueError: the arguments are inconsistent, or there are too few slices or cases.
    """
    _check_split(kind, validation_fraction, folds, fold)
    if kind == "slice":
        keys = [
            (cohort.case_names[case], int(index))
            for case, index in zip(cohort.case_index, cohort.slice_index, strict=True)
        ]
        order, units = _shuffled(keys, seed), np.arange(len(cohort))
    else:
        names = [patients[name] if patients else name for name in cohort.case_names]
        present, units = np.unique([names[k] for k in cohort.case_index], return_inverse=True)
        strata = [
            max(_stratum(cohort, k) for k in np.unique(cohort.case_index[units == unit]))
            for unit in range(len(present))
        ]
        shuffled = _shuffled([str(name) for name in present], seed)
        order = np.array(sorted(shuffled, key=lambda unit: strata[unit]))
    chosen = _choose(order, validation_fraction, folds, fold, kind, spread=kind == "case")
    validation = np.isin(units, chosen)
    return np.flatnonzero(~validation), np.flatnonzero(validation)


def check_count(count: int, folds: int, kind: str) -> None:
    """Check that there are enough slices or cases for a split.

    Args:
      count: number of slices, or of patients with the kind "case".
      folds: as in `split`.
      kind: as in `split`.

    Raises:
      ValueError: there are too few.
    """
    if count < max(2, folds):
        raise ValueError(f"expected at least {max(2, folds)} {kind}s for this split, got {count}")


def _stratum(cohort: Cohort, case: int) -> int:
    if cohort.highest_labels:
        return cohort.highest_labels[case]
    return int(cohort.labels[cohort.case_index == case].max())


def _choose(
    order: np.ndarray, fraction: float, folds: int, fold: int, kind: str, *, spread: bool
) -> np.ndarray:
    """Validation units: every `folds`-th of the order, or a fraction, its head or evenly spread."""
    count = len(order)
    if not folds and not fraction:
        return order[:0]
    check_count(count, folds, kind)
    if folds:
        return order[fold::folds]
    # 1e-9 is for rounding: 0.29 * 100 is 28.999999999999996.
    chosen = min(max(1, int(count * fraction + 1e-9)), count - 1)
    if spread:
        return order[((np.arange(chosen) + 0.5) * count / chosen).astype(int)]
    return order[:chosen]


def _shuffled(keys: Sequence[Hashable], seed: int) -> np.ndarray:
    digests = [hashlib.sha256(repr((int(seed), key)).encode()).digest() for key in keys]
    return np.array(sorted(range(len(keys)), key=lambda unit: digests[unit]))


def _check_split(kind: str, fraction: float, folds: int, fold: int) -> None:
    if kind not in SPLITS:
        raise ValueError(f"kind is {kind!r}; expected 'slice' or 'case'")
    if folds < 0 or folds == 1:
        raise ValueError(f"folds is {folds}; expected 0 (one draw) or at least 2")
    if not 0 <= fold < max(folds, 1):
        raise ValueError(f"fold is {fold}; expected 0 to {max(folds, 1) - 1} with folds={folds}")
    if not folds and not 0 <= fraction < 1:
        raise ValueError(f"validation_fraction is {fraction}; expected from 0 to below 1")
