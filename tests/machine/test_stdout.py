"""A stdout that is closed or full: one line at most, and the status that shells expect."""

import logging
import os
import subprocess
import sys

import pytest

from jaxseg.machine.stdout import StdoutHandler
from tests.conftest import MAIN


def run(stdout: int, *flags: str) -> tuple[int, str]:
    program = [str(MAIN)] if flags[0].startswith("--") else ["-m", "jaxseg"]
    process = subprocess.run(
        [sys.executable, *program, *flags], cwd=MAIN.parent, stdout=stdout, stderr=subprocess.PIPE,
        text=True, env=os.environ | {"JAX_PLATFORMS": "cpu"}, check=False,
    )  # fmt: skip
    return process.returncode, process.stderr


@pytest.fixture(params=["closed", "full"])
def broken(request):
    """A stdout that nobody reads, or that takes nothing; and whether it is the former."""
    if request.param == "closed":
        reader, writer = os.pipe()
        os.close(reader)
    else:
        writer = os.open("/dev/full", os.O_WRONLY)
    yield writer, request.param == "closed"
    os.close(writer)


@pytest.mark.parametrize("mode", ["help", "train", "evaluate", "export"])
def test_stdout_that_is_closed_or_full(mode, broken, command_line, finished_run, tmp_path):
    stdout, closed = broken
    stage = f"--config={MAIN.parent / 'configs' / 'awce_penalty.py'}"
    flags = {
        "help": ["--help"],
        "train": [stage, *command_line.tiny_flags(finished_run)],
        "evaluate": ["evaluate", f"--run={finished_run}", f"--output={tmp_path}"],
        "export": ["export", f"--run={finished_run}", f"--output={tmp_path / 'x'}"],
    }
    status, errors = run(stdout, *flags[mode])
    assert status == (141 if closed else 1)
    assert errors.count("\n") == (0 if closed else 1)
    assert closed or errors.startswith("error: stdout: ")


def test_lines_of_the_log_go_to_stdout(capfd):
    logger = logging.Logger("any")
    logger.addHandler(StdoutHandler())
    logger.info(os.fsdecode(b"cas\xe9: 100 %s"))
    logger.warning("odd")
    assert capfd.readouterr().out == "cas\\udce9: 100 %s\nwarning: odd\n"
