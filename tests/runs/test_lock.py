"""The lock of a run folder: exclusive, and removed after a failed command."""

import errno
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from jaxseg.runs import lock
from jaxseg.runs.files import WorkdirError
from jaxseg.runs.lock import InUseError, locked

REPOSITORY = Path(__file__).parents[2]
HOLDER = """
import sys
from pathlib import Path
from jaxseg.runs.lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""
# Locks and removes one file again and again, and creates another that must not be there.
IN_TURN = """
import sys
from pathlib import Path
from jaxseg.runs.lock import InUseError, locked
folder, count = Path(sys.argv[1]), 0
while count < 300:
    try:
        with locked(folder, keep=False):
            (folder / "inside").touch(exist_ok=False)
            (folder / "inside").unlink()
            count += 1
    except InUseError:
        pass
"""


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def start(program, folder):
    return subprocess.Popen(
        [sys.executable, "-c", program, str(folder)],
        cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_a_lock_creates_the_folder_and_is_released(tmp_path):
    folder = tmp_path / "runs" / "first"
    for _ in range(2):
        with locked(folder), locked(tmp_path / "other"):
            assert folder.is_dir()
    with pytest.raises(KeyError), locked(folder):
        raise KeyError
    with locked(folder):
        pass


def test_a_lock_is_exclusive_and_ends_with_its_process(tmp_path):
    with start(HOLDER, tmp_path) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(InUseError, match=re.escape(f"{tmp_path}: ")), locked(tmp_path):
            pytest.fail("two processes hold one workdir")
        holder.kill()  # no chance to clean up
        holder.wait()
    with locked(tmp_path):
        pass


def test_a_waiting_process_gets_the_lock_of_a_killed_one(tmp_path):
    with start(HOLDER, tmp_path) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        threading.Timer(0.2, holder.kill).start()
        with locked(tmp_path, wait=True):
            assert holder.wait() != 0


def test_a_removed_lock_file_is_not_a_lock(tmp_path, monkeypatch):
    def late(descriptor, *, blocking):
        held = lock_descriptor(descriptor, blocking=blocking)
        if not removed:
            removed.append(True)
            (tmp_path / ".lock").unlink()
        return held

    lock_descriptor, removed = lock.lock_descriptor, []
    monkeypatch.setattr(lock, "lock_descriptor", late)
    with locked(tmp_path):
        assert names(tmp_path) == [".lock"]
        with pytest.raises(InUseError), locked(tmp_path):
            pytest.fail("held twice")
    assert removed


def test_locks_that_are_removed_stay_exclusive(tmp_path):
    processes = [start(IN_TURN, tmp_path) for _ in range(3)]
    for process in processes:
        assert process.communicate(timeout=60)[0] == ""
        assert process.returncode == 0
    assert names(tmp_path) == []


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_folder_that_cannot_be_created_is_named(tmp_path, place):
    (tmp_path / "file").write_text("in the way")
    name = re.escape(f"{tmp_path / place}: ")
    with pytest.raises(WorkdirError, match=name), locked(tmp_path / place):
        pass


def test_a_file_system_without_locks_is_named(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(lock, "lock_descriptor", fail)
    with pytest.raises(WorkdirError, match=r"\.lock: .*\(No locks available\)"), locked(tmp_path):
        pass


def test_a_temporary_lock_is_removed(tmp_path):
    with locked(tmp_path / "run", keep=False):
        assert names(tmp_path / "run") == [".lock"]
    assert names(tmp_path / "run") == []


def test_the_lock_of_a_failed_command_without_files_is_removed(tmp_path):
    def fail(folder, *, write=False):
        with locked(folder):
            if write:
                (folder / "a").touch()
            raise KeyError

    with pytest.raises(KeyError):
        fail(tmp_path / "new" / "run")
    assert names(tmp_path) == []
    with pytest.raises(KeyError):
        fail(tmp_path / "run", write=True)
    assert names(tmp_path / "run") == [".lock", "a"]


def test_nested_locks_of_a_failed_command_are_removed(tmp_path):
    folder = tmp_path / "runs" / "first"
    with pytest.raises(KeyError), locked(folder, name=".study.lock"), locked(folder):
        raise KeyError
    assert names(tmp_path) == []
