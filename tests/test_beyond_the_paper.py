"""Neighboring slices, augmentation, a Dice term, averaged parameters: from the command line on."""

import json
from pathlib import Path

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg.data import find_cases, load_case, probabilities_to_native
from jaxseg.export import export
from jaxseg.predictor import make_predictor
from jaxseg.trained import load_run
from tests.by_hand import prepared

EXTRAS = {
    "model__slices": 3, "train__pathology": 0.8, "model__depth": 2,
    "grid__size": "64,64", "grid__spacing": 2.1, "grid__soft_labels": True,
    "grid__center": "0.5,0.5",  # so that what the network sees can be computed by hand
}  # fmt: skip


@pytest.fixture(scope="module")
def run(command_line, finished_run, tmp_path_factory):
    """A tiny run of `best.py` with what it leaves off switched on too; the phantom is there."""
    folder = tmp_path_factory.mktemp("best") / "run"
    process = command_line.start_tiny(folder, config="best.py", **EXTRAS)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    return load_run(folder, checkpoint="last")


@pytest.fixture(scope="module")
def case(run):
    return load_case(find_cases(Path(run.settings["data"]["root"]))[0])


def probabilities_by_hand(run, images):
    """Each slice between the one before and the one after it, the ends beside themselves."""
    apply = jax.jit(lambda x: jax.nn.softmax(run.network.apply({"params": run.params}, x)))
    last = len(images) - 1
    stacks = [
        np.stack([images[max(k - 1, 0)], images[k], images[min(k + 1, last)]], -1)
        for k in range(len(images))
    ]
    return np.concatenate([np.asarray(apply(jnp.asarray(stack[None]))) for stack in stacks])


def test_the_loss_terms_are_logged(run):
    lines = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    logged = [line for line in lines if "train" in str(line) and "dice_loss" in str(line)]
    assert logged, lines[:2]


def test_a_prediction_sees_the_slices_beside_it(run, case):
    found = make_predictor([run])(case).probabilities
    by_hand = probabilities_by_hand(run, prepared(run, case))
    wanted = probabilities_to_native(by_hand, case.image.shape, case.spacing, run.grid)
    np.testing.assert_allclose(found, wanted, atol=1e-4)
    alone = probabilities_by_hand(run, np.repeat(prepared(run, case)[2:3], 3, 0))[1]
    assert np.abs(alone - by_hand[2]).max() > 1e-3, "the neighbors must count"


def test_an_exported_network_sees_them_too(run, case, tmp_path):
    export(run.folder, tmp_path / "bundle", checkpoint="last", say=lambda line: None)
    artifact = jax.export.deserialize(
        bytearray((tmp_path / "bundle" / "model.stablehlo").read_bytes())
    )
    height, width = run.grid.size
    assert [str(aval) for aval in artifact.in_avals] == [f"float32[batch,{height},{width},3]"]
    images = prepared(run, case)
    stack = np.stack([images[0], images[1], images[2]], -1)[None]
    np.testing.assert_allclose(
        artifact.call(stack)[0], probabilities_by_hand(run, images)[1], atol=1e-5
    )
    note = json.loads((tmp_path / "bundle" / "preprocessing.json").read_text())
    assert note["input"]["shape"] == ["batch", height, width, 3]
    assert "channel c is slice k - 1 + c of the stack" in note["input"]["meaning"]
    bundle = load_run(tmp_path / "bundle")
    found = [make_predictor([each])(case).probabilities for each in (bundle, run)]
    np.testing.assert_allclose(*found, atol=1e-6)
