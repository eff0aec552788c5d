"""The command line: a run end to end, and one clear line for whatever the user can mend."""

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from absl import flags, logging

from jaxseg.config.flags import parse
from tests.allowed_warnings import CONFIG_FILES

ROOT = Path(__file__).parents[1]
STAGE = ROOT / "configs" / "awce_penalty.py"
pytestmark = pytest.mark.filterwarnings(CONFIG_FILES)
EMIDEC = f"--config={STAGE}:emidec"
Call = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def main_module():
    known = set(flags.FLAGS)
    spec = importlib.util.spec_from_file_location("jaxseg_main", ROOT / "main.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    for name in set(flags.FLAGS) - known:  # another test file has a copy of its own
        delattr(flags.FLAGS, name)


@pytest.fixture
def call(main_module, monkeypatch, capsys, tmp_path) -> Call:
    """`main.py` in this process: flags in, exit status and what it wrote to stderr out."""
    monkeypatch.syspath_prepend(ROOT)
    monkeypatch.chdir(tmp_path)
    verbosity, known = logging.get_verbosity(), set(flags.FLAGS)

    def run(*arguments: str) -> tuple[int, str]:
        # Overrides of config fields are read from sys.argv and define flags as they go.
        argv = ["main.py", *arguments]
        monkeypatch.setattr(sys, "argv", argv)
        try:
            with pytest.raises(SystemExit) as stop:
                main_module.main(parse(argv))
        finally:
            for name in set(flags.FLAGS) - known:
                delattr(flags.FLAGS, name)
            flags.FLAGS.unparse_flags()
            logging.set_verbosity(verbosity)
        captured = capsys.readouterr()
        assert captured.out.count("\n") == captured.out.startswith("jax ")  # the devices alone
        return int(str(stop.value.code)), captured.err

    return run


UNREADABLE = {
    "unknown field": (["--config.nope=1"], "--config: no such field ('nope')"),
    "unknown field of a group": (["--config.train.nope=1"], "--config: no such field ('nope')"),
    "field of a number": (["--config.train.epochs.x=1"], "--config: no such field (Attribute"),
    "a list": (
        ["--config.anatomy.labels=a,b"],
        "--config.anatomy.labels: expected in a config file (docs/how-to/own-data.md), not as a "
        "flag\n",
    ),
    "wrong type": (
        ["--config.train.epochs=many"],
        "flag --config.train.epochs=many: invalid literal for int() with base 10: 'many'\n",
    ),
    "fraction of an epoch": (["--config.train.epochs=1.5"], "flag --config.train.epochs=1.5: inv"),
    "value for a group": (["--config.train=3"], "flag --config.train=3: Failed to parse '3' as a"),
    "extra argument": (
        ["resume"],
        "unexpected argument 'resume'; every setting is a --flag=VALUE\n",
    ),
    "unknown flag": (["--work_dir=x"], "Unknown command line flag 'work_dir'. Did you mean: wor"),
    "unknown mode": (["--mode=evaluate"], "flag --mode=evaluate: value should be one of <train|"),
    "seeds in words": (
        ["--mode=ablate", "--seeds=two"],
        "flag --seeds=two: invalid literal for int()",
    ),
    "no time to connect": (["--connect_seconds=0"], "flag --connect_seconds=0: "),
    "no heartbeat": (["--heartbeat_seconds=0"], "flag --heartbeat_seconds=0: "),
    "no processes": (["--num_processes=0"], "flag --num_processes=0: "),
    "a process before the first": (["--process_id=-1"], "flag --process_id=-1: "),
    "unknown variant": (  # of several equal flags the last one counts
        [f"--config={STAGE}:nope"],
        "config variant: expected one of phantom, emidec, got 'nope'\n",
    ),
    "missing config": (
        ["--config=nope.py"],
        "--config: [Errno 2] No such file or directory: 'nope.py'\n",
    ),
    "override of a missing config": (
        ["--config=nope.py", "--config.seed=1"],
        "--config: [Errno 2] No such file or directory: 'nope.py'\n",
    ),
}


@pytest.mark.parametrize("case", UNREADABLE)
def test_flags_that_cannot_be_read_are_one_line_and_status_2(call, case, tmp_path):
    arguments, message = UNREADABLE[case]
    status, errors = call(f"--config={STAGE}", *arguments)
    assert (status, errors[: len(message) + 7]) == (2, f"error: {message}")
    assert errors.count("\n") == 1
    assert not list(tmp_path.iterdir())


UNSUITABLE = {
    "a folder of no user": (
        ["--workdir=~no-such-user/x"],
        "--workdir: expected a path below a home folder that exists, got ~no-such-user/x\n",
    ),
    "cases of no user": (["--config.data.root=~no-such-user/x"], "data.root: expected a path"),
    "a source of no user": (["--init_from=~no-such-user/x"], "train.init_from: expected a path"),
    "a split of no user": (
        ["--config.data.splits=~no-such-user/x.csv"],
        "data.splits: expected a path",
    ),
    "seeds of a training": (["--seeds=2"], "--seeds: not a flag of --mode=train\n"),
    "no mirrors in a training": (["--nomirror"], "--mirror: not a flag of --mode=train\n"),
    "folds of a training": (["--folds=2"], "--folds: not a flag of --mode=train\n"),
    "processes of an ablation": (
        ["--mode=ablate", "--distributed=auto"],
        "--distributed: not a flag of --mode=ablate\n",
    ),
    "mirrors of an ablation": (
        ["--mode=ablate", "--mirror"],
        "--mirror: not a flag of --mode=ablate\n",
    ),
    "processes without a place": (
        ["--process_id=1"],
        "--process_id: expected only with --distributed=HOST:PORT\n",
    ),
    "number of processes that the environment knows": (
        ["--distributed=auto", "--num_processes=2"],
        "--num_processes: expected only with --distributed=HOST:PORT\n",
    ),
    "place without a port": (
        ["--distributed=here"],
        "--distributed: expected auto or HOST:PORT, got 'here'\n",
    ),
    "no port": (
        ["--distributed=here:65536"],
        "--distributed: expected auto or HOST:PORT, got 'here:65536'\n",
    ),
    "place without processes": (
        ["--distributed=here:1"],
        "--distributed=HOST:PORT: expected --num_processes and a --process_id from 0 to one below "
        "it, got None",
    ),
    "process beyond the last": (
        ["--distributed=here:1", "--num_processes=2", "--process_id=2"],
        "--distributed=HOST:PORT: expected --num_processes and a --process_id from 0 to one below "
        "it, got 2 and",
    ),
    "one fold": (
        ["--mode=crossvalidate", "--folds=1"],
        "--folds: expected at least 2 to cross-validate, got 1\n",
    ),
    "a split by slice": (
        ["--mode=crossvalidate", "--config.data.split=slice"],
        "data.split: expected case to cross-val",
    ),
    "no seeds": (["--mode=ablate", "--seeds=0"], "--seeds: expected at least 1, got 0\n"),
    "one fold of an ablation": (
        ["--mode=ablate", "--folds=1"],
        "--folds: expected 0 (no folds) or at least 2, got 1\n",
    ),
    "no other study": (
        ["--mode=crossvalidate", "--ensemble=none,nor-this"],
        "none: no such folder; expected a study of",
    ),
    "a study without a name": (
        ["--mode=crossvalidate", "--ensemble=a,,b"],
        "--ensemble: expected folders, got an empty name\n",
    ),
}


@pytest.mark.parametrize("case", UNSUITABLE)
def test_flags_that_do_not_fit_are_one_line_and_status_1(call, case, tmp_path):
    arguments, message = UNSUITABLE[case]
    status, errors = call(f"--config={STAGE}", "--config.data.split=case", *arguments)
    assert (status, errors[: len(message) + 7]) == (1, f"error: {message}")
    assert errors.count("\n") == 1
    assert not list(tmp_path.iterdir())


FILES = {
    "slip": ("def get_config(:\n", "FILE, line 1: invalid syntax"),
    "no module": ("import no_such_module\n", "FILE, line 1: ModuleNotFoundError: No module named"),
    "no name": ("def get_config():\n    return x\n", "FILE, line 2: NameError: name 'x' is not"),
    "no function": ("x = 1\n", "expected a file that defines get_config\n"),
    "a dict": (
        "def get_config():\n    return {'name': 'a'}\n",
        "get_config returned dict; expected a ConfigDict\n",
    ),
    "unknown field": (
        "from configs import awce\n\n\ndef get_config():\n    config = awce.get_config()\n"
        "    config.loss.penalti = 0.1\n    return config\n",
        'FILE, line 6: KeyError: Key "penalti" does not exist',
    ),
}


@pytest.mark.parametrize("case", FILES)
def test_config_files_that_cannot_be_used_are_one_line_and_status_2(
    call, tmp_path, monkeypatch, case
):
    # As in a new process: a config file is executed in a module of this name.
    monkeypatch.delitem(sys.modules, "config_config", raising=False)
    text, message = FILES[case]
    file = tmp_path / "mine.py"
    file.write_text(text)
    status, errors = call(f"--config={file}")
    message = f"error: --config: {message.replace('FILE', str(file))}"
    assert (status, errors[: len(message)]) == (2, message)
    assert errors.count("\n") == 1


def test_a_config_below_the_home_folder(call, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine.py").write_text(FILES["a dict"][0])
    status, errors = call("--config=~/mine.py")
    assert (status, errors) == (2, f"error: --config: {FILES['a dict'][1]}")
    monkeypatch.setenv("HOME", "")
    status, errors = call("--config=~/mine.py")
    assert status == 2
    assert errors.startswith("error: --config: expected a path below a home folder")
    assert errors.count("\n") == 1


def test_a_config_without_a_variant_is_checked_like_any_other(call, tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "from configs import awce\n\n\ndef get_config():\n    config = awce.get_config().unlock()\n"
        "    del config.variant\n    config.train.epochs = -1\n    return config\n"
    )
    for mode in ("train", "crossvalidate", "ablate"):
        status, errors = call(f"--mode={mode}", f"--config={file}")
        assert (status, errors[:21]) == (1, "error: train.epochs: ")


def test_help_names_every_mode_and_flag(command_line):
    process = command_line.start("--help", config=None)
    text = "".join(process.communicate(timeout=120))
    for name in ("ablate", "crossvalidate", "--[no]mirror", "--ensemble", "--seeds", "--folds"):
        assert name in text
    assert "Traceback" not in text


def test_no_config_at_all_is_one_line_and_status_2(command_line):
    process = command_line.start(config=None)
    output, errors = process.communicate(timeout=120)
    assert (process.returncode, output) == (2, "")
    assert errors.startswith("error: --config: expected FILE")
    assert errors.count("\n") == 1


def test_of_a_field_given_twice_the_last_counts(call, tmp_path):
    """Tuples are not joined to one of four; the settings are fine, and a folder is missing."""
    sizes = [f"--config.grid.size={size}" for size in ("48,48", "64,64")]
    status, errors = call(EMIDEC, *sizes, "--config.data.root=nope")
    assert (status, "grid.size" in errors, "nope" in errors) == (1, False, True)
    status, errors = call(EMIDEC, "--config.grid.size=64x64", "--config.data.root=nope")
    assert status != 0
    assert "grid.size" in errors
    assert errors.count("\n") == 1


def test_a_missing_root_is_one_line_and_status_1(call, tmp_path):
    message = "data.root: expected the folder of the cases, got nothing; pass --config.data.root"
    status, errors = call(EMIDEC)
    assert (status, errors) == (1, f"error: {message}=DIR\n")
    status, errors = call(EMIDEC, "--config.data.root=nope")
    assert (status, errors) == (
        1, f"error: {tmp_path}/nope: no such folder; expected a folder of EMIDEC cases\n"
    )  # fmt: skip
    status, errors = call("--mode=ablate", EMIDEC, "--config.data.root=nope")
    assert (status, errors[: len(f"error: {tmp_path}/nope: ")]) == (1, f"error: {tmp_path}/nope: ")
    assert not list(tmp_path.iterdir())


def test_an_empty_root_is_one_line_and_status_1(command_line, tmp_path):
    (tmp_path / "empty").mkdir()
    process = command_line.start(
        f"--config.data.root={tmp_path / 'empty'}",
        f"--workdir={tmp_path / 'run'}",
        config="awce_penalty.py:emidec",
    )
    _, errors = process.communicate(timeout=120)
    assert (process.returncode, errors) == (
        1, f"error: {tmp_path / 'empty'}: no case; expected folders such as Case_P001/Images\n"
    )  # fmt: skip


def test_init_from_is_short_for_its_field(call, tmp_path, command_line, finished_run):
    stage = [f"--config={STAGE}", f"--config.data.root={command_line.phantom}"]
    for mode in ("train", "crossvalidate"):
        flags_of_mode = [f"--mode={mode}", *stage, "--config.data.split=case"]
        for name in ("init_from", "config.train.init_from"):
            status, errors = call(*flags_of_mode, f"--{name}=nope", "--workdir=run")
            assert (status, errors.count("\n")) == (1, 1)
            assert f"error: {tmp_path / 'nope'}: no such folder; expected the workdir of" in errors
            assert not (tmp_path / "run").exists()
    status, errors = call(*stage, "--init_from=a", "--config.train.init_from=b")
    assert (status, errors) == (
        1, "error: --init_from: expected b, as train.init_from says, got a\n"
    )  # fmt: skip
    status, errors = call(*stage, "--init_from=", "--workdir=run")
    assert status == 1
    assert errors.startswith("error: train.init_from: expected the folder of a run or of an exp")


def test_all_bad_settings_are_told_at_once_and_nothing_is_made(call, tmp_path):
    status, errors = call(
        f"--config={STAGE}", "--config.train.epochs=0", "--config.mixup.probability=2.0"
    )
    assert status == 1
    first, second = errors.removeprefix("error: ").splitlines()
    assert {first.split(":")[0], second.split(":")[0]} == {"train.epochs", "mixup.probability"}
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("mode", ["train", "ablate", "crossvalidate"])
def test_a_phantom_that_cannot_be_split_is_not_written(call, tmp_path, mode):
    flags_of_mode = [f"--mode={mode}", f"--config={STAGE}", "--config.data.split=case"]
    for wrong in ("data.phantom_cases=1", "data.splits=none.csv"):
        status, errors = call(*flags_of_mode, f"--config.{wrong}")
        assert (status, errors.count("\n")) == (1, 1)
        assert not list(tmp_path.iterdir())


def test_a_split_that_the_cases_do_not_allow_is_status_1(call, command_line, finished_run):
    status, errors = call(
        f"--config={STAGE}",
        "--config.data.phantom_cases=6",
        f"--config.data.root={command_line.phantom}",
        "--config.data.folds=7",
    )
    assert status == 1
    assert errors.endswith("6 cases; a split in 7 parts needs as many\n")
    assert errors.startswith("error: data")


def test_a_workdir_that_cannot_be_made_is_status_1(call, tmp_path):
    (tmp_path / "file").touch()
    status, errors = call(f"--config={STAGE}", "--workdir=file/run")
    assert (status, errors) == (1, "error: file/run: cannot write here (Not a directory)\n")


def test_a_run_from_another_directory_writes_its_phantom_there(command_line, finished_run):
    assert (command_line.phantom / "Case_P001" / "Images" / "Case_P001.nii.gz").is_file()
    output = (finished_run / "output.txt").read_text()
    first = output.splitlines()[:4]
    assert first[0].startswith("jax ")
    assert first[0].endswith(" 1 x cpu")
    assert first[1] == "6 cases, 41 slices: 35 to train on, 6 to validate on (case split)"
    assert first[2].startswith("network: 3,233 parameters, generator: 6,929 parameters; convol")
    assert first[3].startswith("compiling ")
    assert output.count("\nepoch ") == 4
    assert output.strip().endswith((finished_run / "table.md").read_text().strip())


def test_flags_reach_the_settings_of_the_stage(finished_run):
    config = json.loads((finished_run / "config.json").read_text())
    assert config["name"] == "awce_penalty"
    assert (config["grid"]["size"], config["grid"]["spacing"]) == ([32, 32], 4.2)
    assert (config["loss"]["weighted"], config["loss"]["penalty"]) == (True, 0.01)
