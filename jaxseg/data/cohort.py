"""Cases to one set of arrays."""

import dataclasses
import warnings
from collections.abc import Iterable
from typing import Any

import numpy as np

from jaxseg.data.case import Case
from jaxseg.data.grid import Grid, label_shares_to_network, labeled_outside
from jaxseg.data.identity import Digests, digests
from jaxseg.data.nifti import DataError
from jaxseg.data.preprocess import preprocess_case

_MOST_ZEROS = 0.01  # of the labeled voxels, above which they are hardly noise


@dataclasses.dataclass(frozen=True, eq=False)
class Cohort:
    """All slices of a set of cases on the network grid, in the order of the cases.

    Attributes:
      images: (N, H, W) float32, normalized per case.
      labels: (N, H, W) uint8.
      heights: (N,) float32 relative height in the stack, 0 base to 1 apex.
      case_index: (N,) int32 into `case_names`.
      slice_index: (N,) int32, the slice's place in its native stack.
      case_names: the cases' names.
      spacings: native voxel size in mm of each case; empty where nobody asked.
      highest_labels: highest label of each case on its own grid, where none is lost; empty where
        nobody asked.
      orientations: `Case.orientation` of the cases that state one.
      digests: of each case, on its own grid; empty where nobody asked.
      shares: (N, H, W, L) float32, each label's share of a pixel; None where nobody asked.
    """

    images: np.ndarray
    labels: np.ndarray
    heights: np.ndarray
    case_index: np.ndarray
    slice_index: np.ndarray
    case_names: tuple[str, ...]
    spacings: tuple[tuple[float, float, float], ...] = ()
    highest_labels: tuple[int, ...] = ()
    orientations: tuple[str, ...] = ()
    digests: tuple[Digests, ...] = ()
    shares: np.ndarray | None = None

    @property
    def targets(self) -> np.ndarray:
        """What a network is trained towards: the shares where they are known, else the labels."""
        return self.labels if self.shares is None else self.shares

    def __len__(self) -> int:
        return len(self.images)

    def take(self, indices: np.ndarray) -> "Cohort":
        """The slices at `indices`, in that order; `case_index` keeps its meaning."""
        arrays = {name: array[np.asarray(indices)] for name, array in self._arrays().items()}
        return dataclasses.replace(self, **arrays)

    def titles(self) -> list[str]:
        """For each slice its case and its place in the stack, for a reader."""
        names = (self.case_names[case] for case in self.case_index)
        return [f"{name} slice {k}" for name, k in zip(names, self.slice_index, strict=True)]

    def cases_of(self, indices: np.ndarray) -> list[str]:
        """Names of the cases that the slices at `indices` are of, each once, in their order."""
        return [self.case_names[case] for case in np.unique(self.case_index[indices])]

    def facts(self) -> dict[str, Any]:
        """What distinguishes the cohort from others, JSON-like.

        Names of the cases, their digests by name and, where they are known, the smallest and the
        largest voxel edges (mm) and the orientations that occur.
        """
        known = zip(self.case_names, self.digests, strict=bool(self.digests))
        facts: dict[str, Any] = {
            "cases": list(self.case_names),
            "digests": {name: found._asdict() for name, found in known},
        }
        if self.spacings:
            edges = np.asarray(self.spacings)
            facts["spacing"] = [edges.min(0).tolist(), edges.max(0).tolist()]
        if self.orientations:
            facts["orientations"] = sorted(set(self.orientations))
        return facts

    def _arrays(self) -> dict[str, np.ndarray]:
        per_case = ("case_names", "spacings", "highest_labels", "orientations", "digests")
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {k: v for k, v in fields.items() if k not in per_case and v is not None}


def build_cohort(
    cases: Iterable[Case],
    grid: Grid,
    *,
    num_labels: int = 5,
    normalization: str = "zscore",
    percentiles: tuple[float, float] = (1.0, 99.0),
    apex_first: bool = True,
    allow_outside: bool = False,
    soft_labels: bool = False,
) -> Cohort:
    """Preprocesses cases into a cohort, one at a time, so that a generator may give them.

    Args:
      cases: labeled cases of distinct names.
      grid: the network grid.
      num_labels: size of the label set, background included.
      normalization: see `jaxseg.data.preprocess.normalize`.
      percentiles: clip of the normalization.
      apex_first: whether slice 0 is the apex, as in EMIDEC, or the base.
      allow_outside: warn, rather than fail, where labeled voxels lie outside the grid.
      soft_labels: whether the cohort holds each label's share of a pixel, too.

    Raises:
      DataError: no case; a case without label; two cases of one name; labeled voxels outside the
        grid; a case that `preprocess_case` refuses.
    """
    parts: list[tuple[np.ndarray, np.ndarray]] = []
    shares: list[np.ndarray] = []
    names: list[str] = []
    spacings: list[tuple[float, float, float]] = []
    highest: list[int] = []
    orientations: list[str | None] = []
    known: list[Digests] = []
    for case in cases:
        if case.label is None:
            raise DataError(f"{case.name}: no label map; every case of a cohort needs one")
        if case.name in names:
            raise DataError(f"{case.name}: two cases of this name; expected distinct names")
        _check_inside(case, grid, allow_outside)
        if normalization == "zscore":
            _warn_of_zeros(case)
        images, labels = preprocess_case(
            case, grid, num_labels=num_labels, normalization=normalization, percentiles=percentiles
        )
        assert labels is not None
        parts.append((images, labels))
        if soft_labels:
            shares.append(label_shares_to_network(case.label, case.spacing, grid, num_labels))
        names.append(case.name)
        spacings.append(case.spacing)
        highest.append(int(case.label.max()))
        orientations.append(case.orientation)
        known.append(digests(case))
    if not parts:
        raise DataError("no case to build a cohort from; expected at least one")
    counts = [len(images) for images, _ in parts]
    return Cohort(
        images=np.concatenate([images for images, _ in parts]),
        labels=np.concatenate([labels for _, labels in parts]),
        heights=np.concatenate([relative_heights(n, apex_first=apex_first) for n in counts]),
        case_index=np.repeat(np.arange(len(counts), dtype=np.int32), counts),
        slice_index=np.concatenate([np.arange(n, dtype=np.int32) for n in counts]),
        case_names=tuple(names),
        spacings=tuple(spacings),
        highest_labels=tuple(highest),
        orientations=tuple(filter(None, orientations)),
        digests=tuple(known),
        shares=np.concatenate(shares) if soft_labels else None,
    )


def relative_heights(count: int, *, apex_first: bool = True) -> np.ndarray:
    """Heights (count,) float32 of a stack's slices, 0 base to 1 apex; 0.5 for a single slice."""
    if count == 1:
        return np.array([0.5], np.float32)
    heights = np.arange(count, dtype=np.float32) / np.float32(count - 1)
    return 1 - heights if apex_first else heights


def _warn_of_zeros(case: Case) -> None:
    """Padding is known by its zeros; a dark myocardium that was windowed to 0 would be taken so."""
    assert case.label is not None
    values = case.image[case.label > 0]
    share = np.count_nonzero(values == 0) / max(values.size, 1)
    if share > _MOST_ZEROS:
        warnings.warn(
            f"{case.name}: {share:.0%} of the labeled voxels are exactly 0, which counts as padding"
            " and becomes the mean of the tissue; add a constant to the image",
            stacklevel=3,
        )


def _check_inside(case: Case, grid: Grid, allow_outside: bool) -> None:
    assert case.label is not None
    lost = labeled_outside(case.label, case.spacing, grid)
    if not lost:
        return
    message = (
        f"{case.name}: {lost} of {np.count_nonzero(case.label)} labeled voxels lie outside the"
        f" network grid {grid}"
    )
    if not allow_outside:
        raise DataError(f"{message}; expected a larger grid, or one centered on the heart")
    warnings.warn(message, stacklevel=3)
