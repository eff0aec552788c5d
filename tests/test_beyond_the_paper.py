"""A tiny run of `best.py`, from the command line to the exported network."""

import json

import numpy as np
import pytest

from jaxseg.data import find_cases, load_case, probabilities_to_native
from jaxseg.inference.export import export
from jaxseg.inference.predictor import make_predictor
from jaxseg.models.segment import make_probabilities
from jaxseg.runs.trained import load_run
from tests.by_hand import prepared

pytestmark = pytest.mark.slow

SIZES = {
    "model__depth": 2, "model__groups": 0, "grid__size": "64,64", "grid__spacing": 2.1,
    "grid__center": "0.5,0.5",  # so that what the network sees can be computed by hand
}  # fmt: skip


@pytest.fixture(scope="module")
def run(command_line, finished_run, tmp_path_factory):
    """The phantom is there."""
    folder = tmp_path_factory.mktemp("best") / "run"
    process = command_line.start_tiny(folder, config="best.py", **SIZES)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    return load_run(folder, checkpoint="last")


def test_the_loss_terms_are_logged(run):
    lines = (run.folder / "metrics.jsonl").read_text().splitlines()
    logged = [line for line in lines if json.loads(line)["group"] == "train"]
    assert logged
    assert all("dice_loss" in line and "neighboring_loss" in line for line in logged)


def test_run_and_bundle_give_the_same_probabilities(run, tmp_path):
    case = load_case(find_cases(run.setup.source.root)[0])
    segment = make_probabilities(run.network, batch_size=8)
    by_hand = segment(run.params, prepared(run, case))
    wanted = probabilities_to_native(by_hand, case.image.shape, case.spacing, run.grid)
    export(run.folder, tmp_path / "bundle", checkpoint="last")
    for trained in (run, load_run(tmp_path / "bundle")):
        found = make_predictor([trained])(case).probabilities
        np.testing.assert_allclose(found, wanted, atol=1e-4)
