"""A report as Markdown, to the letter."""

from jaxseg.reports.document import Picture, Section, Table, markdown

TABLE = Table(("stage", "LV"), (("baseline", "0.5"), ("all", "1.000 (2)")))


def test_markdown_by_hand():
    sections = [
        Section(
            "Scores", "  First.\n\nSecond.  ", (TABLE, Picture(b"", "a.png", "What it shows."))
        ),
        Section("Notes", ""),
        Section("End", "Last."),
    ]
    assert markdown("Report", sections) == (
        "# Report\n"
        "\n"
        "## Scores\n"
        "\n"
        "First.\n"
        "\n"
        "Second.\n"
        "\n"
        "| stage    | LV        |\n"
        "|----------|-----------|\n"
        "| baseline | 0.5       |\n"
        "| all      | 1.000 (2) |\n"
        "\n"
        "![What it shows.](a.png)\n"
        "\n"
        "## Notes\n"
        "\n"
        "## End\n"
        "\n"
        "Last.\n"
    )
