"""Randomly damaged documents of a run are read, or refused in one line."""

import json
import shutil

import jax
import numpy as np
import pytest

from jaxseg.inference.export import _scored_checkpoint
from jaxseg.reports.curves import read_history
from jaxseg.runs.checkpoint import Checkpoints
from jaxseg.runs.files import WorkdirError
from jaxseg.runs.logbook import METRICS, read_metrics
from tests.faults.test_damage import saved, state_of  # noqa: F401 - a fixture
from tests.properties.test_json import mutated, outcomes


def test_damaged_metrics(tmp_path):
    """Wherever it stands; both readers go by one rule."""
    line = {"step": 20, "group": "train", "loss": 0.5, "label_weights/infarct": None, "epoch": 1.5}
    whole = json.dumps(line | {"step": 40})

    def read(folder):
        damaged = (folder / METRICS).read_text()
        (folder / METRICS).write_text(f"{damaged}\n{whole}\n{damaged}")
        read_history(folder / METRICS)
        assert read_metrics(folder / METRICS)[1]["step"] == 40

    outcomes(line, tmp_path / METRICS, read, WorkdirError)


@pytest.mark.parametrize("count", range(8))
def test_an_incomplete_last_line_is_ignored_by_every_reader(tmp_path, count):
    line = json.dumps({"step": 1, "group": "train", "loss": 0.5, "epoch": 1.0})
    path = tmp_path / METRICS
    path.write_text(f"{line}\n{line[: count * len(line) // 8]}")
    assert len(read_metrics(path)) == 1
    assert read_history(path)["train/loss"].values.tolist() == [0.5]
    path.write_text(f"{line[: count * len(line) // 8]}\n{line}\n")
    for read in (read_metrics, read_history):
        with pytest.raises(WorkdirError, match=r"metrics\.jsonl, line 1: "):
            read(path)


def test_damaged_summaries(tmp_path):
    content = {"name": "a", "checkpoint": "best, step 9", "mirror": False, "cases": {"x": [1]}}
    outcomes(content, tmp_path / "summary.json",
             lambda folder: _scored_checkpoint(folder / "summary.json"), WorkdirError)  # fmt: skip


@pytest.mark.parametrize(
    "document", ["_CHECKPOINT_METADATA", "network/_METADATA", "training/_METADATA",
                 "network/array_metadatas/process_0", "network/_sharding", "metrics/metrics"],
)  # fmt: skip
def test_a_checkpoint_s_own_documents(saved, tmp_path, document):  # noqa: F811
    """Read, to the very state, or refused; never another error, another state or a great wait."""
    copy = shutil.copytree(saved, tmp_path / "copy")
    path = copy / "checkpoints" / "4" / document
    content, rng = json.loads(path.read_text()), np.random.default_rng(0)
    counts = {"read": 0, "refused": 0}
    for _ in range(25):
        path.write_text(json.dumps(mutated(content, rng)))
        try:
            with Checkpoints(copy, read_only=True) as checkpoints:
                found = checkpoints.restore(state_of(0), 4)
        except (WorkdirError, ValueError) as error:
            counts["refused"] += 1
            problem = str(error)
            assert len(problem.splitlines()) == 1 and len(problem) < 1000, problem  # noqa: PT018
        else:
            counts["read"] += 1
            expected = state_of(4)
            assert jax.tree.structure(found) == jax.tree.structure(expected)
            jax.tree.map(np.testing.assert_array_equal, found, expected)
    print(document, counts)
    assert sum(counts.values()) == 25
