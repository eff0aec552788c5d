"""Print the reference page of all config fields: `python -m configs.reference`.

Fields, defaults and meanings come from `configs/default.py`. The meaning of a field consists of the
comment above its line and the comment at its end.
"""

import ast
import inspect
import io
import tokenize

from configs import default
from jaxseg.config.settings import flatten

PAGE = "docs/reference/settings.md"
_HEAD = """# Config fields

This page is generated from [configs/default.py](../../configs/default.py) by
`python -m configs.reference`. Any field can be set on the command line, for example with
`--config.optimizer.learning_rate=3e-3`. The column "phantom" gives the value in `configs/STAGE.py`,
if it differs from that in `configs/STAGE.py:emidec`. Each stage changes the few fields in its file,
and [configs/best.py](../../configs/best.py) lists its additions.
"""


def page() -> str:
    """The page as Markdown, a table for each section of the config."""
    emidec, phantom = (
        flatten(default.get_config(name).to_dict()) for name in ("emidec", "phantom")
    )
    rows: dict[str, list[str]] = {}
    for name, meaning in meanings().items():
        section, _, field = name.rpartition(".")
        other = _code(phantom[name]) if phantom[name] != emidec[name] else ""
        rows.setdefault(section, []).append(
            f"| `{field}` | {_code(emidec[name])} | {other} | {meaning} |"
        )
    parts = [_HEAD]
    for section, lines in rows.items():
        table = ["| field | default | phantom | meaning |", "|---|---|---|---|", *lines]
        parts.append(f"## {section or 'Top level'}\n\n" + "\n".join(table) + "\n")
    return "\n".join(parts)


def meanings() -> dict[str, str]:
    """Meaning of each field by dotted name, from the comments of `configs/default.py`."""
    source = inspect.getsource(default)
    comments = {
        token.start[0]: token.string.removeprefix("#").strip()
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    alone = {k for k, line in enumerate(source.splitlines(), 1) if line.lstrip().startswith("#")}
    found = {}
    for node in ast.walk(ast.parse(source)):
        if not (isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Attribute)):
            continue
        name = ast.unparse(node.targets[0]).removeprefix("config.")
        if name in _SECTIONS or ast.unparse(node.value).startswith("EMIDEC"):
            continue
        first = node.lineno
        while first - 1 in alone:
            first -= 1
        lines = [comments[k] for k in range(first, node.end_lineno or 0) if k in alone]
        if node.end_lineno in comments and node.end_lineno not in alone:
            lines.append(comments[node.end_lineno])
        text = " ".join(filter(None, [found.get(name), *lines])).replace("|", "\\|")
        found[name] = text
    return found


_SECTIONS = {
    name for name, value in default.get_config().to_dict().items() if isinstance(value, dict)
}


def _code(value: object) -> str:
    return f"`{value}`"


if __name__ == "__main__":
    print(page(), end="")
