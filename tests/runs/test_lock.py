"""The lock of a run's folder: one process at a time, and nothing left of a command that failed."""

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
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_lock_creates_the_folder_and_frees_it_after(tmp_path):
    folder = tmp_path / "runs" / "first"
    for _ in range(2):
        with locked(folder):
            assert folder.is_dir()
    with pytest.raises(KeyError), locked(folder):
        raise KeyError
    with locked(folder):
        pass


def test_lock_is_refused_while_another_process_holds_it_and_dies_with_it(tmp_path):
    with start(HOLDER, tmp_path) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        message = f"{tmp_path}: another process is training in this workdir"
        with pytest.raises(WorkdirError, match=re.escape(message)), locked(tmp_path):
            pytest.fail("two processes hold one workdir")
        holder.kill()  # no chance to clean up
        holder.wait()
    with locked(tmp_path):
        pass


def test_a_waiting_process_goes_on_when_the_holder_dies(tmp_path):
    with start(HOLDER, tmp_path) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        threading.Timer(0.2, holder.kill).start()
        with locked(tmp_path, wait=True):
            assert holder.wait() != 0


def test_a_file_that_the_holder_removed_is_not_a_lock(tmp_path, monkeypatch):
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


def test_processes_that_remove_their_lock_never_meet(tmp_path):
    processes = [start(IN_TURN, tmp_path) for _ in range(3)]
    for process in processes:
        assert process.communicate(timeout=60)[0] == ""
        assert process.returncode == 0
    assert names(tmp_path) == []


def test_two_workdirs_do_not_hinder_each_other(tmp_path):
    with locked(tmp_path / "a"), locked(tmp_path / "b"):
        assert names(tmp_path) == ["a", "b"]


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_folder_that_cannot_be_made_is_named(tmp_path, place):
    (tmp_path / "file").write_text("in the way")
    message = re.escape(f"{tmp_path / place}: cannot write here (")
    with pytest.raises(WorkdirError, match=message), locked(tmp_path / place):
        pass


def test_a_file_system_without_locks_is_named(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(lock, "lock_descriptor", fail)
    with pytest.raises(WorkdirError, match=r"\.lock: .*\(No locks available\)"), locked(tmp_path):
        pass


def test_a_lock_that_is_not_kept_goes_alone(tmp_path):
    with locked(tmp_path / "run", keep=False):
        assert names(tmp_path / "run") == [".lock"]
    assert names(tmp_path / "run") == []


def test_a_lock_of_a_command_that_wrote_nothing_goes_with_it(tmp_path):
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


def test_nested_locks_of_a_command_that_wrote_nothing_go_with_it(tmp_path):
    folder = tmp_path / "runs" / "first"
    with pytest.raises(KeyError), locked(folder, name=".study.lock"), locked(folder):
        raise KeyError
    assert names(tmp_path) == []
