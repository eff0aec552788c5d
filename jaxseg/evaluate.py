"""Evaluation of a trained network on the native grid: which cases, their scores, the files."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from jaxseg import run_data
from jaxseg.case_scores import CaseScores, score_case
from jaxseg.data import DataError
from jaxseg.evaluation import Evaluation
from jaxseg.loop import Say
from jaxseg.predictor import check_case, make_predictor, presence_rule
from jaxseg.presence import PresenceRule, label_map
from jaxseg.report import evaluation_files
from jaxseg.trained import Trained, check_data, load_run
from jaxseg.workdir import WorkdirError, check_writable, is_same_data, write_files


@dataclass(frozen=True)
class _Selection:
    """What is scored, and why that is fair.

    Attributes:
      folders: of the cases.
      held_out: (slices,) of each case, which of its slices count; None for all.
      own: whether the run's validation took part, on which its best checkpoint was chosen.
      notes: sentences on where the cases come from, for the reader of the scores.
    """

    folders: tuple[Path, ...]
    held_out: tuple[NDArray[np.bool_] | None, ...]
    own: bool
    notes: tuple[str, ...]


def evaluate(
    folder: Path,
    *,
    root: Path | None = None,
    checkpoint: str | None = None,
    mirror: bool = False,
    drop_small: bool = False,
    min_confidence: Sequence[float] = (),
    output: Path | None = None,
    say: Say = print,
) -> Evaluation:
    """Score a run on what it was not trained on, and write tables.

    No case that the run was trained on is scored, except for the held-out slices of a slice split.
    Of `root` the cases are taken whose names the run was not trained on; if it holds exactly the
    run's cases, they must be the very ones, by fingerprint.

    Args:
      folder: workdir of the run, or a bundle exported from it.
      root: folder of cases with labels; default the run's own, which a bundle knows of a phantom
        alone.
      checkpoint: "best" or "last", as `load_run`.
      mirror: average over the mirror images of every slice.
      drop_small: as `presence_rule`.
      min_confidence: as `presence_rule`.
      output: folder of the files; default `evaluation` in the workdir or bundle.
      say: takes each line for the user.

    Returns:
      All scores; `summary.md`, `summary.json`, `cases.csv`, `slices.csv` and `inclusion.csv` hold
      them too.

    Raises:
      WorkdirError: no run that can be read, cases of its names with other content, or files that
        cannot be written.
      SettingsError: settings that do not describe a run, or as `presence_rule`.
      DataError: a case that cannot be scored, as `check_case` says too, or no case to score.

    Warns:
      UserWarning: a case is stored in another orientation than those trained on.
    """
    run = load_run(folder, checkpoint=checkpoint)
    output = output or folder / "evaluation"
    check_writable(output)
    chosen = _select(run, root)
    say(run.describe())
    notes = chosen.notes
    if chosen.own and run.checkpoint == "best":
        notes += ("The checkpoint was chosen on these very slices, so its scores are optimistic.",)
    rule = presence_rule([run], drop_small=drop_small, min_confidence=min_confidence)
    evaluation = Evaluation(
        name=run.settings["name"],
        checkpoint=f"{run.checkpoint}, step {run.step}",
        mirror=mirror,
        anatomy=run.anatomy,
        notes=notes + rule.described(run.anatomy),
        cases=_score(run, chosen, mirror, rule),
    )
    files = evaluation_files.files(evaluation)
    write_files(output, files)
    say(f"\n{files['summary.md']}\n{output}: {', '.join(files)}")
    return evaluation


def _score(
    run: Trained, chosen: _Selection, mirror: bool, rule: PresenceRule
) -> tuple[CaseScores, ...]:
    predict, read = make_predictor([run], mirror=mirror), run_data.reader(run.settings)
    pairs = list(zip(chosen.folders, chosen.held_out, strict=True))
    scores = []
    for folder, held_out in tqdm(pairs, desc="scoring cases", unit="case", disable=None):
        case, reference = read.load_reference(folder)
        check_case([run], case, folder)
        labels = label_map(predict(case), case.spacing, run.anatomy.inclusions, rule)
        scores.append(
            score_case(case.name, labels, reference, case.spacing, run.anatomy, held_out=held_out)
        )
    return tuple(scores)


def _select(run: Trained, root: Path | None) -> _Selection:
    """Choose the cases, without ever choosing what the run has learned from."""
    check_data(run)
    if root is None:
        data = run.settings["data"]
        if not (data["root"] or data["phantom_cases"]):
            raise WorkdirError(
                f"{run.folder}: a bundle does not say where its cases lie; expected "
                "--config.data.root=DIR"
            )
        root = run_data.root(run.settings)
    folders = run_data.reader(run.settings).by_name(root)
    if set(folders) == set(run.data["cases"]):
        return _own_cases(run, root, folders)
    training, validation = (set(run.data[part]["cases"]) for part in ("training", "validation"))
    # The validation slices of a slice split are of patients that the run was trained on.
    by_slice = run.settings["data"]["split"] == "slice"
    learned = training | validation if by_slice else training
    names = [name for name in folders if name not in learned]
    if not names:
        raise DataError(
            f"{root}: the run was trained on cases of all the names here; expected other cases, or "
            f"all {len(run.data['cases'])} of the run's"
        )
    notes = [f"Scored are {len(names)} of the {len(folders)} cases found."]
    if len(names) < len(folders):
        notes.append("The others have names of cases that the run was trained on.")
    own = sum(name in validation for name in names)
    if own:
        notes.append(
            f"{own} have names of the run's validation cases; without all of the run's cases at "
            "hand it cannot be checked that they are the same."
        )
    chosen = tuple(folders[name] for name in names)
    return _Selection(chosen, (None,) * len(names), bool(own), tuple(notes))


def _own_cases(run: Trained, root: Path, folders: dict[str, Path]) -> _Selection:
    """The run's own validation cases, or its validation slices."""
    data = run.settings["data"]
    here = {**run.settings, "data": {**data, "root": str(root), "phantom_cases": 0}}
    cohort = run_data.load_cohort(here)
    if not is_same_data(run.data, cohort.facts()):
        raise WorkdirError(
            f"{run.folder}: the cases in {root} have the names of the run's, but other content or "
            "voxel sizes; expected the run's own, or cases of other names"
        )
    _, held = run_data.split_cohort(run.settings, cohort)
    is_held = np.isin(np.arange(len(cohort)), held)
    masks = {name: is_held[cohort.case_index == k] for k, name in enumerate(cohort.case_names)}
    masks = {name: mask for name, mask in masks.items() if mask.any()}
    notes = [f"Scored are the run's own, held out by {data['split']}; same content as in training."]
    if data["split"] == "slice":
        notes.append(
            f"Only held-out slices count, in 3D too: {len(held)} of the "
            f"{sum(map(len, masks.values()))} slices of these patients, whose other slices the run "
            "was trained on. Scores in 3D are of those parts alone, and compare with no score of "
            "whole, unseen cases; for these train with data.split=case."
        )
    chosen = tuple(folders[name] for name in masks)
    return _Selection(chosen, tuple(masks.values()), True, tuple(notes))
