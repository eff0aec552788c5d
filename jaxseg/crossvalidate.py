"""Cross-validation of one config: every fold, seeds averaged, all cases scored in one table.

Whether a case holds a pathology at all is decided by `jaxseg.presence`, with bounds fitted to the
cases of the other folds. A case takes part in a bound that its own score stands on only through
the networks of those folds, which were trained on it, and through their smallest volumes.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from jaxseg import recipe
from jaxseg.case_scores import score_case
from jaxseg.data import Cohort, DataError, most_probable
from jaxseg.evaluation import Evaluation
from jaxseg.loop import Say
from jaxseg.metrics import dice
from jaxseg.presence import Inclusions, PresenceRule, believed, confidence_bound, core_confidence
from jaxseg.report import crossvalidation_files
from jaxseg.report.crossvalidation_files import Decision
from jaxseg.settings import SettingsError
from jaxseg.study.networks import finished, fold_networks
from jaxseg.study.plan import Run, plan_runs
from jaxseg.study.work import complete
from jaxseg.trained import Trained, make_predictor, presence_rule
from jaxseg.workdir import write_files

_SMALL = (
    "Pathology of a case that is smaller than in any training case was given to what surrounds it."
)
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
      large: the same without what is smaller than in any training case.
      confidence: (pairs,) as `core_confidence`.
      rule: its smallest volumes, without bounds.
      networks: how many of them there are.
    """

    name: str
    fold: int
    spacing: tuple[float, float, float]
    reference: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    large: NDArray[np.uint8]
    confidence: NDArray[np.float64]
    rule: PresenceRule
    networks: int


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

    The probabilities of a fold's seeds are averaged. The same command goes on where it stopped, and
    several processes may work in one folder, as in an ablation.

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
      WorkdirError, DataError, StudyError, Interrupted: as `jaxseg.study.work.complete`.
      OutOfMemoryError: memory is spent.
    """
    number = folds if folds is not None else config["data"]["folds"] or 5
    if number < 2:
        raise SettingsError(f"--folds: expected at least 2 to cross-validate, got {number}")
    name = config["name"]
    runs = plan_runs(config, {name: {"name": name}}, folder, seeds=seeds, folds=number)
    if config["data"]["split"] != "case":
        raise SettingsError(
            f"data.split: expected case to cross-validate, got {config['data']['split']}"
        )

    for study, fold in product(ensemble, range(number)):  # told before hours of training
        finished(study, fold, number)

    def write(cohort: Cohort) -> None:
        del cohort  # cases are read on their own grids
        _write(runs, folder, ensemble, mirror, say)

    complete(runs, config, folder, write, say=say)


def _write(
    runs: Sequence[Run], folder: Path, ensemble: Sequence[Path], mirror: bool, say: Say
) -> None:
    found = list(_predict(runs, ensemble, mirror))
    inclusions = recipe.anatomy(runs[0].settings).inclusions
    bounds = {
        fold: _bounds([p for p in found if p.fold != fold], inclusions)
        for fold in {p.fold for p in found}
    }
    small = [replace(p.rule, drop_small=True) for p in found]
    sure = [
        replace(rule, min_confidence=bounds[p.fold]) for p, rule in zip(found, small, strict=True)
    ]
    steps = {
        "as predicted": ([p.rule for p in found], ()),
        "smaller than in training dropped": (small, (_SMALL,)),
        "and doubtful dropped": (sure, (_SMALL, _DOUBTFUL)),
    }
    evaluations = {
        step: _evaluation(runs, found, rules, mirror, notes)
        for step, (rules, notes) in steps.items()
    }
    decisions = [Decision(p.name, p.fold, tuple(p.confidence), bounds[p.fold]) for p in found]
    texts = crossvalidation_files.files(evaluations, decisions, _bounds(found, inclusions))
    write_files(folder, texts)
    say(f"\n{texts['summary.md']}\n{folder}: {', '.join(texts)}, runs")


def _predict(runs: Sequence[Run], ensemble: Sequence[Path], mirror: bool) -> Iterator[_Predicted]:
    """Every case, by the networks of the fold that holds it out."""
    folds = sorted({run.fold for run in runs if run.fold is not None})
    for fold in tqdm(folds, desc="predicting", unit="fold", disable=None):
        networks = fold_networks(runs, ensemble, fold)
        yield from _predict_fold(fold, networks, runs[0].settings, mirror)


def _predict_fold(
    fold: int, networks: Sequence[Trained], settings: Mapping[str, Any], mirror: bool
) -> Iterator[_Predicted]:
    predict, rule = (
        make_predictor(networks, mirror=mirror),
        presence_rule(networks, drop_small=True),
    )
    inclusions = networks[0].anatomy.inclusions
    # Where the cases lie now, which need not be where they lay in training.
    read = recipe.reader(settings)
    folders = {read.name(path): path for path in read.find(recipe.data_root(settings))}
    for name in networks[0].data["validation"]["cases"]:
        if name not in folders:
            raise DataError(f"{name}: a case of the study that is no longer where its cases lie")
        case = read.load(folders[name])
        if case.label is None:
            raise DataError(
                f"{folders[name]}: no label map; cross-validation needs one of every case"
            )
        probabilities = predict(case)
        labels = most_probable(probabilities)
        yield _Predicted(
            name=name,
            fold=fold,
            spacing=case.spacing,
            reference=case.label,
            labels=labels,
            large=believed(labels, None, case.spacing, inclusions, rule),
            confidence=core_confidence(probabilities, case.spacing, inclusions, rule.smallest_mm3),
            rule=replace(rule, drop_small=False),
            networks=len(networks),
        )


def _bounds(found: Sequence[_Predicted], inclusions: Inclusions) -> tuple[float, ...]:
    """The bound of confidence for each pair, as these cases tell."""
    bounds = []
    for k, (inner, _) in enumerate(inclusions):
        rows = []
        for p in found:
            if np.isnan(p.confidence[k]):  # held by no training case of its fold
                continue
            if not np.isin(p.large, inner).any():  # nothing to decide
                continue
            score = dice(p.large, p.reference, inner, empty=1.0)
            rows.append((p.confidence[k], np.isin(p.reference, inner).any(), score))
        confidence, holds, score = np.array(rows, np.float64).reshape(-1, 3).T
        bounds.append(confidence_bound(confidence, holds > 0, score) if rows else 0.0)
    return tuple(bounds)


def _evaluation(
    runs: Sequence[Run],
    found: Sequence[_Predicted],
    rules: Sequence[PresenceRule],
    mirror: bool,
    notes: tuple[str, ...],
) -> Evaluation:
    anatomy = recipe.anatomy(runs[0].settings)
    counts = sorted({p.networks for p in found})
    cases = []
    for p, rule in zip(found, rules, strict=True):
        labels = believed(p.labels, p.confidence, p.spacing, anatomy.inclusions, rule)
        cases.append(score_case(p.name, labels, p.reference, p.spacing, anatomy))
    return Evaluation(
        name=runs[0].stage,
        checkpoint=f"last; {len({p.fold for p in found})} folds, networks averaged in each: "
        f"{' or '.join(map(str, counts))}",
        mirror=mirror,
        anatomy=anatomy,
        notes=("Each case is scored by the networks of the fold that holds it out.", *notes),
        cases=tuple(sorted(cases, key=lambda case: case.name)),
    )
