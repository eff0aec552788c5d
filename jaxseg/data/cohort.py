"""Preprocess a set of cases into one set of arrays, the cohort."""

import dataclasses
import logging
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from jaxseg.data import scout
from jaxseg.data.case import Case
from jaxseg.data.grid import Grid, label_shares_to_network, labeled_outside
from jaxseg.data.identity import Digests, digests
from jaxseg.data.nifti import DataError
from jaxseg.data.preprocess import Preprocessing, corrected, preprocess_case
from jaxseg.data.scout import center_of

_LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, eq=False)
class Cohort:
    """All slices of a set of cases on the network grid, in the order of the cases.

    Attributes:
      images: (N, H, W) float32, normalized per case.
      labels: (N, H, W) uint8.
      heights: (N,) float32, relative height in the stack from 0 (base) to 1 (apex).
      case_index: (N,) int32, index into `case_names`.
      slice_index: (N,) int32, index of the slice in its native stack.
      case_names: names of the cases.
      spacings: native voxel size of each case in mm; empty if not recorded.
      highest_labels: highest label of each case on its native grid, where resampling removes none;
        empty if not recorded.
      orientations: `Case.orientation` of each case that states one.
      digests: digests of each case on its native grid; empty if not recorded.
      shares: (N, H, W, L) float32, fraction of each pixel covered by each label; None without soft
        labels.
      scouts: (N, h, w) float32, each slice of the cases' scouts; None if the network grid has a
        fixed center.
      hearts: (N, h, w) float32, fraction of each scout pixel inside the heart; None if `scouts`
        is.
      margin: pixels by which images, labels and shares extend beyond the network grid on each side.
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
        """Training targets: `shares` if present, else `labels`."""
        return self.labels if self.shares is None else self.shares

    def __len__(self) -> int:
        return len(self.images)

    def take(self, indices: np.ndarray) -> "Cohort":
        """The slices at `indices`, in that order; `case_index` still refers to `case_names`."""
        arrays = {name: array[np.asarray(indices)] for name, array in self._arrays().items()}
        return dataclasses.replace(self, **arrays)

    def cropped(self) -> "Cohort":
        """The cohort on the network grid alone, without its margin."""
        if not self.margin:
            return self
        wide = {"images": self.images, "labels": self.labels, "shares": self.shares}
        inner = slice(self.margin, -self.margin)
        arrays = {name: x[:, inner, inner] for name, x in wide.items() if x is not None}
        return dataclasses.replace(self, **arrays, margin=0)

    def neighbors(self, indices: np.ndarray) -> np.ndarray:
        """The slices of the same case before and after each of the slices at `indices`.

        A slice without one is its own neighbor. Empty slices, and those not at `indices`, are
        skipped.

        Args:
          indices: positions (B,) in the cohort, ascending.

        Returns:
          Positions (B, 2) int32 in `indices`.
        """
        found = np.stack([np.arange(len(indices), dtype=np.int32)] * 2, axis=-1)
        shown = np.flatnonzero(np.any(self.images != 0, (1, 2))[indices])
        same = np.diff(self.case_index[indices][shown]) == 0
        found[shown[1:][same], 0] = shown[:-1][same]
        found[shown[:-1][same], 1] = shown[1:][same]
        return found

    def inputs(self, indices: np.ndarray, *, context: bool) -> np.ndarray:
        """Images of the slices at `indices` as a network takes them.

        Args:
          indices: positions (B,).
          context: `UNet.context`.

        Returns:
          (B, H, W) float32, or with context (B, H, W, 3): each slice and its two neighbors.
        """
        images = self.images[indices]
        if not context:
            return images
        positions = self.neighbors(np.arange(len(self)))[indices]
        return np.stack([images, *self.images[positions.T]], axis=-1)

    def titles(self) -> list[str]:
        """A caption for each slice: its case and its index in the stack."""
        names = (self.case_names[case] for case in self.case_index)
        return [f"{name} slice {k}" for name, k in zip(names, self.slice_index, strict=True)]

    def cases_of(self, indices: np.ndarray) -> list[str]:
        """Distinct names of the cases that hold the slices at `indices`, in cohort order."""
        return [self.case_names[case] for case in np.unique(self.case_index[indices])]

    def facts(self) -> dict[str, Any]:
        """A JSON-like summary that identifies the cohort.

        It holds the case names, their digests by name, and the smallest and largest number of
        slices. If known, it also holds the range of voxel edges in mm and the orientations present,
        the most frequent first.
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
            known_ways = Counter(self.orientations).most_common()
            facts["orientations"] = [orientation for orientation, _ in known_ways]
        return facts

    def _arrays(self) -> dict[str, np.ndarray]:
        fields = vars(self).items()
        return {name: value for name, value in fields if isinstance(value, np.ndarray)}


class _Native(NamedTuple):
    """What a cohort records of a case on its native grid."""

    spacing: tuple[float, float, float]
    highest_label: int
    orientation: str | None
    digests: Digests


def build_cohort(
    cases: Iterable[Case],
    how: Preprocessing,
    *,
    margin: int = 0,
    apex_first: bool = True,
    allow_outside: bool = False,
    soft_labels: bool = False,
) -> Cohort:
    """Preprocess cases into a cohort, one at a time, so that `cases` may be a generator.

    If the network grid has no center, the grid of each case is centered on its labeled heart. The
    cohort then also holds the scouts on which a network learns to locate the heart.

    Args:
      cases: labeled cases with distinct names.
      how: preprocessing of a case.
      margin: pixels of surroundings to keep beyond the network grid on each side.
      apex_first: whether slice 0 is the apex, as in EMIDEC, or the base.
      allow_outside: log a warning instead of failing if labeled voxels lie outside the grid.
      soft_labels: whether to also compute `Cohort.shares`.

    Raises:
      DataError: there is no case; a case has no label map; two cases share a name; labeled voxels
        lie outside the grid; `preprocess_case` rejects a case; the grid has no center and a case no
        labeled heart.
    """
    parts: list[dict[str, np.ndarray]] = []
    native: dict[str, _Native] = {}
    for case in cases:
        if case.label is None:
            raise DataError(f"{case.name}: no label map; every case of a cohort needs one")
        if case.name in native:
            raise DataError(f"{case.name}: two cases of this name; expected distinct names")
        own = replace(how, grid=_own_grid(case, how.grid))
        _check_inside(case, own.grid, allow_outside)
        image = corrected(case, how)
        parts.append(_arrays_of(image, own, margin, soft_labels, scouts=how.grid.center is None))
        highest = int(case.label.max())
        native[case.name] = _Native(case.spacing, highest, case.orientation, digests(case))
    if not parts:
        raise DataError("no case to build a cohort from; expected at least one")
    counts = [len(part["images"]) for part in parts]
    return Cohort(
        heights=np.concatenate([relative_heights(n, apex_first=apex_first) for n in counts]),
        case_index=np.repeat(np.arange(len(counts), dtype=np.int32), counts),
        slice_index=np.concatenate([np.arange(n, dtype=np.int32) for n in counts]),
        case_names=tuple(native),
        spacings=tuple(one.spacing for one in native.values()),
        highest_labels=tuple(one.highest_label for one in native.values()),
        orientations=tuple(one.orientation for one in native.values() if one.orientation),
        digests=tuple(one.digests for one in native.values()),
        margin=margin,
        **{name: np.concatenate([part[name] for part in parts]) for name in parts[0]},
    )


def _own_grid(case: Case, grid: Grid) -> Grid:
    """The grid of a labeled case, centered on its heart if the network grid has no center."""
    if grid.center is not None:
        return grid
    assert case.label is not None
    center = center_of(np.moveaxis(case.label, -1, 0) > 0)
    if center is None:
        raise DataError(
            f"{case.name}: no voxel is labeled, so its heart cannot be found; expected a labeled"
            " heart in every case, or grid.center as fractions of the field of view"
        )
    return grid.at((round(center[0]), round(center[1])), case.image.shape)


def _arrays_of(
    case: Case, how: Preprocessing, margin: int, soft_labels: bool, *, scouts: bool
) -> dict[str, np.ndarray]:
    """Arrays of one case, with the slices along the first axis."""
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
    """Heights (count,) float32 of the slices, 0 (base) to 1 (apex); 0.5 for a single slice."""
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
    _LOG.warning(message)
