"""Evaluation of a trained network on the native grid of its held-out cases, or of other cases."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from jaxseg.config.reader import reader
from jaxseg.data import DataError
from jaxseg.data.identity import digests
from jaxseg.evaluation import score_files
from jaxseg.evaluation.case_scores import CaseScores, score_case
from jaxseg.evaluation.scores import Evaluation
from jaxseg.home import expanded
from jaxseg.inference.case_decision import choose_rule
from jaxseg.inference.predictor import Prediction, heart_notes
from jaxseg.inference.segmenter import make_segmenter
from jaxseg.presence import PresenceRule
from jaxseg.runs import provenance, unseen
from jaxseg.runs.files import WorkdirError, check_writable, write_files
from jaxseg.runs.trained import Trained, check_data, load_run
from jaxseg.runs.unseen import judge, judge_own

_LOG = logging.getLogger(__name__)


def evaluate(
    folder: Path,
    *,
    root: Path | None = None,
    checkpoint: str | None = None,
    mirror: bool = False,
    drop_small: bool = False,
    min_confidence: Sequence[float] = (),
    case_decision: bool = False,
    output: Path | None = None,
) -> Evaluation:
    """Score a run on cases that it was not trained on, and write the tables.

    A training case is never scored, except for the held-out slices of a split by slices. Cases are
    recognized by their images, whatever their names. Nothing is written outside `output`: if the
    run's cases are missing, a phantom is not generated again.

    Args:
      folder: run folder, or a bundle exported from one.
      root: folder of labeled cases. The default is the run's own data set, whose held-out cases
        must be unchanged since training. A bundle has no data set of its own.
      checkpoint: "best" or "last", as in `load_run`.
      mirror: whether to average over the mirror images of every slice.
      drop_small: as in `presence_rule`.
      min_confidence: as in `presence_rule`.
      case_decision: as in `choose_rule`.
      output: folder for the files; by default `evaluation` within `folder`.

    Returns:
      All scores, which `summary.md`, `summary.json`, `cases.csv`, `slices.csv`, `pixels.csv` and
      `inclusion.csv` also contain.

    Raises:
      WorkdirError: if the run cannot be read, its own held-out cases have changed, or files cannot
        be written; also as in `choose_rule`.
      SettingsError: if the config does not describe a run; also as in `choose_rule`.
      DeviceError: as in `load_run`.
      DataError: if a case cannot be scored, also as in `check_case`, or if no case is left over.
    """
    run = load_run(folder, checkpoint=checkpoint)
    rule, sentences = choose_rule(
        [run],
        mirror=mirror,
        drop_small=drop_small,
        min_confidence=min_confidence,
        case_decision=case_decision,
    )
    output = output or folder / "evaluation"
    check_writable(output)
    check_data(run)
    _LOG.info(run.describe())
    cases, hearts, notes, left_out = _score(run, root, mirror, rule)
    remarks = heart_notes(hearts)
    for remark in remarks:
        _LOG.warning(remark)
    evaluation = Evaluation(
        name=run.setup.name,
        checkpoint=f"{run.checkpoint}, step {run.step}",
        mirror=mirror,
        anatomy=run.anatomy,
        notes=notes + remarks + sentences,
        cases=tuple(cases),
        centers={name: heart.center for name, heart in hearts.items() if heart.center is not None},
        left_out=left_out,
        made_with=provenance.trained_and_scored(folder),
    )
    files = score_files.files(evaluation)
    write_files(output, files)
    _LOG.info(f"{output}: {', '.join(files)}")
    return evaluation


def _score(
    run: Trained, root: Path | None, mirror: bool, rule: PresenceRule
) -> tuple[list[CaseScores], dict[str, Prediction], tuple[str, ...], dict[str, str]]:
    """Score all cases that the run has not learned from.

    Returns:
      The scores, the heart position of each scored case, notes on the cases, and the reason why
      each of the other cases is left out.
    """
    segment, read = make_segmenter([run], mirror=mirror, rule=rule), reader(run.setup)
    folder = root or _own_root(run)
    scores, hearts, scored, left_out, renamed = [], {}, {}, {}, []
    paths = read.by_name(folder)
    bar = tqdm(paths.items(), desc="scoring cases", unit="case", disable=None)
    for name, path in bar:
        known = run.data["digests"].get(name)
        if root is None and known and (reason := judge_own(run, name).left_out):
            left_out[name] = reason  # skipped before it is read
            continue
        case, reference = read.load_reference(path)
        found = digests(case)
        if known and known["image"] != found.image:
            renamed.append(name)
        if root is None and known and known != found._asdict():
            raise WorkdirError(
                f"{path}: image, voxel size or label map changed since the run was trained; "
                "restore it, or name the folder of its cases as CASES"
            )
        verdict = judge(run, name, found.image)
        if verdict.left_out:
            left_out[name] = verdict.left_out
            continue
        labels, prediction = segment(case, path)
        hearts[name] = prediction.heart()
        held_out = None
        if verdict.slices is not None:
            held_out = np.isin(np.arange(reference.shape[-1]), verdict.slices)
        scored[name] = verdict
        scores.append(
            score_case(name, labels, reference, case.spacing, run.anatomy, held_out=held_out)
        )
    if not scores:
        raise DataError(
            f"{folder}: the run was trained on all {len(paths)} cases here, or the one that it "
            "started from was; expected other cases, "
            "or the run's with those that it held out"
        )
    notes = unseen.notes(run, scored, [name for name in renamed if name in scored])
    if root is None and (absent := [n for n in run.data["validation"]["cases"] if n not in paths]):
        notes += (f"Held out by the run, but no longer there: {', '.join(absent)}.",)
    return scores, hearts, notes, left_out


def _own_root(run: Trained) -> Path:
    """Return the folder of the run's own cases."""
    root = run.setup.source.root
    if root is None:
        raise WorkdirError(
            f"{run.folder}: has no data set of its own; expected CASES, a folder of labeled cases"
        )
    folder = expanded(root, "data.root")
    if not folder.is_dir():
        raise DataError(
            f"{folder}: no such folder; it is the run's own data.root; expected "
            "CASES, the folder where they are now"
        )
    return folder
