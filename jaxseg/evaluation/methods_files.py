"""Scores of several methods side by side as CSV and Markdown."""

from collections.abc import Mapping
from typing import Any

from jaxseg.evaluation.agreement import agreement_statistics
from jaxseg.evaluation.methods import Method
from jaxseg.evaluation.scores import Evaluation, Statistic, case_statistics
from jaxseg.metrics import Agreement
from jaxseg.reports import tables

_SCORES = ("dsc", "surface_dice")


def files(evaluations: Mapping[Method, Evaluation]) -> dict[str, str]:
    """Return the contents of both files, keyed by file name.

    Args:
      evaluations: evaluations of the same cases; at least one.
    """
    return {"methods.csv": methods_csv(evaluations), "methods.md": methods_markdown(evaluations)}


def methods_csv(evaluations: Mapping[Method, Evaluation]) -> str:
    """Format all statistics in full precision, one row per method, region, cases and quantity.

    A score has mean, std, low and high of its mean, and n; an agreement has the fields of
    `jaxseg.metrics.Agreement`.
    """
    columns = ("mean", "std", "low", "high", "concordance", "correlation", "n")
    rows = []
    for method, evaluation in evaluations.items():
        name = [method.name, method.within or ""]
        for cases, regions in case_statistics(evaluation).items():
            for region, measures in regions.items():
                for score in _SCORES:
                    s = measures[score]
                    numbers = map(tables.number, (s.mean, s.std, s.low, s.high))
                    rows.append([*name, region, cases, score, *numbers, "", "", s.n])
        for entry in agreement_statistics(evaluation):
            quantity = f"difference, {entry['unit']}"
            bias, *others = (tables.number(entry[field]) for field in Agreement._fields[2:])
            chosen = (entry["region"], entry["cases"], quantity)
            rows.append([*name, *chosen, bias, "", *others, entry["n"]])
    return tables.csv_text(["method", "within", "region", "cases", "quantity", *columns], rows)


def methods_markdown(evaluations: Mapping[Method, Evaluation]) -> str:
    """Format a table for each region that lies within another one, with a row for each method."""
    first = next(iter(evaluations.values()))
    scores = {method: case_statistics(evaluation) for method, evaluation in evaluations.items()}
    agreements = {
        method: {(e["region"], e["unit"], e["cases"]): e for e in agreement_statistics(evaluation)}
        for method, evaluation in evaluations.items()
    }
    shares = [region for region, unit, _ in next(iter(agreements.values())) if unit == "%"]
    text = (
        f"# Methods side by side, {len(first.cases)} cases\n\n"
        "DSC in 3D over all cases by the challenge's rule, and over those that hold the region;\n"
        "surface Dice over these, too. Agreement over all cases: bias [limits of agreement] of\n"
        "the share of the myocardium and of the mass, and Lin's concordance correlation.\n"
    )
    header = ["method", "DSC, all", "DSC, holding", "surface Dice", "bias, %", "Lin, %"]
    header += ["bias, g", "Lin, g"]
    for region in dict.fromkeys(shares):
        rows = [
            [
                method.title,
                _mean(scores[method]["all"][region]["dsc"]),
                _mean(scores[method]["holding"][region]["dsc"]),
                _mean(scores[method]["holding"][region]["surface_dice"]),
                *_agreement(agreements[method][region, "%", "all"]),
                *_agreement(agreements[method][region, "g", "all"]),
            ]
            for method in evaluations
        ]
        text += f"\n## {region}\n\n" + tables.markdown(header, rows)
    return text


def _mean(statistic: Statistic) -> str:
    return f"{tables.score(statistic.mean)} ({statistic.n})"


def _agreement(entry: Mapping[str, Any]) -> list[str]:
    bias = tables.fixed(entry["bias"], 1) + tables.interval(entry["low"], entry["high"], 1)
    return [bias, tables.score(entry["concordance"])]
