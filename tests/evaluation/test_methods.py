"""Choice of methods, and label maps by a threshold."""

import csv
import json

import numpy as np
import pytest

from jaxseg.anatomy import EMIDEC, Anatomy
from jaxseg.config.settings import SettingsError
from jaxseg.data import load_case
from jaxseg.evaluation.evaluate import evaluate
from jaxseg.evaluation.methods import NETWORK, Method, choose_methods, threshold_labels
from jaxseg.measures.thresholds import enclosed, n_sd
from jaxseg.runs.files import WorkdirError
from jaxseg.runs.trained import load_run

FWHM = Method("fwhm", "reference")


def test_methods_are_combined_with_myocardia():
    assert choose_methods([], [], EMIDEC) == [NETWORK]
    assert choose_methods(["fwhm"], [], EMIDEC) == [FWHM]
    found = choose_methods(["network", "5sd"], ["predicted", "reference"], EMIDEC)
    assert found == [NETWORK, Method("5sd", "predicted"), Method("5sd", "reference")]
    assert [method.uses_network for method in found] == [True, True, False]


def test_unknown_methods_and_labels_without_a_pair_are_refused():
    with pytest.raises(SettingsError, match=r"--method: .*'7sd'"):
        choose_methods(["7sd"], [], EMIDEC)
    with pytest.raises(SettingsError, match="--within: "):
        choose_methods(["fwhm"], ["both"], EMIDEC)
    bare = Anatomy(("background", "scar"), (), (("Scar", (1,)),), (("Scar", (1,)),))
    assert choose_methods(["network"], [], bare) == [NETWORK]
    with pytest.raises(SettingsError, match="pair"):
        choose_methods(["otsu"], [], bare)


def drawn():
    """(X, Y, slices): cavity in a ring of myocardium, a bright quarter with a dark core."""
    rows, columns = np.mgrid[:25, :25] - 12
    radius, angle = np.hypot(rows, columns), np.degrees(np.arctan2(rows, columns)) % 360
    labels = np.where(radius < 5, 1, np.where(radius <= 10, 2, 0)).astype(np.uint8)
    image = np.where((labels == 2) & (angle < 90), 200.0, 60.0) + (labels == 1) * 90
    core = np.zeros_like(labels, bool)
    core[16:18, 16:18] = True
    image[core] = 60
    return image[..., None], labels[..., None], ((labels == 2) & (angle < 90))[..., None], core


def test_an_enclosed_dark_core_is_no_reflow():
    image, labels, infarct, core = drawn()
    labels[infarct] = 4  # labels within the myocardium are of no importance
    found = threshold_labels(FWHM, image, labels, EMIDEC)
    assert found.dtype == np.uint8
    wanted = np.where(labels > 1, 2, labels)
    wanted[infarct] = 3
    wanted[core] = 4
    np.testing.assert_array_equal(found, wanted)


def test_a_label_set_without_no_reflow_counts_the_core_as_infarct():
    image, labels, infarct, _ = drawn()
    anatomy = Anatomy(
        ("background", "cavity", "wall", "scar"), (((3,), (3, 2)),), (("Scar", (3,)),),
        (("Wall", (2, 3)), ("Scar", (3,))),
    )  # fmt: skip
    found = threshold_labels(FWHM, image, labels, anatomy)
    np.testing.assert_array_equal(found == 3, infarct)


@pytest.fixture(scope="module")
def compared(random_run, tmp_path_factory):
    output = tmp_path_factory.mktemp("compared")
    methods = ["network", "fwhm", "3sd"]
    return evaluate(
        random_run, methods=methods, within=["reference", "predicted"], output=output
    ), output


def test_all_methods_score_the_same_cases(compared, random_run):
    found, output = compared
    assert [method.title for method in found] == [
        "network", "FWHM, reference myocardium", "FWHM, predicted myocardium",
        "3 SD, reference myocardium", "3 SD, predicted myocardium",
    ]  # fmt: skip
    for method, evaluation in found.items():
        assert [case.name for case in evaluation.cases] == ["Case_P002"]
        folder = output / ("" if method == NETWORK else method.folder)
        summary = json.loads((folder / "summary.json").read_text())
        assert summary["num_cases"] == 1
        assert (summary["checkpoint"] == "not used") == (method.within == "reference")
    case = load_case(load_run(random_run).setup.source.root / "Case_P002")
    image, label = np.moveaxis(case.image, -1, 0), np.moveaxis(case.label, -1, 0)
    wall = label > 1
    ours = n_sd(image, wall, 3)
    ours |= enclosed(ours, wall)
    theirs = label > 2
    regions = found[Method("3sd", "reference")].cases[0].regions
    assert regions[1, 0] == pytest.approx(2 * (ours & theirs).sum() / (ours.sum() + theirs.sum()))
    assert regions[0, 0] == 1  # the myocardium is that of the reference
    predicted = found[Method("3sd", "predicted")].cases[0].regions
    np.testing.assert_array_equal(predicted[0], found[NETWORK].cases[0].regions[0])


def test_tables_of_all_methods(compared):
    found, output = compared
    rows = list(csv.DictReader((output / "methods.csv").read_text().splitlines()))
    # Two scores of three regions, and five differences, each over all cases and those holding it.
    assert len(rows) == len(found) * 2 * (2 * 3 + 5)
    (row,) = [
        r for r in rows
        if (r["method"], r["within"], r["region"]) == ("fwhm", "predicted", "Infarction")
        and (r["cases"], r["quantity"]) == ("holding", "dsc")
    ]  # fmt: skip
    evaluation = found[Method("fwhm", "predicted")]
    assert float(row["mean"]) == pytest.approx(evaluation.cases[0].regions[1, 0])
    text = (output / "methods.md").read_text()
    for region in ("Infarction", "NoReflow"):
        assert f"\n## {region}\n" in text
    assert text.count("| 3 SD, predicted myocardium ") == 2


def test_thresholds_within_the_reference_need_no_prediction(random_run, tmp_path, monkeypatch):
    monkeypatch.setattr("jaxseg.evaluation.run_scores.make_segmenter", lambda *_, **__: pytest.fail)
    found = evaluate(random_run, methods=["otsu"], output=tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["otsu-reference"]
    assert [evaluation.centers for evaluation in found.values()] == [{}]


def folds(run, folder):
    """Copies of a run whose last two cases are held out, one by each."""
    names = sorted(json.loads((run / "data.json").read_text())["cases"])
    for held_out in names[-2:]:
        target = folder / f"without-{held_out}"
        target.mkdir(parents=True)
        for path in run.iterdir():
            if path.name != "data.json":
                (target / path.name).symlink_to(path)
        data = json.loads((run / "data.json").read_text())
        data["training"]["cases"] = [name for name in names if name != held_out]
        data["validation"]["cases"] = [held_out]
        (target / "data.json").write_text(json.dumps(data))
        yield target


def test_several_runs_score_the_cases_that_each_held_out(random_run, tmp_path):
    runs = list(folds(random_run, tmp_path / "runs"))
    found = evaluate(runs, methods=["otsu"], output=tmp_path / "out")
    (evaluation,) = found.values()
    names = [run.name.removeprefix("without-") for run in runs]
    assert [case.name for case in evaluation.cases] == names
    assert not set(names) & set(evaluation.left_out)
    assert [note.partition(":")[0] for note in evaluation.notes[:1]] == [runs[0].name]
    single = evaluate(runs[1], methods=["otsu"], output=tmp_path / "one")
    (alone,) = single.values()
    np.testing.assert_array_equal(alone.cases[0].regions, evaluation.cases[1].regions)


def test_no_case_counts_twice_and_several_runs_need_an_output(random_run, tmp_path):
    first, _ = folds(random_run, tmp_path / "runs")
    with pytest.raises(WorkdirError, match="run"):
        evaluate([random_run, random_run], methods=["otsu"], output=tmp_path / "out")
    with pytest.raises(SettingsError, match="--output: "):
        evaluate([first, random_run])
    assert not (tmp_path / "out").exists()
