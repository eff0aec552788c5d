"""Full and read-only disks, changing data and clocks: one line, and nothing lost."""

import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from jaxseg.runs.checkpoint import Checkpoints
from jaxseg.runs.files import WorkdirError, os_reason, write_atomic, write_files, writing
from jaxseg.runs.logbook import Logbook
from tests.faults.lab import STEPS, assert_same
from tests.faults.test_damage import state_of


@contextmanager
def mounted(folder: Path, size: str) -> Iterator[Path]:
    """A file system in memory; skipped by name where only root may, and this is not root."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if not shutil.which("mount") or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounting a tmpfs needs root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def remount(folder: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)


@pytest.mark.parametrize("size", ["16k", "48k", "120k", "250k"])
def test_a_full_disk_is_one_line_and_costs_nothing(lab, reference, tmp_path, size):
    with mounted(tmp_path / "disk", size) as disk:
        run = disk / "run"
        lab.train(run).wait().refused(f"{run}", "(No space left on device)")
        remount(disk, "size=8m")
        lab.finish(run)
        assert_same(run, reference)


def test_a_read_only_disk_is_one_line_in_every_mode(lab, reference, tmp_path):
    with mounted(tmp_path / "disk", "8m") as disk:
        run = shutil.copytree(reference, disk / "run")
        remount(disk, "ro")
        lab.train(run).wait().refused(f"{run}: ", "Read-only file system")
        lab.train(disk / "new").wait().refused("Read-only file system")
        given = f"--run={run}"
        for mode in (
            ["evaluate", given],
            ["export", given, f"--output={disk / 'bundle'}"],
            ["predict", given, lab.folder / "data", f"--output={disk / 'out'}"],
        ):
            lab.start(*mode).wait().refused(str(disk))
        # Reading needs no writing.
        lab.start("evaluate", given, f"--output={tmp_path / 'scores'}").wait()
        assert (tmp_path / "scores" / "summary.md").exists()


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), OSError(errno.EIO, "I/O error")]
)
def test_whatever_cannot_be_written_keeps_the_old_file(tmp_path, monkeypatch, error):
    """Needs no root: the writers themselves fail."""

    def fail(*args, **kwargs):
        raise error

    (tmp_path / "table.md").write_text("old")
    with Logbook(tmp_path, step=0) as book:
        book.scalars(1, "train", {"loss": 1.0})
        for owner, name, write in (
            (Path, "write_text", lambda: write_atomic(tmp_path / "table.md", "new")),
            (os, "replace", lambda: write_atomic(tmp_path / "table.md", "new")),
            (Path, "write_bytes", lambda: write_files(tmp_path, {"table.md": "new"})),
            (book._lines, "flush", lambda: book.scalars(2, "train", {"loss": 1.0})),
            (book._board._writer, "write", lambda: book.scalars(3, "train", {"loss": 1.0})),
        ):
            with monkeypatch.context() as patch:
                patch.setattr(owner, name, fail)
                with pytest.raises(WorkdirError, match=error.strerror), writing(tmp_path):
                    write()
    assert (tmp_path / "table.md").read_text() == "old"
    assert not list(tmp_path.glob(".tmp*"))


def test_os_errors_are_extracted_from_long_messages():
    assert os_reason(OSError(errno.ENOSPC, "No space left on device")) == "No space left on device"
    text = 'RESOURCE_EXHAUSTED: Error writing "a/b": write failed [OS error 28: No space left on '
    assert os_reason(ValueError(text + "device]\nmore")) == "No space left on device"
    assert os_reason(ValueError("one\ntwo")) == "one"
    assert os_reason(ValueError()) == "ValueError"
    assert len(os_reason(ValueError("x" * 1000))) == 200


def test_a_case_that_vanishes_or_changes_between_two_sittings(lab, reference, tmp_path):
    run = shutil.copytree(reference, tmp_path / "run")
    shutil.rmtree(run / "checkpoints" / str(STEPS))
    phantom = next((lab.folder / "data").iterdir())
    cases = shutil.copytree(phantom, tmp_path / "cases")
    given = {"data__root": cases, "data__phantom_cases": 0}
    config = run / "config.json"
    config.write_text(config.read_text().replace('"phantom_cases": 6', '"phantom_cases": 0'))
    image = next((cases / "Case_P002").glob("Images/*"))
    content = image.read_bytes()
    image.write_bytes(content[:-9])
    lab.train(run, **given).wait().refused(f"{image}: ")
    shutil.copy(next((cases / "Case_P002").glob("Contours/*")), image)
    lab.train(run, **given).wait().refused("Case_P002")
    shutil.rmtree(cases / "Case_P002")
    lab.train(run, **given).wait().refused("Case_P002")
    shutil.copytree(phantom / "Case_P002", cases / "Case_P002")
    (cases / "more").mkdir()
    shutil.copytree(phantom / "Case_P002", cases / "more" / "Case_P002")
    lab.train(run, **given).wait().refused("Case_P002")
    shutil.rmtree(cases / "more")
    lab.finish(run, **given)
    for name in ("metrics.jsonl", "table.csv"):
        assert (run / name).read_bytes() == (reference / name).read_bytes()


CLOCK = """
import datetime, itertools, time
real, jumps = time.time, itertools.cycle({jumps})
time.time = lambda: real() + next(jumps)
class Clock(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls.fromtimestamp(time.time(), tz)
datetime.datetime = Clock
"""
YEAR = 3e7


def test_a_clock_set_back_and_forth_changes_nothing(lab, reference, tmp_path):
    run = tmp_path / "run"
    process = lab.train(run, hook=CLOCK.format(jumps=[YEAR]))
    assert process.kill_when(lambda: (run / "checkpoints" / "9").exists()).status == -9
    process = lab.train(run, hook=CLOCK.format(jumps=[-YEAR]))
    assert process.kill_when(lambda: (run / "checkpoints" / "18").exists()).status == -9
    # Of checkpoints the step counts, not the time.
    for age, path in enumerate(sorted(run.rglob("*"), reverse=True)):
        os.utime(path, (age * 1e6, age * 1e6))
    os.utime(run / "checkpoints" / "9", (4e9, 4e9))
    ended = lab.train(run, hook=CLOCK.format(jumps=[2 * YEAR])).wait()
    assert (ended.status, ended.errors) == (0, ""), ended
    assert f"resuming at step 18 of {STEPS}" in ended.output
    assert_same(run, reference)


def test_a_clock_that_jumps_at_every_look_costs_a_checkpoint_at_most(lab, reference, tmp_path):
    """Orbax waits for its threads by the time of day: a year later it has waited enough."""
    run = tmp_path / "run"
    ended = lab.train(run, hook=CLOCK.format(jumps=[0, -YEAR, YEAR, 1.0, 0])).wait()
    if ended.status:
        ended.refused("checkpoint", "timed out after")
    lab.finish(run)
    assert_same(run, reference)


def test_the_latest_checkpoint_is_found_by_step_not_time(tmp_path, monkeypatch):
    with Checkpoints(tmp_path) as checkpoints:
        for step, score in ((2, 0.5), (4, 0.25)):
            checkpoints.save(state_of(step), score)
            checkpoints.wait()
    for path in (tmp_path / "checkpoints").rglob("*"):
        os.utime(path, (0, 0))
    os.utime(tmp_path / "checkpoints" / "2", (4e9, 4e9))
    with Checkpoints(tmp_path) as checkpoints:
        assert (checkpoints.latest_step, checkpoints.best_step) == (4, 2)
        assert checkpoints.steps == [4, 2]
