"""Checkpoints deleted, cut short and with flipped bits: the run resumes from the last intact
state, or stops with one line; no wrong parameter is ever read."""

import hashlib
import re
import shutil
from collections import Counter
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg.runs.checkpoint import Checkpoints
from jaxseg.runs.checkpoint_note import DamagedError, digest
from jaxseg.runs.files import WorkdirError
from jaxseg.train_step import TrainState
from jaxseg.training.resume import resume
from tests.faults.lab import STEPS, assert_same
from tests.logged import logged

BEST = 9  # of the reference run; its last is STEPS


def copied(reference: Path, tmp_path: Path) -> Path:
    return shutil.copytree(reference, tmp_path / "run")


def array_files(item: Path) -> list[Path]:
    """Small arrays lie in the index, larger ones in files of their own."""
    return [path for path in item.rglob("d/*") if path.stat().st_size]


def flip(item: Path) -> None:
    for path in array_files(item):
        content = bytearray(path.read_bytes())
        content[::512] = bytes(byte ^ 1 for byte in content[::512])
        path.write_bytes(content)


def truncate(item: Path) -> None:
    for path in array_files(item):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


DAMAGES = {
    "bit of an array": lambda step: flip(step / "training"),
    "arrays cut short": lambda step: truncate(step / "network"),
    "metadata deleted": lambda step: (step / "network" / "_METADATA").unlink(),
    "item deleted": lambda step: shutil.rmtree(step / "training"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_latest_is_set_aside_and_the_run_goes_on(lab, reference, tmp_path, damage):
    run = copied(reference, tmp_path)
    DAMAGES[damage](run / "checkpoints" / str(STEPS))
    ended = lab.finish(run)
    (line,) = (line for line in ended.output.splitlines() if "damaged" in line)
    assert line.startswith(f"{run}/checkpoints/{STEPS}: ")
    assert f"{run}/damaged/{STEPS}" in line
    assert f"resuming at step {BEST} of {STEPS}" in ended.output
    assert_same(run, reference)
    assert (run / "damaged" / str(STEPS)).is_dir()


@pytest.mark.parametrize("item", ["network", "training"])
def test_the_comparison_of_runs_reads_the_disk(reference, tmp_path, item):
    """Else these tests would pass over a last checkpoint that was written wrong."""
    run = copied(reference, tmp_path)
    assert_same(run, reference)
    flip(run / "checkpoints" / str(STEPS) / item)
    with pytest.raises(DamagedError, match=f"checkpoints/{STEPS}: "):
        assert_same(run, reference)


def test_a_deleted_latest_is_trained_again(lab, reference, tmp_path):
    run = copied(reference, tmp_path)
    shutil.rmtree(run / "checkpoints" / str(STEPS))
    assert f"resuming at step {BEST} of {STEPS}" in lab.finish(run).output
    assert_same(run, reference)


def test_without_any_checkpoint_the_run_begins_anew(lab, reference, tmp_path):
    run = copied(reference, tmp_path)
    shutil.rmtree(run / "checkpoints")
    assert "resuming" not in lab.finish(run).output
    assert_same(run, reference)


def test_a_damaged_best_stops_the_run_before_any_work(lab, reference, tmp_path):
    """It cannot be done again without a checkpoint before it."""
    run = copied(reference, tmp_path)
    flip(run / "checkpoints" / str(BEST) / "network")
    lab.train(run).wait().refused(f"checkpoints/{BEST}: ")
    evaluation = lab.start("evaluate", f"--run={run}", "--checkpoint=best").wait()
    evaluation.refused(f"checkpoints/{BEST}: ")
    shutil.rmtree(run / "checkpoints")
    lab.finish(run)
    assert_same(run, reference)


def test_where_all_are_damaged_the_run_stops_and_nothing_is_moved(lab, reference, tmp_path):
    run = copied(reference, tmp_path)
    for step in (BEST, STEPS):
        flip(run / "checkpoints" / str(step) / "network")
    lab.train(run).wait().refused(f"checkpoints/{STEPS}: ")
    assert len(list((run / "checkpoints").iterdir())) == 2


# The same, piece by piece, on a small state


def state_of(step: int) -> TrainState:
    rng = np.random.default_rng([7, step])

    def draw(*shape: int) -> jax.Array:
        return jnp.array(rng.normal(size=shape), jnp.float32)

    params = {"network": {"kernel": draw(3, 3, 16, 16), "shift": draw(4)}, "generator": draw(4, 5)}
    return TrainState(params, {"mu": draw(40, 40)}, jnp.int32(step), jnp.uint32(8))


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    with Checkpoints(folder) as checkpoints:
        for step, score in ((2, 0.5), (4, 0.25)):
            checkpoints.save(state_of(step), score)
    return folder


def outcome(folder: Path) -> str:
    """Read the newest state of a damaged copy; a wrong state fails the test."""
    try:
        with Checkpoints(folder, read_only=True) as checkpoints:
            assert checkpoints.latest_step == 4
            assert checkpoints.best_step == 2
            found = checkpoints.restore(state_of(0), 4)
    except (DamagedError, ValueError) as error:
        return "refused" if re.fullmatch(".{10,800}", str(error)) else f"refused with {error}"
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(state_of(4)), strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
    return "the state that was saved"


def damaged_copies(saved: Path, folder: Path, damage, per_file: int) -> Counter[str]:
    """Outcomes of damaging each file of the newest checkpoint so many times."""
    rng = np.random.default_rng(0)
    counts: Counter[str] = Counter()
    copy = folder / "copy"
    shutil.copytree(saved, copy)
    for path in sorted((copy / "checkpoints" / "4").rglob("*")):
        content = path.read_bytes() if path.is_file() else b""
        for _ in range(per_file if content else 0):
            path.write_bytes(damage(content, rng))
            counts[outcome(copy)] += 1
        if content:
            path.write_bytes(content)
    assert outcome(copy) == "the state that was saved"
    return counts


def flipped(content: bytes, rng) -> bytes:
    changed = bytearray(content)
    changed[rng.integers(len(content))] ^= 1 << rng.integers(8)
    return bytes(changed)


def cut(content: bytes, rng) -> bytes:
    return content[: rng.integers(len(content))]


@pytest.mark.parametrize(("damage", "per_file"), [(flipped, 6), (cut, 2)])
def test_no_file_of_a_checkpoint_can_be_damaged_unseen(saved, tmp_path, damage, per_file):
    counts = damaged_copies(saved, tmp_path, damage, per_file)
    print(damage.__name__, dict(counts))
    assert counts.keys() == {"refused", "the state that was saved"}
    # Copies that reading never looks at, such as Orbax's notes for itself, may be damaged.
    assert counts["refused"] >= 20
    assert counts["the state that was saved"] >= 10


def test_every_bit_of_an_array_counts(saved, tmp_path):
    """Orbax alone reads another parameter: its format has no checksum over the numbers."""
    copy = shutil.copytree(saved, tmp_path / "copy")
    step = copy / "checkpoints" / "4"
    changes = [
        (path, content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :], content)
        for path in array_files(step / "network" / "ocdbt.process_0")
        for content in (path.read_bytes(),)
        for at in range(0, len(content), 1 + len(content) // 8)
    ]
    assert len(changes) > 20
    with_digests = read_damaged(copy, changes)
    (step / "metrics" / "metrics").write_text('{"score": 0.25, "step": 4}')
    without = read_damaged(copy, changes)
    assert with_digests["wrong"] == 0
    assert without["wrong"] > 0
    assert with_digests["right"] == without["right"] > 0
    print("of", len(changes), dict(without))


def read_damaged(folder: Path, changes: list[tuple[Path, bytes, bytes]]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for path, damaged, content in changes:
        path.write_bytes(damaged)
        try:
            with Checkpoints(folder, read_only=True) as checkpoints:
                found = checkpoints.restore(state_of(0), 4).params["network"]
        except (DamagedError, ValueError):
            counts["refused"] += 1
        else:
            same = jax.tree.map(np.array_equal, found, state_of(4).params["network"])
            counts["right" if all(jax.tree.leaves(same)) else "wrong"] += 1
        path.write_bytes(content)
    return counts


@pytest.mark.parametrize("read_only", [True, False])
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"score": 0.5', '"score": 0.9'), ('"step": 2', '"step": 3'), ('"sha256"', '"sha255"'),
        ("_sha256", "_sha257"), ('"score": 0.5', '"score": "0.5"'), ('"score"', '"skore"'),
        ("{", "["), ("}", ""),
    ],
)  # fmt: skip
def test_a_damaged_note_is_reported_first(saved, tmp_path, old, new, read_only):
    """It states which checkpoint is the best."""
    copy = shutil.copytree(saved, tmp_path / "copy")
    note = copy / "checkpoints" / "2" / "metrics" / "metrics"
    assert old in note.read_text()
    note.write_text(note.read_text().replace(old, new))
    with pytest.raises(DamagedError, match="checkpoints/2: "):
        Checkpoints(copy, read_only=read_only)


def test_a_checkpoint_without_its_note_is_damaged(saved, tmp_path):
    copy = shutil.copytree(saved, tmp_path / "copy")
    shutil.rmtree(copy / "checkpoints" / "4" / "metrics")
    with pytest.raises(DamagedError, match="checkpoints/4: "):
        Checkpoints(copy)


def test_a_checkpoint_older_than_digests_is_read(saved, tmp_path):
    copy = shutil.copytree(saved, tmp_path / "copy")
    note = copy / "checkpoints" / "4" / "metrics" / "metrics"
    note.write_text('{"score": 0.25, "step": 4}')
    assert outcome(copy) == "the state that was saved"


def test_a_checkpoint_half_deleted_is_gone(saved, tmp_path):
    """Killed while Orbax removed what is neither the latest nor the best."""
    copy = shutil.copytree(saved, tmp_path / "copy")
    trash = copy / "checkpoints" / "deleted"
    shutil.copytree(copy / "checkpoints" / "4", trash / "3")
    shutil.rmtree(trash / "3" / "metrics")
    with Checkpoints(copy, read_only=True) as checkpoints:
        assert checkpoints.steps == [4, 2]
    assert trash.exists()
    with Checkpoints(copy) as checkpoints:
        assert checkpoints.steps == [4, 2]
    assert not trash.exists()


def test_resume_sets_damaged_checkpoints_aside(saved, tmp_path):
    with Checkpoints(tmp_path / "none") as checkpoints:
        fresh = state_of(0)
        assert resume(checkpoints, fresh) == (fresh, False)
    copy = shutil.copytree(saved, tmp_path / "copy")
    for step in (4, 4):  # set aside twice, the second takes the first's place
        flip(copy / "checkpoints" / str(step) / "training" / "ocdbt.process_0")
        with Checkpoints(copy) as checkpoints, logged() as lines:
            state, resumed = resume(checkpoints, state_of(0))
            assert resumed
            assert int(state.step) == 2
            assert checkpoints.steps == [2]
            assert len(lines) == 1
            checkpoints.save(state_of(4), 0.25)  # the step can be saved again
    assert "checkpoints/4: " in lines[0]
    with Checkpoints(copy) as checkpoints:
        assert int(resume(checkpoints, state_of(0))[0].step) == 4
    flip(copy / "checkpoints" / "2" / "network" / "ocdbt.process_0")
    with Checkpoints(copy) as checkpoints, pytest.raises(DamagedError, match="/2: "):
        resume(checkpoints, state_of(0))
    other = state_of(0).replace(params={"network": {"kernel": jnp.zeros(3)}, "generator": 0})
    with Checkpoints(copy) as checkpoints, pytest.raises(WorkdirError, match="network"):
        resume(checkpoints, other)


def test_digest_of_types_shapes_and_bytes():
    """NumPy's little-endian types, shapes and bytes, in order."""
    tree = {"b": jnp.array([1.0, -0.0]), "a": jnp.int32(3)}
    text = b"<i4()" + np.int32(3).tobytes() + b"<f4(2,)" + np.array([1, -0.0], "<f4").tobytes()
    assert digest(tree) == hashlib.sha256(text).hexdigest()
    assert digest({**tree, "b": jnp.array([1.0, 0.0])}) != digest(tree)
    assert digest(jax.tree.map(np.asarray, tree)) == digest(tree)
    assert re.fullmatch("[0-9a-f]{64}", digest({}))
