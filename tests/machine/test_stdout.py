"""A stdout that is closed or full: one line at most, and the status that shells expect."""

import io
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from jaxseg.__main__ import parser
from jaxseg.machine.stdout import StdoutError, StdoutHandler
from tests.conftest import MAIN


def run(stdout: int, *flags: str, closing: str = "") -> tuple[int, str]:
    """Status and stderr; `closing` is what the shell closes, such as `>&-`."""
    program = [str(MAIN)] if flags[0].startswith("--") else ["-m", "jaxseg"]
    command = [sys.executable, *program, *flags]
    process = subprocess.run(
        ["sh", "-c", f'exec "$@" {closing}', "sh", *command], cwd=MAIN.parent, stdout=stdout,
        stderr=subprocess.PIPE, text=True, env=os.environ | {"JAX_PLATFORMS": "cpu"}, check=False,
    )  # fmt: skip
    return process.returncode, process.stderr


@pytest.fixture(params=["closed", "full"])
def broken(request):
    """A stdout without a reader, or a full one; and whether it has no reader."""
    if request.param == "closed":
        reader, writer = os.pipe()
        os.close(reader)
    else:
        writer = os.open("/dev/full", os.O_WRONLY)
    yield writer, request.param == "closed"
    os.close(writer)


@pytest.mark.slow
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


@pytest.mark.parametrize("flags", [["--help"], ["--version"], ["evaluate", "--help"]])
def test_help_reports_a_full_stdout_without_a_buffer(flags, monkeypatch):
    with Path("/dev/full").open("wb", buffering=0) as full:
        stdout = io.TextIOWrapper(full, write_through=True)
        monkeypatch.setattr(sys, "stdout", stdout)
        with pytest.raises(StdoutError):
            parser().parse_args(flags)
        stdout.detach()


@pytest.mark.slow
@pytest.mark.parametrize("flags", [["--help"], ["evaluate", "--help"]])
def test_help_without_a_stdout_is_one_line(flags):
    status, errors = run(subprocess.DEVNULL, *flags, closing=">&-")
    assert status == 1
    assert errors.startswith("error: stdout: ")
    assert errors.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize("closing", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_commands_run_without_standard_streams(closing, command_line, finished_run, tmp_path):
    flags = [f"--run={finished_run}", f"--output={tmp_path / 'out'}"]
    cases = str(command_line.phantom)
    done = run(subprocess.DEVNULL, "evaluate", cases, *flags, closing=closing)
    assert done[0] == 0
    assert (tmp_path / "out" / "summary.md").exists()
    status, errors = run(subprocess.DEVNULL, "evaluate", "none", *flags, closing=closing)
    assert (status, errors.count("\n")) == (1, int("2" not in closing))


def test_log_lines_are_written_to_stdout(capfd):
    logger = logging.Logger("any")
    logger.addHandler(StdoutHandler())
    logger.info(os.fsdecode(b"cas\xe9: 100 %s"))
    logger.warning("odd")
    assert capfd.readouterr().out == "cas\\udce9: 100 %s\nwarning: odd\n"
