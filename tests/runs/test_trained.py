"""Loading runs and bundles for inference."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxseg.config.settings import SettingsError
from jaxseg.data import find_cases, load_case
from jaxseg.runs import bundle
from jaxseg.runs.data_file import read_data
from jaxseg.runs.files import WorkdirError
from jaxseg.runs.trained import check_data, load_run

REPOSITORY = Path(__file__).parents[2]
# Reads a run on 4 devices, and saves its network as a training on 4 devices does.
ON_FOUR_DEVICES = """
import shutil, sys
from pathlib import Path
import jax, jax.numpy as jnp
from jaxseg.runs.checkpoint import Checkpoints
from jaxseg.train_step import TrainState, placement
from jaxseg.runs.trained import load_run
source, target = map(Path, sys.argv[1:])
run = load_run(source)
assert jax.local_device_count() == 4
target.mkdir()
for name in ("config.json", "data.json"):
    shutil.copy(source / name, target / name)
state = TrainState({"network": run.params}, {"x": jnp.zeros(())}, jnp.int32(5), jnp.uint32(0))
with Checkpoints(target) as checkpoints:
    checkpoints.save(jax.device_put(state, placement(4)), 0.5)
    checkpoints.wait()
"""


@pytest.fixture(scope="module")
def run(random_run):
    return load_run(random_run)


def edited(source, target, name, **changes):
    """A copy of a run whose JSON file has other fields, with __ for the dot."""
    path = shutil.copytree(source, target) / name
    content = json.loads(path.read_text())
    for field, value in changes.items():
        *groups, last = field.split("__")
        inner = content
        for group in groups:
            inner = inner[group]
        inner[last] = value
    path.write_text(json.dumps(content))
    return target


def leaves(tree):
    pairs = jax.tree.leaves_with_path(tree)
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in pairs}


def test_best_and_last(random_run, run):
    assert (run.step, load_run(random_run, checkpoint="best").step) == (6, 5)
    assert (run.folder, run.checkpoint) == (random_run, "last")
    assert run.anatomy.labels[4] == "no-reflow"
    assert (run.grid.size, run.grid.spacing) == ((32, 32), 4.2)
    assert run.network.width == 4


def test_loading_needs_neither_data_nor_training_state(finished_run, tmp_path):
    folder = shutil.copytree(finished_run, tmp_path / "run")
    for training in (folder / "checkpoints").glob("*/training"):
        shutil.rmtree(training)
    found, wanted = load_run(folder), load_run(finished_run)
    assert found.step == wanted.step
    for name, leaf in leaves(wanted.params).items():
        np.testing.assert_array_equal(leaves(found.params)[name], leaf)


def test_the_number_of_devices_may_differ(random_run, run, tmp_path):
    subprocess.run(
        [sys.executable, "-c", ON_FOUR_DEVICES, str(random_run), str(tmp_path / "run")],
        env=os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=4",
                          "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(REPOSITORY)},
        check=True, timeout=120,
    )  # fmt: skip
    found = leaves(load_run(tmp_path / "run").params)
    assert found.keys() == leaves(run.params).keys()
    for name, leaf in leaves(run.params).items():
        np.testing.assert_array_equal(found[name], leaf)


def refused(folder, *names, error=WorkdirError, **options):
    """Loading fails with one line that holds the names."""
    with pytest.raises(error) as caught:
        load_run(folder, **options)
    message = str(caught.value)
    assert "\n" not in message
    for name in names:
        assert name in message, message


def test_folders_without_a_run_are_refused(tmp_path, random_run):
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    for name in ("none", "file", "empty"):
        refused(tmp_path / name, f"{name}: ")
    bare = tmp_path / "bare"
    shutil.copytree(random_run, bare, ignore=shutil.ignore_patterns("checkpoints"))
    refused(bare, "bare: ", "checkpoint")
    assert not (bare / "checkpoints").exists()


def test_a_config_that_does_not_fit_the_checkpoint_is_refused(tmp_path, random_run):
    changes = {"model__width": 8, "model__depth": 2, "model__attention": False}
    for field, value in changes.items():
        folder = edited(random_run, tmp_path / field, "config.json", **{field: value})
        refused(folder, f"{field}: ")
    odd = edited(random_run, tmp_path / "odd", "config.json", grid__spacing=-1.0)
    refused(odd, "grid.spacing: ", error=ValueError)


def test_runs_of_earlier_versions(tmp_path, random_run):
    off = {"loss__deep": 0.0, "optimizer__average": 0.0, "model__slices": 1, "run__cpu_devices": 2}
    before = load_run(edited(random_run, tmp_path / "before", "config.json", **off))
    assert before.setup == load_run(random_run).setup
    deep = edited(random_run, tmp_path / "deep", "config.json", loss__deep=0.5)
    refused(deep, "loss.deep", "0.5")


def test_a_checkpoint_without_its_network_is_refused(tmp_path, random_run):
    folder = shutil.copytree(random_run, tmp_path / "run")
    shutil.rmtree(folder / "checkpoints" / "5" / "network")
    refused(folder, "checkpoints/5: ", checkpoint="best")
    assert load_run(folder, checkpoint="last").step == 6


def test_an_unvalidated_run_has_no_best(tmp_path, random_run):
    folder = shutil.copytree(random_run, tmp_path / "run")
    for metrics in (folder / "checkpoints").glob("*/metrics/metrics"):
        metrics.write_text('{"score": -1.0}')
    refused(folder, "--checkpoint=last", checkpoint="best")
    assert load_run(folder, checkpoint="last").step == 6


def test_a_bundle_is_read_like_its_run(bundle_folder, run):
    found = load_run(bundle_folder)
    assert (found.folder, found.checkpoint, found.step) == (bundle_folder, "last", 6)
    assert (found.anatomy, found.grid, found.network) == (run.anatomy, run.grid, run.network)
    assert found.data == run.data
    assert leaves(found.params).keys() == leaves(run.params).keys()
    for name, leaf in leaves(run.params).items():
        np.testing.assert_array_equal(leaves(found.params)[name], leaf)
    assert load_run(bundle_folder, checkpoint="last").step == 6
    refused(bundle_folder, "last", "best", checkpoint="best")


def test_card_and_other_files_of_a_bundle_are_ignored(bundle_folder, tmp_path):
    folder = shutil.copytree(bundle_folder, tmp_path / "bundle")
    (folder / "MODEL_CARD.md").unlink()
    (folder / ".DS_Store").touch()
    assert load_run(folder).step == 6


@pytest.mark.parametrize(
    "name",
    ["config.json", "data.json", "preprocessing.json", "model.stablehlo", "params/_METADATA"],
)
def test_a_damaged_bundle_is_refused_and_the_file_named(bundle_folder, tmp_path, name):
    folder = shutil.copytree(bundle_folder, tmp_path / "bundle")
    path = folder / name
    content = path.read_bytes()
    middle = len(content) // 2
    path.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    refused(folder, f"{name}: ", "SHA-256")
    path.write_bytes(content[:middle])
    refused(folder, f"{name}: ", f"{middle} bytes", str(len(content)))
    path.unlink()
    refused(folder, "bundle: ", name)


def test_a_bundle_without_its_parameters_or_manifest_is_refused(bundle_folder, tmp_path):
    folder = shutil.copytree(bundle_folder, tmp_path / "bundle")
    shutil.rmtree(folder / "params")
    refused(folder, "bundle: ", "params/")
    folder = shutil.copytree(bundle_folder, tmp_path / "other")
    (folder / "manifest.json").unlink()
    refused(folder, "other: ", "manifest.json")


def restamped(folder):
    """A bundle whose manifest vouches for files that do not fit each other."""
    manifest = bundle.read_manifest(folder)
    (folder / "manifest.json").unlink()
    files = bundle.list_files(folder)
    bundle.write_manifest(folder, dataclasses.replace(manifest, files=files))
    return folder


def test_a_bundle_of_parts_that_do_not_fit_is_refused(bundle_folder, tmp_path):
    folder = edited(bundle_folder, tmp_path / "wide", "config.json", model__width=8)
    refused(restamped(folder), "wide: ", "shape")
    folder = shutil.copytree(bundle_folder, tmp_path / "torn")
    (folder / "params" / "_METADATA").unlink()
    refused(restamped(folder), "torn: ")
    folder = edited(bundle_folder, tmp_path / "odd", "config.json", grid__spacing=-1.0)
    refused(restamped(folder), "grid.spacing: ", error=ValueError)


@pytest.mark.parametrize("data", [None, [], 3])
def test_a_bundle_without_a_config_section_is_refused(bundle_folder, tmp_path, data):
    folder = shutil.copytree(bundle_folder, tmp_path / "odd")
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(settings | {"data": data}))
    with pytest.raises(SettingsError, match=r"data\.split: "):
        load_run(restamped(folder))


def test_incomplete_data_is_refused(run):
    check_data(run.folder, run.data)
    data = {name: run.data[name] for name in ("digests", "validation")}
    with pytest.raises(WorkdirError, match=r"data\.json.*cases, training"):
        check_data(run.folder, data)


def test_the_spacing_of_training_is_recorded(finished_run, run):
    cases = [load_case(folder) for folder in find_cases(run.setup.source.root)]
    spacings = np.array([case.spacing for case in cases])
    low, high = read_data(finished_run)["spacing"]
    np.testing.assert_allclose([low, high], [spacings.min(0), spacings.max(0)])


def test_the_smallest_volumes_of_training_are_recorded(finished_run, run):
    """On the network grid of 4.2 mm it is about the label maps' own."""
    facts = read_data(finished_run)
    root = run.setup.source.root
    volumes = []
    for name in facts["training"]["cases"]:
        case = load_case(root / name)
        voxel = np.prod(case.spacing)
        parts = (4,), (3, 4), (1, 2, 3, 4)
        volumes.append([np.isin(case.label, part).sum() * voxel for part in parts])
    no_reflow, infarct, heart = (
        min(v for v in column if v) for column in zip(*volumes, strict=True)
    )
    assert facts["smallest_mm3"] == pytest.approx([no_reflow, infarct], rel=0.3)
    assert infarct > 2 * no_reflow
    assert facts["smallest_heart_mm3"] == pytest.approx(heart, rel=0.1)
