"""Evaluation of trained networks on the native grid of their held-out cases, or of other cases."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from jaxseg.config.settings import SettingsError
from jaxseg.evaluation import methods_files, score_files
from jaxseg.evaluation.agreement_files import figures
from jaxseg.evaluation.methods import NETWORK, Method, choose_methods
from jaxseg.evaluation.run_scores import RunScores, score_run
from jaxseg.evaluation.scores import Evaluation
from jaxseg.inference.case_decision import choose_rule
from jaxseg.inference.predictor import Prediction, heart_notes
from jaxseg.presence import PresenceRule
from jaxseg.runs import bundle, provenance
from jaxseg.runs.files import WorkdirError, check_writable, write_files
from jaxseg.runs.trained import Trained, check_data, load_run

_LOG = logging.getLogger(__name__)


def evaluate(
    folders: Path | Sequence[Path],
    *,
    root: Path | None = None,
    methods: Sequence[str] = (),
    within: Sequence[str] = (),
    checkpoint: str | None = None,
    mirror: bool = False,
    drop_small: bool = False,
    min_dice: Sequence[float] = (),
    case_decision: bool = False,
    pathology_odds: float = 1.0,
    output: Path | None = None,
) -> dict[Method, Evaluation]:
    """Score runs on cases that they were not trained on, and write the tables.

    A training case is never scored, except for the held-out slices of a split by slices. Cases are
    recognized by their images, whatever their names. Nothing is written outside `output`: if the
    run's cases are missing, a phantom is not generated again.

    Args:
      folders: run folder, or a bundle exported from one. Several, such as the folds of one config,
        score the cases that each has not learned from, and no case twice.
      root: folder of labeled cases. The default is each run's own data set, whose held-out cases
        must be unchanged since training. A bundle has no data set of its own.
      methods: names of methods, as in `choose_methods`; by default the network.
      within: myocardia that thresholds are applied to, as in `choose_methods`.
      checkpoint: "best" or "last", as in `load_run`.
      mirror: whether to average over the mirror images of every slice.
      drop_small: as in `presence_rule`.
      min_dice: as in `presence_rule`.
      case_decision: as in `choose_rule`.
      pathology_odds: as in `presence_rule`.
      output: folder for the files; by default `evaluation` within the folder of the only run, if it
        is no bundle.

    Returns:
      All scores by method. `summary.md`, `summary.json`, `cases.csv`, `slices.csv`, `pixels.csv`,
      `inclusion.csv` and `agreement.csv` also contain them. Those of a threshold are in a folder of
      the method's name. Of several methods, `methods.md` and `methods.csv` hold them side by side.

    Raises:
      WorkdirError: if a run cannot be read, its own held-out cases have changed, two runs have
        different label sets or score one case, or files cannot be written; also as in
        `choose_rule`.
      SettingsError: if a config does not describe a run, or `output` is None for several runs or a
        bundle; also as in `choose_methods` and `choose_rule`.
      DeviceError: as in `load_run`.
      DataError: if a case cannot be scored, also as in `check_case`, or if no case is left over.
    """
    folders = [folders] if isinstance(folders, Path) else list(folders)
    if output is None and (len(folders) > 1 or bundle.is_bundle(folders[0])):
        # The scores name cases, which a bundle, made to be passed on, must not.
        raise SettingsError("--output: expected a folder for scores of several runs or a bundle")
    runs = [load_run(folder, checkpoint=checkpoint) for folder in folders]
    _check_labels(runs)
    chosen = choose_methods(methods, within, runs[0].anatomy)
    rules = [
        choose_rule(
            [run],
            mirror=mirror,
            drop_small=drop_small,
            min_dice=min_dice,
            case_decision=case_decision,
            odds=pathology_odds,
        )
        for run in runs
    ]
    output = output or folders[0] / "evaluation"
    check_writable(output)
    found = _score_runs(runs, [rule for rule, _ in rules], root, chosen, mirror)
    hearts = {name: heart for one in found for name, heart in one.hearts.items()}
    remarks = heart_notes(hearts)
    for remark in remarks:
        _LOG.warning(remark)
    sentences = (*remarks, *dict.fromkeys(s for _, described in rules for s in described))
    evaluations = {m: _evaluation(m, runs, found, hearts, mirror, sentences) for m in chosen}
    written = [_write(output, method, evaluation) for method, evaluation in evaluations.items()]
    if len(chosen) > 1:
        texts = methods_files.files(evaluations)
        write_files(output, texts)
        written.append(list(texts))
    _LOG.info(f"{output}: {', '.join(name for names in written for name in names)}")
    return evaluations


def _check_labels(runs: Sequence[Trained]) -> None:
    for run in runs[1:]:
        if run.anatomy != runs[0].anatomy:
            raise WorkdirError(
                f"{run.folder}: a run of other labels or regions than {runs[0].folder}; expected "
                "runs of one data set"
            )


def _score_runs(
    runs: Sequence[Trained],
    rules: Sequence[PresenceRule],
    root: Path | None,
    methods: Sequence[Method],
    mirror: bool,
) -> list[RunScores]:
    """Score all runs, no case by two of them; a mean over cases would count it twice."""
    found, known = [], set()
    for run, rule in zip(runs, rules, strict=True):
        check_data(run.folder, run.data)
        _LOG.info(run.describe())
        one = score_run(run, root, methods, mirror, rule)
        names = [case.name for cases in one.scores.values() for case in cases]
        if twice := [name for name in names if name in known]:
            raise WorkdirError(
                f"{run.folder}: scores {twice[0]}, as another run does; expected runs that hold "
                "out different cases, such as the folds of a cross-validation"
            )
        known |= set(names)
        found.append(one)
    return found


def _evaluation(
    method: Method,
    runs: Sequence[Trained],
    found: Sequence[RunScores],
    hearts: Mapping[str, Prediction],
    mirror: bool,
    sentences: tuple[str, ...],
) -> Evaluation:
    """Collect the scores of a method from all runs; `sentences` are on the network's use."""
    cases = sorted((c for one in found for c in one.scores[method]), key=lambda case: case.name)
    scored = {case.name for case in cases}
    left_out = {name: reason for one in found for name, reason in one.left_out.items()}
    steps = dict.fromkeys(f"{run.checkpoint}, step {run.step}" for run in runs)
    notes = tuple(
        f"{run.folder.name}: {note}" if len(runs) > 1 else note
        for run, one in zip(runs, found, strict=True)
        for note in one.notes
    )
    made_with = dict.fromkeys(provenance.trained_and_scored(run.folder) for run in runs)
    if method.uses_network:
        notes += sentences
    return Evaluation(
        name=runs[0].setup.name if method == NETWORK else method.title,
        checkpoint="; ".join(steps) if method.uses_network else "not used",
        mirror=mirror and method.uses_network,
        anatomy=runs[0].anatomy,
        notes=notes + method.notes(),
        cases=tuple(cases),
        centers={
            name: heart.center
            for name, heart in hearts.items()
            if method.uses_network and heart.center is not None
        },
        left_out={name: reason for name, reason in left_out.items() if name not in scored},
        made_with=" ".join(made_with),
    )


def _write(output: Path, method: Method, evaluation: Evaluation) -> list[str]:
    """Write the files of a method, and return their names within `output`."""
    folder = "" if method == NETWORK else method.folder
    content = figures(evaluation) | score_files.files(evaluation)  # the summary comes last
    write_files(output / folder, content)
    return [str(Path(folder) / name) for name in content]
