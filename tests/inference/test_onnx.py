"""The network in the box without JAX: exported by command, run by the lines of the docs."""

import re
from pathlib import Path

import nibabel
import numpy as np
import pytest

from jaxseg.__main__ import main
from jaxseg.data import most_probable, read_case
from jaxseg.data.scout import SIZE
from jaxseg.inference.predictor import make_predictor
from jaxseg.models.segment import make_probabilities
from jaxseg.runs.trained import load_run
from tests import by_note

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "export.md"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("onnx") / "bundle"
    main(["export", "--run=pretrained", f"--output={folder}", "--onnx", "--compact"])
    return folder


@pytest.fixture(scope="module")
def trained(bundle):
    return load_run(bundle)


def python_of(text):
    return next(code for code in re.findall(r"```python\n(.*?)```", text, re.S) if "onnx" in code)


def test_the_lines_of_the_docs(bundle, trained, monkeypatch):
    monkeypatch.chdir(bundle.parent)
    code, names = python_of(PAGE.read_text()), {}
    assert set(re.findall(r"^(?:import|from) (\w+)", code, re.MULTILINE)) <= {
        "json", "pathlib", "numpy", "onnxruntime",
    }  # fmt: skip
    exec(code, names)
    for network, params, images, found in (
        (trained.network, trained.params, "images", names["probabilities"]),
        (trained.localizer, trained.localizer_params, "scouts", names["hearts"]),
    ):
        wanted = make_probabilities(network, batch_size=4)(params, names[images])
        np.testing.assert_allclose(found, wanted, atol=1e-4)
    assert names["labels"].shape == names["images"].shape


def test_the_lines_of_the_model_card(bundle, monkeypatch):
    monkeypatch.chdir(bundle)
    names = {}
    exec(python_of(Path("MODEL_CARD.md").read_text()), names)
    assert names["probabilities"].shape == (3, 80, 80, 5)


def test_card_and_license_are_those_of_the_network_in_the_box(bundle):
    assert "CC BY-NC-SA 4.0" in (bundle / "LICENSE").read_text()
    assert "Two experts agree" in (bundle / "MODEL_CARD.md").read_text()


@pytest.mark.parametrize("shape", [SIZE, (64, 56)])
def test_both_networks_for_any_batch(bundle, trained, shape):
    rng = np.random.default_rng(0)
    for name, network, params, size in (
        ("model", trained.network, trained.params, trained.grid.size),
        ("localizer", trained.localizer, trained.localizer_params, shape),
    ):
        session = by_note.load(bundle / f"{name}.onnx")
        predict = make_probabilities(network, batch_size=5)
        for count in (1, 5):
            images = rng.normal(size=(count, *size)).astype(np.float32)
            np.testing.assert_allclose(session(images), predict(params, images), atol=1e-4)


@pytest.mark.slow
def test_a_scan_without_jax(bundle, trained, tmp_path):
    """All steps of `preprocessing.json` with the two ONNX files give the label map of `predict`."""
    main(["example", str(tmp_path / "scans")])
    path = next((tmp_path / "scans").glob("Case_P*/Images/*.nii.gz"))
    case = read_case("A", path)
    wanted = make_predictor([trained])(case)
    image = np.asarray(nibabel.load(path).dataobj)
    center, labels = by_note.find_and_segment(bundle, image, case.spacing, suffix=".onnx")
    assert center == wanted.center
    assert (labels == most_probable(wanted.probabilities)).mean() > 0.9999
    assert len(np.unique(labels)) == 5
