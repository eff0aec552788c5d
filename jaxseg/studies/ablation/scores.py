"""The scores of an ablation's runs, read from their folders and checked for comparability."""

import csv
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from jaxseg.anatomy import Anatomy
from jaxseg.evaluation.case_scores import MEASURES
from jaxseg.evaluation.score_files import PIXEL_COLUMNS
from jaxseg.runs.files import WorkdirError

_REFERENCE = MEASURES.index("reference_mm3")
_OTHER_SLICES = "does not belong to the slices.csv beside it; evaluate anew"


@dataclass(frozen=True, eq=False)
class RunScores:
    """The scores of a run on its validation cases; nan where a score is undefined.

    Attributes:
      stage: stage of the ablation.
      seed: seed of the training.
      fold: validation fold; None if the split has no folds.
      slice_regions: R names, the columns of `slice_dsc`.
      case_regions: K names, the second axis of `cases`.
      slice_cases: N names, the case of each scored slice.
      slice_numbers: (N,) index of each slice in its stack.
      slice_dsc: (N, R), DSC by the rule of the paper's Table 1.
      slice_counts: (N, R, 3) pixel counts, as computed by `jaxseg.metrics.slice_counts`.
      case_names: C names.
      whole: (C,) whether all slices of the case were scored, not only held-out ones.
      cases: (C, K, MEASURES), as `jaxseg.evaluation.case_scores.CaseScores.regions`.
    """

    stage: str
    seed: int
    fold: int | None
    slice_regions: tuple[str, ...]
    case_regions: tuple[str, ...]
    slice_cases: tuple[str, ...]
    slice_numbers: NDArray[np.int64]
    slice_dsc: NDArray[np.float64]
    slice_counts: NDArray[np.int64]
    case_names: tuple[str, ...]
    whole: NDArray[np.bool_]
    cases: NDArray[np.float64]

    @property
    def title(self) -> str:
        """Description of the run for messages."""
        fold = "" if self.fold is None else f", fold {self.fold}"
        return f"{self.stage}, seed {self.seed}{fold}"


def read_run_scores(
    folder: Path, *, stage: str, seed: int, fold: int | None, anatomy: Anatomy
) -> RunScores:
    """Read `slices.csv`, `pixels.csv` and `cases.csv` of an evaluation.

    Args:
      folder: folder of the evaluation.
      stage: stage of the run.
      seed: seed of the training.
      fold: validation fold; None if the split has no folds.
      anatomy: defines the regions that were scored.

    Raises:
      WorkdirError: if a file is missing or damaged or has other regions, or if the files do not
        agree with each other.
    """
    slice_regions, case_regions = (
        tuple(name for name, _ in regions)
        for regions in (anatomy.slice_regions, anatomy.case_regions)
    )
    slices, slice_dsc = _read_slices(folder / "slices.csv", slice_regions)
    slice_counts = _read_pixels(folder / "pixels.csv", slices, slice_regions)
    case_names, scored, whole, cases = _read_cases(folder / "cases.csv", case_regions)
    if scored != Counter(name for name, _ in slices):
        raise WorkdirError(f"{folder / 'cases.csv'}: {_OTHER_SLICES}")
    return RunScores(
        stage=stage,
        seed=seed,
        fold=fold,
        slice_regions=slice_regions,
        case_regions=case_regions,
        slice_cases=tuple(name for name, _ in slices),
        slice_numbers=np.array([number for _, number in slices], np.int64),
        slice_dsc=slice_dsc,
        slice_counts=slice_counts,
        case_names=case_names,
        whole=whole,
        cases=cases,
    )


def _read_slices(
    path: Path, regions: Sequence[str]
) -> tuple[list[tuple[str, int]], NDArray[np.float64]]:
    """Read case and number of each slice, and the DSC (slices, regions)."""
    rows = _read(path, ("case", "slice", *regions))
    numbers = _numbers(path, [row[1:2] for row in rows], whole=True)[:, 0]
    slices = [(row[0], int(number)) for row, number in zip(rows, numbers, strict=True)]
    if len(set(slices)) < len(slices):
        raise WorkdirError(f"{path}: damaged, a slice is listed twice")
    return slices, _numbers(path, [row[2:] for row in rows])


def _read_pixels(
    path: Path, slices: Sequence[tuple[str, int]], regions: Sequence[str]
) -> NDArray[np.int64]:
    """Read the pixel counts (slices, regions, 3)."""
    rows = _read(path, PIXEL_COLUMNS)
    expected = [[name, str(number), region] for name, number in slices for region in regions]
    if [row[:3] for row in rows] != expected:
        raise WorkdirError(f"{path}: {_OTHER_SLICES}")
    counts = _numbers(path, [row[3:] for row in rows], whole=True).astype(np.int64)
    return counts.reshape(len(slices), len(regions), 3)


def _read_cases(
    path: Path, regions: Sequence[str]
) -> tuple[tuple[str, ...], dict[str, int], NDArray[np.bool_], NDArray[np.float64]]:
    """Read the names, the numbers of scored slices, whether these are all, and the scores."""
    rows = _read(path, ("case", "region", "slices_scored", "slices", *MEASURES))
    names = tuple(dict.fromkeys(row[0] for row in rows))
    if [tuple(row[:2]) for row in rows] != list(product(names, regions)):
        raise WorkdirError(
            f"{path}: damaged, or of another anatomy; expected for each case the regions "
            f"{', '.join(regions)}"
        )
    scored, total = _numbers(path, [row[2:4] for row in rows], whole=True)[:: len(regions)].T
    scores = _numbers(path, [row[4:] for row in rows])
    return (
        names,
        {name: int(count) for name, count in zip(names, scored, strict=True)},
        scored == total,
        scores.reshape(len(names), len(regions), len(MEASURES)),
    )


def check_comparable(runs: Sequence[RunScores]) -> None:
    """Check that the runs were scored on the same cases.

    Args:
      runs: one run of each combination of stage, seed and fold, all of the same regions.

    Raises:
      ValueError: if runs of one fold were scored on different slices, cases or references; or if
        folds share slices.
    """
    by_fold: dict[int | None, RunScores] = {}
    for run in runs:
        _check_same_reference(run, by_fold.setdefault(run.fold, run))
    slices = Counter(
        slice_
        for run in by_fold.values()
        for slice_ in zip(run.slice_cases, run.slice_numbers.tolist(), strict=True)
    )
    case, number = max(slices, key=lambda slice_: slices[slice_])
    if slices[case, number] > 1:
        raise ValueError(f"folds: slice {number} of {case} is in several of them")


def _check_same_reference(run: RunScores, other: RunScores) -> None:
    """Check that both runs scored the same slices and the same reference labels."""
    same = (
        run.slice_cases == other.slice_cases
        and np.array_equal(run.slice_numbers, other.slice_numbers)
        and np.array_equal(np.isnan(run.slice_dsc), np.isnan(other.slice_dsc))
        and run.case_names == other.case_names
        and np.array_equal(run.whole, other.whole)
        and np.allclose(run.cases[..., _REFERENCE], other.cases[..., _REFERENCE], rtol=1e-9)
    )
    if not same:
        raise ValueError(
            f"{run.title} and {other.title} were scored on different slices or references; "
            "expected the same"
        )


def _read(path: Path, header: tuple[str, ...]) -> list[list[str]]:
    """Read the rows below the header, at least one, and check the number of cells in each."""
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            rows = list(csv.reader(stream, strict=True))
    except (OSError, ValueError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise WorkdirError(f"{path}: cannot be read ({reason}); evaluate anew") from error
    if not rows or tuple(rows[0]) != header:
        found = ", ".join(rows[0]) if rows else "nothing"
        raise WorkdirError(f"{path}: expected the columns {', '.join(header)}, got {found}")
    for number, row in enumerate(rows[1:], 2):
        if len(row) != len(header):
            raise WorkdirError(
                f"{path}: damaged, line {number} has {len(row)} of {len(header)} cells"
            )
    if len(rows) == 1:
        raise WorkdirError(f"{path}: expected scores, but it holds none")
    return rows[1:]


def _numbers(path: Path, rows: list[list[str]], *, whole: bool = False) -> NDArray[np.float64]:
    """Convert cells to (rows, cells); an empty cell is nan, or an error if `whole`."""

    def number(cell: str, line: int) -> float:
        if not cell and not whole:
            return np.nan
        try:
            value = float(int(cell) if whole else cell)
        except (ValueError, OverflowError):  # an integer may be too large for a float
            value = np.nan
        if not np.isfinite(value):
            raise WorkdirError(f"{path}: damaged, line {line} has {cell!r} in place of a number")
        return value

    return np.array([[number(cell, n) for cell in row] for n, row in enumerate(rows, 2)])
