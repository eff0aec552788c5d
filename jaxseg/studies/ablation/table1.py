"""Table 1 with the paper's rows for comparison, the case-wise tables and the tests."""

from collections.abc import Sequence
from dataclasses import dataclass

from jaxseg.anatomy import EMIDEC, Anatomy
from jaxseg.config.setup import Setup
from jaxseg.metrics import HAUSDORFF_NOTE
from jaxseg.reports import tables
from jaxseg.reports.document import Section, Table
from jaxseg.studies.ablation import stage_tests
from jaxseg.studies.ablation.published import CASES, PAPER, SOURCE, display_name
from jaxseg.studies.ablation.statistics import (
    BATCH,
    CASE_MEASURES,
    Comparison,
    SeedStatistic,
)

_BATCHES = f"ours, batches of {BATCH}"
# Title, set of cases, measure, decimals and text of each case-wise table.
_CASE_TABLES = (
    (
        "DSC, all cases",
        "all",
        "dsc",
        3,
        "By the challenge's rule: where reference and prediction are both empty the DSC is 1.",
    ),
    (
        "DSC, cases that hold the region",
        "holding",
        "dsc",
        3,
        "Cases whose reference lacks the region are excluded, so finding nothing scores 0.",
    ),
    ("volume difference in mm3, all cases", "all", "volume_difference_mm3", 0, ""),
    (
        "volume difference over the volume of the whole, all cases",
        "all",
        "volume_difference_ratio",
        4,
        "The whole is the reference's largest region around, for the infarct the whole myocardium.",
    ),
    (
        "Hausdorff distance in mm",
        "all",
        "hausdorff_mm",
        1,
        "Defined where reference and prediction both hold the region; a stage that misses a region "
        "in its hard cases has fewer, easier ones here. Their number is the average of the seeds. "
        + HAUSDORFF_NOTE,
    ),
)


@dataclass(frozen=True)
class Protocol:
    """The protocol behind the scores, as described in the report.

    Attributes:
      setup: setup of the first run; the report states what all runs share.
      cases: number of cases of the data set.
      slices: number of slices of the data set.
      phantom: whether the cases are from the phantom.
    """

    setup: Setup
    cases: int
    slices: int
    phantom: bool


def table1_sections(comparison: Comparison, protocol: Protocol) -> tuple[Section, ...]:
    """Build Table 1, the case-wise tables and the tests.

    The paper's rows are included if the scored regions are the paper's. Case-wise tables require
    whole cases; for a split by slices, which scores parts of cases, a sentence replaces them.

    Args:
      comparison: the statistics.
      protocol: the protocol behind them.
    """
    sections = [_table1(comparison, protocol)]
    if comparison.whole_cases:
        regions = protocol.setup.anatomy.case_regions
        published = regions == EMIDEC.case_regions and not protocol.phantom
        sections += [_case_table(comparison, *table, published=published) for table in _CASE_TABLES]
    if len(comparison.stages) > 1:
        sections.append(stage_tests.tests_section(comparison))
    return tuple(sections)


def table1_csv(comparison: Comparison, anatomy: Anatomy) -> str:
    """Format Table 1 in long form and full precision, one row per source, stage and region."""
    rows: list[Sequence[object]] = []
    for stage, regions in comparison.slices.items():
        for source, found in (("ours", regions), (_BATCHES, comparison.batches[stage])):
            for region, statistic in found.items():
                rows.append([source, stage, region, *_cells(statistic), comparison.folds])
        if _is_paper_s(anatomy) and stage in PAPER:
            for region, (mean, std) in zip(regions, PAPER[stage], strict=True):
                rows.append(["paper", stage, region, mean, std, "", "", "", "", ""])
    header = ["source", "stage", "region", "mean", "std", "low", "high", "n", "seeds", "folds"]
    return tables.csv_text(header, rows)


def cases_csv(comparison: Comparison) -> str:
    """Format case-wise scores in long form, one row per set of cases, stage, region and measure."""
    rows = (
        [group, stage, region, measure, *_cells(measures[measure]), comparison.folds]
        for group, stages in comparison.cases.items()
        for stage, regions in stages.items()
        for region, measures in regions.items()
        for measure in CASE_MEASURES
    )
    header = ["cases", "stage", "region", "measure", "mean", "std", "low", "high", "n", "seeds"]
    return tables.csv_text([*header, "folds"], rows)


def _table1(comparison: Comparison, protocol: Protocol) -> Section:
    beside = _is_paper_s(protocol.setup.anatomy)
    cells = [cell for regions in comparison.slices.values() for cell in regions.values()]
    rows = []
    for stage, regions in comparison.slices.items():
        for name, found in ((display_name(stage), regions), (_BATCHES, comparison.batches[stage])):
            rows.append((name, *(_cell(s, 3, comparison) for s in found.values())))
        if beside and stage in PAPER:
            rows.append(("the paper [1]", *(f"{m:.3f} ± {s:.3f}" for m, s in PAPER[stage])))
    paragraphs = [
        "DSC over the validation slices that hold the label. "
        + _reading(comparison, "slices", cells),
        f"{_BATCHES[0].upper()}{_BATCHES[1:]}: the pixels of every {BATCH} slices are pooled, in "
        "the order of validation; mean and standard deviation over the batches that hold the "
        "label. The paper's standard deviations are so small that its numbers may be such means.",
        _stands_on(comparison, protocol),
    ]
    if beside:
        paragraphs.append(_of_the_paper(protocol))
    if not comparison.whole_cases:
        paragraphs.append(
            "Scores of cases in 3D are left out: the split is by slices, so that no case was "
            "scored as a whole. For these, split by case."
        )
    table = Table(("stage", *comparison.slice_regions), tuple(rows))
    return Section("Table 1: DSC of slices", "\n\n".join(paragraphs), (table,))


def _reading(comparison: Comparison, unit: str, cells: Sequence[SeedStatistic]) -> str:
    """Explain the cells of a table."""
    if len(comparison.seeds) == 1:
        return (
            f"Cells: mean ± standard deviation over {unit} (number of {unit}). There is one seed, "
            "so there are no intervals over seeds."
        )
    text = (
        f"Cells: mean ± standard deviation over {unit} [95 % interval] (number of {unit}), mean "
        f"and standard deviation averaged over {len(comparison.seeds)} seeds. The interval is "
        "Student's t over the seeds' means: it covers training anew, not other patients."
    )
    if any(cell.low < 0 or cell.high > 1 for cell in cells):
        text += " It may pass 0 or 1, a sign of too few seeds."
    return text


def _stands_on(comparison: Comparison, protocol: Protocol) -> str:
    setup, grid = protocol.setup, protocol.setup.grid
    split = {
        "case": "by patient",
        "slice": "by slice, with slices of a patient on both sides, so that scores are optimistic",
    }[setup.split.kind]
    if folds := setup.split.folds:
        pooled = "all" if comparison.folds == folds else f"{comparison.folds}"
        split += f"; {folds} folds, {pooled} pooled"
    validated = "all"
    if comparison.num_slices < protocol.slices:
        validated = f"{comparison.num_slices} slices of {comparison.num_cases} cases"
    spacing = f" of {grid.spacing:g} mm" if grid.spacing else ""
    seeds = ", ".join(map(str, comparison.seeds))
    return (
        f"Data: {protocol.cases} cases{' of the phantom' if protocol.phantom else ''} with "
        f"{protocol.slices} slices; validated: {validated}. Split: {split}. "
        f"Seed{'s' if len(comparison.seeds) > 1 else ''}: {seeds}. Training: "
        f"{setup.course.epochs} epochs on a grid of {grid.size[0]} x {grid.size[1]} "
        f"pixels{spacing}. The last epoch is scored, never one chosen on the validation slices, "
        "on the cases' native grids."
    )


def _of_the_paper(protocol: Protocol) -> str:
    text = (
        f"[1] {SOURCE}: EMIDEC, one split by slice (639 to train, 69 to validate), 400 epochs. It "
        "does not say how many seeds, which epoch, or what its standard deviation is taken over."
    )
    if protocol.phantom:
        text += " Its cases are patients, ours are synthetic: the two do not compare."
    return text


def _case_table(
    comparison: Comparison,
    title: str,
    group: str,
    measure: str,
    decimals: int,
    text: str,
    *,
    published: bool,
) -> Section:
    rows = [
        (display_name(stage), *(_cell(m[measure], decimals, comparison) for m in regions.values()))
        for stage, regions in comparison.cases[group].items()
    ]
    paragraphs = [text] if text else []
    if group == "all" and measure == "dsc":
        cells = [
            m[measure] for regions in comparison.cases[group].values() for m in regions.values()
        ]
        paragraphs.insert(0, _reading(comparison, "cases", cells))
        if published:
            rows += [(name, *values) for name, values in CASES.items()]
            paragraphs.append(
                "Published rows are for orientation: with other splits and training sets, and they "
                "may count empty regions differently. Each names its source; values "
                "quoted by others were not checked against the original."
            )
    table = Table(("stage", *comparison.case_regions), tuple(rows))
    return Section(f"Cases in 3D: {title}", "\n\n".join(paragraphs), (table,))


def _is_paper_s(anatomy: Anatomy) -> bool:
    return anatomy.slice_regions == EMIDEC.slice_regions


def _cell(s: SeedStatistic, decimals: int, comparison: Comparison) -> str:
    count = f"{round(s.n, 1):g}"
    # Some seeds may have no score, as a distance is undefined where nothing is predicted.
    if 0 < s.seeds < len(comparison.seeds):
        count += f", {s.seeds} of {len(comparison.seeds)} seeds"
    return tables.mean_and_std(s.mean, s.std, count, decimals, low=s.low, high=s.high)


def _cells(statistic: SeedStatistic) -> list[str]:
    numbers = [tables.number(value) for value in statistic[:4]]
    return [*numbers, f"{statistic.n:.6g}", str(statistic.seeds)]
