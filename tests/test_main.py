"""The command line: a run end to end, and one line for each error that the user can correct."""

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


def refused(outcome, status, name):
    """One line that names the flag, field or file; nothing else is printed or written."""
    assert outcome[0] == status
    assert outcome[1].startswith("error: "), outcome[1]
    assert name in outcome[1]
    assert outcome[1].count("\n") == 1


UNREADABLE = [
    ("nope", ["--config.nope=1"]),
    ("nope", ["--config.train.nope=1"]),
    ("--config: ", ["--config.train.epochs.x=1"]),
    ("--config.anatomy.labels", ["--config.anatomy.labels=a,b"]),
    ("--config.train.epochs=many", ["--config.train.epochs=many"]),
    ("--config.train.epochs=1.5", ["--config.train.epochs=1.5"]),
    ("--config.train=3", ["--config.train=3"]),
    ("'resume'", ["resume"]),
    ("work_dir", ["--work_dir=x"]),
    ("--mode=evaluate", ["--mode=evaluate"]),
    ("--seeds=two", ["--mode=ablate", "--seeds=two"]),
    ("--connect_seconds=0", ["--connect_seconds=0"]),
    ("--heartbeat_seconds=0", ["--heartbeat_seconds=0"]),
    ("--num_processes=0", ["--num_processes=0"]),
    ("--process_id=-1", ["--process_id=-1"]),
    ("'nope'", [f"--config={STAGE}:nope"]),  # of several equal flags the last one counts
    ("'nope.py'", ["--config=nope.py"]),
    ("'nope.py'", ["--config=nope.py", "--config.seed=1"]),
]


@pytest.mark.parametrize(("name", "arguments"), UNREADABLE)
def test_unreadable_flags_are_one_line_and_status_2(call, name, arguments, tmp_path):
    refused(call(f"--config={STAGE}", *arguments), 2, name)
    assert not list(tmp_path.iterdir())


UNSUITABLE = [
    ("--workdir: ", ["--workdir=~no-such-user/x"]),
    ("data.root: ", ["--config.data.root=~no-such-user/x"]),
    ("train.init_from: ", ["--init_from=~no-such-user/x"]),
    ("data.splits: ", ["--config.data.splits=~no-such-user/x.csv"]),
    ("--seeds: ", ["--seeds=2"]),
    ("--mirror: ", ["--nomirror"]),
    ("--folds: ", ["--folds=2"]),
    ("--distributed: ", ["--mode=ablate", "--distributed=auto"]),
    ("--mirror: ", ["--mode=ablate", "--mirror"]),
    ("--process_id: ", ["--process_id=1"]),
    ("--connect_seconds: ", ["--connect_seconds=60"]),
    ("--heartbeat_seconds: ", ["--heartbeat_seconds=20"]),
    ("--num_processes: ", ["--distributed=auto", "--num_processes=2"]),
    ("--distributed: ", ["--distributed=here"]),
    ("'here:65536'", ["--distributed=here:65536"]),
    ("--num_processes", ["--distributed=here:1"]),
    ("--process_id", ["--distributed=here:1", "--num_processes=2", "--process_id=2"]),
    ("--folds: ", ["--mode=crossvalidate", "--folds=1"]),
    ("data.split: ", ["--mode=crossvalidate", "--config.data.split=slice"]),
    ("--seeds: ", ["--mode=ablate", "--seeds=0"]),
    ("--folds: ", ["--mode=ablate", "--folds=1"]),
    ("none: ", ["--mode=crossvalidate", "--ensemble=none,nor-this"]),
    ("--ensemble: ", ["--mode=crossvalidate", "--ensemble=a,,b"]),
]


@pytest.mark.parametrize(("name", "arguments"), UNSUITABLE)
def test_unsuitable_flags_are_one_line_and_status_1(call, name, arguments, tmp_path):
    refused(call(f"--config={STAGE}", "--config.data.split=case", *arguments), 1, name)
    assert not list(tmp_path.iterdir())


A_DICT = "def get_config():\n    return {'name': 'a'}\n"
UNKNOWN_FIELD = """
from configs import awce
def get_config():
    config = awce.get_config()
    config.loss.penalti = 0.1
    return config
"""
FILES = [
    ("mine.py, line 1: ", "def get_config(:\n"),
    ("mine.py, line 1: ", "import no_such_module\n"),
    ("mine.py, line 2: ", "def get_config():\n    return x\n"),
    ("get_config", "x = 1\n"),
    ("get_config", A_DICT),
    ("mine.py, line 5: ", UNKNOWN_FIELD),
]


@pytest.mark.parametrize(("name", "text"), FILES)
def test_unusable_config_files_are_one_line_and_status_2(call, tmp_path, monkeypatch, name, text):
    # As in a new process: a config file is executed in a module of this name.
    monkeypatch.delitem(sys.modules, "config_config", raising=False)
    file = tmp_path / "mine.py"
    file.write_text(text)
    refused(call(f"--config={file}"), 2, name)


def test_a_config_below_the_home_folder(call, tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(A_DICT)
    for home, name in ((tmp_path, "get_config"), ("", "--config: ")):
        monkeypatch.setenv("HOME", str(home))
        refused(call("--config=~/mine.py"), 2, name)


def test_a_config_without_a_variant_is_checked_like_any_other(call, tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "from configs import awce\n\n\ndef get_config():\n    config = awce.get_config().unlock()\n"
        "    del config.variant\n    config.train.epochs = -1\n    return config\n"
    )
    for mode in ("train", "crossvalidate", "ablate"):
        refused(call(f"--mode={mode}", f"--config={file}"), 1, "train.epochs: ")


def test_help_names_every_mode_and_flag(command_line):
    process = command_line.start("--help", config=None)
    text = "".join(process.communicate(timeout=120))
    for name in ("ablate", "crossvalidate", "--[no]mirror", "--ensemble", "--seeds", "--folds"):
        assert name in text
    assert "Traceback" not in text


def test_a_missing_config_is_one_line_and_status_2(command_line):
    process = command_line.start(config=None)
    output, errors = process.communicate(timeout=120)
    assert output == ""
    refused((process.returncode, errors), 2, "--config: ")


def test_fields_may_come_before_their_config_file(call):
    refused(call("--config.data.root=nope", EMIDEC), 1, "nope: ")
    refused(call("--mode=ablate", "--config.data.root=nope", EMIDEC[1:]), 1, "nope: ")


def test_the_last_of_repeated_fields_counts(call, tmp_path):
    """Tuples are not joined to one of four: only the folder is missing."""
    sizes = [f"--config.grid.size={size}" for size in ("48,48", "64,64")]
    refused(call(EMIDEC, *sizes, "--config.data.root=nope"), 1, "nope: ")
    refused(call(EMIDEC, sizes[0][1:], sizes[1], "--config.data.root=nope"), 1, "nope: ")
    status, errors = call(EMIDEC, "--config.grid.size=64x64", "--config.data.root=nope")
    refused((status, errors), status or 1, "grid.size")


def test_a_missing_root_is_one_line_and_status_1(call, tmp_path):
    refused(call(EMIDEC), 1, "data.root: ")
    for mode in ("train", "ablate"):
        outcome = call(f"--mode={mode}", EMIDEC, "--config.data.root=nope")
        refused(outcome, 1, f"{tmp_path}/nope: ")
    (tmp_path / "empty").mkdir()
    refused(call(EMIDEC, "--config.data.root=empty", "--workdir=run"), 1, f"{tmp_path}/empty: ")
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


def test_init_from_sets_its_field(call, tmp_path, command_line, finished_run):
    stage = [f"--config={STAGE}", f"--config.data.root={command_line.phantom}"]
    for mode in ("train", "crossvalidate"):
        flags_of_mode = [f"--mode={mode}", *stage, "--config.data.split=case"]
        for name in ("init_from", "config.train.init_from"):
            outcome = call(*flags_of_mode, f"--{name}=nope", "--workdir=run")
            refused(outcome, 1, f"{tmp_path / 'nope'}: ")
            assert not (tmp_path / "run").exists()
    refused(call(*stage, "--init_from=a", "--config.train.init_from=b"), 1, "--init_from: ")
    refused(call(*stage, "--init_from=", "--workdir=run"), 1, "train.init_from: ")


def test_all_invalid_settings_are_reported_at_once(call, tmp_path):
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
    for wrong, name in (("data.phantom_cases=1", "got 1"), ("data.splits=none.csv", "none.csv")):
        refused(call(*flags_of_mode, f"--config.{wrong}"), 1, name)
        assert not list(tmp_path.iterdir())


def test_a_split_into_too_many_folds_is_status_1(call, command_line, finished_run):
    root = f"--config.data.root={command_line.phantom}"
    flags_of_run = [f"--config={STAGE}", "--config.data.phantom_cases=6", root]
    refused(call(*flags_of_run, "--config.data.folds=7"), 1, "got 6")


def test_a_workdir_that_cannot_be_made_is_status_1(call, tmp_path):
    (tmp_path / "file").touch()
    refused(call(f"--config={STAGE}", "--workdir=file/run"), 1, "file/run: ")


def test_a_run_writes_its_phantom_below_the_current_directory(command_line, finished_run):
    assert (command_line.phantom / "Case_P001" / "Images" / "Case_P001.nii.gz").is_file()
    output = (finished_run / "output.txt").read_text()
    assert output.startswith("jax ")
    assert "6 cases, 41 slices" in output
    assert "3,233 parameters" in output
    assert output.count("\nepoch ") == 4
    assert output.strip().endswith((finished_run / "table.md").read_text().strip())


def test_flags_change_the_settings_of_the_stage(finished_run):
    config = json.loads((finished_run / "config.json").read_text())
    assert config["name"] == "awce_penalty"
    assert (config["grid"]["size"], config["grid"]["spacing"]) == ([32, 32], 4.2)
    assert (config["loss"]["weighted"], config["loss"]["penalty"]) == (True, 0.01)
