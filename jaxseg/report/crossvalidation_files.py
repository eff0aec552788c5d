"""A cross-validation as CSV, JSON and Markdown: an evaluation, and how presence was decided."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jaxseg.evaluation import Evaluation, case_statistics, pair_name
from jaxseg.report import evaluation_files, tables


@dataclass(frozen=True)
class Decision:
    """How sure the networks are that a case holds each pair's inner region.

    Attributes:
      case: its name.
      fold: in which it is held out.
      confidence: `jaxseg.presence.core_confidence` by pair.
      bounds: by pair, chosen on the other folds.
    """

    case: str
    fold: int
    confidence: tuple[float, ...]
    bounds: tuple[float, ...]


def files(
    evaluations: Mapping[str, Evaluation],
    decisions: Sequence[Decision],
    bounds: Sequence[float],
) -> dict[str, str]:
    """Texts of all files by name.

    Args:
      evaluations: of the same cases after every step of deciding presence, the last one final.
      decisions: of every case.
      bounds: by pair, chosen on all folds: for cases that took part in none.
    """
    final = list(evaluations.values())[-1]
    presence = _presence(evaluations, decisions, bounds)
    texts = evaluation_files.files(final, {"presence": presence})
    texts["presence.csv"] = presence_csv(final, decisions)
    if final.anatomy.inclusions:
        texts["summary.md"] += _presence_markdown(presence, mirror=final.mirror)
    return texts


def presence_csv(evaluation: Evaluation, decisions: Sequence[Decision]) -> str:
    """One line a case and pair: confidence, bound, and whether it is as sure as that.

    What is sure may still be too small, not be there, or go with a pair around it.
    """
    names = [pair_name(evaluation.anatomy, pair) for pair in evaluation.anatomy.inclusions]
    rows = (
        # What no training case holds has no confidence, and stays.
        [d.case, d.fold, name, *map(tables.number, (confidence, bound)), not confidence < bound]
        for d in sorted(decisions, key=lambda d: d.case)
        for name, confidence, bound in zip(names, d.confidence, d.bounds, strict=True)
    )
    return tables.csv_text(["case", "fold", "pair", "confidence", "bound", "sure"], rows)


def _presence(
    evaluations: Mapping[str, Evaluation], decisions: Sequence[Decision], bounds: Sequence[float]
) -> dict[str, Any]:
    """What summary.json tells of presence: DSC after every step, and bounds by pair."""
    anatomy = next(iter(evaluations.values())).anatomy
    steps = {step: case_statistics(evaluation) for step, evaluation in evaluations.items()}
    return {
        "pairs": [pair_name(anatomy, pair) for pair in anatomy.inclusions],
        "min_confidence": {
            "without_fold": {d.fold: list(d.bounds) for d in sorted(decisions, key=_fold)},
            "for_other_cases": list(bounds),
        },
        "dsc": {
            step: {
                group: {region: measures["dsc"]._asdict() for region, measures in regions.items()}
                for group, regions in found.items()
            }
            for step, found in steps.items()
        },
    }


def _fold(decision: Decision) -> int:
    return decision.fold


def _presence_markdown(presence: Mapping[str, Any], *, mirror: bool) -> str:
    dsc, bounds = presence["dsc"], presence["min_confidence"]
    regions = list(next(iter(dsc.values()))["all"])
    rows = [
        [step, *(_both(found["all"][r], found["holding"][r]) for r in regions)]
        for step, found in dsc.items()
    ]
    chosen = {f"all but fold {fold}": own for fold, own in bounds["without_fold"].items()}
    chosen["all folds, for other cases"] = bounds["for_other_cases"]
    # Five decimals: what networks are sure of lies near 1.
    flags = " ".join(f"--min_confidence={bound:.5f}" for bound in bounds["for_other_cases"])
    return (
        "\n## Whether a case holds it at all\n\n"
        "The tables above are of the last step. DSC in 3D: all cases by the challenge's rule /\n"
        "those that hold the region.\n\n"
        + tables.markdown(["step", *regions], rows)
        + "\nDoubtful is an inner region whose core, its most probable voxels that make up a\n"
        "quarter of its smallest volume in training, has a mean probability below a bound. From\n"
        "it on keeping is worth more than dropping, as the cases of the other folds tell:\n\n"
        + tables.markdown(
            ["chosen on", *presence["pairs"]],
            [[name, *(f"{bound:.5f}" for bound in own)] for name, own in chosen.items()],
        )
        + "\nFor other cases, with `--mode=predict` and all networks of one fold (`--workdir`,\n"
        f"`--ensemble`): `--checkpoint=last{' --mirror' if mirror else ''} --drop_small {flags}`.\n"
        "Several folds averaged are less sure, and these bounds are then near, not fitted.\n"
    )


def _both(everything: Mapping[str, Any], holding: Mapping[str, Any]) -> str:
    means = (tables.score(group["mean"]) for group in (everything, holding))
    return f"{' / '.join(means)} ({holding['n']})"
