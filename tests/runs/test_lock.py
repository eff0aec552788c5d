"""The lock of a run's folder: one process at a time, and nothing left of a command that failed."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from jaxseg.runs.files import WorkdirError
from jaxseg.runs.lock import locked

REPOSITORY = Path(__file__).parents[2]
HOLDER = """
import sys
from pathlib import Path
from jaxseg.runs.lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def names(folder):
    return sorted(path.name for path in folder.iterdir())


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
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        message = f"{tmp_path}: another process is training in this workdir"
        with pytest.raises(WorkdirError, match=re.escape(message)), locked(tmp_path):
            pytest.fail("two processes hold one workdir")
        holder.kill()  # no chance to clean up
        holder.wait()
    with locked(tmp_path):
        pass


def test_two_workdirs_do_not_hinder_each_other(tmp_path):
    with locked(tmp_path / "a"), locked(tmp_path / "b"):
        assert names(tmp_path) == ["a", "b"]


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_folder_that_cannot_be_made_is_named(tmp_path, place):
    (tmp_path / "file").write_text("in the way")
    message = re.escape(f"{tmp_path / place}: cannot write here (")
    with pytest.raises(WorkdirError, match=message), locked(tmp_path / place):
        pass


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
