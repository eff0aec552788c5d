"""Which part of the package may import which: only what stands below its own line."""

import ast
from pathlib import Path

import pytest

import jaxseg

ROOT = Path(jaxseg.__file__).parent
METHOD = {
    "augment", "batch", "batch_schedule", "label_weights", "localizer", "losses", "metrics",
    "mixup", "models", "muon", "native", "objective", "presence", "train_step", "transplant",
}  # fmt: skip
LINES = [
    {"arguments", "command_line"}, {"studies"}, {"evaluation"}, {"inference", "training"},
    {"reports"}, {"runs"}, {"config"}, {"data"}, {"measures"}, {"machine"}, METHOD,
    {"anatomy", "pretrained"}, {"home"}, {"errors"},
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


def test_every_part_has_a_level():
    rooms = {room(path) for path in ROOT.rglob("*.py")}
    assert rooms - {"__init__", "__main__"} == set(LINE)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_imports_lead_to_lower_levels(path):
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
        ("onnx", {"models/onnx_graph.py"}),
        ("pydicom", {"data/readers/dicom.py"}),
    ],
)
def test_libraries_are_imported_in_one_place(library, places):
    found = {
        path.relative_to(ROOT).as_posix()
        for path in ROOT.rglob("*.py")
        if any(name.partition(".")[0] == library for name in imported(path))
    }
    assert found <= places


def test_the_method_reads_no_files():
    for path in FILES:
        if room(path) in METHOD - {"native"}:  # which compiles a library
            libraries = {name.partition(".")[0] for name in imported(path)}
            assert not {"pathlib", "os", "json", "nibabel"} & libraries, path


def settings_by_name(path):
    """Lines of a file that take a field of a config by its name: `config["a"]`, `.get("a")`."""
    for node in ast.walk(ast.parse(path.read_text())):
        match node:
            case ast.Subscript(value=owner, slice=ast.Constant(value=str())):
                pass
            case ast.Call(
                func=ast.Attribute(value=owner, attr="get"), args=[ast.Constant(value=str()), *_]
            ):
                pass
            case _:
                continue
        name = getattr(owner, "id", None) or getattr(owner, "attr", None)
        if name in ("config", "settings"):
            yield node.lineno


def test_settings_are_read_by_name_in_config_alone():
    found = {
        f"{path.relative_to(ROOT).as_posix()}:{line}"
        for path in ROOT.rglob("*.py")
        if room(path) != "config"
        for line in settings_by_name(path)
    }
    assert found == set()
    assert list(settings_by_name(ROOT / "config" / "setup.py"))
