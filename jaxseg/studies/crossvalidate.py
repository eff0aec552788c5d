"""Cross-validation of a config: train every fold, average its networks and score all cases.

The module `jaxseg.presence` corrects the odds of pathology and decides whether a case contains any,
with a factor and bounds fitted to the cases of the other folds. The networks of those folds were
trained on the case to be decided, so factor and bounds depend on that case only through these
networks and their smallest volumes.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from jaxseg.config import run_data
from jaxseg.config.settings import SettingsError, check
from jaxseg.config.setup import Setup, build
from jaxseg.data import Cohort
from jaxseg.evaluation.agreement_files import figures
from jaxseg.evaluation.case_scores import score_case
from jaxseg.evaluation.scores import Evaluation
from jaxseg.inference import case_decision
from jaxseg.inference.case_decision import CaseDecision
from jaxseg.inference.predictor import heart_notes
from jaxseg.presence import SMALL_DROPPED
from jaxseg.runs import provenance
from jaxseg.runs.data_file import read_data
from jaxseg.runs.files import WorkdirError, write_files
from jaxseg.runs.trained import read_setup
from jaxseg.studies import crossvalidation_files
from jaxseg.studies.bounds import drop_doubtful, fit_bounds, fit_odds, rule_for_others
from jaxseg.studies.crossvalidation_files import Decision
from jaxseg.studies.held_out import HeldOut, predict_fold
from jaxseg.studies.networks import (
    Folds,
    check_runs,
    finished_runs,
    held_out_images,
    load_networks,
)
from jaxseg.studies.schedule import Run, plan_runs
from jaxseg.studies.work import complete

_LOG = logging.getLogger(__name__)

_UNBIASED = (
    "The odds of pathology were multiplied by a factor with which, in the other folds, its total "
    "volume is that of the references that hold some."
)
_SMALL = f"{SMALL_DROPPED}."
_DOUBTFUL = "So was pathology with an expected DSC below the bound of its fold (last section)."


@dataclass(frozen=True, eq=False)
class _Study:
    """The runs and options of a cross-validation.

    Attributes:
      runs: runs of this study.
      others: runs of other studies whose networks are averaged with these, by study folder.
      mirror: whether mirror images are averaged, too.
    """

    runs: tuple[Run, ...]
    others: Mapping[Path, Folds]
    mirror: bool

    @property
    def setup(self) -> Setup:
        """Setup of the first run; the runs differ only in fold and seed."""
        return self.runs[0].setup

    @property
    def folds(self) -> list[int]:
        """The folds in ascending order."""
        return sorted({run.fold for run in self.runs if run.fold is not None})

    def workdirs(self, fold: int) -> list[Path]:
        """Return the run folders of a fold's networks."""
        own = [run.folder for run in self.runs if run.fold == fold]
        return own + [folder for other in self.others.values() for folder in other[fold]]

    def notes(self) -> tuple[str, ...]:
        """Return sentences on the networks that score each case."""
        first = self.folds[0]
        averaged = (
            f"Averaged with {len(runs[first])} of each fold from the study {folder.name} "
            f"({read_setup(runs[first][0]).name})."
            for folder, runs in self.others.items()
        )
        mixed = provenance.differing(
            {
                f"{path.parents[1].name}/{path.name}": provenance.described(provenance.read(path))
                for fold in self.folds
                for path in self.workdirs(fold)
            }
        )
        return (
            "Each case is scored by the networks of the fold that holds it out.",
            *provenance.started_from(read_data(self.runs[0].folder)),
            *averaged,
            *([mixed] if mixed else []),
        )


def crossvalidate(
    config: Mapping[str, Any],
    folder: Path,
    *,
    folds: int | None = None,
    seeds: int = 1,
    mirror: bool = False,
    ensemble: Sequence[Path] = (),
) -> None:
    """Train every fold on every seed, then score all cases by the networks that hold them out.

    The probabilities of a fold's networks are averaged. As in an ablation, repeating the command
    resumes an interrupted study, and several processes may work in one folder.

    Args:
      config: config with the fields of `configs/default.py`, split by case.
      folder: folder of the study; created if needed.
      folds: number of folds, at least 2; by default the config's `data.folds`, or 5 if that is 0.
      seeds: number of networks per fold, with consecutive seeds starting at the config's.
      mirror: whether to average over the four mirror images of every slice, too.
      ensemble: folders of other, finished studies of the same folds, whose networks are averaged
        with those of this study.

    Raises:
      SettingsError: if the config cannot be run, or splits by slice, which leaves no case whole.
      WorkdirError: if a study of `ensemble` cannot be averaged with this one.
      DeviceError, WorkdirError, DataError, StudyError, Interrupted: as in
        `jaxseg.studies.work.complete`.
      OutOfMemoryError: if memory runs out.
    """
    check(config)
    setup = build(config)
    number = folds if folds is not None else setup.split.folds or 5
    if number < 2:
        raise SettingsError(f"--folds: expected at least 2 to cross-validate, got {number}")
    stages = {setup.name: {"name": setup.name}}
    runs = plan_runs(config, stages, folder, seeds=seeds, folds=number)
    if setup.split.kind != "case":
        raise SettingsError(f"data.split: expected case to cross-validate, got {setup.split.kind}")
    study = _Study(runs, _others(folder, ensemble, number), mirror)

    def check_others(cohort: Cohort) -> None:
        held_out = _held_out(runs, cohort)
        for other in study.others.values():
            check_runs(other, held_out, setup.anatomy)

    def write(cohort: Cohort) -> None:
        del cohort  # cases are read on their native grids
        _write(study, folder)

    complete(runs, setup, folder, write, check=check_others)


def _others(folder: Path, ensemble: Sequence[Path], number: int) -> dict[Path, Folds]:
    """Return the runs of the other studies, by study folder."""
    others: dict[Path, Folds] = {}
    for other in ensemble:
        path = other.resolve()
        if path == folder.resolve() or path in others:
            raise WorkdirError(f"{other}: would count twice; expected every study once")
        others[path] = finished_runs(other, number)
    return others


def _held_out(runs: Sequence[Run], cohort: Cohort) -> dict[int, set[str]]:
    """Return the digests of the images that each fold holds out; they do not depend on the seed."""
    splits = {run.fold: run.setup.split for run in runs if run.fold is not None}
    facts = cohort.facts()
    return {
        fold: held_out_images(
            facts | run_data.split_facts(split, cohort, run_data.split_cohort(split, cohort))
        )
        for fold, split in splits.items()
    }


def _write(study: _Study, folder: Path) -> None:
    plain = list(_predict(study))
    inclusions = study.setup.anatomy.inclusions
    # Each fold is decided by what is fitted to the others.
    others = {fold: [p for p in plain if p.fold != fold] for fold in study.folds}
    odds = {fold: fit_odds(cases) for fold, cases in others.items()}
    found = [replace(p, odds=odds[p.fold]) for p in plain]
    bounds = {
        fold: fit_bounds([replace(p, odds=odds[fold]) for p in cases], inclusions)
        for fold, cases in others.items()
    }
    steps: dict[str, tuple[list[NDArray[np.uint8]], tuple[str, ...]]] = {
        "as predicted": ([p.labels for p in plain], ()),
    }
    if inclusions:  # otherwise there is nothing to decide
        steps |= {
            "pathology with unbiased volume": ([p.labels for p in found], (_UNBIASED,)),
            "smaller than in training dropped": (
                [p.large_only for p in found],
                (_UNBIASED, _SMALL),
            ),
            "and doubtful dropped": (
                [drop_doubtful(p, bounds[p.fold]) for p in found],
                (_UNBIASED, _SMALL, _DOUBTFUL),
            ),
        }
    notes = study.notes() + heart_notes({p.name: p.heart for p in found})
    evaluations = {
        step: _evaluation(study, found, maps, notes + more) for step, (maps, more) in steps.items()
    }
    decisions = [
        Decision(p.name, p.fold, tuple(p.expected_dice), bounds[p.fold], odds[p.fold])
        for p in found
    ]
    final = list(steps.values())[-1][0]
    name = folder.resolve().name
    rule = rule_for_others(name, study.setup.anatomy, study.mirror, plain, final)
    texts = crossvalidation_files.files(evaluations, decisions, rule, averaged=bool(study.others))
    texts |= _store_rule(study, folder, rule)
    write_files(folder, texts | figures(list(evaluations.values())[-1]))
    _LOG.info(f"\n{texts['summary.md']}\n{folder}: {', '.join(texts)}, runs")


def _store_rule(study: _Study, folder: Path, rule: CaseDecision) -> dict[str, str]:
    """Write the rule into the run folders if it gains anything; return the study's own file."""
    if study.others:  # bounds for averaged studies fit none of them
        return {}
    if rule.changes_anything:
        file = {case_decision.FILE: rule.json()}
        for run in study.runs:
            write_files(run.folder, file)
        return file
    for place in (folder, *(run.folder for run in study.runs)):  # from an earlier command
        (place / case_decision.FILE).unlink(missing_ok=True)
    return {}


def _predict(study: _Study) -> Iterator[HeldOut]:
    """Predict every case with the networks of the fold that holds it out."""
    for fold in tqdm(study.folds, desc="predicting", unit="fold", disable=None):
        networks = load_networks(study.workdirs(fold))
        yield from predict_fold(fold, networks, study.setup, study.mirror)


def _evaluation(
    study: _Study,
    found: Sequence[HeldOut],
    maps: Sequence[NDArray[np.uint8]],
    notes: tuple[str, ...],
) -> Evaluation:
    anatomy = study.setup.anatomy
    cases = [
        score_case(p.name, labels, p.reference, p.spacing, anatomy)
        for p, labels in zip(found, maps, strict=True)
    ]
    return Evaluation(
        name=study.runs[0].stage,
        checkpoint=f"last; {len(study.folds)} folds, networks averaged in each: "
        f"{len(study.workdirs(study.folds[0]))}",
        mirror=study.mirror,
        anatomy=anatomy,
        notes=notes,
        cases=tuple(sorted(cases, key=lambda case: case.name)),
        centers={p.name: p.heart.center for p in found if p.heart.center is not None},
        made_with=provenance.trained_and_scored(study.runs[0].folder),
    )
