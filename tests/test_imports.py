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
    {"command_line"}, {"studies"}, {"evaluation"}, {"inference", "training"}, {"reports"}, {"runs"},
    {"config"}, {"data"}, {"machine"}, METHOD, {"anatomy", "errors"},
]  # fmt: skip
LINE = {room: number for number, rooms in enumerate(LINES) for room in rooms}
FILES = sorted(path for path in ROOT.rglob("*.py") if path.parent != ROOT or path.stem in LINE)


def imported(path):
    """Dotted names of the modules that a file imports, and of what it takes from them."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def room(path):
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def test_every_room_has_its_line():
    rooms = {room(path) for path in ROOT.rglob("*.py")}
    assert rooms - {"__init__", "__main__"} == set(LINE)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_imports_lead_down(path):
    own = room(path)
    for name in imported(path):
        package, _, rest = name.partition(".")
        other = rest.partition(".")[0]
        if package != "jaxseg" or other == own or other.startswith("__"):
            continue
        assert LINE[other] >= LINE[own], name
        # Rooms of one line do not meet, but for the pure functions of the method.
        assert LINE[other] > LINE[own] or own in METHOD, name


@pytest.mark.parametrize(
    ("library", "places"),
    [
        ("orbax", {"runs/checkpoint.py", "runs/orbax_setup.py", "runs/params.py"}),
        ("ml_collections", set()),
    ],
)
def test_libraries_stay_in_their_place(library, places):
    found = {
        path.relative_to(ROOT).as_posix()
        for path in ROOT.rglob("*.py")
        if any(name.partition(".")[0] == library for name in imported(path))
    }
    assert found <= places


def test_the_method_knows_no_files_and_no_config():
    for path in FILES:
        if room(path) in METHOD - {"native"}:  # which compiles a library
            libraries = {name.partition(".")[0] for name in imported(path)}
            assert not {"pathlib", "os", "json", "nibabel"} & libraries, path
