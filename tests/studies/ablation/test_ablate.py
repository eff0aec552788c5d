"""An ablation as a user runs it: tiny, on the phantom, in processes of its own."""

import csv
import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest

STAGES = ["baseline", "attention", "awce", "awce_penalty"]
FILES = ["curves.png", "figure1.png", "figure3.png", "report.html", "table1.csv", "table1.md"]
FILES = sorted([*FILES, "cases.csv", "tests.csv", "runs"])


def test_tables_figures_and_report(study):
    folder, output = study
    assert sorted(p.name for p in folder.iterdir() if not p.name.startswith(".")) == FILES
    table = (folder / "table1.md").read_text()
    assert table.splitlines()[0] in output
    rows = list(csv.DictReader((folder / "table1.csv").read_text().splitlines()))
    assert [row["stage"] for row in rows if row["source"] == "ours"][::4] == STAGES
    page = (folder / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 3
    assert str(folder.parent) not in page
    assert "phantom-6-cases" not in page  # where the cases lie


def test_the_table_averages_the_scores_of_the_runs(study):
    """Mean over the slices that hold the label, by plain counting."""
    folder, _ = study
    table = list(csv.DictReader((folder / "table1.csv").read_text().splitlines()))
    for stage in STAGES:
        scores = folder / "runs" / f"{stage}-seed-0" / "evaluation-last" / "slices.csv"
        slices = list(csv.DictReader(scores.read_text().splitlines()))
        for region in ("LV", "Myo", "Inf", "NoR"):
            held = [float(row[region]) for row in slices if row[region]]
            (row,) = (row for row in table if (row["source"], row["stage"], row["region"])
                      == ("ours", stage, region))  # fmt: skip
            assert float(row["mean"]) == pytest.approx(sum(held) / len(held))
            assert int(row["n"]) == len(held)


def test_an_interrupted_ablation_is_continued(study, run, tmp_path):
    folder = shutil.copytree(study[0], tmp_path / "study")
    shutil.rmtree(folder / "runs" / "awce-seed-0" / "evaluation-last")
    before = {name: (folder / name).read_bytes() for name in FILES if name != "runs"}
    for name in before:
        (folder / name).unlink()
    status, output, errors = run(folder)
    assert status == 0, errors
    assert output.count("resuming at step") == 1
    assert "[3/4] awce-seed-0" in output
    assert "[1/4]" not in output
    assert {name: (folder / name).read_bytes() for name in before} == before


def test_runs_of_another_config_are_refused(study, run):
    status, _, errors = run(study[0], model__width=8)
    assert status == 1
    assert "model.width: " in errors
    assert "Traceback" not in errors


def test_two_processes_share_the_runs(run, study, tmp_path):
    """Neither does what the other did or does; one report comes of it, the same as from one."""
    folder = shutil.copytree(study[0], tmp_path / "study")
    for name in ("awce-seed-0", "attention-seed-0"):
        shutil.rmtree(folder / "runs" / name / "evaluation-last")
    with ThreadPoolExecutor(2) as pool:
        outcomes = list(pool.map(run, [folder, folder]))
    assert [status for status, _, _ in outcomes] == [0, 0], outcomes
    together = "".join(output for _, output, _ in outcomes)
    assert together.count("resuming at step") == 2
    assert (folder / "table1.csv").read_bytes() == (study[0] / "table1.csv").read_bytes()
