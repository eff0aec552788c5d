"""A run read back for inference: the same network on any device count; clear words otherwise."""

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg import bundle, trained, workdir
from jaxseg.data import find_cases, load_case, most_probable, to_native
from jaxseg.presence import PresenceRule
from jaxseg.settings import SettingsError
from jaxseg.trained import (
    check_data,
    check_spacing,
    load_run,
    make_predictor,
    other_orientation,
    presence_rule,
)
from jaxseg.workdir import WorkdirError
from tests.by_hand import prepared

REPOSITORY = Path(__file__).parents[1]
# Reads a run on 4 devices, and saves its network as a training on 4 devices does.
ON_FOUR_DEVICES = """
import shutil, sys
from pathlib import Path
import jax, jax.numpy as jnp
from jaxseg.checkpoint import Checkpoints
from jaxseg.train_step import TrainState, placement
from jaxseg.trained import load_run
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


@pytest.fixture(scope="module")
def case(run):
    return load_case(find_cases(run.settings["data"]["root"])[0])


def copied(source, target):
    shutil.copytree(source, target)
    return target


def edited(source, target, name, **changes):
    """A copy of a run whose JSON file has other fields, with __ for the dot."""
    path = copied(source, target) / name
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
    assert (run.step, load_run(random_run, checkpoint="last").step) == (5, 6)
    assert (run.folder, run.checkpoint) == (random_run, "best")
    assert run.anatomy.labels[4] == "no-reflow"
    assert (run.grid.size, run.grid.spacing) == ((32, 32), 4.2)
    assert run.network.width == 4


def test_a_finished_run_needs_neither_data_nor_training_state(finished_run, tmp_path):
    folder = copied(finished_run, tmp_path / "run")
    for training in (folder / "checkpoints").glob("*/training"):
        shutil.rmtree(training)
    found, wanted = load_run(folder), load_run(finished_run)
    assert found.step == wanted.step
    for name, leaf in leaves(wanted.params).items():
        np.testing.assert_array_equal(leaves(found.params)[name], leaf)


def test_any_number_of_devices_reads_the_run_of_any_other(random_run, run, tmp_path):
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


def refused(folder, *words, error=WorkdirError, **options):
    with pytest.raises(error) as caught:
        load_run(folder, **options)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert re.search(word, message), message


def test_what_is_no_run_is_refused(tmp_path, random_run):
    refused(tmp_path / "none", "none: no such folder; expected the workdir of a run")
    (tmp_path / "file").touch()
    refused(tmp_path / "file", "no such folder")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", r"no run here \(it has no config.json\)")
    bare = tmp_path / "bare"
    shutil.copytree(random_run, bare, ignore=shutil.ignore_patterns("checkpoints"))
    refused(bare, "bare: the run has no checkpoint yet")
    assert not (bare / "checkpoints").exists()


def test_settings_that_do_not_fit_the_checkpoint_are_refused(tmp_path, random_run):
    wide = edited(random_run, tmp_path / "wide", "config.json", model__width=8)
    refused(wide, "wide: its checkpoint cannot be read", "of shape .* describe")
    deep = edited(random_run, tmp_path / "deep", "config.json", model__depth=2)
    refused(deep, "deep: its checkpoint cannot be read", "of shape .* describe")
    plain = edited(random_run, tmp_path / "plain", "config.json", model__attention=False)
    refused(plain, "plain: its checkpoint cannot be read", "attention.* describe None")
    odd = edited(random_run, tmp_path / "odd", "config.json", grid__spacing=-1.0)
    refused(odd, "grid.spacing: expected a number from 0 to 100", error=ValueError)


def test_a_checkpoint_without_its_network_is_refused(tmp_path, random_run):
    folder = copied(random_run, tmp_path / "run")
    shutil.rmtree(folder / "checkpoints" / "5" / "network")
    refused(folder, "checkpoints/5: a damaged checkpoint", "network")
    assert load_run(folder, checkpoint="last").step == 6


def test_a_run_that_was_never_validated_has_no_best(tmp_path, random_run):
    folder = copied(random_run, tmp_path / "run")
    for metrics in (folder / "checkpoints").glob("*/metrics/metrics"):
        metrics.write_text('{"score": -1.0}')
    refused(folder, "no checkpoint has a score, .*; expected --checkpoint=last")
    assert load_run(folder, checkpoint="last").step == 6


def test_a_bundle_is_read_as_the_run_that_it_was_made_of(bundle_folder, run):
    found = load_run(bundle_folder)
    assert (found.folder, found.checkpoint, found.step) == (bundle_folder, "best", 5)
    assert (found.anatomy, found.grid, found.network) == (run.anatomy, run.grid, run.network)
    assert found.data == run.data
    assert leaves(found.params).keys() == leaves(run.params).keys()
    for name, leaf in leaves(run.params).items():
        np.testing.assert_array_equal(leaves(found.params)[name], leaf)
    assert load_run(bundle_folder, checkpoint="best").step == 5
    refused(bundle_folder, "a bundle of the best checkpoint alone; .* got last", checkpoint="last")


def test_a_bundle_needs_neither_card_nor_foreign_files(bundle_folder, tmp_path):
    folder = copied(bundle_folder, tmp_path / "bundle")
    (folder / "MODEL_CARD.md").unlink()
    (folder / ".DS_Store").touch()
    assert load_run(folder).step == 5


@pytest.mark.parametrize(
    "name",
    ["config.json", "data.json", "preprocessing.json", "model.stablehlo", "params/_METADATA"],
)
def test_a_damaged_bundle_is_refused_and_the_file_named(bundle_folder, tmp_path, name):
    folder = copied(bundle_folder, tmp_path / "bundle")
    path = folder / name
    content = path.read_bytes()
    middle = len(content) // 2
    path.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    refused(folder, rf"{name}: damaged \(its SHA-256", "copy or export the bundle anew")
    path.write_bytes(content[:middle])
    refused(folder, rf"{name}: damaged \({middle} bytes, exported with {len(content)}\)")
    path.unlink()
    refused(folder, rf"bundle: a damaged bundle \(it has no {name}\)")


def test_a_bundle_without_its_parameters_or_manifest_is_refused(bundle_folder, tmp_path):
    folder = copied(bundle_folder, tmp_path / "bundle")
    shutil.rmtree(folder / "params")
    refused(folder, r"bundle: a damaged bundle \(it has no params/")
    folder = copied(bundle_folder, tmp_path / "other")
    (folder / "manifest.json").unlink()
    refused(folder, r"other: a damaged bundle \(it has no manifest\.json\)")


def restamped(folder):
    """A bundle whose manifest vouches for files that do not fit each other."""
    manifest = bundle.read_manifest(folder)
    (folder / "manifest.json").unlink()
    files = bundle.list_files(folder)
    bundle.write_manifest(folder, dataclasses.replace(manifest, files=files))
    return folder


def test_a_bundle_of_parts_that_do_not_fit_is_refused(bundle_folder, tmp_path):
    folder = edited(bundle_folder, tmp_path / "wide", "config.json", model__width=8)
    refused(restamped(folder), "wide: its parameters cannot be read", "of shape .* describe")
    folder = copied(bundle_folder, tmp_path / "torn")
    (folder / "params" / "_METADATA").unlink()
    refused(restamped(folder), r"torn: its parameters cannot be read \(no parameters\)")
    folder = edited(bundle_folder, tmp_path / "odd", "config.json", grid__spacing=-1.0)
    refused(restamped(folder), "grid.spacing: expected a number from 0 to 100", error=ValueError)


@pytest.mark.parametrize("data", [None, [], 3])
def test_a_bundle_whose_settings_lack_a_section_is_refused(bundle_folder, tmp_path, data):
    folder = copied(bundle_folder, tmp_path / "odd")
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(settings | {"data": data}))
    with pytest.raises(SettingsError, match=r"data\.split: missing, expected one of"):
        load_run(restamped(folder))


def test_a_note_of_the_data_that_lacks_a_part_is_refused(run):
    check_data(run)
    data = {name: run.data[name] for name in ("fingerprint", "validation")}
    with pytest.raises(WorkdirError, match=r"its data\.json lacks cases, training"):
        check_data(dataclasses.replace(run, data=data))


def segmented(run, images):
    """Softmax of the network, slice by slice, without the code under test."""
    apply = jax.jit(lambda x: jax.nn.softmax(run.network.apply({"params": run.params}, x)))
    return np.concatenate([np.asarray(apply(jnp.asarray(x[None, ..., None]))) for x in images])


def test_a_prediction_is_the_network_s_on_the_native_grid(run, case):
    found = make_predictor([run])(case)
    assert (found.shape, found.dtype) == ((*case.image.shape, 5), np.float32)
    np.testing.assert_allclose(found.sum(-1), 1, atol=1e-5)
    labels = most_probable(found)
    probabilities = segmented(run, prepared(run, case))
    wanted = to_native(probabilities, case.image.shape, case.spacing, run.grid)
    # What the batch rounds otherwise may tip a voxel between two labels.
    assert (labels == wanted).mean() > 0.9999
    assert len(np.unique(labels)) == 5, "a test on a single label would show nothing"
    assert not labels[0].any(), "outside the network grid is background"
    unlabeled = dataclasses.replace(case, label=None)
    np.testing.assert_array_equal(make_predictor([run])(unlabeled), found)


def test_mirroring_averages_the_four_mirror_images(run, case):
    images = prepared(run, case)
    views = [
        segmented(run, images),
        segmented(run, images[:, ::-1])[:, ::-1],
        segmented(run, images[:, :, ::-1])[:, :, ::-1],
        segmented(run, images[:, ::-1, ::-1])[:, ::-1, ::-1],
    ]
    found = trained._mirrored(
        lambda _, x: segmented(run, x), run.params, images, [(), (1,), (2,), (1, 2)]
    )
    np.testing.assert_allclose(found, np.mean(views, axis=0), atol=1e-6)
    wanted = to_native(np.mean(views, axis=0), case.image.shape, case.spacing, run.grid)
    labels = most_probable(make_predictor([run], mirror=True)(case))
    assert (labels == wanted).mean() > 0.9999
    assert (labels == most_probable(make_predictor([run])(case))).mean() < 0.99


def test_runs_are_averaged_even_on_unlike_grids(run, random_run, case):
    other = load_run(random_run, checkpoint="last")
    other = dataclasses.replace(other, grid=dataclasses.replace(other.grid, spacing=5.0))
    both = make_predictor([run, other])(case)
    parts = [make_predictor([each])(case) for each in (run, other)]
    np.testing.assert_allclose(both, (parts[0] + parts[1]) / 2, atol=1e-6)
    assert np.abs(parts[0] - parts[1]).max() > 0.1


def test_a_run_given_twice_is_refused(run, random_run):
    again = load_run(random_run)
    with pytest.raises(WorkdirError, match="would count twice; expected every run once"):
        make_predictor([run, load_run(random_run, checkpoint="last"), again])


def test_a_case_stored_in_another_orientation_is_told_of(run, random_run, case):
    assert run.data["orientations"] == [case.orientation]
    other = load_run(random_run, checkpoint="last")
    assert other_orientation([run, other], case) is None
    header = case.header.copy()
    header.set_sform(header.get_best_affine() @ np.diag([1, -1, 1, 1]), code=2)
    turned = dataclasses.replace(case, header=header)
    told = other_orientation([run], turned)
    assert told is not None
    assert f"lead to {turned.orientation} by its header, in training they led to" in told
    data = {name: value for name, value in run.data.items() if name != "orientations"}
    older = dataclasses.replace(run, data=data)
    assert other_orientation([older], turned) is None
    assert other_orientation([older, run], turned) == told
    header.set_sform(None, code=0)
    header.set_qform(None, code=0)
    assert other_orientation([run], dataclasses.replace(case, header=header)) is None


def test_runs_of_unlike_labels_are_refused(run):
    labels = ("background", "scar")
    fields = {"labels": labels, "inclusions": (), "slice_regions": (("S", (1,)),)}
    anatomy = type(run.anatomy)(**fields, case_regions=(("S", (1,)),))
    other = dataclasses.replace(run, folder=Path("other"), anatomy=anatomy)
    message = "other: a run of the labels background, scar; expected those of .*: background, cav"
    with pytest.raises(WorkdirError, match=message):
        make_predictor([run, other])


def test_the_spacing_of_training_is_known(finished_run, run):
    cases = [load_case(folder) for folder in find_cases(run.settings["data"]["root"])]
    spacings = np.array([case.spacing for case in cases])
    low, high = workdir.read_data(finished_run)["spacing"]
    np.testing.assert_allclose([low, high], [spacings.min(0), spacings.max(0)])


def test_the_smallest_pathology_of_training_is_known(finished_run, run):
    """On the network grid of 4.2 mm it is about the label maps' own."""
    facts = workdir.read_data(finished_run)
    root = Path(run.settings["data"]["root"])
    volumes = []
    for name in facts["training"]["cases"]:
        case = load_case(root / name)
        voxel = np.prod(case.spacing)
        volumes.append([np.isin(case.label, part).sum() * voxel for part in ((4,), (3, 4))])
    no_reflow, infarct = (min(v for v in column if v) for column in zip(*volumes, strict=True))
    assert facts["smallest_mm3"] == pytest.approx([no_reflow, infarct], rel=0.3)
    assert infarct > 2 * no_reflow


def test_the_smallest_of_several_runs_counts(run):
    def noting(*volumes):
        return dataclasses.replace(run, data={**run.data, "smallest_mm3": list(volumes)})

    runs = [noting(300.0, 2000.0), noting(None, 1500.0), noting(400.0, None)]
    assert presence_rule(runs, drop_small=True) == PresenceRule((300.0, 1500.0), drop_small=True)
    assert presence_rule([noting(None, 5.0)], drop_small=True).smallest_mm3 == (None, 5.0)
    noted = {name: value for name, value in run.data.items() if name != "smallest_mm3"}
    for bad in (dataclasses.replace(run, data=noted), noting(300.0)):
        assert presence_rule([bad]) == PresenceRule()  # nothing is asked of it
        for asked in ({"drop_small": True}, {"min_confidence": [0.5]}):
            with pytest.raises(
                WorkdirError, match=r"does not tell the smallest .* its 2 inclusion"
            ):
                presence_rule([run, bad], **asked)


def test_bounds_of_confidence_are_for_one_pair_each_or_for_all(run):
    def bounds(*values):
        return presence_rule([run], min_confidence=values).min_confidence

    assert (bounds(), bounds(0.5), bounds(0.5, 0.9)) == ((), (0.5, 0.5), (0.5, 0.9))
    with pytest.raises(SettingsError, match=r"--min_confidence: expected 1 or 2 numbers, .* got 3"):
        bounds(0.1, 0.2, 0.3)
    without = dataclasses.replace(run, anatomy=dataclasses.replace(run.anatomy, inclusions=()))
    for flag, asked in {"drop_small": True, "min_confidence": [0.5]}.items():
        with pytest.raises(SettingsError, match=f"--{flag}: the label set has no inclusion pairs"):
            presence_rule([without], **{flag: asked})


def test_runs_of_other_pairs_share_no_rule(run):
    turned = dataclasses.replace(run.anatomy, inclusions=run.anatomy.inclusions[::-1])
    other = dataclasses.replace(run, folder=Path("other"), anatomy=turned)
    assert presence_rule([run, other]) == PresenceRule()
    with pytest.raises(WorkdirError, match="other: of other inclusion pairs than "):
        presence_rule([run, other], drop_small=True)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_spacing_far_from_training_s_is_refused(run, case, axis):
    low, high = (np.array(edges) for edges in run.data["spacing"])

    def check(spacing):
        check_spacing(run, dataclasses.replace(case, spacing=tuple(spacing)), Path("x.nii"))

    for edges, factor, past in ((low, 0.5, 0.98), (high, 2.0, 1.02)):
        spacing = edges.copy()
        spacing[axis] *= factor * (1.001 if factor < 1 else 0.999)
        check(spacing)
        spacing[axis] *= past
        with pytest.raises(ValueError, match=r"x.nii: voxels of .* mm are far from those trained"):
            check(spacing)


def test_a_run_without_a_note_of_its_spacing_lets_everything_pass(run, case):
    data = {name: value for name, value in run.data.items() if name != "spacing"}
    case = dataclasses.replace(case, spacing=(100.0, 100.0, 100.0))
    check_spacing(dataclasses.replace(run, data=data), case, Path("x.nii"))
