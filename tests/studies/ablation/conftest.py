"""A tiny ablation on the phantom that the tests of this folder share."""

from collections.abc import Callable
from pathlib import Path

import pytest

Ablate = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="session")
def run(command_line, finished_run) -> Ablate:
    """Runs the command to its end; its output."""
    assert finished_run.is_dir()  # it wrote the phantom

    def ablate(folder: Path, **changes) -> tuple[int, str, str]:
        changes = {"train__epochs": 2, "data__validation_fraction": 0.34, **changes}
        process = command_line.start_tiny(
            folder, "--mode=ablate", "--seeds=1", config="default.py", **changes
        )
        output, errors = process.communicate(timeout=500)
        return process.returncode, output, errors

    return ablate


@pytest.fixture(scope="session")
def study(run, tmp_path_factory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("study")
    status, output, errors = run(folder)
    assert status == 0, errors
    return folder, output
