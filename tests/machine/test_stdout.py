"""A stdout that is closed or full: one line at most, and the status that shells expect."""

import os
import subprocess
import sys

import pytest

from jaxseg.machine.stdout import say
from tests.conftest import MAIN


def run(stdout: int, *flags: object) -> tuple[int, str]:
    process = subprocess.run(
        [sys.executable, str(MAIN), *map(str, flags)], stdout=stdout, stderr=subprocess.PIPE,
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
        "evaluate": ["--mode=evaluate", f"--workdir={finished_run}", f"--output={tmp_path}"],
        "export": ["--mode=export", f"--workdir={finished_run}", f"--output={tmp_path / 'x'}"],
    }
    status, errors = run(stdout, *flags[mode])
    assert status == (141 if closed else 1)
    assert errors.count("\n") == (0 if closed else 1)
    assert closed or errors.startswith("error: stdout: ")


def test_a_line_that_stdout_cannot_encode_is_escaped(capfd):
    say(os.fsdecode(b"cas\xe9: a name"))
    assert capfd.readouterr().out == "cas\\udce9: a name\n"
