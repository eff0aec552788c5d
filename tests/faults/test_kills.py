"""SIGKILL at many moments of a run; what goes on from there ends as if nothing had happened."""

import signal
import time

import pytest

from tests.faults.lab import STEPS, assert_same

# Counts what the process does to files of its workdir, and kills it before the n-th.
BEFORE_EVENT = """
import os, signal, sys
COUNT, FOLDER = {count}, {folder!r}
CHANGES = ("os.mkdir", "os.rename", "os.rmdir", "os.remove")
seen = 0
def hook(event, args):
    global seen
    writes = event in CHANGES or event == "open" and args[2] & (os.O_WRONLY | os.O_RDWR)
    if writes and FOLDER in str(args[0]):
        seen += 1
        if seen == COUNT:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(hook)
"""


def test_killed_before_any_of_its_changes_to_files(lab, reference, tmp_path):
    """A fresh run makes about 117: locks, settings, pictures, three checkpoints, tables."""
    kills = ends = 0
    for count in range(1, 70, 3):
        run = tmp_path / f"run-{ends}"
        hook = BEFORE_EVENT.format(count=count, folder=str(run))
        ended = lab.train(run, hook=hook).wait()
        if ended.status == -signal.SIGKILL:
            kills += 1
            continue
        assert (ended.status, ended.errors) == (0, ""), ended
        assert_same(run, reference)
        ends += 1
    run = tmp_path / f"run-{ends}"
    lab.finish(run)
    assert_same(run, reference)
    assert kills >= 20


def moments(run):
    """Conditions that hold for a very short time, or from a moment on; in the order of a run."""
    checkpoints, metrics = run / "checkpoints", run / "metrics.jsonl"

    def size():
        return metrics.stat().st_size if metrics.exists() else 0

    def begins(step):
        return (checkpoints / f"{step}.orbax-checkpoint-tmp").exists

    def writes(step):  # arrays, by threads that Python knows nothing of
        temporary = checkpoints / f"{step}.orbax-checkpoint-tmp"
        return lambda: any(temporary.glob("*/ocdbt.process_0/d/*"))

    def grows():
        before = size()
        return lambda: size() > before

    return [
        grows, (run / "pictures").exists, begins(9), writes(9), (checkpoints / "9").exists, grows,
        begins(18), writes(18), (checkpoints / "18").exists, grows, begins(27), writes(27),
        (checkpoints / "27").exists, (checkpoints / "deleted").exists, (run / "table.md").exists,
    ]  # fmt: skip


def test_killed_at_moments_seen_from_outside(lab, reference, tmp_path):
    kills, run = 0, tmp_path / "run"
    for condition in moments(run):
        if condition.__name__ == "grows":
            condition = condition()
        ended = lab.train(run).kill_when(condition)
        assert ended.status in (0, -signal.SIGKILL), ended
        kills += ended.status == -signal.SIGKILL
    lab.finish(run)
    assert_same(run, reference)
    assert kills >= 10


@pytest.mark.parametrize("seconds", [0.4, 1.2])
def test_killed_at_any_time(lab, reference, tmp_path, seconds):
    run = tmp_path / "run"
    process = lab.train(run)
    time.sleep(seconds)
    process.send(signal.SIGKILL)
    assert process.wait().status in (0, -signal.SIGKILL)
    lab.finish(run)
    assert_same(run, reference)


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_asked_to_stop(lab, reference, tmp_path, signum):
    """The state is saved at once; of a second process on the workdir nothing comes."""
    run, metrics = tmp_path / "run", tmp_path / "run" / "metrics.jsonl"
    process = lab.train(run)
    # Stopped, the first holds the folder for as long as the second takes to be refused.
    process.signal_when(lambda: metrics.exists() and metrics.stat().st_size, signal.SIGSTOP)
    lab.train(run).wait().refused(f"{run}: another process is training in this workdir")
    process.send(signum)
    process.send(signal.SIGCONT)
    ended = process.wait()
    assert ended.status == 128 + signum, ended
    name = signal.Signals(signum).name
    assert ended.errors.startswith(f"\nstopped by {name} at step ")
    assert ended.errors.endswith("; the same command resumes there\n")
    assert "resuming at step" in lab.finish(run).output
    table = (reference / "table.csv").read_text()
    assert (run / "table.csv").read_text() == table
    assert (run / "checkpoints" / str(STEPS)).exists()
