"""`python -m jaxseg`: each command, and one line for what the user can correct."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from jaxseg import __version__
from jaxseg.__main__ import main, parser

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(monkeypatch, capsys, tmp_path) -> Call:
    """Run a command in this process; return its status, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> tuple[int, str, str]:
        status = 0
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as stop:
            status = int(str(stop.code))
        return status, *capsys.readouterr()

    return run


def refused(outcome, status, name):
    """One line that starts with a name; nothing else is printed but devices and networks."""
    assert outcome[0] == status
    assert all(" x cpu" in line or " parameters; " in line for line in outcome[1].splitlines())
    assert outcome[2].startswith(f"error: {name}"), outcome[2]
    assert outcome[2].count("\n") == 1


@pytest.fixture
def stack(command_line, finished_run) -> Path:
    return command_line.phantom / "Case_P002" / "Images" / "Case_P002.nii.gz"


def test_evaluate_a_run_as_trained(call, finished_run, command_line, tmp_path):
    """The config's relative phantom lies elsewhere, so its folder is given."""
    arguments = ("evaluate", f"--run={finished_run}", "--output=scores", command_line.phantom)
    status, output, errors = call(*arguments)
    assert (status, errors) == (0, "")
    assert (tmp_path / "scores" / "summary.md").read_text() in output
    found = json.loads((tmp_path / "scores" / "summary.json").read_text())
    assert (found["num_cases"], found["num_slices"], found["mirror"]) == (1, 6, False)


def test_evaluate_writes_into_the_run_folder(call, random_run, tmp_path):
    run = shutil.copytree(random_run, tmp_path / "run")
    status, _, errors = call("evaluate", f"--run={run}", "--checkpoint=last", "--mirror")
    assert (status, errors) == (0, "")
    found = json.loads((run / "evaluation" / "summary.json").read_text())
    assert (found["checkpoint"], found["mirror"]) == ("last, step 6", True)


def test_evaluate_thresholds_side_by_side(call, random_run, tmp_path):
    status, output, errors = call(
        "evaluate", f"--run={random_run}", "--method=otsu,5sd", "--method=fwhm", "--output=out"
    )
    assert (status, errors) == (0, "")
    assert (tmp_path / "out" / "methods.md").read_text() in output
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "otsu-reference", "5sd-reference", "fwhm-reference", "methods.csv", "methods.md",
    }  # fmt: skip


def test_predict_with_every_flag(call, random_run, finished_run, stack, tmp_path):
    arguments = (
        "predict", f"--run={random_run}", f"--run={finished_run}",
        stack, "--output=out", "--mirror", "--probabilities", "--checkpoint=last",
    )  # fmt: skip
    status, output, errors = call(*arguments)
    assert (status, errors) == (0, "")
    lines = output.splitlines()
    assert lines[0].startswith("jax ")
    for run in (random_run, finished_run):
        assert any(line.startswith(f"{run}: ") and "parameters" in line for line in lines)
    assert (tmp_path / "out" / "probabilities" / "Case_P002.nii.gz").is_file()
    refused(call(*arguments), 1, "out/Case_P002.nii.gz")
    assert call(*arguments, "--overwrite")[0] == 0


def test_predict_reports_bad_files_last_with_status_1(call, random_run, stack, tmp_path):
    (tmp_path / "in").mkdir()
    shutil.copy(stack, tmp_path / "in" / "good.nii.gz")
    (tmp_path / "in" / "bad.nii.gz").write_bytes(b"")
    status, _, errors = call("predict", f"--run={random_run}", "in", "--output=out")
    first, second = errors.splitlines()
    assert status == 1
    assert first.startswith("error: ")
    assert second.startswith("  in/bad.nii.gz: ")
    assert (tmp_path / "out" / "good.nii.gz").is_file()


def test_measure_what_was_predicted(call, random_run, stack, tmp_path):
    predict = ("predict", f"--run={random_run}", stack, "--output=out", "--septum=120")
    assert call(*predict)[0] == 0
    again = ("measure", "out", "--output=again", f"--run={random_run}", "--septum=120,240")
    assert call(*again)[0] == 0
    first, second = (tmp_path / folder / "measures" for folder in ("out", "again"))
    name = "Case_P002.json"
    assert (first / name).read_text() == (second / name).read_text()
    assert json.loads((first / name).read_text())["septum"]
    refused(call("measure", stack, "--output=bad"), 1, f"{stack}: ")
    refused(call("measure", "out", "--output=again"), 1, "again/")


def test_export_then_predict_from_the_bundle_alone(call, random_run, stack, tmp_path):
    run = shutil.copytree(random_run, tmp_path / "run")
    assert call("predict", "--run=run", stack, "--output=by-run")[0] == 0
    assert call("export", "--run=run", "--output=bundle")[0] == 0
    shutil.rmtree(run)
    status, _, errors = call("predict", "--run=bundle", stack, "--output=by-bundle")
    assert (status, errors) == (0, "")
    files = [tmp_path / folder / "Case_P002.nii.gz" for folder in ("by-run", "by-bundle")]
    assert files[0].read_bytes() == files[1].read_bytes()
    best = call("predict", "--run=bundle", stack, "--output=last", "--checkpoint=best")
    refused(best, 1, "bundle: ")


USAGE = {
    "no command": [],
    "unknown command": ["train"],
    "no run": ["evaluate"],
    "no stack": ["predict", "--run=x", "--output=y"],
    "no output": ["predict", "--run=x", "y"],
    "no output of an export": ["export", "--run=x"],
    "a flag of another command": ["evaluate", "--run=x", "--probabilities"],
    "a config": ["evaluate", "--run=x", "--config.seed=1"],
    "bound past 1": ["evaluate", "--run=x", "--min_dice=1.5"],
    "bound in words": ["evaluate", "--run=x", "--min_dice=high"],
    "odds of 0": ["predict", "--run=x", "y", "--output=z", "--pathology_odds=0"],
    "endless odds": ["evaluate", "--run=x", "--pathology_odds=inf"],
    "odds in words": ["evaluate", "--run=x", "--pathology_odds=even"],
    "a home that is not there": ["evaluate", "--run=~no-such-user/x"],
    "half a center": ["predict", "--run=x", "y", "--output=z", "--center=0.5"],
    "center outside": ["predict", "--run=x", "y", "--output=z", "--center=0.5,1.2"],
    "no label map": ["measure", "--output=y"],
    "no output of measures": ["measure", "x"],
    "septum in words": ["measure", "x", "--output=y", "--septum=left"],
    "three insertions": ["measure", "x", "--output=y", "--septum=1,2,3"],
    "one insertion twice": ["measure", "x", "--output=y", "--septum=120,480"],
    "septum nowhere": ["measure", "x", "--output=y", "--septum=nan"],
    "unknown checkpoint": ["evaluate", "--run=x", "--checkpoint=7"],
    "no orientation": ["predict", "x", "--run=y", "--output=z", "--orientation="],
    "one axis twice": ["predict", "x", "--run=y", "--output=z", "--orientation=LL"],
    "unknown direction": ["predict", "x", "--run=y", "--output=z", "--orientation=XP"],
}


@pytest.mark.parametrize("case", USAGE)
def test_unreadable_arguments_are_one_line_and_status_2(call, case, tmp_path):
    status, output, errors = call(*USAGE[case])
    assert (status, output) == (2, "")
    assert errors.startswith("error: ")
    assert errors.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_errors_of_the_user_are_one_line_and_status_1(call, random_run, stack, tmp_path):
    run = f"--run={random_run}"
    for arguments in (
        ("evaluate", "--run=none"), ("predict", stack, "--run=none", "--output=out"),
        ("evaluate", "none", run), ("predict", "none", run, "--output=out"),
        ("predict", stack, run, "--run=none", "--output=out"),
        ("export", "--run=none", "--output=out"),
    ):  # fmt: skip
        refused(call(*arguments), 1, "none: ")
    twice = call("predict", stack, run, f"{run}/", "--output=out")
    refused(twice, 1, f"{random_run}: ")
    refused(call("evaluate", run, "--method=fwhm,7sd"), 1, "--method: ")
    refused(call("evaluate", run, run), 1, "--output: ")
    refused(call("evaluate", run, *("--min_dice=0.1",) * 3), 1, "--min_dice: ")
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").touch()
    refused(call("evaluate", run, "--output=file/x"), 1, "file/x: ")
    refused(call("predict", stack, run, "--output=file"), 1, "file: ")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("command", ["predict", "evaluate", "export"])
def test_each_command_has_help_and_an_example_that_it_accepts(call, command):
    status, output, _ = call(command, "--help")
    assert status == 0
    example = " ".join(output.split("example: jaxseg ")[1].split())
    arguments = vars(parser().parse_args(example.split()))
    assert arguments["output" if command != "evaluate" else "mirror"]


def test_the_package_is_a_program(tmp_path):
    process = subprocess.run(
        [sys.executable, "-m", "jaxseg", "--version"], capture_output=True, text=True, check=True,
        cwd=Path(__file__).parents[1],
    )  # fmt: skip
    assert process.stdout == f"jaxseg {__version__}\n"
