"""Fine-tuning: copied parameters, refused sources, and cases that count as seen."""

import dataclasses
import json
import re
import shutil
from functools import cache
from pathlib import Path

import jax
import numpy as np
import pytest

from configs import edema_scar
from jaxseg.config.settings import SettingsError, replace
from jaxseg.config.setup import build
from jaxseg.data import DataError
from jaxseg.data.phantom.write import write_phantom
from jaxseg.evaluation.evaluate import evaluate
from jaxseg.evaluation.methods import NETWORK
from jaxseg.inference.export import export
from jaxseg.models.segment import make_probabilities
from jaxseg.runs import provenance, unseen
from jaxseg.runs.config_file import read_settings
from jaxseg.runs.data_file import read_data
from jaxseg.runs.files import WorkdirError
from jaxseg.runs.trained import load_run
from jaxseg.studies import work
from jaxseg.studies.ablation.ablate import ablate
from jaxseg.studies.crossvalidate import crossvalidate
from jaxseg.train_step import TrainState, init_state, placement
from jaxseg.training import start
from jaxseg.training.start import merge
from jaxseg.training.train import train
from tests.logged import logged
from tests.stopped import assert_same_end, end_state, train_stopped

pytestmark = pytest.mark.slow

FOUR_LABELS = {
    "labels": ["background", "cavity", "myocardium", "scar"],
    "inclusions": [],
    "slice_regions": [["Scar", ["scar"]]],
    "case_regions": [["Scar", ["scar"]]],
}


def changed(config, **fields):
    """A copy with other fields, with __ for the dot."""
    return replace(config, {name.replace("__", "."): value for name, value in fields.items()})


@pytest.fixture(scope="module")
def source(finished_run) -> Path:
    """A run of all sub-networks but a localizer."""
    return finished_run


@pytest.fixture(scope="module")
def config(source, command_line):
    """The source's own, to be trained further for an epoch."""
    known = read_settings(source)
    return changed(
        known, train__init_from=str(source), train__epochs=1, run__pictures=0,
        data__root=str(command_line.phantom), data__phantom_cases=0, name="tuned",
    )  # fmt: skip


def fresh(config) -> TrainState:
    return _fresh(json.dumps(config))


@cache
def _fresh(text: str) -> TrainState:
    setup = build(json.loads(text))
    optimizer = setup.optimization.optimizer(lambda step: 0.0 * step)
    return init_state(setup.networks, optimizer, 7, setup.grid.size)


def loaded(config):
    setup = build(config)
    return start.load(setup.course.init_from, setup)


def checked(config):
    return start.check(build(config).course.init_from, config)


def applied(config):
    state, at_random = loaded(config).apply(fresh(config), placement(1))
    return state, at_random


def leaves(tree):
    pairs = jax.tree.leaves_with_path(tree)
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in pairs}


def differing(first, second):
    ours, theirs = leaves(first), leaves(second)
    assert ours.keys() == theirs.keys()
    return {
        name
        for name in ours
        if ours[name].shape != theirs[name].shape or (ours[name] != theirs[name]).any()
    }


# ---- merging, by hand


def tree(value, labels=5, *, width=4, localizer=False):
    def filled(*shape):
        return np.full(shape, value, np.float32)

    network = {"encoder0": {"conv1": {"kernel": filled(3, 3, 1, width)}}}
    network["logits"] = {"kernel": filled(width, labels), "bias": filled(labels)}
    generator = {"conv1": {"kernel": filled(3, 3)}, "conv6": {"kernel": filled(3, labels)}}
    params = {"network": network, "generator": generator}
    if localizer:
        params["localizer"] = {"logits": {"kernel": filled(8, 2)}}
    return params


def values(params):
    return {name: set(leaf.ravel().tolist()) for name, leaf in leaves(params).items()}


def test_all_parameters_are_copied_for_the_same_labels():
    own, source = tree(0, localizer=True), tree(1, localizer=True)
    merged, at_random = merge(own, source, same_labels=True)
    assert set.union(*values(merged).values()) == {1}
    assert at_random == ()
    assert set.union(*values(own).values()) == {0}, "changed in place"


@pytest.mark.parametrize("labels", [5, 3])
def test_other_labels_drop_the_output_layers(labels):
    """Even if their number is the same; the localizer does not depend on the labels."""
    merged, at_random = merge(
        tree(0, labels, localizer=True), tree(1, 5, localizer=True), same_labels=False
    )
    assert at_random == ("generator/conv6", "network/logits")
    own = {name for name, found in values(merged).items() if found == {0}}
    assert own == {
        "['network']['logits']['kernel']",
        "['network']['logits']['bias']",
        "['generator']['conv6']['kernel']",
    }
    assert leaves(merged)["['network']['logits']['bias']"].shape == (labels,)


def test_a_missing_sub_network_starts_at_random():
    own, source = tree(0, localizer=True), tree(1)
    del source["generator"]
    merged, at_random = merge(own, source, same_labels=True)
    assert at_random == ("generator", "localizer")
    assert values(merged["network"]["encoder0"]) == {"['conv1']['kernel']": {1}}
    assert values(merged["localizer"]) == {"['logits']['kernel']": {0}}
    merged, at_random = merge(source, own, same_labels=True)
    assert (merged.keys(), at_random) == ({"network"}, ())


def test_context_may_be_added_but_not_dropped():
    own, source = tree(0), tree(1)
    own["network"]["exchange2"] = {"mix": {"kernel": np.zeros((3, 1), np.float32)}}
    merged, at_random = merge(own, source, same_labels=True)
    assert at_random == ("network/exchange2",)
    assert values(merged["network"]["exchange2"]) == {"['mix']['kernel']": {0}}
    assert values(merged["network"]["encoder0"]) == {"['conv1']['kernel']": {1}}
    with pytest.raises(ValueError, match="exchange2/mix/kernel: "):
        merge(source, own, same_labels=True)


def test_other_differences_are_refused():
    with pytest.raises(ValueError, match="network/encoder0/conv1/kernel: "):
        merge(tree(0, width=8), tree(1), same_labels=False)
    source = tree(1)
    source["network"]["encoder1"] = {"scale": np.ones(3)}
    with pytest.raises(ValueError, match="encoder1/scale: "):
        merge(tree(0), source, same_labels=True)
    with pytest.raises(ValueError, match="encoder1/scale: "):
        merge(source, tree(0), same_labels=True)


# ---- what a run starts from


def test_the_first_logits_are_those_of_the_source(config, source):
    state, at_random = applied(config)
    assert at_random == ()
    assert differing(state.params, end_state(source).params) == set()
    assert int(state.step) == 0
    assert differing(state.opt_state, fresh(config).opt_state) == set()
    run = load_run(source)
    images = np.random.default_rng(0).normal(size=(2, 32, 32, 1)).astype(np.float32)
    network = build(config).networks.segmentation
    trees = (state.params["network"], run.params, fresh(config).params["network"])
    segment = jax.jit(lambda params: network.apply({"params": params}, images))
    ours, theirs, other = (np.asarray(segment(params)) for params in trees)
    np.testing.assert_array_equal(ours, theirs)
    assert np.abs(ours - other).max() > 0.1


def test_added_context_leaves_the_probabilities_of_the_source(config, source):
    own = changed(config, model__context=True)
    checked(own)
    state, at_random = applied(own)
    depth = own["model"]["depth"]
    assert at_random == tuple(f"network/exchange{k}" for k in range(min(2, depth), depth + 1))
    run, network = load_run(source), build(own).networks.segmentation
    images = np.random.default_rng(0).normal(size=(3, 32, 32)).astype(np.float32)
    ours = make_probabilities(network, batch_size=3)(state.params["network"], images)
    theirs = make_probabilities(run.network, batch_size=3)(run.params, images)
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize("anatomy", ["other names", "four labels"])
def test_other_labels_start_only_the_heads_at_random(config, source, anatomy):
    names = edema_scar.get_config("phantom").to_dict()["anatomy"]
    own = changed(config, anatomy=names if anatomy == "other names" else FOUR_LABELS)
    state, at_random = applied(own)
    assert at_random == ("generator/conv6", "network/logits")
    heads = "'logits'|'conv6'"
    known = end_state(source).params
    other = differing(state.params, known)
    assert all(re.search(heads, name) for name in other)
    assert any("'logits'" in name for name in other)
    heads_of_fresh = differing(state.params, fresh(own).params)
    assert not any(re.search(heads, name) for name in heads_of_fresh)


def test_a_localizer_that_the_source_lacks_starts_at_random(config):
    own = changed(config, grid__center=None)
    state, at_random = applied(own)
    assert at_random == ("localizer",)
    assert differing(state.params["localizer"], fresh(own).params["localizer"]) == set()


def test_a_bundle_is_started_from_without_its_generator(config, bundle_folder):
    own = changed(config, train__init_from=str(bundle_folder))
    checked(own)
    state, at_random = applied(own)
    assert at_random == ("generator",)
    assert differing(state.params["network"], load_run(bundle_folder).params) == set()


# ---- what is refused


def refused(config, folder, *names, error: type[Exception] = WorkdirError):
    """Training fails with one line that holds the names, and writes nothing."""
    with pytest.raises(error) as caught:
        train(config, folder)
    message = str(caught.value)
    assert "\n" not in message
    for name in names:
        assert name in message, message
    assert not folder.exists()


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"model__width": 8}, ["model.width"]),
        ({"model__groups": 2}, ["model.groups"]),
        ({"model__depth": 2, "model__attention": False}, ["model.depth", "model.attention"]),
        ({"model__dense": True, "balance__width": 8}, ["model.dense", "balance.width"]),
    ],
)
def test_another_architecture_is_refused(config, source, tmp_path, fields, words):
    own = changed(config, **fields)
    refused(own, tmp_path / "run", "train.init_from: ", str(source), *words, error=SettingsError)


def test_the_width_of_an_unused_generator_may_differ(config):
    assert checked(changed(config, balance__width=8, loss__weighted=False)) == ()


def test_folders_without_a_run_are_refused(config, source, tmp_path):
    def start_from(folder):
        return changed(config, train__init_from=str(folder))

    (tmp_path / "empty").mkdir()
    shutil.copytree(source, tmp_path / "bare", ignore=shutil.ignore_patterns("checkpoints"))
    for name in ("nope", "empty", "bare"):
        refused(start_from(tmp_path / name), tmp_path / "run", f"{name}: ")
    shutil.copytree(source, tmp_path / "old")
    data = json.loads((tmp_path / "old" / "data.json").read_text())
    del data["digests"]
    (tmp_path / "old" / "data.json").write_text(json.dumps(data))
    refused(start_from(tmp_path / "old"), tmp_path / "run", "old: ", "digests")


@pytest.mark.parametrize("item", ["network", "training"])
def test_a_damaged_source_is_refused(config, source, tmp_path, item):
    damaged = tmp_path / "damaged"
    shutil.copytree(source, damaged)
    for note in (damaged / "checkpoints").glob(f"*/{item}/_METADATA"):
        note.write_text("{")
    own = changed(config, train__init_from=str(damaged))
    refused(own, tmp_path / "run", "damaged/checkpoints/35: ")


def test_other_preprocessing_is_reported(config):
    assert checked(config) == ()
    own = changed(config, grid__spacing=2.1, intensity__method="percentile", grid__size=(64, 64))
    (line,) = checked(own)
    for name in ("grid.spacing 4.2", "intensity.method zscore", "grid.size [32, 32]"):
        assert name in line
    assert "\n" not in line


def test_resuming_with_more_epochs_suggests_init_from(source, config):
    known = changed(config, name="awce_penalty", train__init_from=None, run__pictures=2)
    with pytest.raises(WorkdirError, match=str(source)) as error:
        train(changed(known, data__phantom_cases=6, train__epochs=9), source)
    assert f"--init_from={source}" in str(error.value).splitlines()[-1]
    with pytest.raises(WorkdirError, match=str(source)) as error:
        train(changed(known, data__phantom_cases=6, train__epochs=2), source)
    assert "--init_from" not in str(error.value)


# ---- a run that started from another


@pytest.fixture(scope="module")
def other_split(source, config, tmp_path_factory):
    """Holds out the case that the source held out, and one that it was trained on."""
    facts = read_data(source)
    held = [facts["validation"]["cases"][0], facts["training"]["cases"][0]]
    rows = [f"{name},{'val' if name in held else 'train'}" for name in facts["cases"]]
    path = tmp_path_factory.mktemp("split") / "split.csv"
    path.write_text("\n".join(["case,side", *rows]))
    return changed(config, data__splits=str(path), train__epochs=2), held


@pytest.fixture(scope="module")
def tuned(other_split, tmp_path_factory):
    """Started from the source, and the lines of its training."""
    folder = tmp_path_factory.mktemp("tuned") / "run"
    with logged() as lines:
        train(other_split[0], folder)
    return folder, lines


def test_the_source_is_recorded(tuned, source, other_split):
    folder, lines = tuned
    facts, known = read_data(folder)["started_from"], read_data(source)
    assert (facts["path"], facts["name"]) == (str(source), "awce_penalty")
    assert (facts["checkpoint"], facts["step"]) == ("last", 35)
    assert facts["jaxseg"] == provenance.read(source)[-1]["versions"]["jaxseg"]
    digests = [known["digests"][name]["image"] for name in known["training"]["cases"]]
    assert facts["seen"] == sorted(digests)
    assert read_settings(folder)["train"]["init_from"] == str(source)
    assert any(str(source) in line and "step 35" in line for line in lines)
    (line,) = [line for line in lines if line.startswith("warning: ")]
    assert other_split[1][1] in line
    assert "awce_penalty (last checkpoint, step 35" in (folder / "table.md").read_text()


def test_cases_seen_by_the_source_are_not_scored(tuned, other_split, tmp_path):
    folder, (fair, seen) = tuned[0], other_split[1]
    found = evaluate(folder, output=tmp_path)[NETWORK]
    assert [case.name for case in found.cases] == [fair]
    assert seen in found.left_out
    assert len(found.left_out) == 5
    assert any("awce_penalty" in note for note in found.notes)


def test_seen_cases_are_identified_by_their_images(tuned, config, other_split, tmp_path):
    """In a folder of other cases, too."""
    folder, seen = tuned[0], other_split[1][1]
    root = tmp_path / "cases"
    write_phantom(root, seed=1, num_cases=2)
    shutil.copytree(Path(config["data"]["root"]) / seen, root / seen)
    facts = read_data(folder)
    image = facts["digests"].pop(seen)["image"]
    run = load_run(folder)
    other = unseen.judge(dataclasses.replace(run, data=facts), "Case_X", image)
    assert other.left_out
    found = evaluate(folder, root=root, output=tmp_path / "out")[NETWORK]
    assert seen in found.left_out
    assert len(found.cases) == 2


def test_a_run_without_unseen_cases_is_refused(config, source, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(source, run)
    data = json.loads((run / "data.json").read_text())
    (name,) = data["validation"]["cases"]
    image = data["digests"][name]["image"]
    data["started_from"] = {"name": "a", "checkpoint": "best", "step": 3, "seen": [image]}
    (run / "data.json").write_text(json.dumps(data))
    settings = read_settings(run)
    settings["data"]["root"] = config["data"]["root"]
    (run / "config.json").write_text(json.dumps(settings))
    with pytest.raises(DataError, match="started"):
        evaluate(run, output=tmp_path / "out")


def test_cases_seen_by_earlier_sources_count(tuned, config, tmp_path):
    folder = shutil.copytree(tuned[0], tmp_path / "run")
    before = json.loads((folder / "data.json").read_text())
    before["started_from"]["seen"] = ["f00d"]
    (folder / "data.json").write_text(json.dumps(before))
    own = changed(config, train__init_from=str(folder))
    found = loaded(own).facts
    trained_on = [before["digests"][name]["image"] for name in before["training"]["cases"]]
    assert found["seen"] == sorted([*trained_on, "f00d"])
    assert found["started_from"]["step"] == 35
    assert "seen" not in found["started_from"]
    (sentence,) = provenance.started_from({"started_from": found})
    assert re.search(r"tuned \(last.*awce_penalty \(last checkpoint, step 35", sentence)
    public = provenance.without_places({"cases": [], "started_from": found})
    assert str(folder.parent) not in json.dumps(public)
    assert public["started_from"]["seen"] == found["seen"]


def test_a_bundle_names_the_source(tuned, tmp_path):
    folder = tuned[0]
    export(folder, tmp_path / "bundle")
    card = (tmp_path / "bundle" / "MODEL_CARD.md").read_text()
    assert "awce_penalty (last checkpoint, step 35" in card
    facts = read_data(tmp_path / "bundle")["started_from"]
    assert facts["path"] == Path(read_data(folder)["started_from"]["path"]).name
    settings = read_settings(tmp_path / "bundle")
    assert settings["train"]["init_from"] == facts["path"]


def test_a_stopped_run_resumes_without_its_source(other_split, tuned, source, tmp_path):
    moved = shutil.copytree(source, tmp_path / "source")
    stopped = changed(other_split[0], train__init_from=str(moved))
    train_stopped(stopped, tmp_path / "stopped")
    shutil.rmtree(moved)
    train(stopped, tmp_path / "stopped")
    assert_same_end(tmp_path / "stopped", tuned[0])
    assert differing(end_state(tuned[0]).params, end_state(source).params)
    with pytest.raises(WorkdirError, match=r"train\.init_from: "):
        train(changed(stopped, train__init_from=None), tmp_path / "stopped")


def test_a_source_that_changed_before_the_first_checkpoint_is_refused(tuned, config, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(tuned[0], folder, ignore=shutil.ignore_patterns("checkpoints"))
    facts = json.loads((folder / "data.json").read_text())
    facts["started_from"]["network_sha256"] = "other"
    (folder / "data.json").write_text(json.dumps(facts))
    with pytest.raises(WorkdirError, match=str(folder)):
        train(read_settings(folder), folder)


# ---- studies


@pytest.fixture
def trained(monkeypatch):
    """What a study trains, with stand-ins for training and evaluation."""
    found = []

    def stand_in(config, folder, **_):
        found.append(folder.name)
        (folder / "checkpoints" / "3").mkdir(parents=True)

    monkeypatch.setattr(work, "train", stand_in)
    monkeypatch.setattr(work, "evaluate", evaluation_stand_in)
    return found


def evaluation_stand_in(folder, *, output, **_):
    output.mkdir(parents=True)
    (output / "summary.md").touch()


def test_folds_with_seen_cases_are_refused(config, source, trained, tmp_path):
    with pytest.raises(SettingsError) as error:
        crossvalidate(config, tmp_path / "study", folds=3)
    assert re.search(f"{source} .*tuned-seed-0-fold-0-of-3.*Case_", str(error.value))
    assert trained == []
    assert not (tmp_path / "study").exists()


def test_folds_of_other_cases_are_trained(config, source, trained, tmp_path):
    write_phantom(tmp_path / "cases", seed=1, num_cases=4)
    own = changed(config, data__root=str(tmp_path / "cases"))
    with pytest.raises(WorkdirError):  # the stand-ins leave nothing to score
        crossvalidate(own, tmp_path / "study", folds=2)
    assert trained == ["tuned-seed-0-fold-0-of-2", "tuned-seed-0-fold-1-of-2"]


def test_an_ablation_with_seen_cases_is_refused(config, trained, tmp_path):
    stages = {"a": {"name": "a", "loss.penalty": 0.0}, "b": {"name": "b", "loss.penalty": 0.01}}
    own = changed(config, data__split_seed=1)
    with pytest.raises(SettingsError, match="a-seed-0-fold-0-of-2"):
        ablate(own, stages, tmp_path / "study", seeds=1, folds=2)
    stages["b"]["model.attention"] = stages["b"].pop("loss.penalty") > 1
    stages["a"] = {"name": "a", "model.attention": True}
    write_phantom(tmp_path / "cases", seed=1, num_cases=4)
    own = changed(config, data__root=str(tmp_path / "cases"))
    with pytest.raises(SettingsError, match=r"model\.attention "):
        ablate(own, stages, tmp_path / "study", seeds=1)
    assert trained == []
