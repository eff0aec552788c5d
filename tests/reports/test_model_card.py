"""The card tells what it stands on, and its snippets run."""

import re
import shutil
from types import MappingProxyType

import jax
import numpy as np
import orbax.checkpoint
import pytest

from configs import awce, best
from jaxseg.config.settings import replace
from jaxseg.config.setup import build
from jaxseg.reports.model_card import Facts, is_own_data, model_card
from jaxseg.runs.trained import load_run


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


def text(run=None, known=None, **changes):
    facts = {
        "setup": setup() if run is None else run,
        "data": data("Ann", "Bob") if known is None else known,
        "checkpoint": "best", "step": 30, "steps": 40, "num_parameters": 1234567, "scores": {},
        "remarks": (), "calling_convention": 10, "made_with": MappingProxyType({"jax": "9.9"}),
        "files": {"config.json": (1234, "ab" * 32)},
    }  # fmt: skip
    return model_card(Facts(**(facts | changes)))


def section(card, title):
    found = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", card, re.MULTILINE | re.DOTALL)
    assert found, title
    return " ".join(found[1].split())


def snippets(card):
    return re.findall(r"```python\n(.*?)```", card, re.DOTALL)


def test_the_snippet_for_the_artifact_needs_jax_and_numpy_alone(
    card, bundle_folder, tmp_path, monkeypatch
):
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


def test_the_snippet_for_the_parameters_needs_orbax_alone(
    card, bundle_folder, tmp_path, monkeypatch
):
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
    assert "not a medical device" in section(card, "Intended use")
    assert "| params/_METADATA" in card
    assert re.search(r"Voxels trained on: [\d.]+-[\d.]+ x [\d.]+-[\d.]+ x \d+-\d+ mm", card)


def test_the_commands_are_those_of_main():
    usage = section(text(), "How to use it")
    assert "python -m jaxseg predict FILE_OR_FOLDER --run=BUNDLE --output=DIR" in usage
    assert "python -m jaxseg evaluate CASES --run=BUNDLE --output=DIR" in usage
    usage = section(text(checkpoint="last"), "How to use it")
    assert "--checkpoint" not in usage
    assert "np.zeros((3, 64, 96), np.float32)" in usage


def test_the_terms_of_the_data():
    phantom = section(text(setup(data__phantom_cases=6)), "Data and license")
    assert "phantom, seed 7: synthetic" in phantom
    assert "BY-NC-SA" not in phantom
    emidec = section(text(known=data("Case_P001", "Case_N042")), "Data and license")
    for words in ("CC BY-NC-SA 4.0", "under the same terms", "no commercial use", "Data 5(4):89"):
        assert words in emidec
    own = section(text(known=data("Case_P001", "Case_N0042")), "Data and license")
    assert "to be stated here by who exports" in own
    assert "identify nobody" in own
    assert "BY-NC-SA" not in own


def test_whose_data_it_is():
    assert is_own_data(setup().source, data("Case_P001", "Ann"))
    assert not is_own_data(setup().source, data("Case_P001"))
    assert not is_own_data(setup(data__phantom_cases=2).source, data("Ann"))
    assert "late gadolinium" not in text()
    assert "late gadolinium" in text(known=data("Case_P001"))


def test_the_split():
    by_case = section(text(), "Data and license")
    assert "by case, 0.2 of them held out; all slices of a patient on one side" in by_case
    assert "11 slices of 1 cases" in by_case
    assert "4 slices of 1 cases" in by_case
    by_slice = section(text(setup(data__split="slice", data__folds=5)), "Data and license")
    assert "by slice, fold 0 of 5 held out; patients have slices on both sides" in by_slice
    assert "optimistic" in by_slice


def test_the_method_and_its_training():
    what = section(text(), "What it is")
    assert re.search(r"\| attention blocks +\| yes +\|", what)
    assert re.search(r"\| neighborhood penalty \(Eq. 4-5\) +\| no +\|", what)
    assert "width 8, depth 2, group normalization (8 groups), 1,234,567 parameters" in what
    assert "64 x 96 pixels of 1.4 mm, intensities zscore" in what
    changes = {"loss__penalty": 0.01, "model__dense": True, "grid__spacing": 0.0}
    what = section(text(setup(**changes)), "What it is")
    assert "coefficient 0.01" in what
    assert "dense blocks" in what
    assert "native pixels" in what
    training = section(text(), "Training")
    assert "40 epochs: 40 steps of 16 slices" in training
    assert "0.01 to 1e-06, cosine" in training
    assert "best, step 30 (epoch 30)" in training


def test_what_goes_beyond_the_paper():
    assert re.search(r"\| beyond the paper +\| nothing +\|", section(text(), "What it is"))
    assert "sees one slice at a time" in section(text(), "Limits")
    changes = {"augment__probability": 0.5, "loss__dice": 1.0}
    what = section(text(setup(**changes)), "What it is")
    share = "ordinary augmentation of 50% of the examples"
    assert f"{share}, soft Dice loss (coefficient 1)" in what


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("mixup.probability", 0.0), ("augment.probability", 0.0),
        ("model.width", 4), ("model.depth", 3), ("model.attention", False), ("model.dense", True),
        ("model.groups", 8), ("model.precision", "bfloat16"), ("loss.weighted", False),
        ("loss.penalty", 0.5), ("loss.dice", 0.5), ("loss.dice_of", "labels"),
        ("balance.method", "minimize"), ("balance.strength", 0.1), ("grid.soft_labels", False),
    ],
)  # fmt: skip
def test_no_choice_of_the_method_goes_untold(field, value):
    config = best.get_config("emidec").to_dict()
    assert text(build(replace(config, {field: value}))) != text(build(config))


def test_scores_stand_below_their_heading_with_what_is_to_be_said():
    scores = {"At the end": "# awce: DSC\n\nSplit by slice.\n\n## Cases in 3D\n\n| DSC |\n"}
    card = text(scores=scores, remarks=("No evaluation.",))
    found = section(card, "Scores")
    assert found.startswith(
        "No evaluation. ### At the end Split by slice. #### Cases in 3D | DSC |"
    )
    assert "chosen by its score on the validation slices" in found
    assert "awce: DSC" not in card
    assert "chosen by its score" not in text(scores=scores, checkpoint="last")


def test_files_and_versions():
    found = section(text(), "Files and versions")
    assert "Made with jax 9.9." in found
    assert "calling convention 10" in found
    assert re.search(rf"\| config.json +\| 1,234 +\| {'ab' * 32} \|", found)


def test_the_spacing_trained_on_where_it_is_known():
    known = data("Ann", "Bob", spacing=[[1.3671875, 1.4, 8.0], [2.0, 1.5, 13.0]])
    assert "Voxels trained on: 1.37-2 x 1.4-1.5 x 8-13 mm;" in text(known=known)
    assert "Voxels trained on" not in text()
