"""The HTML page, read back with the standard library's parser."""

import base64
import hashlib
import re
import struct
from html.parser import HTMLParser

import pytest

from jaxseg.reports.document import Picture, Section, Table
from jaxseg.reports.page import html

VOID = {"meta", "img", "input", "br", "hr", "link"}
NASTY = "<b>a & \"b\" 'c'</b>"


def png(width, height):
    """The start of a file, which holds its size."""
    return b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">II", width, height)


PNG = png(3, 2) + bytes(range(256))
ROWS = (("baseline", "0.919 ± 0.044 [0.90, 0.93] (111)", "a (b) [c]"), (NASTY, "-1.5 (2)", "-"))
TABLE = Table(("stage", "LV <1>", "note"), ROWS)
SECTIONS = [
    Section(f"Scores {NASTY}", f"First\nline {NASTY}\n\n\n  Second.\n", (TABLE,)),
    Section(
        "Figures", "", (Picture(PNG, "figures", f"Seen {NASTY}."), Picture(png(1, 1), "b.png", "B"))
    ),
    Section("Figures", "Same title."),
    Section("±", "", (Picture(PNG, "b.png", "Same name."),)),
]


class Page(HTMLParser):
    """Tags, attributes and texts; fails at a tag that is not closed in turn."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.texts, self.declaration = [], [], {}, None
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_decl(self, decl):
        self.declaration = decl

    def handle_starttag(self, tag, attrs):
        names = [name for name, _ in attrs]
        assert len(set(names)) == len(names)
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
            self.texts.setdefault(tag, []).append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        for tag in set(self.open):
            self.texts[tag][-1] += data

    def attributes(self, tag, name):
        return [attrs[name] for found, attrs in self.tags if found == tag and name in attrs]


@pytest.fixture(scope="module")
def text():
    return html(f"Ablation {NASTY}", SECTIONS)


@pytest.fixture(scope="module")
def page(text):
    return Page(text)


def test_the_frame(page):
    assert page.declaration.lower() == "doctype html"
    assert Page(html("Empty", [])).texts["h1"] == ["Empty"]
    assert [tag for tag, _ in page.tags[:3]] == ["html", "head", "meta"]
    assert page.attributes("html", "lang") == ["en"]
    assert page.tags[2][1] == {"charset": "utf-8"}
    metas = [attrs for tag, attrs in page.tags if tag == "meta"]
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in metas


def test_the_page_loads_nothing_from_outside(text, page):
    assert not re.search(r"https?:|//|url\(|@import|<script|<link", text.replace(base64_png(), ""))
    tags = [tag for tag, _ in page.tags]
    assert not {"script", "link", "iframe", "object", "base", "form"} & set(tags)
    for _, attrs in page.tags:
        assert not {"srcset", "style", "onclick", "action"} & attrs.keys()
        assert attrs.get("src", "data:image/png;base64,").startswith("data:image/png;base64,")
        assert attrs.get("href", "#").startswith("#")
    policies = [a["content"] for _, a in page.tags if a.get("http-equiv")]
    assert policies == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]


def base64_png():
    return base64.b64encode(PNG).decode()


def test_pictures_are_inside(page):
    sources = page.attributes("img", "src")
    contents = [base64.b64decode(s.split(",", 1)[1], validate=True) for s in sources]
    assert contents == [PNG, png(1, 1), PNG]
    captions = [f"Seen {NASTY}.", "B", "Same name."]
    assert page.attributes("img", "alt") == captions
    assert page.texts["figcaption"] == captions
    assert [name in text for name, text in zip(
        ("figures", "b.png", "b.png"), page.texts["figure"], strict=True
    )] == [True] * 3  # fmt: skip


def test_texts_are_escaped(text, page):
    assert "<b>" not in text
    assert page.texts["title"] == page.texts["h1"] == [f"Ablation {NASTY}"]
    assert page.texts["h2"] == [section.title for section in SECTIONS]
    assert page.texts["p"] == [f"First\nline {NASTY}", "Second.", "Same title."]


def test_the_contents_link_to_the_headings(page):
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(set(ids)) == len(ids)
    anchors = page.attributes("h2", "id")
    assert page.attributes("a", "href") == [f"#{anchor}" for anchor in anchors]
    assert page.texts["a"] == page.texts["h2"]
    assert anchors[1:] == ["figures", "figures-2", "part"]
    assert page.attributes("figure", "id") == ["figures-3", "b-png", "b-png-2"]
    assert page.attributes("section", "aria-labelledby") == anchors
    assert page.attributes("label", "for") == page.attributes("input", "id")
    assert set(page.attributes("label", "for")) <= set(ids)


def test_cells_of_a_table(text, page):
    assert page.texts["th"] == [*TABLE.header, "baseline", NASTY]
    assert page.attributes("th", "scope") == ["col"] * 3 + ["row"] * 2
    assert page.texts["td"] == [cell for row in TABLE.rows for cell in row[1:]]
    # A score breaks once, before its interval or count; words break anywhere.
    assert "<div><span>0.919 ± 0.044</span> <span>[0.90, 0.93] (111)</span></div>" in text
    assert "<div><span>-1.5</span> <span>(2)</span></div>" in text
    assert "<div>a (b) [c]</div>" in text
    assert "<div>-</div>" in text


def test_cells_name_their_column_for_narrow_screens(page):
    columns = [column for _ in TABLE.rows for column in TABLE.header[1:]]
    assert page.attributes("td", "data-column") == columns


def test_only_the_script_of_sortable_tables_may_run():
    """The policy names the script by its digest, so that no other one runs."""
    plain, sortable = (Section("A", "", (Table(*cells),)) for cells in (
        (TABLE.header, TABLE.rows), (TABLE.header, TABLE.rows, True)
    ))  # fmt: skip
    page = Page(html("", [plain, sortable]))
    assert page.texts["button"] == list(TABLE.header)
    assert page.attributes("table", "class") == ["sortable"]
    (script,) = page.texts["script"]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = [a["content"] for _, a in page.tags if a.get("http-equiv")]
    assert policy.endswith(f"; script-src 'sha256-{digest}'")
    assert "script" not in Page(html("", [plain])).texts


def test_wide_pictures_stay_wide_on_narrow_screens():
    found = {
        size: Page(html("", [Section("", "", (Picture(png(*size), "a.png", ""),))])).attributes(
            "div", "class"
        )
        for size in ((300, 100), (100, 300))
    }
    assert found == {(300, 100): ["view wide", "file"], (100, 300): ["view", "file"]}


def test_a_ragged_table_is_refused():
    ragged = Section("Scores", "", (Table(("a", "b"), (("1", "2"), ("3",))),))
    with pytest.raises(ValueError, match="Scores: "):
        html("", [ragged])


def test_style_has_dark_print_and_narrow_variants(page):
    (style,) = page.texts["style"]
    for query in ("(prefers-color-scheme: dark)", "@media print", "(max-width: 40rem)"):
        assert query in style
    assert style.count("{") == style.count("}")
    names = set(re.findall(r"var\((--[a-z]+)\)", style))
    light, dark = style.split("prefers-color-scheme")
    for half in (light, dark):
        assert names == set(re.findall(r"(--[a-z]+):", half))
