"""A tiny run of `best.py`, from the command line to the exported network."""

import dataclasses
import json

import numpy as np
import pytest

from jaxseg.data import find_cases, load_case, most_probable, probabilities_to_native
from jaxseg.inference.export import export
from jaxseg.inference.predictor import make_predictor
from jaxseg.models.segment import make_probabilities
from jaxseg.runs.trained import load_run
from tests import by_note
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


def test_context_was_trained(run):
    names = [name for name in run.params if name.startswith("exchange")]
    assert names == ["exchange2"], "at the bottleneck of this depth"
    assert np.abs(run.params["exchange2"]["update"]["kernel"]).max() > 1e-3, "it starts at zero"


def test_run_bundle_and_note_give_the_same_result(run, tmp_path):
    """Of a stack with an empty slice, which is nobody's neighbor."""
    case = load_case(find_cases(run.setup.source.root)[0])
    image = case.image.copy()
    image[..., 2] = 0
    case = dataclasses.replace(case, image=image, label=None)
    shown = np.arange(image.shape[2]) != 2
    by_hand = np.zeros((image.shape[2], *run.grid.size, 5), np.float32)
    by_hand[..., 0] = 1
    segment = make_probabilities(run.network, batch_size=8)
    by_hand[shown] = segment(run.params, prepared(run, case)[shown])
    wanted = probabilities_to_native(by_hand, case.image.shape, case.spacing, run.grid)
    export(run.folder, tmp_path / "bundle", checkpoint="last")
    for trained in (run, load_run(tmp_path / "bundle")):
        found = make_predictor([trained])(case).probabilities
        np.testing.assert_allclose(found, wanted, atol=1e-4)
    note = by_note.read(tmp_path / "bundle")
    corrected = by_note.without_bias_field(note, image, case.spacing)
    _, labels = by_note.segment(tmp_path / "bundle", note, corrected, case.spacing)
    assert (labels == most_probable(wanted)).mean() > 0.999
