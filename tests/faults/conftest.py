"""Processes to disturb, and an undisturbed run."""

import gc
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.lab import Lab, start_zygote


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    folder = tmp_path_factory.mktemp("faults")
    with start_zygote(folder) as zygote:
        yield Lab(folder, zygote)
        assert zygote.stdin is not None
        zygote.stdin.close()


@pytest.fixture(scope="session")
def reference(lab: Lab) -> Path:
    """The folder of an undisturbed run, which wrote the phantom."""
    run = lab.folder / "reference"
    lab.finish(run)
    return run


@pytest.fixture(autouse=True)
def _ignore_dropped_reads_of_orbax(monkeypatch):
    """As `quiet_orbax` does for `main.py`."""
    monkeypatch.setattr(sys, "unraisablehook", lambda *_: None)
    yield
    gc.collect()
