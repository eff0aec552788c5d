"""Which part of the package may import which: only what stands below its own line."""

import ast
from pathlib import Path

import pytest

import jaxseg

ROOT = Path(jaxseg.__file__).parent
METHOD = {
    "augment", "batch", "batch_schedule", "label_weights", "localizer", "losses", "metrics",
    "mixup", "models", "native", "objective", "presence", "train_step",
}  # fmt: skip
LINES = [
    {"studies"}, {"evaluation"}, {"inference", "training"}, {"reports"}, {"runs"}, {"config"},
    {"data"}, {"machine"}, METHOD, {"anatomy", "errors"},
]  # fmt: skip
LINE = {room: number for number, rooms in enumerate(LINES) for room in rooms}
FILES = sorted(path for path in ROOT.rglob("*.py") if path.parent != ROOT or path.stem in LINE)


def imported(path):
    """Names (a.b, c) of jaxseg's modules and their members that a file imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("jaxseg"):
            for alias in node.names:
                yield f"{node.module}.{alias.name}".removeprefix("jaxseg.")
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith("jaxseg."):
                    yield alias.name.removeprefix("jaxseg.")


def room(name):
    return name.partition(".")[0]


def test_every_room_has_its_line():
    rooms = {path.relative_to(ROOT).parts[0].removesuffix(".py") for path in ROOT.rglob("*.py")}
    assert rooms - {"__init__", "__main__"} == set(LINE)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_imports_lead_down(path):
    own = path.relative_to(ROOT).parts[0].removesuffix(".py")
    for name in imported(path):
        other = room(name)
        if other == own or other.startswith("__"):
            continue
        assert LINE[other] >= LINE[own], name
        # Rooms of one line do not meet, but for the pure functions of the method.
        assert LINE[other] > LINE[own] or own in METHOD, name


@pytest.mark.parametrize(
    ("library", "places"),
    [
        ("orbax", {"runs/checkpoint.py", "runs/checkpoint_note.py"}),
        ("ml_collections", set()),
    ],
)
def test_libraries_stay_in_their_place(library, places):
    found = {
        path.relative_to(ROOT).as_posix()
        for path in ROOT.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if (
            isinstance(node, ast.Import)
            and any(a.name.split(".")[0] == library for a in node.names)
        )
        or (isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == library)
    }
    assert found <= places


def test_the_method_knows_no_files_and_no_config():
    for path in (
        path for path in FILES if path.relative_to(ROOT).parts[0].removesuffix(".py") in METHOD
    ):
        if "native" in path.parts:  # which compiles a library
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            assert not {"pathlib", "os", "json", "nibabel"} & {n.split(".")[0] for n in names}, path
