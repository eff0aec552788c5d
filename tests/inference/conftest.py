"""A run with random parameters, and the cases that it was trained on."""

from pathlib import Path

import pytest

from jaxseg.data import find_cases, load_case
from jaxseg.runs.trained import load_run


@pytest.fixture(scope="module")
def run(random_run):
    return load_run(random_run)


@pytest.fixture(scope="module")
def phantom(run):
    return run.setup.source.root


@pytest.fixture(scope="module")
def case(phantom):
    return load_case(find_cases(phantom)[0])


def files(folder: Path) -> list[str]:
    """Files below a folder, without the lock."""
    paths = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return sorted(str(path.relative_to(folder)) for path in paths)
