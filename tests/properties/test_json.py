"""Randomly damaged JSON is read, or refused in one line by a UserError."""

import copy
import json
import math

import numpy as np
import pytest

from configs import awce_penalty
from jaxseg.anatomy import EMIDEC, Anatomy
from jaxseg.config import settings
from jaxseg.config.reader import reader
from jaxseg.config.setting_rules import RULES
from jaxseg.config.settings import SettingsError
from jaxseg.config.setup import build
from jaxseg.data import DataError
from jaxseg.data.readers.dataset_json import read_dataset
from jaxseg.runs import bundle
from jaxseg.runs.config_file import check_settings, read_settings
from jaxseg.runs.data_file import claim, read_data
from jaxseg.runs.files import WorkdirError, read_json

MUTATIONS = 300
JUNK = (
    None, True, False, 0, -1, 2, 2**40, 10**400, 0.5, -1e308, math.nan, math.inf, "", " ", "a",
    "../../x", "/", "a\nb", "\0", "\ud800", [], {}, [[]], [0, 0], ["a", "a"], {"a": {"b": []}},
    [[["scar"], ["scar", "cavity"]]],
)  # fmt: skip


def places(value, path=()):
    """Every place in a JSON value, the whole aside."""
    children = value.items() if isinstance(value, dict) else enumerate(value)
    for key, child in children:
        yield (*path, key)
        if isinstance(child, dict | list):
            yield from places(child, (*path, key))


def mutated(value, rng):
    """A copy with one to three places removed, replaced, renamed, wrapped or swapped."""
    value = copy.deepcopy(value)
    for _ in range(rng.integers(1, 4)):
        found = list(places(value))
        if not found:
            break
        *path, key = found[rng.integers(len(found))]
        parent = value
        for part in path:
            parent = parent[part]
        other = found[rng.integers(len(found))][-1]
        match rng.integers(5):
            case 0:
                del parent[key]
            case 1 if isinstance(parent, dict):
                parent[f"{key}x"] = parent.pop(key)
            case 2:
                parent[key] = [parent[key]]
            case 3 if isinstance(parent, dict) and other in parent:
                parent[key], parent[other] = parent[other], parent[key]
            case _:
                parent[key] = copy.deepcopy(JUNK[rng.integers(len(JUNK))])
    return value


def names_a_field(line):
    """A field by its dotted name, or a section, stands at the start of a line of settings.

    One that no rule knows is quoted.
    """
    known = {part for field in RULES for part in (field, field.partition(".")[0])} | {"anatomy"}
    if line.endswith(": no such field"):
        return line[0] in "'\"" and line.removesuffix(": no such field")[1:-1] not in known
    name, colon, what = line.partition(": ")
    return bool(colon and what) and name in known


def outcomes(content, path, read, errors):
    """Writes and reads `MUTATIONS` damaged contents; how many were read and how many refused.

    Any other error fails the test.
    """
    rng = np.random.default_rng(0)
    counts = [0, 0]
    for _ in range(MUTATIONS):
        path.write_text(json.dumps(mutated(content, rng)))
        try:
            read(path.parent)
        except errors as error:
            counts[1] += 1
            problem = str(error)
            # Settings have a line a problem.
            if isinstance(error, SettingsError):
                assert len(problem.splitlines()) <= 60, problem
                assert all(names_a_field(line) for line in problem.splitlines()), problem
            else:
                assert len(problem.splitlines()) == 1, problem
            assert len(problem) < 10_000
        else:
            counts[0] += 1
    assert min(counts) >= MUTATIONS // 100, counts


DATASETS = {
    "version 2": {
        "channel_names": {"0": "LGE"}, "labels": {"background": 0, "muscle": 2, "scar": 1},
        "numTraining": 2, "file_ending": ".nii.gz", "name": "Mine", "licence": "none",
    },
    "version 1": {
        "modality": {"0": "MRI"}, "labels": {"0": "background", "1": "scar"}, "numTraining": 2,
        "training": [{"image": "a", "label": "b"}], "name": "Mine", "licence": "none",
    },
}  # fmt: skip


@pytest.mark.parametrize("version", DATASETS)
def test_dataset_json(version, tmp_path):
    def read(folder):
        dataset = read_dataset(folder)
        assert dataset.file_ending in (".nii", ".nii.gz")
        dataset.label_values(sorted(dataset.labels, key=lambda name: dataset.labels[name]))

    outcomes(DATASETS[version], tmp_path / "dataset.json", read, DataError)


def test_config_json(tmp_path):
    """A config that passes the check can be built."""

    def read(folder):
        config = read_settings(folder)
        settings.check(config)
        setup = build(config)
        assert setup.networks.segmentation.num_labels == setup.anatomy.num_labels
        assert setup.margin >= 0
        reader(setup)
        check_settings(folder, config)
        settings.without_places(config)
        plan = setup.plan(35)
        assert plan.validates_after(plan.steps)
        rates = setup.optimization.rates(plan.epochs, plan.steps, plan.steps_per_epoch)
        setup.optimization.optimizer(rates)

    content = json.loads(json.dumps(awce_penalty.get_config("phantom").to_dict()))
    outcomes(content, tmp_path / "config.json", read, (SettingsError, WorkdirError))


def test_the_anatomy_of_config_json(tmp_path):
    def read(folder):
        fields = read_json(folder / "anatomy.json")
        anatomy = Anatomy.from_dict(fields)
        assert Anatomy.from_dict(anatomy.to_dict()) == anatomy
        assert json.dumps(anatomy.to_dict(), ensure_ascii=False).isprintable()

    outcomes(EMIDEC.to_dict(), tmp_path / "anatomy.json", read, ValueError)


def test_data_json(tmp_path):
    side = {"slices": 3, "cases": ["Case_N001"]}
    content = {
        "cases": ["Case_N001", "Case_P002"],
        "digests": {"Case_N001": {"image": "f00d", "label": None}},
        "spacing": [[1.4, 1.4, 10.0], [1.9, 1.9, 10.0]], "smallest_mm3": [None, 900.0],
        "training": side, "validation": side, "date": "2020", "note": {"by": ["me"]},
        "slices": [5, 9], "label_values": [0, 500],
    }  # fmt: skip

    def read(folder):
        known = read_data(folder)
        (folder / "config.json").unlink(missing_ok=True)
        claim(folder, {"a": 1}, {"cases": ["Case_X"], "digests": content["digests"]})
        low, high = np.asarray(known.get("spacing", np.ones((2, 3))))
        assert low.shape == high.shape == (3,)
        assert sum(known.get(part, side)["slices"] for part in ("training", "validation")) > 0
        assert known.get("slices", [5, 9])[1] > 0
        assert np.asarray(known.get("label_values") or [0, 1])[[0, 1]].dtype == int

    outcomes(content, tmp_path / "data.json", read, WorkdirError)


def test_manifest_json(tmp_path):
    (tmp_path / "params").mkdir()
    (tmp_path / "params" / "0").write_bytes(b"weights")
    (tmp_path / "config.json").write_text("{}")
    files = bundle.list_files(tmp_path)
    made_with = {"jax": "1.2.3", "numpy": "1", "flax": "2"}
    manifest = bundle.Manifest("awce", "best", 7, made_with, files)
    bundle.write_manifest(tmp_path, manifest)
    content = json.loads((tmp_path / "manifest.json").read_text())

    def read(folder):
        bundle.verify(folder, bundle.read_manifest(folder))

    outcomes(content, tmp_path / "manifest.json", read, WorkdirError)
