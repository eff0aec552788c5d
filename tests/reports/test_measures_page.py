"""The report on the measures of a study."""

from dataclasses import fields

from jaxseg.measures.masses import Masses
from jaxseg.measures.transmurality import Transmurality
from jaxseg.reports.measures_page import MeasuredCase, measures_page
from tests.reports.test_page import PNG, Page

NAMES = [field.name for kind in (Masses, Transmurality) for field in fields(kind)]
NUMBERS = {name: place + 0.25 for place, name in enumerate(NAMES)} | {"chords_measured": 700}
SEGMENT = {
    "segment": 4, "name": "basal inferior", "slices": [2], "chords_measured": 48,
    "transmurality_mean_percent": 61.25, "infarct_percent_of_wall": 30.5,
    "no_reflow_percent_of_wall": None, "infarcted_percent_of_chords": 49.0,
}  # fmt: skip
CASE = MeasuredCase("A <1>", NUMBERS, [SEGMENT], ("open wall", "why & how"), PNG, PNG)
BARE = MeasuredCase("B", dict.fromkeys(NAMES), [], (), None, None)


def test_a_table_of_cases_and_a_section_a_case():
    page = Page(measures_page([CASE, BARE]))
    assert page.texts["h1"] == ["Measures"]
    assert page.texts["h2"] == ["Cases", "A <1>", "B"]
    assert page.attributes("table", "class") == ["sortable"]
    heads = page.texts["button"]
    cells = page.texts["td"]
    assert page.texts["th"][len(heads)] == "A <1>"
    number = {
        "cavity, ml": "cavity_ml",
        "infarct, % of myocardium": "infarct_percent_of_myocardium",
        "endocardium infarcted, %": "subendocardial_extent_percent",
    }
    for head, field in number.items():
        assert cells[heads.index(head) - 1] == f"{NUMBERS[field]:.1f}"
    assert cells[len(heads) - 1 : 2 * (len(heads) - 1)] == ["-"] * (len(heads) - 1)


def test_numbers_pictures_segments_and_remarks_of_a_case():
    page = Page(measures_page([CASE]))
    assert len(page.attributes("img", "src")) == 2
    assert "Open wall." in page.texts["p"]
    assert "Why & how." in page.texts["p"]
    assert "700" in page.texts["td"]
    assert "4 basal inferior" in page.texts["th"]
    assert page.texts["td"][-5:] == ["48", "61.2", "30.5", "-", "49.0"]
    assert "img" not in {tag for tag, _ in Page(measures_page([BARE])).tags}
