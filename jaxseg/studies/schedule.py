"""The runs of a study: stages times seeds times folds."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxseg.config import settings
from jaxseg.config.settings import SettingsError

# Beside `evaluation`, which users fill with what they ask for.
_EVALUATION = "evaluation-last"
# Written last by an evaluation, so it tells of a whole one.
_DONE = "summary.md"


@dataclass(frozen=True, eq=False)
class Run:
    """One training of a study.

    Attributes:
      stage: name of the stage.
      seed: of initialization, batch order and mixup.
      fold: which fold validates; None where the split has none.
      folder: its workdir.
      settings: of the run.
    """

    stage: str
    seed: int
    fold: int | None
    folder: Path
    settings: Mapping[str, Any]

    @property
    def evaluation(self) -> Path:
        """Folder of its scores."""
        return self.folder / _EVALUATION

    @property
    def done(self) -> bool:
        """Whether it is trained and scored."""
        return is_done(self.folder)


def is_done(folder: Path) -> bool:
    """Whether the run in this workdir is trained and scored."""
    return (folder / _EVALUATION / _DONE).exists()


def plan_runs(
    config: Mapping[str, Any],
    stages: Mapping[str, Mapping[str, Any]],
    folder: Path,
    *,
    seeds: int,
    folds: int = 0,
) -> tuple[Run, ...]:
    """All runs, one seed after the other, so that an early end leaves whole comparisons.

    Args:
      config: what the runs share, of the shape of `configs/default.py`; its seed is the first.
      stages: what each stage sets in it, by dotted field name; in the order of the table.
      folder: of the study; runs lie in its `runs`.
      seeds: how many.
      folds: k > 1: every fold of k; 0: the one split that `config` describes.

    Raises:
      SettingsError: settings that cannot be run, a field that the stages set at a value that none
        of them has, one fold where every fold is asked for, other numbers of folds, or
        numbers that are none.
    """
    settings.check(config)
    _check_stage_fields(settings.flatten(config), stages)
    if seeds < 1:
        raise SettingsError(f"--seeds: expected at least 1, got {seeds}")
    if folds < 0 or folds == 1:
        raise SettingsError(f"--folds: expected 0 (no folds) or at least 2, got {folds}")
    if folds and config["data"]["fold"]:
        fold = config["data"]["fold"]
        raise SettingsError(f"data.fold: every fold is trained; expected 0, got {fold}")
    if folds and config["data"]["folds"] not in (0, folds):
        raise SettingsError(
            f"--folds: expected {config['data']['folds']} as data.folds says, got {folds}"
        )
    splits: list[dict[str, Any]] = [{}]
    if folds:
        splits = [{"data.folds": folds, "data.fold": fold} for fold in range(folds)]
    runs = []
    for seed in range(config["seed"], config["seed"] + seeds):
        for split in splits:
            for stage, changes in stages.items():
                own = settings.replace(config, {**changes, **split, "seed": seed})
                settings.check(own)
                runs.append(_run(stage, own, folder))
    return tuple(runs)


def _check_stage_fields(config: Mapping[str, Any], stages: Mapping[str, Mapping[str, Any]]) -> None:
    """A value that every stage overrides would be lost without a word."""
    for name in sorted({name for changes in stages.values() for name in changes} - {"name"}):
        values = sorted({changes[name] for changes in stages.values()})
        if config[name] not in values:
            raise SettingsError(
                f"{name}: the stages set it, to {' or '.join(map(str, values))}; got {config[name]}"
            )


def _run(stage: str, own: Mapping[str, Any], folder: Path) -> Run:
    folds, fold = own["data"]["folds"], own["data"]["fold"]
    name = f"{stage}-seed-{own['seed']}" + (f"-fold-{fold}-of-{folds}" if folds else "")
    return Run(stage, own["seed"], fold if folds else None, folder / "runs" / name, own)
