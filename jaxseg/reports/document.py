"""Reports as data: sections of text, tables and pictures, and their Markdown form."""

from collections.abc import Sequence
from dataclasses import dataclass

from jaxseg.reports import tables


@dataclass(frozen=True)
class Table:
    """A table of text cells.

    Attributes:
      header: names of the columns.
      rows: rows with one cell per column.
      sortable: whether a click on a column sorts the rows by it, where the form allows it.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    sortable: bool = False


@dataclass(frozen=True)
class Picture:
    """A PNG picture.

    Attributes:
      png: content of the file.
      name: name of the file, for example `figure3.png`.
      caption: a sentence that describes the picture.
    """

    png: bytes
    name: str
    caption: str


@dataclass(frozen=True)
class Section:
    """A heading with its text, tables and pictures.

    Attributes:
      title: heading.
      text: plain text above the content; an empty line separates paragraphs.
      content: tables and pictures, in order.
    """

    title: str
    text: str
    content: tuple[Table | Picture, ...] = ()


def markdown(title: str, sections: Sequence[Section]) -> str:
    """Format the document as Markdown, which links pictures as files in the same folder."""
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
