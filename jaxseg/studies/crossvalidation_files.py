"""The results of a cross-validation as CSV, JSON and Markdown, with the decisions on presence."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from jaxseg.anatomy import pair_name
from jaxseg.evaluation import score_files
from jaxseg.evaluation.scores import Evaluation, case_statistics
from jaxseg.inference.case_decision import CaseDecision, Cost
from jaxseg.reports import tables


@dataclass(frozen=True)
class Decision:
    """The expected DSC of each inclusion pair's inner region in a case, and its bound.

    Attributes:
      case: name of the case.
      fold: fold that holds it out.
      expected_dice: by pair, from `jaxseg.presence.expected_dice`.
      bounds: bounds by pair, fitted to the other folds.
      odds: factor of the odds of pathology, fitted to the other folds.
    """

    case: str
    fold: int
    expected_dice: tuple[float, ...]
    bounds: tuple[float, ...]
    odds: float


def files(
    evaluations: Mapping[str, Evaluation],
    decisions: Sequence[Decision],
    rule: CaseDecision,
    *,
    averaged: bool = False,
) -> dict[str, str]:
    """Return the contents of all files, keyed by file name.

    Args:
      evaluations: evaluations of the same cases after each step of the decision on presence; the
        last one is final.
      decisions: decisions on every case.
      rule: rule fitted to all folds, for cases outside the study.
      averaged: whether networks of other studies were averaged in; the rule is then not stored
        with any run.
    """
    final = list(evaluations.values())[-1]
    presence = _presence(evaluations, decisions, rule)
    texts = score_files.files(final, {"presence": presence})
    texts["presence.csv"] = presence_csv(final, decisions)
    if final.anatomy.inclusions:
        texts["summary.md"] += _presence_markdown(presence, rule, averaged=averaged)
    return texts


def presence_csv(evaluation: Evaluation, decisions: Sequence[Decision]) -> str:
    """Format expected DSC and bound, one row per case and pair, and whether the bound is reached.

    A region that reaches the bound may still be dropped: because it is too small, because it is not
    predicted, or together with the enclosing pair.
    """
    names = [pair_name(evaluation.anatomy, pair) for pair in evaluation.anatomy.inclusions]
    rows = (
        [d.case, d.fold, name, *map(tables.number, (expected_dice, bound)), expected_dice >= bound]
        for d in sorted(decisions, key=lambda d: d.case)
        for name, expected_dice, bound in zip(names, d.expected_dice, d.bounds, strict=True)
    )
    return tables.csv_text(["case", "fold", "pair", "expected_dice", "bound", "reached"], rows)


def _presence(
    evaluations: Mapping[str, Evaluation], decisions: Sequence[Decision], rule: CaseDecision
) -> dict[str, Any]:
    """Collect the entry of summary.json on presence: DSC after every step, and bounds by pair."""
    anatomy = next(iter(evaluations.values())).anatomy
    steps = {step: case_statistics(evaluation) for step, evaluation in evaluations.items()}
    return {
        "pairs": [pair_name(anatomy, pair) for pair in anatomy.inclusions],
        "odds": {
            "without_fold": {d.fold: d.odds for d in sorted(decisions, key=_fold)},
            "for_other_cases": rule.odds,
        },
        "min_dice": {
            "without_fold": {d.fold: list(d.bounds) for d in sorted(decisions, key=_fold)},
            "for_other_cases": list(rule.min_dice),
        },
        "cost": [asdict(cost) for cost in rule.cost],
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


def _presence_markdown(presence: Mapping[str, Any], rule: CaseDecision, *, averaged: bool) -> str:
    dsc, bounds = presence["dsc"], presence["min_dice"]
    regions = list(next(iter(dsc.values()))["all"])
    rows = [
        [step, *(_both(found["all"][r], found["holding"][r]) for r in regions)]
        for step, found in dsc.items()
    ]
    odds = presence["odds"]
    chosen = {
        f"all but fold {fold}": (odds["without_fold"][fold], *own)
        for fold, own in bounds["without_fold"].items()
    }
    chosen["all folds, for other cases"] = (odds["for_other_cases"], *bounds["for_other_cases"])
    return (
        "\n## Presence of each pathology\n\n"
        "The tables above are of the last step. DSC in 3D: all cases by the challenge's rule /\n"
        "the cases with the region.\n\n"
        + tables.markdown(["step", *regions], rows)
        + "\nThe odds of pathology are multiplied by a factor with which its total volume is that\n"
        "of the references, over the cases that hold some and before any is dropped. An inner\n"
        "region is doubtful if its DSC expected from the probabilities is below a bound. Above\n"
        "it, keeping the region is expected to score higher. Factor and bounds are fitted to\n"
        "the other folds:\n\n"
        + tables.markdown(
            ["chosen on", "factor of the odds", *presence["pairs"]],
            [[name, *(f"{number:.3f}" for number in own)] for name, own in chosen.items()],
        )
        + _cost_markdown(rule.cost)
        + _recommended(rule, averaged=averaged)
    )


def _cost_markdown(costs: Sequence[Cost]) -> str:
    header = (
        "region",
        "hold it",
        "lost",
        "DSC as predicted",
        "DSC decided",
        "difference [95 %]",
        "lack it, some predicted",
        "removed",
    )
    rows = [
        [
            c.region,
            c.holding,
            c.lost,
            tables.score(c.predicted),
            tables.score(c.decided),
            "-" if math.isnan(c.low) else f"{c.difference:+.3f} [{c.low:+.3f}, {c.high:+.3f}]",
            c.false,
            c.removed,
        ]
        for c in costs
    ]
    return (
        "\nWhat all steps do together, every case decided by what the other folds give: true\n"
        "pathologies that are lost, the mean DSC over the cases that hold the region, and false\n"
        "ones that are removed. The interval is a bootstrap over cases; networks of the other\n"
        "folds were trained on the case that is decided, so that new cases may cost more.\n\n"
        + tables.markdown(header, [[str(cell) for cell in row] for row in rows])
    )


def _recommended(rule: CaseDecision, *, averaged: bool) -> str:
    if not rule.changes_anything:
        return "\nThe factor is 1 and no bound is above 0, so that no rule is recommended.\n"
    flags = "--case_decision"
    if averaged:
        bounds = (f"--min_dice={bound:.5f}" for bound in rule.min_dice)
        flags = f"--pathology_odds={rule.odds:.5f} --drop_small {' '.join(bounds)}"
    return (
        "\nFor other cases, use `python -m jaxseg predict` with all networks of one fold, each as\n"
        f"`--run`, and `--checkpoint=last{' --mirror' if rule.mirror else ''} {flags}`.\n"
        "Factor and bounds belong to these networks. If networks of several folds are averaged,\n"
        "the expected DSC is lower, and the bounds are approximate.\n"
    )


def _both(everything: Mapping[str, Any], holding: Mapping[str, Any]) -> str:
    means = (tables.score(group["mean"]) for group in (everything, holding))
    return f"{' / '.join(means)} ({holding['n']})"
