"""The agreement of masses and shares as CSV, Markdown and a Bland-Altman figure."""

from jaxseg.evaluation.agreement import agreement_statistics, quantities
from jaxseg.evaluation.scores import Evaluation
from jaxseg.reports import pictures, tables
from jaxseg.reports.agreement_figure import bland_altman


def figures(evaluation: Evaluation) -> dict[str, bytes]:
    """Draw the agreement as the content of a PNG file, keyed by file name."""
    pairs = {q.title: (q.prediction, q.reference) for q in quantities(evaluation)}
    return {"bland_altman.png": pictures.png(bland_altman(pairs), dpi=110)}


def agreement_csv(evaluation: Evaluation) -> str:
    """Format masses and shares, one row per quantity and case; empty where undefined."""
    rows = (
        [case.name, q.region, q.unit, *map(tables.number, (reference, prediction))]
        for q in quantities(evaluation)
        for case, reference, prediction in zip(
            evaluation.cases, q.reference, q.prediction, strict=True
        )
    )
    return tables.csv_text(["case", "region", "unit", "reference", "prediction"], rows)


def agreement_markdown(evaluation: Evaluation) -> str:
    """Format the section of summary.md on agreement."""
    rows = [
        [
            entry["title"],
            f"{entry['cases']} ({entry['n']})",
            tables.fixed(entry["reference"], 1),
            tables.fixed(entry["bias"], 1)
            + tables.interval(entry["bias_low"], entry["bias_high"], 1),
            f"{tables.fixed(entry['low'], 1)} to {tables.fixed(entry['high'], 1)}",
            tables.fixed(entry["concordance"], 3),
            tables.fixed(entry["correlation"], 3),
        ]
        for entry in agreement_statistics(evaluation)
    ]
    header = ["", "cases", "reference", "bias [95 %]", "limits of agreement", "Lin", "Pearson"]
    return (
        "\n## Agreement of masses and shares with the reference\n\n"
        "Bias: mean of prediction - reference. Limits of agreement: bias ± 1.96 standard\n"
        "deviations of the differences. Lin: concordance correlation. Mass: 1.05 g/ml.\n\n"
        + tables.markdown(header, rows)
    )
