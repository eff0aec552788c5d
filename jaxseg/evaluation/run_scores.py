"""Scores of the cases that a run has not learned from, by one or several methods."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from jaxseg.config.reader import reader
from jaxseg.data import Case, DataError
from jaxseg.data.identity import digests
from jaxseg.evaluation.case_scores import CaseScores, score_case
from jaxseg.evaluation.methods import NETWORK, Method, threshold_labels
from jaxseg.home import expanded
from jaxseg.inference.predictor import Prediction
from jaxseg.inference.segmenter import make_segmenter
from jaxseg.presence import PresenceRule
from jaxseg.runs import unseen
from jaxseg.runs.files import WorkdirError
from jaxseg.runs.trained import Trained
from jaxseg.runs.unseen import judge, judge_own


@dataclass(frozen=True, eq=False)
class RunScores:
    """The scores of a run.

    Attributes:
      scores: scores of each case, by method.
      hearts: predictions without probabilities, by name; empty if no method uses the network.
      notes: sentences on the cases.
      left_out: reason why a case is not scored, by name.
    """

    scores: dict[Method, list[CaseScores]]
    hearts: dict[str, Prediction]
    notes: tuple[str, ...]
    left_out: dict[str, str]


def score_run(
    run: Trained, root: Path | None, methods: Sequence[Method], mirror: bool, rule: PresenceRule
) -> RunScores:
    """Score all cases that the run has not learned from.

    Args:
      run: the run, whose `data.json` is complete.
      root: folder of labeled cases; by default the run's own data set.
      methods: methods that are scored.
      mirror: as in `make_segmenter`.
      rule: as in `make_segmenter`.

    Raises:
      WorkdirError, DataError: as in `jaxseg.evaluation.evaluate.evaluate`.
    """
    segment, read = make_segmenter([run], mirror=mirror, rule=rule), reader(run.setup)
    predicts = any(method.uses_network for method in methods)
    folder = root or _own_root(run)
    scores: dict[Method, list[CaseScores]] = {method: [] for method in methods}
    hearts, scored, left_out, renamed = {}, {}, {}, []
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
        labels = reference
        if predicts:
            labels, prediction = segment(case, path)
            hearts[name] = prediction.heart()
        scored[name] = verdict
        for method, one in _score_case(run, name, case, labels, methods, verdict.slices).items():
            scores[method].append(one)
    if not scored:
        raise DataError(
            f"{folder}: the run was trained on all {len(paths)} cases here, or the one that it "
            "started from was; expected other cases, or the run's with those that it held out"
        )
    notes = unseen.notes(run, scored, [name for name in renamed if name in scored])
    if root is None and (absent := [n for n in run.data["validation"]["cases"] if n not in paths]):
        notes += (f"Held out by the run, but no longer there: {', '.join(absent)}.",)
    return RunScores(scores, hearts, notes, left_out)


def _score_case(
    run: Trained,
    name: str,
    case: Case,
    labels: NDArray[np.uint8],
    methods: Sequence[Method],
    slices: Sequence[int] | None,
) -> dict[Method, CaseScores]:
    """Score a case on its `slices` by each method; `labels` is the label map of the network."""
    reference, anatomy = case.label, run.anatomy
    assert reference is not None
    held_out = None if slices is None else np.isin(np.arange(reference.shape[-1]), slices)
    scores = {}
    for method in methods:
        found = labels if method.uses_network else reference
        if method != NETWORK:
            found = threshold_labels(method, case.image, found, anatomy)
        scores[method] = score_case(
            name, found, reference, case.spacing, anatomy, held_out=held_out
        )
    return scores


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
