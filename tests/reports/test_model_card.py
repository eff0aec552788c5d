"""The model card: facts of the run, and snippets that run."""

import re
import shutil
from pathlib import Path
from types import MappingProxyType

import jax
import numpy as np
import orbax.checkpoint
import pytest

from configs import awce, best
from jaxseg.config.settings import replace
from jaxseg.config.setup import build
from jaxseg.models import UNet
from jaxseg.reports.model_card import Facts, is_own_data, model_card
from jaxseg.runs.trained import Trained, load_run


@pytest.fixture(scope="module")
def card(bundle_folder):
    return (bundle_folder / "MODEL_CARD.md").read_text()


def setup(**changes):
    """Setup of stage 3 for another anatomy; `changes` replace fields, with __ for the dot."""
    fields = {
        "seed": 3,
        "data.phantom_seed": 7,
        "data.split": "case",
        "data.validation_fraction": 0.2,
        "grid.size": [64, 96],
        "model.width": 8,
        "model.depth": 2,
        "train.epochs": 40,
        "anatomy": {
            "labels": ["background", "cavity", "scar"],
            "inclusions": [],
            "slice_regions": [["Scar", ["scar"]]],
            "case_regions": [["Scar", ["scar"]]],
        },
    }
    fields |= {name.replace("__", "."): value for name, value in changes.items()}
    return build(replace(awce.get_config("emidec").to_dict(), fields))


def data(*names, **more):
    parts = {"training": {"slices": 11, "cases": names[1:]}, "validation": {"slices": 4}}
    parts["validation"]["cases"] = names[:1]
    return {"cases": list(names), **parts, **more}


def text(run=None, known=None, *, checkpoint="best", **changes):
    trained = Trained(
        Path("run"), checkpoint, 30, setup() if run is None else run,
        data("Ann", "Bob") if known is None else known, UNet(num_labels=3),
        {"kernel": np.zeros((1234, 1000)), "bias": np.zeros(567)},
    )  # fmt: skip
    facts = {
        "run": trained, "scores": {}, "remarks": (), "calling_convention": 10,
        "made_with": MappingProxyType({"jax": "9.9"}), "files": {"config.json": (1234, "ab" * 32)},
    }  # fmt: skip
    return model_card(Facts(**(facts | changes)))


def section(card, title):
    found = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", card, re.MULTILINE | re.DOTALL)
    assert found, title
    return " ".join(found[1].split())


def snippets(card):
    return re.findall(r"```python\n(.*?)```", card, re.DOTALL)


def test_the_snippet_for_the_artifact_runs(card, bundle_folder, tmp_path, monkeypatch):
    code, _ = snippets(card)
    assert set(re.findall(r"^(?:import|from) (\w+)", code, re.MULTILINE)) == {
        "pathlib", "numpy", "jax",
    }  # fmt: skip
    shutil.copy(bundle_folder / "model.stablehlo", tmp_path)
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(code, names)
    assert names["labels"].shape == (3, 32, 32)
    run = load_run(bundle_folder)
    apply = jax.jit(lambda x: jax.nn.softmax(run.network.apply({"params": run.params}, x)))
    wanted = np.asarray(apply(np.zeros((3, 32, 32, 1), np.float32)))
    np.testing.assert_allclose(names["probabilities"], wanted, atol=1e-6)


def test_the_snippet_for_the_parameters_runs(card, bundle_folder, tmp_path, monkeypatch):
    _, code = snippets(card)
    assert set(re.findall(r"^(?:import|from) (\w+)", code, re.MULTILINE)) == {"pathlib", "orbax"}
    shutil.copytree(bundle_folder / "params", tmp_path / "params")
    monkeypatch.chdir(tmp_path)
    names = {"ocp": orbax.checkpoint}
    exec(code, names)
    found = jax.tree.leaves(names["params"])
    wanted = jax.tree.leaves(load_run(bundle_folder).params)
    assert len(found) == len(wanted) > 10
    for a, b in zip(found, wanted, strict=True):
        assert type(a) is np.ndarray
        np.testing.assert_array_equal(a, b)


def test_the_card_of_a_bundle(card):
    assert card.startswith("# Model card: awce_penalty\n")
    assert re.findall(r"^## (.*)$", card, re.MULTILINE) == [
        "What it is", "Intended use", "Data and license", "Training", "Scores", "Limits",
        "How to use it", "Files and versions",
    ]  # fmt: skip
    assert "4 no-reflow" in section(card, "What it is")
    assert "| params/_METADATA" in card
    assert re.search(r"[\d.]+-[\d.]+ x [\d.]+-[\d.]+ x \d+-\d+ mm", card)


def test_usage_names_the_commands_and_the_grid():
    usage = section(text(), "How to use it")
    assert "jaxseg predict" in usage
    assert "jaxseg evaluate" in usage
    assert "64, 96" in usage
    assert "--checkpoint" not in section(text(checkpoint="last"), "How to use it")


def test_the_license_follows_the_data():
    terms, source = "BY-NC-SA", "late gadolinium"
    phantom = text(setup(data__phantom_cases=6))
    emidec = text(known=data("Case_P001", "Case_N042"))
    own = text(known=data("Case_P001", "Case_N0042"))
    assert "seed 7" in section(phantom, "Data and license")
    assert [terms in section(t, "Data and license") for t in (phantom, emidec, own)] == [
        False, True, False,
    ]  # fmt: skip
    assert source in emidec
    assert source not in text()
    assert is_own_data(setup().source, data("Case_P001", "Ann"))
    assert not is_own_data(setup().source, data("Case_P001"))
    assert not is_own_data(setup(data__phantom_cases=2).source, data("Ann"))


def test_facts_of_split_method_and_training():
    by_case = section(text(), "Data and license")
    assert all(fact in by_case for fact in ("by case", "0.2", "11 slices", "4 slices"))
    by_slice = section(text(setup(data__split="slice", data__folds=5)), "Data and license")
    assert all(fact in by_slice for fact in ("by slice", "fold 0 of 5", "optimistic"))
    what = section(text(), "What it is")
    for fact in (r"attention blocks +\| yes", r"penalty[^|]+\| no +\|", "width 8, depth 2",
                 "1,234,567", "64 x 96", "1.4 mm", "zscore",
                 r"beyond the paper +\| nothing"):  # fmt: skip
        assert re.search(fact, what)
    changes = {"loss__penalty": 0.01, "loss__dice": 1.0, "grid__spacing": 0.0}
    what = section(text(setup(**changes, augment__probability=0.5)), "What it is")
    assert all(fact in what for fact in ("0.01", "50%", "native pixels"))
    training = section(text(), "Training")
    assert all(fact in training for fact in ("40 epochs", "16 slices", "1e-06", "step 30"))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("mixup.probability", 0.0), ("mixup.transplant", 0.0), ("augment.probability", 0.0),
        ("model.width", 4), ("model.depth", 3), ("model.attention", False), ("model.dense", True),
        ("model.context", False), ("model.groups", 8), ("model.precision", "bfloat16"),
        ("loss.weighted", False),
        ("loss.penalty", 0.5), ("loss.dice", 0.5), ("loss.dice_of", "labels"),
        ("balance.method", "minimize"), ("balance.strength", 0.1), ("grid.soft_labels", False),
    ],
)  # fmt: skip
def test_every_choice_of_the_method_changes_the_card(field, value):
    config = best.get_config("emidec").to_dict()
    assert text(build(replace(config, {field: value}))) != text(build(config))


def test_scores_are_shown_below_their_heading():
    scores = {"At the end": "# awce: DSC\n\nSplit by slice.\n\n## Cases in 3D\n\n| DSC |\n"}
    card = text(scores=scores, remarks=("No evaluation.",))
    expected = "No evaluation. ### At the end Split by slice. #### Cases in 3D | DSC |"
    assert section(card, "Scores").startswith(expected)
    assert "awce: DSC" not in card
    assert len(card) > len(text(scores=scores, remarks=("No evaluation.",), checkpoint="last"))


def test_files_versions_and_spacing():
    found = section(text(), "Files and versions")
    assert "jax 9.9" in found
    assert re.search(rf"\| config.json +\| 1,234 +\| {'ab' * 32} \|", found)
    known = data("Ann", "Bob", spacing=[[1.3671875, 1.4, 8.0], [2.0, 1.5, 13.0]])
    assert "1.37-2 x 1.4-1.5 x 8-13 mm" in text(known=known)
