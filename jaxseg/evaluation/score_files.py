"""The scores of an evaluation as CSV, JSON and Markdown."""

import json
import math
from collections.abc import Mapping
from typing import Any

from jaxseg.anatomy import pair_name
from jaxseg.evaluation.agreement import agreement_statistics
from jaxseg.evaluation.agreement_files import agreement_csv, agreement_markdown
from jaxseg.evaluation.bootstrap import DRAWS
from jaxseg.evaluation.case_scores import AREAS, MEASURES, SIDES, SURFACE_TOLERANCE
from jaxseg.evaluation.scores import (
    Evaluation,
    Pooled,
    Statistic,
    case_statistics,
    inclusion_statistics,
    pooled_statistics,
    slice_statistics,
)
from jaxseg.metrics import HAUSDORFF_NOTE
from jaxseg.reports import tables

PIXEL_COLUMNS = ("case", "slice", "region", "intersection", "prediction", "reference")
# Measures of the case-wise tables, with header and number of decimals.
_COLUMNS = {
    "dsc": ("DSC", 3),
    "volume_difference_mm3": ("volume difference, mm3", 0),
    "volume_difference_ratio": ("difference / whole", 4),
    "hausdorff_mm": ("Hausdorff, mm", 2),
    "hd95_mm": ("HD95, mm", 2),
    "surface_dice": (f"surface Dice, {SURFACE_TOLERANCE:g} mm", 3),
}


def files(evaluation: Evaluation, more: Mapping[str, Any] | None = None) -> dict[str, str]:
    """Return the contents of all text files, keyed by file name.

    Args:
      evaluation: the scores.
      more: additional entries of summary.json.
    """
    return {
        "slices.csv": slices_csv(evaluation),
        "pixels.csv": pixels_csv(evaluation),
        "cases.csv": cases_csv(evaluation),
        "inclusion.csv": inclusion_csv(evaluation),
        "agreement.csv": agreement_csv(evaluation),
        "summary.json": summary_json(evaluation, more),
        "summary.md": summary_markdown(evaluation),
    }


def slices_csv(evaluation: Evaluation) -> str:
    """Format the DSC of every scored slice; empty where the reference slice lacks the region."""
    names = [name for name, _ in evaluation.anatomy.slice_regions]
    rows = (
        [case.name, int(number), *map(tables.number, scores)]
        for case in evaluation.cases
        for number, scores in zip(case.slices, case.slice_dsc, strict=True)
    )
    return tables.csv_text(["case", "slice", *names], rows)


def pixels_csv(evaluation: Evaluation) -> str:
    """Format the pixel counts behind the pooled DSC, one row per scored slice and region."""
    rows = (
        [case.name, int(number), region, *map(int, values)]
        for case in evaluation.cases
        for number, counts in zip(case.slices, case.slice_counts, strict=True)
        for (region, _), values in zip(evaluation.anatomy.slice_regions, counts, strict=True)
    )
    return tables.csv_text(PIXEL_COLUMNS, rows)


def cases_csv(evaluation: Evaluation) -> str:
    """Format all measures, one row per case and region; empty where a measure is undefined."""
    rows = (
        [case.name, region, len(case.slices), case.num_slices, *map(tables.number, values)]
        for case in evaluation.cases
        for (region, _), values in zip(evaluation.anatomy.case_regions, case.regions, strict=True)
    )
    return tables.csv_text(["case", "region", "slices_scored", "slices", *MEASURES], rows)


def inclusion_csv(evaluation: Evaluation) -> str:
    """Format the areas that violate the inclusion prior, one row per case, pair and side."""
    anatomy = evaluation.anatomy
    rows = (
        [case.name, pair_name(anatomy, pair), side, *map(tables.number, case.inclusion[s, p])]
        for case in evaluation.cases
        for p, pair in enumerate(anatomy.inclusions)
        for s, side in enumerate(SIDES)
    )
    return tables.csv_text(["case", "pair", "of", *AREAS], rows)


def summary_json(evaluation: Evaluation, more: Mapping[str, Any] | None = None) -> str:
    """Format all statistics and `more` in full precision; undefined numbers are null."""
    slices = {name: s._asdict() for name, s in slice_statistics(evaluation).items()}
    cases = {
        group: {
            region: {name: s._asdict() for name, s in measures.items()}
            for region, measures in regions.items()
        }
        for group, regions in case_statistics(evaluation).items()
    }
    content = {
        "name": evaluation.name,
        "checkpoint": evaluation.checkpoint,
        "mirror": evaluation.mirror,
        "notes": list(evaluation.notes),
        "left_out": dict(evaluation.left_out),
        "made_with": evaluation.made_with,
        "num_cases": len(evaluation.cases),
        "num_slices": sum(len(case.slices) for case in evaluation.cases),
        "interval": f"95 % percentile bootstrap over cases, {DRAWS} draws, seed 0",
        "slice_dsc": slices,
        "pooled_dsc": {name: p._asdict() for name, p in pooled_statistics(evaluation).items()},
        "case_scores": cases,
        "agreement": agreement_statistics(evaluation),
        "inclusion": inclusion_statistics(evaluation),
        "heart_centers": {name: list(center) for name, center in evaluation.centers.items()},
        **(more or {}),
    }
    return json.dumps(_without_nan(content), indent=2) + "\n"


def summary_markdown(evaluation: Evaluation) -> str:
    """Format the main tables."""
    slices = slice_statistics(evaluation)
    num_slices = sum(len(case.slices) for case in evaluation.cases)
    mirrored = ", mirror images averaged" if evaluation.mirror else ""
    text = (
        f"# {evaluation.name}: scores on the native grid\n\n"
        f"Checkpoint: {evaluation.checkpoint}{mirrored}. "
        f"Cases: {len(evaluation.cases)}; slices: {num_slices}.\n"
        + "\n".join([*evaluation.notes, *_left_out(evaluation)])
        + "\n"
        "Cells: mean ± standard deviation [95 % interval of the mean] (number of scores); the\n"
        f"interval is a percentile bootstrap over cases, {DRAWS} draws.\n\n"
        "## DSC of slices (the paper's Table 1)\n\n"
    )
    text += tables.markdown(
        ["over", *slices],
        [
            ["slices with the label, mean", *(_cell(s, 3) for s in slices.values())],
            ["all pixels of all slices", *map(_pooled, pooled_statistics(evaluation).values())],
        ],
    )
    titles = {
        "all": "all cases by the challenge's rule (a DSC of 1 where both are empty)",
        "holding": "cases whose reference holds the region",
    }
    for group, regions in case_statistics(evaluation).items():
        header = ["region", *(title for title, _ in _COLUMNS.values())]
        rows = [
            [region, *(_cell(measures[name], d) for name, (_, d) in _COLUMNS.items())]
            for region, measures in regions.items()
        ]
        text += f"\n## Cases in 3D: {titles[group]}\n\n" + tables.markdown(header, rows)
    text += f"\n{HAUSDORFF_NOTE}\n"
    made_with = f"\n{evaluation.made_with}\n" if evaluation.made_with else ""
    text += agreement_markdown(evaluation) + _inclusion_markdown(evaluation)
    return text + made_with


def _left_out(evaluation: Evaluation) -> list[str]:
    """List the cases that are not scored, one line per reason."""
    by_reason: dict[str, list[str]] = {}
    for name, reason in evaluation.left_out.items():
        by_reason.setdefault(reason, []).append(name)
    return [f"Left out ({reason}): {', '.join(names)}." for reason, names in by_reason.items()]


def _inclusion_markdown(evaluation: Evaluation) -> str:
    rows = [
        [entry["pair"], entry["of"], f"{entry['inner_mm2'] / 100:.1f}"]
        + [_share(entry[name]) for name in ("detached_share", "gap_share")]
        for entry in inclusion_statistics(evaluation)
    ]
    if not rows:
        return ""
    header = ["prior", "of", "inner, cm2", "not touching the rest", "holes and cracks"]
    return (
        "\n## The prior: inner lies in outer, without cracks\n\n"
        "Areas relative to that of inner: parts of inner that do not touch the rest of outer;\n"
        "pixels between the two that belong to neither, at most 3 in a row. Correct references\n"
        "have some.\n\n" + tables.markdown(header, rows)
    )


def _cell(s: Statistic, decimals: int) -> str:
    return tables.mean_and_std(s.mean, s.std, s.n, decimals, low=s.low, high=s.high)


def _pooled(pooled: Pooled) -> str:
    return tables.score(pooled.dsc) + tables.interval(pooled.low, pooled.high, 3)


def _share(entry: dict[str, float]) -> str:
    if math.isnan(entry["share"]):
        return "-"
    return f"{entry['share']:.4f}{tables.interval(entry['low'], entry['high'], 4)}"


def _without_nan(value: Any) -> Any:
    """Replace every nan by None, as JSON has no NaN."""
    if isinstance(value, dict):
        return {key: _without_nan(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_without_nan(part) for part in value]
    return None if isinstance(value, float) and math.isnan(value) else value
