"""SIGKILL at many moments of a run, which is then resumed to the same bits."""

import shutil
import signal
import time
from contextlib import suppress

import pytest

from tests.faults.lab import assert_same

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

# Asks to stop after so many steps.
STOP_AFTER = """
import signal
from jaxseg.runs.signals import StopVote
vote, heard = StopVote.__call__, []
def late(self, signum):
    heard.append(signum)
    return signal.SIGTERM if len(heard) == {steps} + 1 else vote(self, signum)
StopVote.__call__ = late
"""


def test_killed_before_any_of_its_changes_to_files(lab, reference, tmp_path):
    """A fresh run makes about 117: locks, settings, pictures, three checkpoints, tables.

    A run that had fewer changes left to make is whole; the next one is fresh, and must be killed.
    """
    kills = ends = 0
    for count in range(1, 70, 3):
        for fresh in (False, True):
            run = tmp_path / f"run-{ends}"
            hook = BEFORE_EVENT.format(count=count, folder=str(run))
            ended = lab.train(run, hook=hook).wait()
            if ended.status == -signal.SIGKILL:
                kills += 1
                break
            assert not fresh, ended
            assert (ended.status, ended.errors) == (0, ""), ended
            assert_same(run, reference)
            ends += 1
    run = tmp_path / f"run-{ends}"
    lab.finish(run)
    assert_same(run, reference)
    print(kills, "kills of", ends + 1, "runs")
    assert kills == 23


@pytest.mark.skipif(shutil.which("c++") is None, reason="a C++ compiler, c++, is missing")
def test_killed_with_native_convolutions(lab, tmp_path):
    """Runs of width 4, as all others here, have XLA's alone."""
    assert lab.finish(tmp_path / "whole", model__width=8, run__convolution="native")
    run = tmp_path / "killed"
    process = lab.train(run, model__width=8, run__convolution="native")
    ended = process.kill_when((run / "checkpoints" / "9" / "metrics").exists)
    assert ended.status == -signal.SIGKILL
    lab.finish(run, model__width=8, run__convolution="native")
    assert_same(run, tmp_path / "whole")


def moments(run):
    """Conditions that hold for a very short time, or from a moment on; in the order of a run."""
    checkpoints, metrics = run / "checkpoints", run / "metrics.jsonl"

    def size():
        return metrics.stat().st_size if metrics.exists() else 0

    def begins(step):
        return (checkpoints / f"{step}.orbax-checkpoint-tmp").exists

    def writes(step):  # arrays, written by native threads
        temporary = checkpoints / f"{step}.orbax-checkpoint-tmp"

        def there():
            with suppress(FileNotFoundError):  # renamed or cleared away while it is looked at
                return any(temporary.glob("*/ocdbt.process_0/d/*"))

        return there

    def grows():
        before = size()
        return lambda: size() > before

    return [
        grows, (run / "pictures").exists, begins(9), writes(9), (checkpoints / "9").exists, grows,
        begins(18), writes(18), (checkpoints / "18").exists, grows, begins(27), writes(27),
        (checkpoints / "27").exists, (checkpoints / "deleted").exists, (run / "table.md").exists,
    ]  # fmt: skip


def anew(condition):
    """Holds from where a condition begins to: what an earlier kill left behind is no moment."""
    held = condition()

    def begins():
        nonlocal held
        before, held = held, condition()
        return held and not before

    return begins


def test_killed_at_moments_seen_from_outside(lab, reference, tmp_path):
    """In a row; a moment that was missed, or had passed already, is tried on fresh runs."""
    folders = (tmp_path / f"run-{k}" for k in range(20))
    run = next(folders)
    missed = []
    for index in range(len(moments(run))):
        for _ in range(5):
            condition = moments(run)[index]
            condition = condition() if condition.__name__ == "grows" else anew(condition)
            ended = lab.train(run).kill_when(condition)
            if ended.status == -signal.SIGKILL:
                break
            assert (ended.status, ended.errors) == (0, ""), ended
            assert_same(run, reference)
            missed.append(index)
            run = next(folders)
        assert ended.status == -signal.SIGKILL, (index, missed)
    lab.finish(run)
    assert_same(run, reference)
    print(len(moments(run)), "moments; missed on the way:", missed)


# Kills where Orbax is about to take away the checkpoint that is neither the latest nor the best.
BEFORE_REMOVAL = """
import os, signal, sys
def hook(event, args):
    if event in ("os.rename", "shutil.rmtree") and str(args[0]).endswith("/checkpoints/18"):
        os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(hook)
"""


def test_killed_before_a_superseded_checkpoint_is_removed(lab, reference, tmp_path):
    """Nothing is saved any more after that; the run that goes on tidies up all the same."""
    run = tmp_path / "run"
    assert lab.train(run, hook=BEFORE_REMOVAL).wait().status == -signal.SIGKILL
    assert {"9", "18", "27"} <= {path.name for path in (run / "checkpoints").iterdir()}
    lab.finish(run)
    assert_same(run, reference)


@pytest.mark.parametrize("seconds", [0.4, 1.2])
def test_killed_at_any_time(lab, reference, tmp_path, seconds):
    """Earlier where the run was over by then."""
    for attempt in range(4):
        run = tmp_path / f"run-{attempt}"
        process = lab.train(run)
        time.sleep(seconds / 2**attempt)
        process.send(signal.SIGKILL)
        ended = process.wait()
        if ended.status == -signal.SIGKILL:
            break
        assert (ended.status, ended.errors) == (0, ""), ended
    assert ended.status == -signal.SIGKILL
    lab.finish(run)
    assert_same(run, reference)


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_asked_to_stop(lab, reference, tmp_path, signum):
    """The state is saved at once; of a second process on the workdir nothing comes."""
    run, metrics = tmp_path / "run", tmp_path / "run" / "metrics.jsonl"
    process = lab.train(run)
    # Stopped, the first holds the folder for as long as the second takes to be refused.
    process.signal_when(lambda: metrics.exists() and metrics.stat().st_size, signal.SIGSTOP)
    lab.train(run).wait().refused(f"{run}: ")
    process.send(signum)
    process.send(signal.SIGCONT)
    ended = process.wait()
    assert ended.status == 128 + signum, ended
    name = signal.Signals(signum).name
    answer, _, last = ended.errors.partition("\nstopped by ")
    assert answer.startswith(f"\n{name}: ")  # at once, before the step ends
    assert last.startswith(f"{name} at step ")
    step = int(ended.errors.split(" at step ")[1].split(";")[0])
    assert f"resuming at step {step}" in lab.finish(run).output
    # By the time it is seen the run may be a step past the line of metrics that was waited for.
    assert_same(run, reference, stopped=step)


@pytest.mark.parametrize("steps", [2, 3])
def test_asked_to_stop_at_a_line_of_metrics_and_between_two(lab, reference, tmp_path, steps):
    run = tmp_path / "run"
    ended = lab.train(run, hook=STOP_AFTER.format(steps=steps)).wait()
    assert f"SIGTERM at step {steps};" in ended.errors
    assert f"resuming at step {steps}" in lab.finish(run).output
    same = (run / "metrics.jsonl").read_bytes() == (reference / "metrics.jsonl").read_bytes()
    assert same == (steps == 2)
    assert_same(run, reference, stopped=steps)
