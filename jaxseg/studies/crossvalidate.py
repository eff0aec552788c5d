"""Cross-validation of a config: every fold, its networks averaged, all cases scored in one table.

Whether a case holds a pathology at all is decided by `jaxseg.presence`, with bounds fitted to the
cases of the other folds. A case takes part in a bound that its own score stands on only through
the networks of those folds, which were trained on it, and through their smallest volumes.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from jaxseg.anatomy import LabelSet
from jaxseg.config import recipe, run_data
from jaxseg.config.settings import SettingsError, check
from jaxseg.data import Cohort, DataError, most_probable
from jaxseg.evaluation.bootstrap import mean_interval
from jaxseg.evaluation.case_scores import score_case
from jaxseg.evaluation.scores import Evaluation
from jaxseg.inference import case_decision
from jaxseg.inference.case_decision import CaseDecision, Cost
from jaxseg.inference.predictor import Prediction, heart_notes, make_predictor, presence_rule
from jaxseg.machine.stdout import Say
from jaxseg.metrics import dice, summarize
from jaxseg.presence import (
    SMALL_DROPPED,
    Inclusions,
    PresenceRule,
    believed,
    confidence_bound,
    core_confidence,
)
from jaxseg.runs import provenance
from jaxseg.runs.trained import Trained, run_settings
from jaxseg.runs.workdir import WorkdirError, read_data, write_files
from jaxseg.studies import crossvalidation_files
from jaxseg.studies.crossvalidation_files import Decision
from jaxseg.studies.networks import (
    Folds,
    check_runs,
    finished_runs,
    held_out_images,
    load_networks,
)
from jaxseg.studies.schedule import Run, plan_runs
from jaxseg.studies.work import complete

_SMALL = f"{SMALL_DROPPED}."
_DOUBTFUL = "So was pathology that the networks are not sure enough of, as the last section says."


@dataclass(frozen=True, eq=False)
class _Predicted:
    """A case as the networks see it that were not trained on it.

    Attributes:
      name: of the case.
      fold: in which it is held out.
      spacing: voxel size in mm.
      reference: its label map.
      labels: the most probable label of every voxel.
      large_only: the same without what is smaller than in any training case.
      confidence: (pairs,) as `core_confidence`.
      rule: its smallest volumes, below which a pathology goes; without bounds.
      heart: where it was found, without the probabilities.
    """

    name: str
    fold: int
    spacing: tuple[float, float, float]
    reference: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    large_only: NDArray[np.uint8]
    confidence: NDArray[np.float64]
    rule: PresenceRule
    heart: Prediction


@dataclass(frozen=True, eq=False)
class _Study:
    """What is cross-validated.

    Attributes:
      runs: of this study.
      others: runs of other studies, whose networks are averaged with its own, by their folders.
      mirror: whether mirror images are averaged, too.
    """

    runs: tuple[Run, ...]
    others: Mapping[Path, Folds]
    mirror: bool

    @property
    def settings(self) -> Mapping[str, Any]:
        """Of the first run; what tells the runs apart is fold and seed."""
        return self.runs[0].settings

    @property
    def folds(self) -> list[int]:
        """The folds in order."""
        return sorted({run.fold for run in self.runs if run.fold is not None})

    def workdirs(self, fold: int) -> list[Path]:
        """Where the networks of a fold lie."""
        own = [run.folder for run in self.runs if run.fold == fold]
        return own + [folder for other in self.others.values() for folder in other[fold]]

    def notes(self) -> tuple[str, ...]:
        """Sentences on whose networks score a case."""
        first = self.folds[0]
        averaged = (
            f"Averaged with {len(runs[first])} of each fold from the study {folder.name} "
            f"({run_settings(runs[first][0])['name']})."
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
    say: Say = print,
) -> None:
    """Train every fold on every seed, then score all cases, each by the networks of its own fold.

    The probabilities of a fold's networks are averaged. The same command goes on where it stopped,
    and several processes may work in one folder, as in an ablation.

    Args:
      config: settings of the shape of `configs/default.py`, split by case.
      folder: of the study; created if needed.
      folds: at least 2; default the config's `data.folds`, or 5 where it has none.
      seeds: networks of a fold, on seeds one apart from the config's on.
      mirror: average over the four mirror images of every slice, too.
      ensemble: folders of other studies, done before, of the same folds; their networks are
        averaged with those of this one.
      say: takes each line for the user.

    Raises:
      SettingsError: settings that cannot be run, or a split by slice, in which no case is whole.
      WorkdirError: a study of `ensemble` that cannot be averaged with.
      WorkdirError, DataError, StudyError, Interrupted: as `jaxseg.studies.work.complete`.
      OutOfMemoryError: memory is spent.
    """
    check(config)
    number = folds if folds is not None else config["data"]["folds"] or 5
    if number < 2:
        raise SettingsError(f"--folds: expected at least 2 to cross-validate, got {number}")
    name = config["name"]
    runs = plan_runs(config, {name: {"name": name}}, folder, seeds=seeds, folds=number)
    if config["data"]["split"] != "case":
        raise SettingsError(
            f"data.split: expected case to cross-validate, got {config['data']['split']}"
        )
    study = _Study(runs, _others(folder, ensemble, number), mirror)

    def check_others(cohort: Cohort) -> None:
        held_out = _held_out(runs, cohort)
        for other in study.others.values():
            check_runs(other, held_out, recipe.anatomy(config))

    def write(cohort: Cohort) -> None:
        del cohort  # cases are read on their own grids
        _write(study, folder, say)

    complete(runs, config, folder, write, check=check_others, say=say)


def _others(folder: Path, ensemble: Sequence[Path], number: int) -> dict[Path, Folds]:
    """Runs of the other studies, by their folders."""
    others: dict[Path, Folds] = {}
    for other in ensemble:
        path = other.resolve()
        if path == folder.resolve() or path in others:
            raise WorkdirError(f"{other}: would count twice; expected every study once")
        others[path] = finished_runs(other, number)
    return others


def _held_out(runs: Sequence[Run], cohort: Cohort) -> dict[int, set[str]]:
    """Digests of the images that each fold holds out, whatever the seed."""
    settings = {run.fold: run.settings for run in runs if run.fold is not None}
    facts = cohort.facts()
    return {
        fold: held_out_images(
            facts | run_data.split_facts(own, cohort, run_data.split_cohort(own, cohort))
        )
        for fold, own in settings.items()
    }


def _write(study: _Study, folder: Path, say: Say) -> None:
    found = list(_predict(study))
    inclusions = recipe.anatomy(study.settings).inclusions
    bounds = {
        fold: _bounds([p for p in found if p.fold != fold], inclusions)
        for fold in {p.fold for p in found}
    }
    steps: dict[str, tuple[list[NDArray[np.uint8]], tuple[str, ...]]] = {
        "as predicted": ([p.labels for p in found], ()),
    }
    if inclusions:  # else there is nothing to decide
        steps |= {
            "smaller than in training dropped": ([p.large_only for p in found], (_SMALL,)),
            "and doubtful dropped": (
                [_sure_only(p, inclusions, bounds[p.fold]) for p in found],
                (_SMALL, _DOUBTFUL),
            ),
        }
    notes = study.notes() + heart_notes({p.name: p.heart for p in found})
    evaluations = {
        step: _evaluation(study, found, maps, notes + more) for step, (maps, more) in steps.items()
    }
    decisions = [Decision(p.name, p.fold, tuple(p.confidence), bounds[p.fold]) for p in found]
    final = list(steps.values())[-1][0]
    rule = _case_decision(study, folder, found, final)
    texts = crossvalidation_files.files(evaluations, decisions, rule, averaged=bool(study.others))
    if inclusions and not study.others:  # bounds of several studies belong to none of them
        texts[case_decision.FILE] = rule.json()
        for run in study.runs:
            write_files(run.folder, {case_decision.FILE: rule.json()})
    write_files(folder, texts)
    say(f"\n{texts['summary.md']}\n{folder}: {', '.join(texts)}, runs")


def _case_decision(
    study: _Study, folder: Path, found: Sequence[_Predicted], final: Sequence[NDArray[np.uint8]]
) -> CaseDecision:
    """The rule for other cases, and what deciding did to the cases of the study: `final`."""
    anatomy = recipe.anatomy(study.settings)
    smallest = zip(*(p.rule.smallest_mm3 for p in found), strict=True)
    return CaseDecision(
        study=folder.resolve().name,
        mirror=study.mirror,
        pairs=case_decision.pair_names(anatomy),
        min_confidence=_bounds(found, anatomy.inclusions),
        smallest_mm3=tuple(
            min((v for v in own if v is not None), default=None) for own in smallest
        ),
        cost=tuple(
            _cost(" + ".join(anatomy.labels[label] for label in inner), inner, found, final)
            for inner, _ in anatomy.inclusions
        ),
    )


def _cost(
    region: str,
    inner: LabelSet,
    found: Sequence[_Predicted],
    final: Sequence[NDArray[np.uint8]],
) -> Cost:
    maps = [(p.labels, after, p.reference) for p, after in zip(found, final, strict=True)]
    before, after, holds = np.array([[np.isin(m, inner).any() for m in row] for row in maps]).T
    dropped = before & ~after
    dsc = np.array([[dice(m, row[2], inner) for m in row[:2]] for row in maps])[holds]
    low = high = [np.nan]
    if holds.any():
        low, high = mean_interval(dsc[:, 1:] - dsc[:, :1], np.arange(len(dsc)))
    predicted, decided = summarize(dsc).mean
    return Cost(
        region=region,
        holding=int(holds.sum()),
        lost=int((dropped & holds).sum()),
        predicted=float(predicted),
        decided=float(decided),
        difference=float(decided - predicted),
        low=float(low[0]),
        high=float(high[0]),
        false=int((before & ~holds).sum()),
        removed=int((dropped & ~holds).sum()),
    )


def _predict(study: _Study) -> Iterator[_Predicted]:
    """Every case, by the networks of the fold that holds it out."""
    for fold in tqdm(study.folds, desc="predicting", unit="fold", disable=None):
        networks = load_networks(study.workdirs(fold))
        yield from _predict_fold(fold, networks, study.settings, study.mirror)


def _predict_fold(
    fold: int, networks: Sequence[Trained], settings: Mapping[str, Any], mirror: bool
) -> Iterator[_Predicted]:
    predict = make_predictor(networks, mirror=mirror)
    inclusions = networks[0].anatomy.inclusions
    rule = presence_rule(networks, drop_small=bool(inclusions))
    # Where the cases lie now, which need not be where they lay in training.
    read = run_data.reader(settings)
    folders = read.by_name(run_data.root(settings))
    for name in networks[0].data["validation"]["cases"]:
        if name not in folders:
            raise DataError(f"{name}: a case of the study that is no longer where its cases lie")
        case, reference = read.load_reference(folders[name])
        prediction = predict(case)
        probabilities = prediction.probabilities
        labels = most_probable(probabilities)
        yield _Predicted(
            name=name,
            fold=fold,
            spacing=case.spacing,
            reference=reference,
            labels=labels,
            large_only=believed(labels, None, case.spacing, inclusions, rule),
            confidence=core_confidence(probabilities, case.spacing, inclusions, rule.smallest_mm3),
            rule=rule,
            heart=prediction.heart(),
        )


def _bounds(found: Sequence[_Predicted], inclusions: Inclusions) -> tuple[float, ...]:
    """The bound of confidence for each pair, as these cases tell."""
    bounds = []
    for k, (inner, _) in enumerate(inclusions):
        rows = []
        for p in found:
            if np.isnan(p.confidence[k]):  # held by no training case of its fold
                continue
            if not np.isin(p.large_only, inner).any():  # nothing to decide
                continue
            score = dice(p.large_only, p.reference, inner, empty=1.0)
            rows.append((p.confidence[k], np.isin(p.reference, inner).any(), score))
        confidence, holds, score = np.array(rows, np.float64).reshape(-1, 3).T
        bounds.append(confidence_bound(confidence, holds > 0, score) if rows else 0.0)
    return tuple(bounds)


def _sure_only(
    p: _Predicted, inclusions: Inclusions, bounds: tuple[float, ...]
) -> NDArray[np.uint8]:
    rule = replace(p.rule, min_confidence=bounds)
    return believed(p.labels, p.confidence, p.spacing, inclusions, rule)


def _evaluation(
    study: _Study,
    found: Sequence[_Predicted],
    maps: Sequence[NDArray[np.uint8]],
    notes: tuple[str, ...],
) -> Evaluation:
    anatomy = recipe.anatomy(study.settings)
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
