"""`main.py` beside training: every other mode, and one line for what is wrong."""

import importlib.util
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from absl import flags, logging

from tests.allowed_warnings import CONFIG_FILES

ROOT = Path(__file__).parents[1]
STAGE = ROOT / "configs" / "awce_penalty.py"
pytestmark = pytest.mark.filterwarnings(CONFIG_FILES)
Call = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def main_module():
    known = set(flags.FLAGS)
    spec = importlib.util.spec_from_file_location("jaxseg_main_modes", ROOT / "main.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    for name in set(flags.FLAGS) - known:
        delattr(flags.FLAGS, name)


@pytest.fixture
def call(main_module, monkeypatch, capsys, tmp_path) -> Call:
    """`main.py` in this process: flags in; exit status, stdout and stderr out."""
    monkeypatch.syspath_prepend(ROOT)
    monkeypatch.chdir(tmp_path)
    verbosity, known = logging.get_verbosity(), set(flags.FLAGS)

    def run(*arguments: object) -> tuple[int, str, str]:
        argv = ["main.py", *map(str, arguments)]
        monkeypatch.setattr(sys, "argv", argv)
        status = 0
        try:
            main_module.main(main_module._parse(argv))
        except SystemExit as stop:
            status = int(str(stop.code))
        finally:
            for name in set(flags.FLAGS) - known:
                delattr(flags.FLAGS, name)
            flags.FLAGS.unparse_flags()
            for name in known:
                flags.FLAGS[name].unparse()
            logging.set_verbosity(verbosity)
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


def refused(outcome, status, message):
    assert outcome[0] == status
    # Nothing but the devices and networks.
    assert all(" x cpu" in line or " parameters; " in line for line in outcome[1].splitlines())
    assert outcome[2].startswith(f"error: {message}"), outcome[2]
    assert outcome[2].count("\n") == 1


@pytest.fixture
def stack(command_line, finished_run) -> Path:
    return command_line.phantom / "Case_P002" / "Images" / "Case_P002.nii.gz"


def test_evaluate_a_run_as_trained(call, finished_run, command_line, tmp_path):
    """The config's relative phantom lies elsewhere, so its folder is named."""
    status, output, errors = call(
        "--mode=evaluate", f"--workdir={finished_run}", "--output=scores",
        f"--config.data.root={command_line.phantom}",
    )  # fmt: skip
    assert (status, errors) == (0, "")
    summary = (tmp_path / "scores" / "summary.md").read_text()
    assert summary in output
    assert "## Cases in 3D: cases whose reference holds the region" in summary
    found = json.loads((tmp_path / "scores" / "summary.json").read_text())
    assert (found["num_cases"], found["num_slices"], found["mirror"]) == (1, 6, False)


def test_evaluate_writes_into_the_workdir(call, random_run, tmp_path):
    run = shutil.copytree(random_run, tmp_path / "run")
    status, output, errors = call(
        "--mode=evaluate", f"--workdir={run}", "--checkpoint=last", "--mirror"
    )
    assert (status, errors) == (0, "")
    assert "Checkpoint: last, step 6, mirror images averaged." in output
    assert sorted(path.name for path in (run / "evaluation").iterdir()) == [
        "cases.csv", "inclusion.csv", "pixels.csv", "slices.csv", "summary.json", "summary.md",
    ]  # fmt: skip


def test_predict_with_every_flag(call, random_run, finished_run, stack, tmp_path):
    arguments = (
        "--mode=predict", f"--workdir={random_run}", f"--ensemble={finished_run}",
        f"--input={stack}", "--output=out", "--mirror", "--probabilities", "--checkpoint=last",
    )  # fmt: skip
    status, output, errors = call(*arguments)
    assert (status, errors) == (0, "")
    lines = output.splitlines()
    assert lines[0].startswith("jax ")
    for run in (random_run, finished_run):
        assert any(line.startswith(f"{run}: ") and "parameters" in line for line in lines)
    assert "out: 1 label maps, their volumes in volumes.csv" in lines
    assert (tmp_path / "out" / "probabilities" / "Case_P002.nii.gz").is_file()
    refused(call(*arguments), 1, "out/Case_P002.nii.gz and 2 more exist already; pass --overwrite")
    assert call(*arguments, "--overwrite")[0] == 0


def test_predict_tells_bad_files_last_with_status_1(call, random_run, stack, tmp_path):
    (tmp_path / "in").mkdir()
    shutil.copy(stack, tmp_path / "in" / "good.nii.gz")
    (tmp_path / "in" / "bad.nii.gz").write_bytes(b"")
    status, output, errors = call(
        "--mode=predict", f"--workdir={random_run}", "--input=in", "--output=out"
    )
    assert status == 1
    assert "\nout: 1 label maps" in output
    assert errors.splitlines()[0] == "error: 1 of 2 files not predicted:"
    assert errors.splitlines()[1].startswith("  in/bad.nii.gz: ")
    assert (tmp_path / "out" / "good.nii.gz").is_file()


def test_export_then_predict_from_the_bundle_alone(call, random_run, stack, tmp_path):
    run = shutil.copytree(random_run, tmp_path / "run")
    assert call("--mode=predict", "--workdir=run", f"--input={stack}", "--output=by-run")[0] == 0
    status, output, errors = call("--mode=export", "--workdir=run", "--output=bundle")
    assert (status, errors) == (0, "")
    assert "bundle" in output
    shutil.rmtree(run)
    status, _, errors = call(
        "--mode=predict", "--workdir=bundle", f"--input={stack}", "--output=by-bundle"
    )
    assert (status, errors) == (0, "")
    files = [tmp_path / folder / "Case_P002.nii.gz" for folder in ("by-run", "by-bundle")]
    assert files[0].read_bytes() == files[1].read_bytes()
    refused(call("--mode=export", "--workdir=none", "--output=new"), 1, "none: no such folder")
    refused(
        call("--mode=predict", "--workdir=bundle", f"--input={stack}", "--output=last",
             "--checkpoint=best"),
        1, "bundle: ",
    )  # fmt: skip


def test_a_home_that_is_not_there_is_one_line_and_status_1(call, stack):
    path = "~no-such-user/x"
    predict = ("--mode=predict", f"--input={stack}", "--output=out")
    refused(call(*predict, f"--workdir={path}"), 1, "a path that begins with ~")


USAGE = {
    "no workdir": (["--mode=evaluate"], "flag --workdir=None: Flag --workdir must have a value"),
    "no input": (["--mode=predict", "--workdir=x", "--output=y"], "flag --input=None: Flag --inp"),
    "no output": (["--mode=predict", "--workdir=x", "--input=y"], "flag --output=None: Flag --ou"),
    "no config": ([], "flag --config=None: Flag --config must have a value"),
    "config of a run": (
        ["--mode=evaluate", "--workdir=x", f"--config={STAGE}"],
        "--config: not a flag of --mode=evaluate\n",
    ),
    "field of the config": (
        ["--mode=evaluate", "--workdir=x", "--config.seed=1"],
        "--config.seed: expected with --config=FILE\n",
    ),
    "root of a prediction": (
        ["--mode=predict", "--workdir=x", "--input=y", "--output=z", "--config.data.root=d"],
        "--config.data.root: not a flag of --mode=predict\n",
    ),
    "root of a training by its other name": (
        [f"--config={STAGE}", "--data_root=d"],
        "--data_root: not a flag of --mode=train\n",
    ),
    "no mirrors in a training": (
        [f"--config={STAGE}", "--nomirror"],
        "--mirror: not a flag of --mode=train\n",
    ),
    "input of a training": ([f"--config={STAGE}", "--input=x"], "--input: not a flag of --mode=tr"),
    "processes of an evaluation": (
        ["--mode=evaluate", "--workdir=x", "--distributed=auto"],
        "--distributed: only training runs in several processes, not evaluate\n",
    ),
    "unknown mode": (["--mode=test"], "flag --mode=test: value should be one of <train|evaluate|"),
    "no output of an export": (["--mode=export", "--workdir=x"], "flag --output=None: Flag --ou"),
    "no config of an ablation": (["--mode=ablate", "--workdir=x"], "flag --config=None: Flag --co"),
    "config that is not there": (["--mode=ablate", "--config=none.py"], "--config: "),
    "root with a config in two words": (
        ["--mode=ablate", "--config", STAGE, "--config.data.rot=x"],
        "--config: no such field",
    ),
    "seeds of a training": ([f"--config={STAGE}", "--seeds=2"], "--seeds: not a flag of --mode=tr"),
    "seeds in words": (
        ["--mode=ablate", f"--config={STAGE}", "--seeds=two"],
        "flag --seeds=two: invalid literal for int()",
    ),
    "confidence past 1": (
        ["--mode=evaluate", "--workdir=x", "--min_confidence=1.5"],
        "flag --min_confidence=1.5: ",
    ),
    "confidence of a training": (
        [f"--config={STAGE}", "--min_confidence=0.5"],
        "--min_confidence: not a flag of --mode=train\n",
    ),
    "no config of a cross-validation": (["--mode=crossvalidate"], "flag --config=None: Flag --co"),
    "a study without a name": (
        ["--mode=crossvalidate", f"--config={STAGE}", "--ensemble=a,,b"],
        "--ensemble: expected folders, comma-separated, got an empty name\n",
    ),
    "unknown checkpoint": (
        ["--mode=evaluate", "--workdir=x", "--checkpoint=7"],
        "flag --checkpoint=7: value should be one of <best|last>",
    ),
}


@pytest.mark.parametrize("case", USAGE)
def test_flags_that_cannot_be_read_are_one_line_and_status_2(call, case, tmp_path):
    arguments, message = USAGE[case]
    refused(call(*arguments), 2, message)
    assert not list(tmp_path.iterdir())


def test_what_the_user_can_mend_is_one_line_and_status_1(call, random_run, stack, tmp_path):
    evaluate = ("--mode=evaluate",)
    predict = ("--mode=predict", "--output=out")
    run, source = f"--workdir={random_run}", f"--input={stack}"
    refused(call(*evaluate, "--workdir=none"), 1, "none: no such folder; expected the workdir")
    refused(call(*predict, "--workdir=none", source), 1, "none: no such folder; expected the wor")
    refused(call(*evaluate, run, "--data_root=none"), 1, "none: no such folder; expected a fol")
    refused(call(*predict, run, "--input=none"), 1, "none: no such file or folder\n")
    refused(call(*predict, run, source, "--ensemble=none"), 1, "none: no such folder; expected")
    twice = call(*predict, run, source, f"--ensemble={random_run}/")
    refused(twice, 1, f"{random_run}: would count twice; expected every run once\n")
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").touch()
    refused(call(*evaluate, run, "--output=file/x"), 1, "file/x: cannot write here (")
    refused(call("--mode=predict", run, source, "--output=file"), 1, "file: cannot write here (")
    bounds = ("--min_confidence=0.1",) * 3
    refused(call(*evaluate, run, *bounds), 1, "--min_confidence: expected 1 or 2 numbers, as many")
    folds = ("--mode=crossvalidate", f"--config={STAGE}", "--workdir=study")
    refused(call(*folds, "--folds=1"), 1, "--folds: expected at least 2 to cross-validate, got 1\n")
    refused(call(*folds, "--config.data.split=slice"), 1, "data.split: expected case to cross-val")
    others = (*folds, "--config.data.split=case", "--ensemble=none,nor-this")
    refused(call(*others), 1, "none: no such folder; expected a study of")
    ablate = ("--mode=ablate", f"--config={STAGE}", "--workdir=study")
    refused(call(*ablate, "--seeds=0"), 1, "--seeds: expected at least 1, got 0\n")
    refused(call(*ablate, "--folds=1"), 1, "--folds: expected 0 (no folds) or at least 2, got 1\n")
    refused(
        call(*ablate, "--config.data.root=none", "--config.data.phantom_cases=0"),
        1,
        f"{tmp_path}/none: ",
    )
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_help_tells_every_mode(command_line):
    process = command_line.start("--mode=evaluate", "--help", config=None)
    output, errors = process.communicate(timeout=120)
    text = output + errors
    for mode in ("evaluate", "predict", "export", "ablate", "crossvalidate"):
        assert f"--mode={mode}" in text
    for flag in (
        "--checkpoint",
        "--[no]mirror",
        "--ensemble",
        "--[no]overwrite",
        "--seeds",
        "--folds",
    ):
        assert flag in text
    assert "Traceback" not in text
