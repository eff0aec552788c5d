"""Significance tests between neighboring stages, as a section of the report and as CSV."""

import math

from jaxseg.evaluation.bootstrap import DRAWS
from jaxseg.reports import tables
from jaxseg.reports.document import Section, Table
from jaxseg.studies.ablation.published import display_name
from jaxseg.studies.ablation.statistics import FEWEST_CASES, Comparison, PairedTest


def tests_section(comparison: Comparison) -> Section:
    """Describe the tests and list their results.

    Args:
      comparison: the stages with their tests.
    """
    made = sum(not math.isnan(test.p) for test in comparison.tests)
    text = (
        "Wilcoxon's signed-rank test, two-sided and exact, on patients, since slices of one are "
        "alike: each patient's mean DSC over the slices that hold the label, averaged over seeds. "
        "Patients without a difference are ranked, and their ranks dropped (Pratt). Holm's "
        f"correction is over all {made} tests."
    )
    if made < len(comparison.tests):
        text += (
            f" Below {FEWEST_CASES} patients no outcome could reach p < 0.05, so there is no test."
        )
    text += f"\n\nDifference: mean over patients [95 % bootstrap over patients, {DRAWS} draws]. "
    if len(comparison.seeds) > 1:
        text += (
            "Beside it the 95 % interval over seeds, Student's t, paired by seed. p speaks of "
            "other patients, not of other seeds: where the interval over seeds holds 0, a small p "
            "may be a lucky seed's."
        )
    else:
        text += "With one seed, a small p may be a lucky seed's."
    header = (
        "stage",
        "before",
        "label",
        "patients",
        "better / equal / worse",
        "difference of DSC",
        "over seeds",
        "p",
        "p, Holm",
    )
    rows = tuple(_test_row(test) for test in comparison.tests)
    return Section("Tests between neighboring stages", text, (Table(header, rows),))


def _test_row(test: PairedTest) -> tuple[str, ...]:
    bounds = _signed_bounds(test.low, test.high)
    return (
        display_name(test.later),
        display_name(test.earlier),
        test.region,
        str(test.cases),
        f"{test.better} / {test.equal} / {test.worse}",
        "-" if math.isnan(test.mean) else f"{test.mean:+.3f} {bounds}".strip(),
        _signed_bounds(test.seeds_low, test.seeds_high) or "-",
        _p(test.p),
        _p(test.p_holm),
    )


def _signed_bounds(low: float, high: float) -> str:
    return "" if math.isnan(low) else f"[{low:+.3f}, {high:+.3f}]"


def _p(value: float) -> str:
    if math.isnan(value):
        return "-"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def tests_csv(comparison: Comparison) -> str:
    """Format the tests in long form and full precision, one row per pair of stages and region."""
    header = [
        "earlier",
        "later",
        "region",
        "cases",
        "better",
        "equal",
        "worse",
        "mean_difference",
        "low",
        "high",
        "seeds_low",
        "seeds_high",
        "median_difference",
        "p",
        "p_holm",
    ]
    rows = (
        [t.earlier, t.later, t.region, t.cases, t.better, t.equal, t.worse]
        + [tables.number(value) for value in (t.mean, t.low, t.high, t.seeds_low, t.seeds_high)]
        + [tables.number(value) for value in (t.median, t.p, t.p_holm)]
        for t in comparison.tests
    )
    return tables.csv_text(header, rows)
