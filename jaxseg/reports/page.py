"""Reports as one self-contained HTML file; its only script sorts tables."""

import base64
import hashlib
import re
import struct
from collections.abc import Iterable, Sequence
from html import escape

from jaxseg.reports.document import Picture, Section, Table

_STYLE = """
:root { --ink: #1c1f23; --dim: #5c646d; --paper: #ffffff; --line: #d5dae0; --link: #0b5394;
  --head: #f2f4f6; }
@media screen and (prefers-color-scheme: dark) {
  :root { --ink: #e4e7ea; --dim: #a3abb4; --paper: #16181b; --line: #3a4047; --link: #8ab8ea;
    --head: #22262b; }
}
* { box-sizing: border-box; }
html { color-scheme: light dark; -webkit-text-size-adjust: 100%; text-size-adjust: 100%; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
main { max-width: 72rem; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
h1 { font-size: 1.75rem; line-height: 1.25; margin: 0 0 1rem; }
h2 { font-size: 1.25rem; line-height: 1.3; margin: 2.75rem 0 .75rem; padding-top: .75rem;
  border-top: 1px solid var(--line); }
h1, h2, p, figcaption { overflow-wrap: anywhere; }
p { max-width: 46rem; margin: 0 0 .9rem; }
a { color: var(--link); }
nav ul { display: flex; flex-wrap: wrap; gap: .25rem 1.5rem; margin: 0; padding: 0;
  list-style: none; }
.table { overflow-x: auto; margin: 1rem 0 1.5rem; border: 1px solid var(--line);
  border-radius: 4px; width: fit-content; max-width: 100%; }
table { border-collapse: separate; border-spacing: 0; font-size: .9rem;
  font-variant-numeric: tabular-nums; }
th, td { padding: .4rem .75rem; text-align: left; vertical-align: top;
  border-bottom: 1px solid var(--line); }
td span { white-space: nowrap; }
tbody tr:last-child > * { border-bottom: 0; }
thead th { background: var(--head); }
tbody th { font-weight: 600; background: var(--paper); }
tr > :first-child { position: sticky; left: 0; border-right: 1px solid var(--line);
  min-width: 6rem; max-width: 42vw; overflow-wrap: break-word; }
figure { margin: 1.25rem 0 2rem; }
figure input { position: absolute; opacity: 0; }
.view { overflow: auto; background: #ffffff; border: 1px solid var(--line); border-radius: 4px; }
.view img { display: block; max-width: 100%; max-height: 90vh; width: auto; height: auto;
  margin: 0 auto; }
.file { display: flex; align-items: baseline; gap: 1rem; margin-top: .4rem; color: var(--dim);
  font-size: .85rem; }
.switch { color: var(--link); cursor: pointer; text-decoration: underline; }
input:focus-visible ~ .file .switch, .table:focus-visible { outline: 2px solid var(--link);
  outline-offset: 2px; }
input:checked ~ .view { max-height: 92vh; }
input:checked ~ .view img { max-width: none; max-height: none; }
.switch .fit, input:checked ~ .file .full { display: none; }
input:checked ~ .file .fit { display: inline; }
figcaption { max-width: 46rem; margin-top: .3rem; color: var(--dim); font-size: .9rem; }
@media (max-width: 40rem) {
  main { padding: 1.25rem .9rem 3rem; }
  h1 { font-size: 1.4rem; }
  .view img { max-height: none; }
  .view.wide img { max-width: none; height: 26rem; }
}
/* A table too wide for a phone: each row a block, each cell beside the name of its column. */
@media screen and (max-width: 40rem) {
  .table, table, tbody, tr, tbody th { display: block; width: auto; }
  thead { display: none; }
  tbody tr { padding: .4rem 0; border-bottom: 1px solid var(--line); }
  tbody tr:last-child { border-bottom: 0; }
  tr > :first-child { position: static; max-width: none; border-right: 0; }
  th, td { padding: .15rem .6rem; border-bottom: 0; }
  td { display: flex; gap: .75rem; }
  td::before { content: attr(data-column); flex: 0 0 32%; color: var(--dim);
    overflow-wrap: anywhere; }
}
th button { all: unset; cursor: pointer; color: var(--link); }
th button:focus-visible { outline: 2px solid var(--link); outline-offset: 2px; }
th[aria-sort=ascending] button::after { content: " \\2191"; }
th[aria-sort=descending] button::after { content: " \\2193"; }
@media screen and (max-width: 40rem) {
  .sortable thead { display: block; background: var(--head); }
  .sortable thead tr { display: flex; flex-wrap: wrap; padding: .4rem 0; }
}
@media print {
  @page { margin: 15mm; }
  main { max-width: none; padding: 0; }
  body { font-size: 10pt; }
  nav, .switch { display: none; }
  h2 { break-after: avoid; }
  figure, tr { break-inside: avoid; }
  thead { display: table-header-group; }
  .table { overflow: visible; border: 0; }
  table { font-size: 8pt; }
  th, td { padding: .2rem .4rem; }
  .view { border: 0; }
  .view img, input:checked ~ .view img { max-width: 100%; max-height: 230mm; }
}
"""


# A click sorts by a column, the next one the other way round; empty cells and dashes stay last.
_SORT = """
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.firstChild.addEventListener("click", () => {
    const way = head.ariaSort === "ascending" ? -1 : 1;
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.ariaSort = way > 0 ? "ascending" : "descending";
    const text = (row) => row.cells[column].textContent.trim();
    const missing = (value) => value === "" || value === "-";
    const compare = (a, b) => missing(a) || missing(b) ? missing(a) - missing(b)
      : way * a.localeCompare(b, "en", { numeric: true });
    const number = (value) => missing(value) ? NaN : Number(value);
    const ordered = [...table.tBodies[0].rows].sort((a, b) => {
      const difference = number(text(a)) - number(text(b));
      return isNaN(difference) ? compare(text(a), text(b)) : way * difference;
    });
    table.tBodies[0].append(...ordered);
  }));
}
"""


def html(title: str, sections: Sequence[Section]) -> str:
    """Format the document as one HTML page that includes its pictures.

    The page blocks all external content, so it looks the same offline. It follows the reader's
    light or dark color scheme and can be printed. Wide tables scroll in their own box; on a phone,
    their rows are stacked. A click on a column sorts a sortable table; no other script runs. Each
    picture can be switched between the page's width and its full size.

    Args:
      title: title of the page.
      sections: sections in order; titles may repeat.
    """
    anchors = _anchors([section.title for section in sections])
    pictures = [c for section in sections for c in section.content if isinstance(c, Picture)]
    figure_anchors = iter(_anchors([picture.name for picture in pictures], anchors))
    body = [f"<h1>{escape(title)}</h1>", _contents(sections, anchors)]
    for section, anchor in zip(sections, anchors, strict=True):
        body.append(f'<section aria-labelledby="{anchor}">')
        body.append(f'<h2 id="{anchor}">{escape(section.title)}</h2>')
        body += _paragraphs(section.text)
        for item in section.content:
            if isinstance(item, Table):
                body.append(_table(item, section.title))
            else:
                body.append(_figure(item, next(figure_anchors)))
        body.append("</section>")
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    tables = [c for section in sections for c in section.content if isinstance(c, Table)]
    if any(table.sortable for table in tables):
        digest = base64.b64encode(hashlib.sha256(_SORT.encode()).digest()).decode("ascii")
        policy += f"; script-src 'sha256-{digest}'"
        body.append(f"<script>{_SORT}</script>")
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en">',
            "<head>",
            '<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(title)}</title>",
            f"<style>{_STYLE}</style>",
            "</head>",
            "<body>",
            "<main>",
            *body,
            "</main>",
            "</body>",
            "</html>",
            "",
        ]
    )


def _anchors(names: Iterable[str], taken: Iterable[str] = ()) -> list[str]:
    """Derive readable ids that are distinct from each other and from `taken`."""
    used = set(taken)
    anchors = []
    for name in names:
        slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "part"
        anchor, number = slug, 2
        while anchor in used:
            anchor, number = f"{slug}-{number}", number + 1
        used.add(anchor)
        anchors.append(anchor)
    return anchors


def _contents(sections: Sequence[Section], anchors: Sequence[str]) -> str:
    items = "\n".join(
        f'<li><a href="#{anchor}">{escape(section.title)}</a></li>'
        for section, anchor in zip(sections, anchors, strict=True)
    )
    return f'<nav aria-label="Contents">\n<ul>\n{items}\n</ul>\n</nav>'


def _paragraphs(text: str) -> list[str]:
    blocks = re.split(r"\n\s*\n", text)
    return [f"<p>{escape(block.strip())}</p>" for block in blocks if block.strip()]


def _table(table: Table, name: str) -> str:
    """Format a table whose first column names the rows and stays visible when scrolling."""
    names = [escape(cell) for cell in table.header]
    if table.sortable:
        names = [f'<button type="button">{name}</button>' for name in names]
    head = "".join(f'<th scope="col">{name}</th>' for name in names)
    opening = '<table class="sortable">' if table.sortable else "<table>"
    lines = [
        # Focusable, so that it scrolls with the arrow keys.
        f'<div class="table" role="region" tabindex="0" aria-label="Table: {escape(name)}">',
        f"{opening}\n<thead>\n<tr>{head}</tr>\n</thead>\n<tbody>",
    ]
    for row in table.rows:
        if len(row) != len(table.header):
            raise ValueError(
                f"{name}: a table row has {len(row)} cells, expected {len(table.header)}: {row}"
            )
        first = f'<th scope="row">{escape(row[0])}</th>'
        cells = map(_cell, row[1:], table.header[1:])
        lines.append(f"<tr>{first}{''.join(cells)}</tr>")
    return "\n".join([*lines, "</tbody>\n</table>\n</div>"])


def _cell(text: str, column: str) -> str:
    """Format a cell; a score may wrap only before its interval or count."""
    inner = escape(text)
    if re.match(r"[-+]?\d", text):
        parts = re.split(r" (?=[\[(])", text, maxsplit=1)
        inner = " ".join(f"<span>{escape(part)}</span>" for part in parts)
    return f'<td data-column="{escape(column)}"><div>{inner}</div></td>'


def _figure(picture: Picture, anchor: str) -> str:
    """Format a picture with a checkbox that switches to its full size without a script."""
    data = base64.b64encode(picture.png).decode("ascii")
    width, height = struct.unpack(">II", picture.png[16:24])
    shape = "view wide" if width > 1.5 * height else "view"
    caption = escape(picture.caption)
    return "\n".join(
        [
            f'<figure id="{anchor}">',
            f'<input type="checkbox" id="{anchor}-size">',
            f'<div class="{shape}">',
            f'<img src="data:image/png;base64,{data}" alt="{caption}">',
            "</div>",
            f'<div class="file"><span>{escape(picture.name)}</span>',
            f'<label class="switch" for="{anchor}-size"><span class="full">full size</span>'
            '<span class="fit">fit to page</span></label></div>',
            f"<figcaption>{caption}</figcaption>",
            "</figure>",
        ]
    )
