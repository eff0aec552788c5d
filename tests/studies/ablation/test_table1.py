"""Table 1 to the letter, from statistics made by hand."""

import csv
import dataclasses
import io
import math
import re
from pathlib import Path

import pytest

from jaxseg.anatomy import EMIDEC, Anatomy
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
PROTOCOL = table1.Protocol(
    split="case", folds=5, epochs=20, grid=(64, 48), spacing=2.1, cases=80, slices=569,
    phantom=False,
)  # fmt: skip


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
        stages=stages,
        seeds=(0, 1, 2),
        folds=1,
        slice_regions=slices,
        case_regions=cases,
        num_cases=16,
        num_slices=111,
        whole_cases=True,
        slices={stage: dict.fromkeys(slices, LV) for stage in stages},
        batches={stage: dict.fromkeys(slices, POOLED) for stage in stages},
        cases={"all": by_stage, "holding": by_stage},
        tests=(
            pair("baseline", "attention", "LV"),
            pair("baseline", "attention", "NoR", p=NAN, p_holm=NAN, low=NAN, high=NAN),
            pair("attention", "awce", "LV", p=1e-5, p_holm=0.0009, seeds_low=NAN, seeds_high=NAN),
            pair("attention", "awce", "NoR", better=0, equal=0, worse=0, mean=NAN, low=NAN, p=NAN),
        ),
    )
    return dataclasses.replace(made, **changes)


def sections(made, protocol=PROTOCOL, anatomy=EMIDEC):
    return {s.title: s for s in table1.table1_sections(made, protocol, anatomy)}


def rows(section):
    (table,) = section.content
    assert isinstance(table, Table)
    return table.rows


TITLE = "Table 1: DSC of slices"
DSC = "Cases in 3D: DSC, all cases"
HAUSDORFF = "Cases in 3D: Hausdorff distance in mm"
TESTS = "Tests between neighboring stages"


def test_the_paper_s_numbers():
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


def test_stages_are_configs():
    configs = Path(__file__).parents[3] / "configs"
    assert all((configs / f"{stage}.py").exists() for stage in published.PAPER)


def test_table1_in_the_paper_s_form():
    section = sections(comparison())[TITLE]
    table = section.content[0]
    assert isinstance(table, Table)
    assert table.header == ("stage", "LV", "Myo", "Inf", "NoR")
    ours = "0.919 ± 0.044 [0.905, 0.933] (111)"
    pooled = "0.941 ± 0.012 [0.930, 0.952] (7)"
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
    assert section.text == (
        "DSC over the validation slices that hold the label. Cells: mean ± standard deviation over "
        "slices [95 % interval] (number of slices), mean and standard deviation averaged over 3 "
        "seeds. The interval is Student's t over the seeds' means: it covers training anew, not "
        "other patients.\n\n"
        "Ours, batches of 16: the pixels of every 16 slices are pooled, in the order of "
        "validation; mean and standard deviation over the batches that hold the label. The paper's "
        "standard deviations are so small that its numbers may be such means.\n\n"
        "Data: 80 cases with 569 slices; validated: 111 slices of 16 cases. Split: by patient; 5 "
        "folds, 1 pooled. Seeds: 0, 1, 2. Training: 20 epochs on a grid of 64 x 48 pixels of 2.1 "
        "mm. Scored is the last epoch, never one chosen on the validation slices, on the cases' "
        "native grids.\n\n"
        f"[1] {published.SOURCE}: EMIDEC, one split by slice (639 to train, 69 to validate), 400 "
        "epochs. It does not say how many seeds, which epoch, or what its standard deviation is "
        "taken over."
    )


def test_what_the_text_says_of_other_protocols():
    one = comparison(seeds=(4,), folds=5, num_slices=569)
    text = sections(one)[TITLE].text
    assert "Cells: mean ± standard deviation over slices (number of slices). There is one" in text
    assert "[95 %" not in text
    assert "validated: all. Split: by patient; 5 folds, all pooled. Seed: 4. T" in text
    protocol = dataclasses.replace(PROTOCOL, split="slice", folds=0, spacing=None, phantom=True)
    text = sections(comparison(), protocol)[TITLE].text
    assert "80 cases of the phantom with" in text
    assert "patient on both sides, so that scores are optimistic. Seeds" in text
    assert "64 x 48 pixels. Scored" in text
    assert text.endswith("Its cases are patients, ours are synthetic: the two do not compare.")


@pytest.mark.parametrize("bounds", [{"low": -0.01}, {"high": 1.01}])
def test_an_interval_beyond_the_dsc_is_explained(bounds):
    made = comparison()
    assert "knows no bounds" not in sections(made)[TITLE].text
    wide = {"baseline": dict.fromkeys(made.slice_regions, LV._replace(**bounds))}
    found = sections(comparison(slices=wide))
    assert ["knows no bounds" in found[title].text for title in (TITLE, DSC)] == [True, False]
    of_cases = {
        group: {
            stage: {
                region: measures | {"dsc": measures["dsc"]._replace(**bounds)}
                for region, measures in regions.items()
            }
            for stage, regions in stages.items()
        }
        for group, stages in made.cases.items()
    }
    found = sections(comparison(cases=of_cases))
    assert ["knows no bounds" in found[title].text for title in (TITLE, DSC)] == [False, True]


def test_parts_of_cases_have_no_scores_in_3d():
    found = sections(comparison(whole_cases=False))
    assert list(found) == [TITLE, TESTS]
    assert "Scores of cases in 3D are left out" in found[TITLE].text


def test_cases_stand_beside_published_scores():
    found = sections(comparison())
    assert list(found)[1:-1] == [
        DSC, "Cases in 3D: DSC, cases that hold the region",
        "Cases in 3D: volume difference in mm3, all cases",
        "Cases in 3D: volume difference over the volume of the whole, all cases", HAUSDORFF,
    ]  # fmt: skip
    ours = "0.919 ± 0.044 [0.905, 0.933] (111)"
    assert rows(found[DSC])[3] == ("attention+AWCE+penalty", ours, ours, ours)
    assert rows(found[DSC])[4:] == tuple((name, *dsc) for name, dsc in published.CASES.items())
    assert "Cells: mean ± standard deviation over cases [95 %" in found[DSC].text
    assert all(len(rows(found[title])) == 4 for title in list(found)[2:-1])


def test_every_published_row_names_its_source():
    assert all(re.search(r"arXiv:\d{4}\.\d{5}|\d{4}, \d+\(\d+\):", r) for r in published.CASES)
    assert published.CASES["challenge winner, hidden test cases (arXiv:2012.14128)"] == (
        "0.8786", "0.7124", "0.7851",
    )  # fmt: skip


def test_synthetic_cases_do_not_stand_beside_published_ones():
    phantom = sections(comparison(), dataclasses.replace(PROTOCOL, phantom=True))
    assert len(rows(phantom[DSC])) == 4
    assert "Published" not in phantom[DSC].text


def test_cells_say_how_many_seeds_have_a_score():
    hausdorff = sections(comparison())[HAUSDORFF]
    assert rows(hausdorff)[0][1] == "12.3 (0.7, 1 of 3 seeds)"
    assert HAUSDORFF_NOTE in hausdorff.text
    never = {"baseline": dict.fromkeys(("LV", "Myo", "Inf", "NoR"), NEVER)}
    assert rows(sections(comparison(slices=never))[TITLE])[0][1:] == ("- (0)",) * 4


def test_another_anatomy_has_no_rows_of_the_paper():
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


def test_a_stage_that_the_paper_lacks_stands_alone():
    made = comparison(("awce", "dense"), tests=())
    names = [row[0] for row in rows(sections(made)[TITLE])]
    batches = "ours, batches of 16"
    assert names == ["attention+AWCE", batches, "the paper [1]", "dense", batches]


def test_tests_to_the_letter():
    section = sections(comparison())[TESTS]
    difference, seeds = "+0.012 [-0.001, +0.026]", "[-0.020, +0.045]"
    counts, none = "9 / 1 / 2", "0 / 0 / 0"
    assert rows(section) == (
        ("attention", "baseline", "LV", "12", counts, difference, seeds, "0.005", "0.059"),
        ("attention", "baseline", "NoR", "12", counts, "+0.012", seeds, "-", "-"),
        ("attention+AWCE", "attention", "LV", "12", counts, difference, "-", "< 0.001", "< 0.001"),
        ("attention+AWCE", "attention", "NoR", "0", none, "-", seeds, "-", "0.059"),
    )
    assert "Holm's correction is over all 2 tests." in section.text
    assert "Below 6 patients no outcome could reach p < 0.05, so there is no test." in section.text
    assert "where the interval over seeds holds 0, a small p may be" in section.text


def test_the_tests_text_follows_what_there_is():
    made = comparison(tests=comparison().tests[:1], seeds=(0,))
    text = sections(made)[TESTS].text
    assert "Below 6" not in text
    assert text.endswith("With one seed, a small p may be a lucky seed's.")
    assert TESTS not in sections(comparison(("baseline",), tests=()))


def test_markdown_holds_all_sections_in_order():
    text = markdown("Ablation", table1.table1_sections(comparison(), PROTOCOL, EMIDEC))
    assert text.startswith(f"# Ablation\n\n## {TITLE}\n\nDSC over the validation slices")
    titles = [line[3:] for line in text.splitlines() if line.startswith("## ")]
    assert titles == list(sections(comparison()))
    paper = "| the paper [1]          | 0.955 ± 0.009                      | 0.871"
    assert any(line.startswith(paper) for line in text.splitlines())


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
