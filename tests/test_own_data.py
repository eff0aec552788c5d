"""Another pathology from end to end: an nnU-Net data set, a config, a table; no code in between."""

import csv
import json
import shutil
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from configs import awce_penalty, edema_scar
from jaxseg.config import run_data
from jaxseg.config.reader import reader
from jaxseg.config.setup import build
from jaxseg.data import DataError
from jaxseg.data.phantom.write import write_phantom
from jaxseg.evaluation.evaluate import evaluate
from jaxseg.evaluation.methods import NETWORK
from jaxseg.training.train import train
from tests.logged import logged

SMALL = {
    "data": {"phantom_cases": 6, "validation_fraction": 0.34},
    "grid": {"size": (32, 32), "spacing": 4.2},
    "model": {"width": 4, "depth": 1, "groups": 4},
    "balance": {"width": 4},
    "train": {"epochs": 2, "validate_every": 1, "batch_size": 8},
    "optimizer": {"warmup_epochs": 0.0},
    "run": {"devices": 1, "pictures": 0, "compilation_cache": ""},
}


def settings(module=edema_scar, variant="phantom", **changes) -> dict[str, Any]:
    """Small settings with changes as section__field=value."""
    config = module.get_config(variant).to_dict()
    for section, fields in SMALL.items():
        config[section] |= fields
    for name, value in changes.items():
        section, field = name.split("__")
        config[section][field] = value
    return config


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own") / "Dataset501_Scar"
    return write_phantom(folder, seed=0, num_cases=6, layout="nnunet")


def own(root, **changes):
    """The command for own cases: variant nnunet and a root."""
    return settings(variant="nnunet", data__phantom_cases=0, data__root=str(root), **changes)


@pytest.mark.slow
def test_a_run_on_own_labels_is_trained_and_scored(root, tmp_path):
    with logged() as lines:
        table = train(own(root), tmp_path / "run")
    assert table.startswith("# edema_scar: DSC on the validation slices")
    rows = [line.strip("| ").split("|") for line in table.splitlines() if line.startswith("| ")]
    assert [cell.strip() for cell in rows[0]] == ["checkpoint", "LV", "Myo", "Edema", "Scar"]
    assert [row[0].strip()[:4] for row in rows[1:]] == ["last", "best"]
    with (tmp_path / "run" / "table.csv").open(newline="") as file:
        cells = list(csv.DictReader(file))
    held = {cell["region"]: int(cell["slices"]) for cell in cells}
    # Of the two cases held out one has edema, by the strata of the split; slices hold fewer.
    assert held["LV"] == held["Myo"] > held["Edema"] >= held["Scar"] >= 0
    assert held["Edema"] > 0
    assert all(0 <= float(cell["mean"]) <= 1 for cell in cells if cell["slices"] != "0")
    written = json.loads((tmp_path / "run" / "config.json").read_text())
    assert written["anatomy"]["labels"][3:] == ["edema", "scar"]
    metrics = (tmp_path / "run" / "metrics.jsonl").read_text()
    assert '/scar"' in metrics  # its weight
    assert "infarct" not in metrics
    assert any(line.startswith("6 cases") for line in lines)
    # The same reader serves evaluation: the run's own cases, found by name and by content.
    with logged() as lines:
        scored = evaluate(tmp_path / "run")[NETWORK]
    assert [region for region, _ in scored.anatomy.case_regions][-1] == "Scar"
    held_out = json.loads((tmp_path / "run" / "data.json").read_text())["validation"]["cases"]
    assert [case.name for case in scored.cases] == held_out


def test_the_renamed_phantom_has_the_arrays_of_emidec_s(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    renamed = run_data.load_cohort(build(settings(data__phantom_cases=2)))
    assert (tmp_path / "data" / "phantom-nnunet-2-cases-seed-0" / "dataset.json").is_file()
    plain = run_data.load_cohort(build(settings(awce_penalty, data__phantom_cases=2)))
    assert renamed.case_names == tuple(name.removeprefix("Case_") for name in plain.case_names)
    np.testing.assert_array_equal(renamed.images, plain.images)
    np.testing.assert_array_equal(renamed.labels, plain.labels)
    assert renamed.labels.max() >= 3


def test_labels_of_another_anatomy_are_refused(root):
    config = own(root)
    config["anatomy"] = awce_penalty.get_config().to_dict()["anatomy"]
    with pytest.raises(DataError, match=r"'scar', 'edema'.*'infarct', 'no-reflow"):
        run_data.load_cohort(build(config))


def test_another_layout_than_that_of_the_folder_is_refused(root):
    with pytest.raises(DataError, match=root.name):
        run_data.load_cohort(build(own(root, data__layout="emidec")))


def test_stacks_may_start_at_the_base(root):
    from_apex = run_data.load_cohort(build(own(root)))
    from_base = run_data.load_cohort(build(own(root, data__apex_first=False)))
    assert from_apex.heights[0] == 1
    np.testing.assert_allclose(from_base.heights, 1 - from_apex.heights, atol=1e-6)


def test_an_anatomy_of_two_labels_and_one_pair(tmp_path):
    """An anatomy of another size: lesion inside organ, values in another order."""
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        label = np.zeros((16, 16, 2), np.uint8)
        label[3:13, 3:13] = 2  # organ
        label[6:9, 6:9, 0] = 1  # lesion
        for file, array in (
            (f"imagesTr/{name}_0000.nii.gz", rng.normal(100, 10, label.shape)),
            (f"labelsTr/{name}.nii.gz", label),
        ):
            (tmp_path / file).parent.mkdir(exist_ok=True)
            nib.Nifti1Image(array, np.diag([2.0, 2.0, 8.0, 1.0])).to_filename(tmp_path / file)
    description = {
        "modality": {"0": "MRI"},
        "labels": {"0": "background", "1": "lesion", "2": "organ"},
        "numTraining": 2,
    }
    (tmp_path / "dataset.json").write_text(json.dumps(description))
    config = own(tmp_path, grid__size=(16, 16), grid__spacing=2.0)
    config["anatomy"] = {
        "labels": ["background", "organ", "lesion"],
        "inclusions": [[["lesion"], ["lesion", "organ"]]],
        "slice_regions": [["Organ", ["organ", "lesion"]], ["Lesion", ["lesion"]]],
        "case_regions": [["Lesion", ["lesion"]]],
    }
    cohort = run_data.load_cohort(build(config))
    assert [np.bincount(part.ravel()).tolist() for part in cohort.labels[:2]] == [
        [156, 91, 9],
        [156, 100],
    ]
    assert build(config).networks.segmentation.num_labels == 3
    assert build(config).objective.inclusions == (((2,), (2, 1)),)


def test_nnunet_test_cases_are_read_from_images_ts(root, tmp_path):
    own_root = shutil.copytree(root, tmp_path / "Dataset502_Test")
    for part in ("images", "labels"):
        (own_root / f"{part}Tr").rename(own_root / f"{part}Ts")
    read = reader(build(own(own_root)))
    images = read.find(own_root / "imagesTs")
    assert [path.name for path in images] == [p.name for p in read.find(root)]
    first = read.load(images[0])
    np.testing.assert_array_equal(first.label, read.load(read.find(root)[0]).label)
    with pytest.raises(DataError, match="imagesTr: no such folder"):
        read.find(own_root)
