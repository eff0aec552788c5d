"""Table 1 from given statistics."""

import csv
import dataclasses
import io
import math
import re

import pytest

from configs import baseline
from jaxseg.anatomy import EMIDEC, Anatomy
from jaxseg.config.settings import replace
from jaxseg.config.setup import build
from jaxseg.metrics import HAUSDORFF_NOTE
from jaxseg.reports.document import Table, markdown
from jaxseg.studies.ablation import published, stage_tests, table1
from jaxseg.studies.ablation.statistics import CASE_MEASURES, Comparison, PairedTest, SeedStatistic

NAN = math.nan
STAGES = ("baseline", "attention", "awce", "awce_penalty")
LV = SeedStatistic(0.9189, 0.0441, 0.9049, 0.9331, 111.0, 3)
POOLED = SeedStatistic(0.9412, 0.0123, 0.9301, 0.9523, 7.0, 3)
NEVER = SeedStatistic(NAN, NAN, NAN, NAN, 0.0, 0)
RARE = SeedStatistic(12.34, NAN, NAN, NAN, 2 / 3, 1)


def protocol(*, anatomy=EMIDEC, phantom=False, **fields):
    """The protocol of a config; `fields` replace some of it, with __ for the dot."""
    wanted = {
        "data.split": "case", "data.folds": 5, "train.epochs": 20, "grid.size": [64, 48],
        "grid.spacing": 2.1,
    } | {name.replace("__", "."): value for name, value in fields.items()}  # fmt: skip
    setup = build(replace(baseline.get_config("emidec").to_dict(), wanted))
    setup = dataclasses.replace(setup, anatomy=anatomy)
    return table1.Protocol(setup, cases=80, slices=569, phantom=phantom)


def pair(earlier, later, region, **changes):
    test = PairedTest(
        earlier, later, region, better=9, equal=1, worse=2, mean=0.0123, low=-0.0011, high=0.0257,
        seeds_low=-0.02, seeds_high=0.0446, median=0.01, p=0.0049, p_holm=0.0588,
    )  # fmt: skip
    return test._replace(**changes)


def comparison(stages=STAGES, anatomy=EMIDEC, **changes):
    slices, cases = (
        tuple(name for name, _ in regions)
        for regions in (anatomy.slice_regions, anatomy.case_regions)
    )
    by_measure = dict.fromkeys(CASE_MEASURES, LV) | {"hausdorff_mm": RARE}
    by_stage = {stage: dict.fromkeys(cases, by_measure) for stage in stages}
    made = Comparison(
        stages=stages, seeds=(0, 1, 2), folds=1, slice_regions=slices, case_regions=cases,
        num_cases=16, num_slices=111, whole_cases=True,
        slices={stage: dict.fromkeys(slices, LV) for stage in stages},
        batches={stage: dict.fromkeys(slices, POOLED) for stage in stages},
        cases={"all": by_stage, "holding": by_stage},
        tests=(
            pair("baseline", "attention", "LV"),
            pair("baseline", "attention", "NoR", p=NAN, p_holm=NAN, low=NAN, high=NAN),
            pair("attention", "awce", "LV", p=1e-5, p_holm=0.0009, seeds_low=NAN, seeds_high=NAN),
            pair("attention", "awce", "NoR", better=0, equal=0, worse=0, mean=NAN, low=NAN, p=NAN),
        ),
    )  # fmt: skip
    return dataclasses.replace(made, **changes)


def sections(made, **fields):
    return {s.title: s for s in table1.table1_sections(made, protocol(**fields))}


def rows(section):
    (table,) = section.content
    assert isinstance(table, Table)
    return table.rows


TITLE = "Table 1: DSC of slices"
DSC = "Cases in 3D: DSC, all cases"
HAUSDORFF = "Cases in 3D: Hausdorff distance in mm"
TESTS = "Tests between neighboring stages"


def test_published_numbers_of_the_paper():
    """The paper's table, in its own order of rows."""
    text = """\
        baseline 0.955 0.009 0.871 0.045 0.622 0.080 0.246 0.102
        attention 0.962 0.009 0.900 0.033 0.718 0.067 0.354 0.130
        attention+AWCE+penalty 0.970 0.007 0.916 0.029 0.747 0.082 0.538 0.143
        attention+AWCE 0.971 0.014 0.926 0.029 0.769 0.082 0.535 0.153"""
    expected = {line.split()[0]: list(map(float, line.split()[1:])) for line in text.splitlines()}
    found = {
        published.NAMES.get(stage, stage): [number for cell in cells for number in cell]
        for stage, cells in published.PAPER.items()
    }
    assert found == expected
    assert tuple(published.PAPER) == STAGES


def test_table_1():
    section = sections(comparison())[TITLE]
    table = section.content[0]
    assert isinstance(table, Table)
    assert table.header == ("stage", "LV", "Myo", "Inf", "NoR")
    ours, pooled = "0.919 ± 0.044 [0.905, 0.933] (111)", "0.941 ± 0.012 [0.930, 0.952] (7)"
    assert table.rows[:3] == (
        ("baseline", ours, ours, ours, ours),
        ("ours, batches of 16", pooled, pooled, pooled, pooled),
        ("the paper [1]", "0.955 ± 0.009", "0.871 ± 0.045", "0.622 ± 0.080", "0.246 ± 0.102"),
    )
    assert [row[0] for row in table.rows[3:]] == [
        name
        for stage in ("attention", "attention+AWCE", "attention+AWCE+penalty")
        for name in (stage, "ours, batches of 16", "the paper [1]")
    ]
    for fact in ("80 cases", "569 slices", "111 slices", "16 cases", "5 folds", "0, 1, 2",
                 "20 epochs", "64 x 48", "2.1 mm", "3 seeds", published.SOURCE):  # fmt: skip
        assert fact in section.text


def test_the_text_states_the_protocol():
    one = comparison(seeds=(4,), folds=5, num_slices=569)
    assert "[95 %" not in sections(one)[TITLE].text
    fields = {"data__split": "slice", "data__folds": 0, "grid__spacing": 0.0}
    text = sections(comparison(), phantom=True, **fields)[TITLE].text
    assert " mm." not in text
    for word in ("phantom", "synthetic", "optimistic"):
        assert word in text
        assert word not in sections(one)[TITLE].text


@pytest.mark.parametrize("bounds", [{"low": -0.01}, {"high": 1.01}])
def test_an_interval_outside_0_to_1_is_explained(bounds):
    made = comparison()
    wide = {"baseline": dict.fromkeys(made.slice_regions, LV._replace(**bounds))}
    measures = dict.fromkeys(CASE_MEASURES, LV) | {"dsc": LV._replace(**bounds)}
    by_stage = {stage: dict.fromkeys(made.case_regions, measures) for stage in made.stages}
    for changes, explained in (
        ({"slices": wide}, TITLE), ({"cases": dict.fromkeys(made.cases, by_stage)}, DSC),
    ):  # fmt: skip
        found = sections(comparison(**changes))
        for title in (TITLE, DSC):
            longer = len(found[title].text) > len(sections(made)[title].text)
            assert longer == (title == explained)


def test_partial_cases_have_no_scores_in_3d():
    found = sections(comparison(whole_cases=False))
    assert list(found) == [TITLE, TESTS]


def test_published_scores_are_shown_beside_ours():
    found = sections(comparison())
    assert list(found)[1:-1] == [
        DSC, "Cases in 3D: DSC, cases that hold the region",
        "Cases in 3D: volume difference in mm3, all cases",
        "Cases in 3D: volume difference over the volume of the whole, all cases", HAUSDORFF,
    ]  # fmt: skip
    ours = "0.919 ± 0.044 [0.905, 0.933] (111)"
    assert rows(found[DSC])[3] == ("attention+AWCE+penalty", ours, ours, ours)
    assert rows(found[DSC])[4:] == tuple((name, *dsc) for name, dsc in published.CASES.items())
    assert all(len(rows(found[title])) == 4 for title in list(found)[2:-1])
    phantom = sections(comparison(), phantom=True)
    assert len(rows(phantom[DSC])) == 4  # synthetic cases do not compare


def test_every_published_row_names_its_source():
    assert all(re.search(r"arXiv:\d{4}\.\d{5}|\d{4}, \d+\(\d+\):", r) for r in published.CASES)
    assert ("0.8786", "0.7124", "0.7851") in published.CASES.values()  # arXiv:2012.14128


def test_cells_have_the_number_of_seeds():
    hausdorff = sections(comparison())[HAUSDORFF]
    assert rows(hausdorff)[0][1] == "12.3 (0.7, 1 of 3 seeds)"
    assert HAUSDORFF_NOTE in hausdorff.text
    never = {"baseline": dict.fromkeys(("LV", "Myo", "Inf", "NoR"), NEVER)}
    assert rows(sections(comparison(slices=never))[TITLE])[0][1:] == ("- (0)",) * 4


def test_published_rows_are_shown_for_emidec_only():
    """Not even with the paper's names, if they stand for other labels."""
    regions = (("LV", (1,)), ("Myo", (3,)), ("Inf", (2,)), ("NoR", (4,)))
    other = Anatomy(EMIDEC.labels, (), regions, (("Infarct", (2,)),))
    made = comparison(anatomy=other)
    found = sections(made, anatomy=other)
    assert [row[0] for row in rows(found[TITLE])][::2] == [
        published.NAMES.get(s, s) for s in STAGES
    ]
    assert "[1]" not in found[TITLE].text
    assert len(rows(found[DSC])) == 4
    assert "paper" not in table1.table1_csv(made, other)


def test_own_stages_have_no_published_row():
    made = comparison(("awce", "dense"), tests=())
    names = [row[0] for row in rows(sections(made)[TITLE])]
    batches = "ours, batches of 16"
    assert names == ["attention+AWCE", batches, "the paper [1]", "dense", batches]


def test_rows_of_the_paired_tests():
    section = sections(comparison())[TESTS]
    difference, seeds = "+0.012 [-0.001, +0.026]", "[-0.020, +0.045]"
    counts, none = "9 / 1 / 2", "0 / 0 / 0"
    assert TESTS not in sections(comparison(("baseline",), tests=()))
    assert rows(section) == (
        ("attention", "baseline", "LV", "12", counts, difference, seeds, "0.005", "0.059"),
        ("attention", "baseline", "NoR", "12", counts, "+0.012", seeds, "-", "-"),
        ("attention+AWCE", "attention", "LV", "12", counts, difference, "-", "< 0.001", "< 0.001"),
        ("attention+AWCE", "attention", "NoR", "0", none, "-", seeds, "-", "0.059"),
    )


def test_markdown_holds_all_sections_in_order():
    text = markdown("Ablation", table1.table1_sections(comparison(), protocol()))
    titles = [line[3:] for line in text.splitlines() if line.startswith("## ")]
    assert titles == list(sections(comparison()))


def lines(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_table1_as_csv():
    found = lines(table1.table1_csv(comparison(), EMIDEC))
    assert len(found) == 3 * 4 * 4
    assert found[4]["source"] == "ours, batches of 16"
    assert found[4]["mean"] == "0.9412"
    assert found[0] == {
        "source": "ours", "stage": "baseline", "region": "LV", "mean": "0.9189", "std": "0.0441",
        "low": "0.9049", "high": "0.9331", "n": "111", "seeds": "3", "folds": "1",
    }  # fmt: skip
    empty = dict.fromkeys(("low", "high", "n", "seeds", "folds"), "")
    assert found[-1] == empty | {
        "source": "paper", "stage": "awce_penalty", "region": "NoR", "mean": "0.538",
        "std": "0.143",
    }  # fmt: skip


def test_cases_as_csv():
    found = lines(table1.cases_csv(comparison()))
    assert len(found) == 2 * 4 * 3 * 5
    assert found[3] == {
        "cases": "all", "stage": "baseline", "region": "Myocardium", "measure": "hausdorff_mm",
        "mean": "12.34", "std": "", "low": "", "high": "", "n": "0.666667", "seeds": "1",
        "folds": "1",
    }  # fmt: skip
    assert [line["cases"] for line in found[::60]] == ["all", "holding"]


def test_tests_as_csv():
    found = lines(stage_tests.tests_csv(comparison()))
    assert found[0] == {
        "earlier": "baseline", "later": "attention", "region": "LV", "cases": "12", "better": "9",
        "equal": "1", "worse": "2", "mean_difference": "0.0123", "low": "-0.0011",
        "high": "0.0257", "seeds_low": "-0.02", "seeds_high": "0.0446",
        "median_difference": "0.01", "p": "0.0049", "p_holm": "0.0588",
    }  # fmt: skip
    assert (found[1]["p"], found[2]["p"]) == ("", "1e-05")
