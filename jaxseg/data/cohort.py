"""Cases to one set of arrays."""

import dataclasses
import warnings
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np

from jaxseg.data import scout
from jaxseg.data.case import Case
from jaxseg.data.grid import Grid, label_shares_to_network, labeled_outside
from jaxseg.data.identity import Digests, digests
from jaxseg.data.nifti import DataError
from jaxseg.data.preprocess import Preprocessing, preprocess_case
from jaxseg.data.scout import center_of


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
      scouts: (N, h, w) float32, each slice's part of its stack's scout; None where hearts need not
        be found.
      hearts: (N, h, w) float32, the heart's share of a scout's pixel; likewise.
      margin: pixels by which images, labels and shares reach beyond the network grid on each side.
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
    scouts: np.ndarray | None = None
    hearts: np.ndarray | None = None
    margin: int = 0

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

    def cropped(self) -> "Cohort":
        """The cohort on the network grid alone, without the margin around it."""
        if not self.margin:
            return self
        wide = {"images": self.images, "labels": self.labels, "shares": self.shares}
        inner = slice(self.margin, -self.margin)
        arrays = {name: x[:, inner, inner] for name, x in wide.items() if x is not None}
        return dataclasses.replace(self, **arrays, margin=0)

    def titles(self) -> list[str]:
        """For each slice its case and its place in the stack, for a reader."""
        names = (self.case_names[case] for case in self.case_index)
        return [f"{name} slice {k}" for name, k in zip(names, self.slice_index, strict=True)]

    def cases_of(self, indices: np.ndarray) -> list[str]:
        """Names of the cases that the slices at `indices` are of, each once, in their order."""
        return [self.case_names[case] for case in np.unique(self.case_index[indices])]

    def facts(self) -> dict[str, Any]:
        """What distinguishes the cohort from others, JSON-like.

        Names of the cases, their digests by name, the smallest and the largest number of slices
        and, where they are known, of voxel edges (mm), and the orientations that occur.
        """
        known = zip(self.case_names, self.digests, strict=bool(self.digests))
        facts: dict[str, Any] = {
            "cases": list(self.case_names),
            "digests": {name: found._asdict() for name, found in known},
        }
        if len(self):
            counts = np.unique(self.case_index, return_counts=True)[1]
            facts["slices"] = [int(counts.min()), int(counts.max())]
        if self.spacings:
            edges = np.asarray(self.spacings)
            facts["spacing"] = [edges.min(0).tolist(), edges.max(0).tolist()]
        if self.orientations:
            facts["orientations"] = sorted(set(self.orientations))
        return facts

    def _arrays(self) -> dict[str, np.ndarray]:
        per_case = (
            "case_names", "spacings", "highest_labels", "orientations", "digests", "margin",
        )  # fmt: skip
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {k: v for k, v in fields.items() if k not in per_case and v is not None}


def build_cohort(
    cases: Iterable[Case],
    how: Preprocessing,
    *,
    margin: int = 0,
    apex_first: bool = True,
    allow_outside: bool = False,
    soft_labels: bool = False,
) -> Cohort:
    """Preprocesses cases into a cohort, one at a time, so that a generator may give them.

    Where the network grid has no center, each case's is at its labeled heart, and the cohort holds
    scouts, on which a network learns to find it.

    Args:
      cases: labeled cases of distinct names.
      how: what is done to a case.
      margin: pixels of surroundings that the cohort holds beyond the network grid.
      apex_first: whether slice 0 is the apex, as in EMIDEC, or the base.
      allow_outside: warn, rather than fail, where labeled voxels lie outside the grid.
      soft_labels: whether the cohort holds each label's share of a pixel, too.

    Raises:
      DataError: no case; a case without label; two cases of one name; labeled voxels outside the
        grid; a case that `preprocess_case` refuses.

    Warns:
      UserWarning: labeled voxels outside the grid, where that is allowed.
    """
    parts: list[dict[str, np.ndarray]] = []
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
        own = replace(how, grid=_own_grid(case, how.grid))
        _check_inside(case, own.grid, allow_outside)
        parts.append(_arrays_of(case, own, margin, soft_labels, scouts=how.grid.center is None))
        names.append(case.name)
        spacings.append(case.spacing)
        highest.append(int(case.label.max()))
        orientations.append(case.orientation)
        known.append(digests(case))
    if not parts:
        raise DataError("no case to build a cohort from; expected at least one")
    counts = [len(part["images"]) for part in parts]
    return Cohort(
        heights=np.concatenate([relative_heights(n, apex_first=apex_first) for n in counts]),
        case_index=np.repeat(np.arange(len(counts), dtype=np.int32), counts),
        slice_index=np.concatenate([np.arange(n, dtype=np.int32) for n in counts]),
        case_names=tuple(names),
        spacings=tuple(spacings),
        highest_labels=tuple(highest),
        orientations=tuple(filter(None, orientations)),
        digests=tuple(known),
        margin=margin,
        **{name: np.concatenate([part[name] for part in parts]) for name in parts[0]},
    )


def _own_grid(case: Case, grid: Grid) -> Grid:
    """The grid of a labeled case: around its heart where the network grid has no center."""
    if grid.center is not None:
        return grid
    assert case.label is not None
    center = center_of(np.moveaxis(case.label, -1, 0) > 0)
    if center is None:
        raise DataError(
            f"{case.name}: no voxel is labeled, so its heart cannot be found; expected a labeled"
            " heart in every case, or grid.center as fractions of the field of view"
        )
    return grid.at((int(center[0]), int(center[1])), case.image.shape)


def _arrays_of(
    case: Case, how: Preprocessing, margin: int, soft_labels: bool, *, scouts: bool
) -> dict[str, np.ndarray]:
    """A case's part of a cohort's arrays over slices."""
    assert case.label is not None
    images, labels = preprocess_case(case, how, margin=margin)
    assert labels is not None
    arrays = {"images": images, "labels": labels}
    if soft_labels:
        wide = how.grid.padded(margin)
        arrays["shares"] = label_shares_to_network(case.label, case.spacing, wide, how.num_labels)
    if scouts:
        grid = scout.scout_grid(case, scout.SIZE)
        arrays["scouts"] = scout.scout_of(case, how, grid)
        arrays["hearts"] = scout.heart_of(case.label, case.spacing, grid)
    return arrays


def relative_heights(count: int, *, apex_first: bool = True) -> np.ndarray:
    """Heights (count,) float32 of a stack's slices, 0 base to 1 apex; 0.5 for a single slice."""
    if count == 1:
        return np.array([0.5], np.float32)
    heights = np.arange(count, dtype=np.float32) / np.float32(count - 1)
    return 1 - heights if apex_first else heights


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
