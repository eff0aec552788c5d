"""The guard of the sections on a GPU."""

import sys
import time
from pathlib import Path

import pytest

from benchmarks import gpu
from benchmarks.process import cause


def python(*lines: str) -> list[str]:
    return [sys.executable, "-c", "\n".join(lines)]


def runs(pid: int) -> bool:
    """Whether a process exists and is not a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def test_the_output_of_a_section_and_what_it_left_out():
    script = ("import sys", "print('## A table')", "print('left out: one\\nmore', file=sys.stderr)")
    title, end, missing, table = gpu.guarded("good", python(*script), 60).strip().split("\n\n")
    assert title == "# good"
    assert end.startswith("Done")
    assert missing == "- left out: one"
    assert table == "## A table"


def test_a_failed_section_is_one_line():
    text = gpu.guarded("bad", python("print('a part')", "raise MemoryError('40 GiB')"), 60)
    assert "Failed" in text
    assert "MemoryError: 40 GiB" in text
    assert "Traceback" not in text
    assert "a part" in text


def test_the_limit_stops_a_section_and_its_processes(tmp_path: Path):
    script = (
        "import pathlib, subprocess, sys, time",
        "process = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(300)'])",
        f"pathlib.Path({str(tmp_path / 'pid')!r}).write_text(str(process.pid))",
        "time.sleep(300)",
    )
    start = time.monotonic()
    text = gpu.guarded("slow", python(*script), 5)
    assert time.monotonic() - start < 60
    assert "limit of 5 s" in text
    # The system ends a killed process when it next schedules it, not within the call.
    pid = int((tmp_path / "pid").read_text())
    deadline = time.monotonic() + 30
    while runs(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not runs(pid)


def test_the_other_sections_run_after_one_that_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    # The processes do not know these sections.
    monkeypatch.setattr(gpu, "sections", lambda _: dict.fromkeys(("first", "second")))
    flags = gpu.arguments([f"--output={tmp_path / 'gpu.md'}", "--device=cpu"])
    gpu.run(flags)
    text = flags.output.read_text()
    assert text.count("Failed") == 2
    assert "KeyError: 'first'" in text
    assert "KeyError: 'second'" in text


def test_sections_beyond_the_total_limit_are_named(tmp_path: Path):
    flags = gpu.arguments([f"--output={tmp_path / 'gpu.md'}", "--device=cpu", "--minutes=0"])
    gpu.run(flags)
    text = flags.output.read_text()
    assert text.startswith("# Machine")
    assert text.count("Left out") == len(gpu.sections(flags)) > 5
    assert "# step-bfloat16" in text


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("Traceback\n  File x\nImportError: no torch\n", "ImportError: no torch"),
        ("jax.errors.JaxRuntimeError: OUT\n  frames\n", "jax.errors.JaxRuntimeError: OUT"),
        ("main.py: bad flag\n\n", "main.py: bad flag"),
        ("", "no output"),
    ],
)
def test_the_cause_of_an_error(said: str, expected: str):
    assert cause(said) == expected
