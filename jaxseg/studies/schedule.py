"""The runs of a study: one for each combination of stage, seed and fold."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from jaxseg.config import settings
from jaxseg.config.settings import SettingsError
from jaxseg.config.setup import Setup, build

# Separate from `evaluation`, which holds the user's own evaluations.
_EVALUATION = "evaluation-last"
# An evaluation writes this file last, so its presence marks a complete one.
_DONE = "summary.md"
RUNS = "runs"
"""Folder of the runs within that of a study."""


@dataclass(frozen=True, eq=False)
class Run:
    """One training of a study.

    Attributes:
      stage: name of the stage.
      seed: seed of initialization, batch order and mixup.
      fold: validation fold; None if the split has no folds.
      folder: run folder.
      settings: config of the run.
    """

    stage: str
    seed: int
    fold: int | None
    folder: Path
    settings: Mapping[str, Any]

    @cached_property
    def setup(self) -> Setup:
        """What the config of the run says."""
        return build(self.settings)

    @property
    def evaluation(self) -> Path:
        """Folder of the run's scores."""
        return self.folder / _EVALUATION

    @property
    def done(self) -> bool:
        """Whether the run is trained and scored."""
        return is_done(self.folder)


def is_done(folder: Path) -> bool:
    """Return whether the run in this folder is trained and scored."""
    return (folder / _EVALUATION / _DONE).exists()


def plan_runs(
    config: Mapping[str, Any],
    stages: Mapping[str, Mapping[str, Any]],
    folder: Path,
    *,
    seeds: int,
    folds: int = 0,
) -> tuple[Run, ...]:
    """List all runs, seed by seed, so that an interrupted study leaves complete comparisons.

    If `train.init_from` is the folder of a study, each run starts from the run of the same stage,
    seed and fold there, which has held out the same cases.

    Args:
      config: the shared config, with the fields of `configs/default.py`; its seed is the first.
      stages: the fields that each stage sets, by dotted name, in the order of the table.
      folder: folder of the study; the runs are in its `runs`.
      seeds: number of seeds, at least 1.
      folds: k > 1 trains every fold of k; 0 trains the one split that `config` describes.

    Raises:
      SettingsError: if the config cannot be run or holds nothing out; if it sets a field of the
        stages to a value that no stage has; if it selects one fold although every fold is trained;
        if its number of folds differs from `folds`; or if `seeds` or `folds` is out of range.
    """
    settings.check(config)
    _check_stage_fields(settings.flatten(config), stages)
    if seeds < 1:
        raise SettingsError(f"--seeds: expected at least 1, got {seeds}")
    if folds < 0 or folds == 1:
        raise SettingsError(f"--folds: expected 0 (no folds) or at least 2, got {folds}")
    first = build(config)
    if folds and first.split.fold:
        raise SettingsError(f"data.fold: every fold is trained; expected 0, got {first.split.fold}")
    if folds and first.split.folds not in (0, folds):
        raise SettingsError(
            f"--folds: expected {first.split.folds} as data.folds says, got {folds}"
        )
    if not (folds or first.split.fold_title or first.split.validation_fraction):
        raise SettingsError("data.validation_fraction: expected above 0 for a study, got 0.0")
    splits: list[dict[str, Any]] = [{}]
    if folds:
        splits = [{"data.folds": folds, "data.fold": fold} for fold in range(folds)]
    runs = []
    for seed in range(first.seed, first.seed + seeds):
        for split in splits:
            for stage, changes in stages.items():
                own = settings.replace(config, {**changes, **split, "seed": seed})
                settings.check(own)
                runs.append(_run(stage, own, folder))
    return tuple(runs)


def _check_stage_fields(config: Mapping[str, Any], stages: Mapping[str, Mapping[str, Any]]) -> None:
    """Reject a value that every stage would silently override."""
    for name in sorted({name for changes in stages.values() for name in changes} - {"name"}):
        values = sorted({changes[name] for changes in stages.values()})
        if config[name] not in values:
            raise SettingsError(
                f"{name}: the stages set it, to {' or '.join(map(str, values))}; got {config[name]}"
            )


def _run(stage: str, own: Mapping[str, Any], folder: Path) -> Run:
    setup = build(own)
    folds, fold = setup.split.folds, setup.split.fold
    name = f"{stage}-seed-{setup.seed}" + (f"-fold-{fold}-of-{folds}" if folds else "")
    source = setup.course.init_from
    if source is not None and (source / RUNS).is_dir():
        own = settings.replace(own, {"train.init_from": str(source / RUNS / name)})
    return Run(stage, setup.seed, fold if folds else None, folder / RUNS / name, own)
