"""Evaluation end to end on the phantom: choice of cases, scores and files."""

import csv
import json
import shutil

import nibabel as nib
import numpy as np
import pytest

from jaxseg.config import run_data
from jaxseg.config.setup import build
from jaxseg.data import DataError, load_case, most_probable, split
from jaxseg.evaluation.evaluate import evaluate
from jaxseg.evaluation.methods import NETWORK
from jaxseg.inference.predictor import make_predictor
from jaxseg.runs.files import WorkdirError
from jaxseg.runs.trained import load_run

FILES = [
    "agreement.csv", "bland_altman.png", "cases.csv", "inclusion.csv", "pixels.csv", "slices.csv",
    "summary.json", "summary.md",
]  # fmt: skip


def table(path):
    return list(csv.DictReader(path.read_text().splitlines()))


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(scope="module")
def phantom(random_run):
    return load_run(random_run).setup.source.root


@pytest.fixture(scope="module")
def evaluated(random_run, tmp_path_factory):
    output = tmp_path_factory.mktemp("evaluated") / "new" / "folder"
    return evaluate(random_run, output=output)[NETWORK], output


def test_the_validation_cases_are_scored(evaluated, random_run):
    evaluation, output = evaluated
    facts = json.loads((random_run / "data.json").read_text())
    validation = facts["validation"]
    assert [case.name for case in evaluation.cases] == validation["cases"] == ["Case_P002"]
    assert sum(len(case.slices) for case in evaluation.cases) == validation["slices"]
    assert names(output) == FILES
    assert evaluation.checkpoint == "last, step 6"
    left = json.loads((output / "summary.json").read_text())["left_out"]
    assert left == dict.fromkeys(sorted(set(facts["cases"]) - {"Case_P002"}), "trained on")
    assert all(name in (output / "summary.md").read_text() for name in left)


def test_scores_are_computed_on_the_native_grid(evaluated, random_run, phantom):
    """DSC and volumes by plain counting."""
    case = load_case(phantom / "Case_P002")
    labels = most_probable(make_predictor([load_run(random_run)])(case).probabilities)
    output = evaluated[1]
    rows = {row["region"]: row for row in table(output / "cases.csv")}
    voxel = float(np.prod(case.spacing))
    for region, values in {"Myocardium": (2, 3, 4), "Infarction": (3, 4), "NoReflow": (4,)}.items():
        ours, theirs = np.isin(labels, values), np.isin(case.label, values)
        row = rows[region]
        assert float(row["prediction_mm3"]) == pytest.approx(ours.sum() * voxel)
        assert float(row["reference_mm3"]) == pytest.approx(theirs.sum() * voxel)
        dsc = 2 * (ours & theirs).sum() / (ours.sum() + theirs.sum())
        assert float(row["dsc"]) == pytest.approx(dsc)
        assert ours.any()
    slices = table(output / "slices.csv")
    assert len(slices) == case.image.shape[-1]
    for number, row in enumerate(slices):
        for k, region in enumerate(("LV", "Myo", "Inf", "NoR"), start=1):
            ours, theirs = labels[..., number] == k, case.label[..., number] == k
            if not theirs.any():
                assert row[region] == ""
                continue
            dsc = 2 * (ours & theirs).sum() / (ours.sum() + theirs.sum())
            assert float(row[region]) == pytest.approx(dsc)


def test_checkpoint_and_mirroring_are_recorded(random_run, tmp_path):
    found = evaluate(random_run, checkpoint="best", mirror=True, output=tmp_path)[NETWORK]
    assert (found.checkpoint, found.mirror) == ("best, step 5", True)
    assert any("synthetic" in note for note in found.notes)
    assert "best, step 5" in (tmp_path / "summary.md").read_text()


def noting(run, target, *volumes):
    """A copy of a run whose training cases held no pathology smaller than these, in mm3."""
    shutil.copytree(run, target)
    facts = json.loads((target / "data.json").read_text())
    (target / "data.json").write_text(json.dumps({**facts, "smallest_mm3": volumes}))
    return target


def test_pathology_smaller_than_in_training_is_dropped(random_run, evaluated, tmp_path):
    before = {row["region"]: row for row in table(evaluated[1] / "cases.csv")}
    no_reflow = float(before["NoReflow"]["prediction_mm3"])
    infarct = float(before["Infarction"]["prediction_mm3"])
    assert 0 < no_reflow < infarct
    expected = {
        (no_reflow, infarct): (no_reflow, infarct),
        (no_reflow + 1, infarct): (0.0, infarct),
        (None, infarct + 1): (0.0, 0.0),
    }
    for number, (smallest, volumes) in enumerate(expected.items()):
        run, output = noting(random_run, tmp_path / f"run-{number}", *smallest), tmp_path / "out"
        found = evaluate(run, drop_small=True, output=output)[NETWORK]
        rows = {row["region"]: row for row in table(output / "cases.csv")}
        predicted = [float(rows[name]["prediction_mm3"]) for name in ("NoReflow", "Infarction")]
        assert predicted == pytest.approx(volumes)
        # It stays within the myocardium.
        whole = [float(r["Myocardium"]["prediction_mm3"]) for r in (rows, before)]
        assert whole[0] == pytest.approx(whole[1])
        assert f"{smallest[1] / 1000:.2f} ml" in found.notes[-1]
        assert found.notes[-1] in (output / "summary.md").read_text()


def renamed(phantom, target, pairs, *, other=False):
    """Cases of the phantom under other names; other hearts differ in a voxel of the image."""
    for old, new in pairs.items():
        for part in ("Images", "Contours"):
            (target / new / part).mkdir(parents=True)
            source = phantom / old / part / f"{old}.nii.gz"
            path = target / new / part / f"{new}.nii.gz"
            shutil.copy(source, path)
            if other and part == "Images":
                image = nib.load(path)
                pixels = np.asarray(image.dataobj).copy()
                pixels[0, 0, 0] += 1
                nib.save(image.__class__(pixels, None, image.header), path)
    return target


def test_other_cases_are_scored_whatever_their_names(random_run, phantom, tmp_path):
    """Case_P001 is a name of the run's, on which it was trained."""
    pairs = {"Case_P001": "Case_P001", "Case_N003": "Case_N103"}
    root = renamed(phantom, tmp_path / "other", pairs, other=True)
    found = evaluate(random_run, root=root, checkpoint="best", output=tmp_path / "out")[NETWORK]
    assert [case.name for case in found.cases] == ["Case_N103", "Case_P001"]
    assert any("Case_P001" in note for note in found.notes)
    assert found.left_out == {}


def test_training_cases_are_never_scored_whatever_their_names(random_run, phantom, tmp_path):
    """Case_P001 was trained on, Case_P002 validated."""
    chosen = {"Case_P001": "Case_X", "Case_P002": "Case_Y"}
    root = renamed(phantom, tmp_path / "mixed", chosen)
    renamed(phantom, root, {"Case_N003": "Case_N103"}, other=True)
    found = evaluate(random_run, root=root, checkpoint="best", output=tmp_path / "out")[NETWORK]
    assert [case.name for case in found.cases] == ["Case_N103", "Case_Y"]
    assert list(found.left_out) == ["Case_X"]
    assert "Case_P001" in found.left_out["Case_X"]
    root = renamed(phantom, tmp_path / "known", {"Case_P001": "Case_P001"})
    with pytest.raises(DataError, match="known: "):
        evaluate(random_run, root=root, output=tmp_path / "none")
    assert not (tmp_path / "none").exists()


def rooted(run, target, root):
    """A copy of a run whose own cases lie elsewhere."""
    shutil.copytree(run, target)
    settings = json.loads((target / "config.json").read_text())
    settings["data"]["root"] = str(root)
    (target / "config.json").write_text(json.dumps(settings))
    return target


@pytest.mark.parametrize("part", ["Images", "Contours"])
def test_changed_held_out_cases_are_refused(random_run, phantom, tmp_path, part):
    root = shutil.copytree(phantom, tmp_path / "changed")
    path = root / "Case_P002" / part / "Case_P002.nii.gz"
    image = nib.load(path)
    pixels = np.asarray(image.dataobj).copy()
    pixels[0, 0, 0] += 1
    nib.save(image.__class__(pixels, None, image.header), path)
    run = rooted(random_run, tmp_path / "run", root)
    with pytest.raises(WorkdirError, match="Case_P002: "):
        evaluate(run, output=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_new_and_missing_cases_are_reported(random_run, phantom, tmp_path):
    root = shutil.copytree(phantom, tmp_path / "root")
    shutil.rmtree(root / "Case_P002")
    renamed(phantom, root, {"Case_P002": "Case_P777"}, other=True)
    run = rooted(random_run, tmp_path / "run", root)
    found = evaluate(run, output=tmp_path / "out")[NETWORK]
    assert [case.name for case in found.cases] == ["Case_P777"]
    assert any("Case_P002" in note for note in found.notes)


def test_a_moved_data_root_is_named(random_run, tmp_path):
    run = rooted(random_run, tmp_path / "run", tmp_path / "moved")
    settings = json.loads((run / "config.json").read_text())
    settings["data"]["phantom_cases"] = 6
    (run / "config.json").write_text(json.dumps(settings))
    with pytest.raises(DataError, match=r"moved: .*CASES"):
        evaluate(run, output=tmp_path / "out")
    assert names(tmp_path) == ["run"]


@pytest.fixture(scope="module")
def slice_run(random_run, tmp_path_factory):
    """The same network in a run whose slices were split."""
    folder = shutil.copytree(random_run, tmp_path_factory.mktemp("slices") / "run")
    settings, data = (json.loads((folder / f"{n}.json").read_text()) for n in ("config", "data"))
    settings["data"]["split"] = "slice"
    setup = build(settings)
    cohort = run_data.load_cohort(setup)
    parts = run_data.split_cohort(setup.split, cohort)
    data |= run_data.split_facts(setup.split, cohort, parts)
    (folder / "config.json").write_text(json.dumps(settings))
    (folder / "data.json").write_text(json.dumps(data))
    return folder


def test_a_slice_split_scores_held_out_slices_only(slice_run, tmp_path):
    found = evaluate(slice_run, output=tmp_path)[NETWORK]
    cohort = run_data.load_cohort(load_run(slice_run).setup)
    _, held = split(cohort, kind="slice", validation_fraction=0.2, seed=0)
    wanted = {(cohort.case_names[cohort.case_index[i]], int(cohort.slice_index[i])) for i in held}
    scored = {(case.name, int(number)) for case in found.cases for number in case.slices}
    assert scored == wanted
    assert all(len(case.slices) < case.num_slices for case in found.cases)


def test_other_cases_for_a_run_of_a_slice_split(slice_run, phantom, tmp_path):
    """Its validation slices are of patients trained on, whose other slices never count."""
    held_out = json.loads((slice_run / "data.json").read_text())["validation"]["held_out"]
    known = next(iter(held_out))
    root = renamed(phantom, tmp_path / "few", {known: "Case_A"})
    renamed(phantom, root, {"Case_N003": "Case_B"}, other=True)
    for name in set(names(phantom)) - set(held_out) - {"phantom.json"}:
        renamed(phantom, root, {name: name})
    found = evaluate(slice_run, root=root, output=tmp_path / "out")[NETWORK]
    assert [case.name for case in found.cases] == ["Case_A", "Case_B"]
    first, second = found.cases
    assert first.slices.tolist() == held_out[known]
    assert len(second.slices) == second.num_slices
    assert not {"Case_A", "Case_B"} & set(found.left_out)


def test_cases_that_cannot_be_scored_are_refused(random_run, phantom, tmp_path):
    root = renamed(phantom, tmp_path / "other", {"Case_P001": "Case_P101"})
    for part in ("Images", "Contours"):
        path = root / "Case_P101" / part / "Case_P101.nii.gz"
        image = nib.load(path)
        image.header.set_zooms([edge / 10 for edge in image.header.get_zooms()])  # cm
        nib.Nifti1Image(np.asanyarray(image.dataobj), None, image.header).to_filename(path)
    output = tmp_path / "out"
    with pytest.raises(DataError, match=r"Case_P101: .* mm"):
        evaluate(random_run, root=root, output=output)
    shutil.rmtree(root / "Case_P101" / "Contours")
    for place, name in ((root, "Case_P101"), (tmp_path / "nowhere", "nowhere")):
        with pytest.raises(DataError, match=f"{name}: "):
            evaluate(random_run, root=place, output=output)
    assert not output.exists()
    (tmp_path / "file").touch()
    with pytest.raises(WorkdirError, match="file/out: "):
        evaluate(random_run, output=tmp_path / "file" / "out")


def test_a_case_stored_in_another_orientation_scores_the_same(random_run, phantom, tmp_path):
    scores = []
    for name, flipped in (("straight", False), ("turned", True)):
        root = renamed(phantom, tmp_path / name, {"Case_P001": "Case_P101"})
        for part in ("Images", "Contours"):
            path = root / "Case_P101" / part / "Case_P101.nii.gz"
            image = nib.load(path)
            x, y, z = map(float, image.header.get_zooms())
            pixels = np.asanyarray(image.dataobj) + (part == "Images")  # of no case trained on
            stated = nib.Nifti1Image(pixels, np.diag([-x, -y, z, 1]))
            (stated.slicer[:, ::-1] if flipped else stated).to_filename(path)
        evaluate(random_run, root=root, output=tmp_path / f"{name}-scores")
        with (tmp_path / f"{name}-scores" / "cases.csv").open() as file:
            scores.append(list(csv.DictReader(file)))
    for one, other in zip(*scores, strict=True):
        assert one.pop("case") == other.pop("case") == "Case_P101"
        assert one.pop("region") == other.pop("region")
        for name, value in one.items():  # a sum over the surface may be rounded otherwise
            found, expected = (float(text or "nan") for text in (other[name], value))
            assert found == pytest.approx(expected, rel=1e-9, nan_ok=True)


def test_a_label_set_of_another_size_is_refused(random_run, phantom, tmp_path):
    folder = shutil.copytree(random_run, tmp_path / "run")
    settings = json.loads((folder / "config.json").read_text())
    settings["loss"]["penalty"] = 0.0
    settings["anatomy"] = {
        "labels": ["background", "a", "b", "c", "d"], "inclusions": [],
        "slice_regions": [["A", ["a"]]], "case_regions": [["A", ["a"]]],
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(settings))
    found = evaluate(folder, root=phantom, output=tmp_path / "same")[NETWORK]
    assert found.cases[0].regions.shape == (1, 9)  # five labels under other names will do
    settings["anatomy"]["labels"] += ["e"]
    (folder / "config.json").write_text(json.dumps(settings))
    with pytest.raises(WorkdirError, match="run: "):
        evaluate(folder, root=phantom, output=tmp_path / "out")


def test_cases_are_identified_by_content_not_by_name(emidec_root, random_run, tmp_path):
    """Names coincide between the two; the run was trained on a Case_P001 of its own."""
    root = tmp_path / "real"
    root.mkdir()
    for name in ("Case_P001", "Case_P003", "Case_N012"):
        (root / name).symlink_to(emidec_root / name)
    found = evaluate(random_run, root=root, output=tmp_path / "out")[NETWORK]
    assert [case.name for case in found.cases] == ["Case_N012", "Case_P001", "Case_P003"]
    assert found.left_out == {}
    assert all(len(case.slices) == case.num_slices for case in found.cases)
