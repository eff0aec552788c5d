"""A report as data: sections of text, tables and pictures, written as Markdown or as one page."""

from collections.abc import Sequence
from dataclasses import dataclass

from jaxseg.reports import tables


@dataclass(frozen=True)
class Table:
    """Cells as text.

    Attributes:
      header: names of the columns.
      rows: as many cells each.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Picture:
    """A PNG.

    Attributes:
      png: the file's content.
      name: of the file, for example `figure3.png`.
      caption: what it shows, in a sentence.
    """

    png: bytes
    name: str
    caption: str


@dataclass(frozen=True)
class Section:
    """A heading and what stands under it.

    Attributes:
      title: heading.
      text: plain text above the content; an empty line parts paragraphs.
      content: in order.
    """

    title: str
    text: str
    content: tuple[Table | Picture, ...] = ()


def markdown(title: str, sections: Sequence[Section]) -> str:
    """The document as Markdown; pictures are linked as files beside it."""
    parts = [f"# {title}\n"]
    for section in sections:
        parts.append(f"## {section.title}\n")
        if section.text:
            parts.append(f"{section.text.strip()}\n")
        for item in section.content:
            if isinstance(item, Table):
                parts.append(tables.markdown(item.header, item.rows))
            else:
                parts.append(f"![{item.caption}]({item.name})\n")
    return "\n".join(parts)
