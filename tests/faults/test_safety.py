"""No pickle, no network, no file read as code; files only in the folders that were given."""

import json
import os
import shutil
from pathlib import Path

import pytest

from jaxseg.inference.predict import predict
from jaxseg.runs.trained import load_run
from tests.faults.lab import FIELDS

# Records Python's audit events. Native writes, such as the arrays of Orbax, are covered by looking
# at the folders afterwards.
WATCH = """
import os, sys
log = os.open({log!r}, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
CHANGES = ("os.mkdir", "os.rename", "os.rmdir", "os.remove", "os.link", "os.symlink",
           "os.truncate", "os.chmod", "shutil.rmtree")
UNSAFE = ("pickle.find_class", "os.system", "subprocess.Popen", "os.exec",
          "os.posix_spawn", "os.fork")
def hook(event, args):
    writes = event == "open" and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    sends = event.startswith("socket.") and event not in ("socket.__new__", "socket.gethostname")
    if writes or event in CHANGES:
        paths = [p for p in args[:2] if isinstance(p, (str, bytes, os.PathLike))]
        folder = args[-1] if event in ("os.remove", "os.rmdir", "os.mkdir") else -1
        base = os.getcwd() if folder == -1 else os.readlink("/proc/self/fd/" + str(folder))
        for path in paths[: 2 if event == "os.rename" else 1]:
            place = os.path.realpath(os.path.join(base, os.fsdecode(path)))
            os.write(log, ("write " + place + chr(10)).encode())
    elif sends or event in UNSAFE:
        os.write(log, (event + " " + repr(args)[:200].replace(chr(10), " ") + chr(10)).encode())
sys.addaudithook(hook)
"""


def watched(lab, *argv: object, log: Path) -> list[str]:
    """Runs `main.py`; gives what it did to files outside of the test's folder, and worse."""
    ended = lab.start(*argv, hook=WATCH.format(log=str(log))).wait()
    assert (ended.status, ended.errors) == (0, ""), ended
    lines = log.read_text().splitlines()
    assert sum(line.startswith("write ") for line in lines) > 5
    return lines


def tree(folder: Path) -> dict[str, tuple[int, int]]:
    return {
        str(path): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_every_mode_writes_to_its_folders_and_opens_no_sockets(lab, reference, tmp_path):
    run, out, log = tmp_path / "run", tmp_path / "out", tmp_path / "log.txt"
    phantom, cache = next((lab.folder / "data").iterdir()), lab.folder / "cache"
    before = tree(phantom) | tree(reference)
    fields = FIELDS | {"run.compilation_cache": cache, "data.root": phantom}
    config = Path(__file__).parents[2] / "configs" / "baseline.py"
    train = [f"--config={config}", *(f"--config.{k}={v}" for k, v in fields.items())]
    given = f"--run={run}"
    out.mkdir()
    modes = {
        "train": ([*train, f"--workdir={run}"], (run, cache)),
        "evaluate": (["evaluate", given, f"--output={out / 'scores'}"], (out / "scores",)),
        "export": (
            ["export", given, f"--output={out / 'bundle'}"],
            (out / "bundle", out / ".tmp-bundle-", out / ".lock-bundle-"),
        ),
        "predict": (
            ["predict", f"--run={out / 'bundle'}", phantom,
             f"--output={out / 'maps'}"],
            (out / "maps",),
        ),
    }  # fmt: skip
    for mode, (argv, places) in modes.items():
        log.unlink(missing_ok=True)
        lines = watched(lab, *argv, log=log)
        lines = [line for line in lines if line != f"write {out}"]  # it is there already
        # Which commit this code is of, asked of a checkout.
        lines = [line for line in lines if not line.startswith("subprocess.Popen ('git', ")]
        allowed = (*(str(place) for place in places), "/dev/null", "/proc/")
        strange = [
            line for line in lines if not line.removeprefix("write ").startswith(allowed)
        ]  # fmt: skip
        assert strange == [], (mode, strange)
    # Beneath Python, too.
    assert {path.name for path in out.iterdir()} == {"scores", "bundle", "maps"}
    assert {path.name for path in tmp_path.iterdir()} == {"run", "out", "log.txt"}
    after = tree(phantom) | tree(reference)
    assert {name: after.get(name) for name in before} == before


def test_files_are_never_executed(lab, reference, tmp_path):
    """A pickle, or Python, in place of every file that a run reads: refused, and nothing runs."""
    mark = tmp_path / "ran"
    pickled = f"cposix\nsystem\n(S'touch {mark}'\ntR.".encode()
    code = f"__import__('pathlib').Path({str(mark)!r}).touch()".encode()
    for number, name in enumerate(("config.json", "data.json", "checkpoints/9/metrics/metrics",
                                   "checkpoints/9/network/_METADATA")):  # fmt: skip
        run = shutil.copytree(reference, tmp_path / f"run-{number}")
        (run / name).write_bytes(pickled if number % 2 else code)
        lab.start("evaluate", f"--run={run}", "--checkpoint=best").wait().refused()
    assert not mark.exists()


@pytest.mark.parametrize("name", ["../../x", "..", "a/b", "/etc/x", "a\\b"])
def test_names_that_are_paths_are_refused(lab, reference, tmp_path, name):
    run = tmp_path / "run"
    lab.train(run, name=name).wait().refused("name: ")
    assert not run.exists()
    copy = shutil.copytree(reference, tmp_path / "copy")
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"name": name}))
    lab.start("export", f"--run={copy}", f"--output={tmp_path / 'b'}").wait().refused()
    assert not (tmp_path / "b").exists()


def test_case_names_cannot_lead_out_of_the_output(reference, tmp_path):
    """Names come from files that exist; a link's own name counts, not what it points to."""
    run, phantom = load_run(reference), next((reference.parent / "data").iterdir())
    image = next((phantom / "Case_P001" / "Images").iterdir())
    folder, output = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for name in ("...nii.gz", "..%2f..%2fx.nii.gz", "-rf.nii.gz", "a b\n.nii.gz"):
        shutil.copy(image, folder / name)
    (folder / "link.nii.gz").symlink_to(os.path.relpath(image, folder))
    predict([run], folder, output)
    made = {path.relative_to(output).as_posix() for path in output.rglob("*") if path.is_file()}
    # "...nii.gz" and "..%2f..%2fx.nii.gz" are hidden files, which are passed over.
    names = {"-rf", "a b\n", "link"}
    study = {"volumes.csv", "measures.csv", "measures_slices.csv", "report.html", ".lock"}
    patterns = ("{}.nii.gz", "overviews/{}.png", "bullseyes/{}.png", "measures/{}.json")
    assert made == study | {pattern.format(n) for pattern in patterns for n in names}
    assert {path.name for path in tmp_path.iterdir()} == {"in", "out"}


def test_names_in_data_json_are_never_paths(lab, reference, tmp_path):
    run = shutil.copytree(reference, tmp_path / "deep" / "run")
    data = json.loads((run / "data.json").read_text())
    for side in ("training", "validation"):
        data[side]["cases"] = ["../../x", "/etc/passwd"]
    (run / "data.json").write_text(json.dumps(data | {"cases": ["../../x"]}))
    output = tmp_path / "deep" / "bundle"
    ended = lab.start("export", f"--run={run}", f"--output={output}").wait()
    assert ended.status == 0, ended
    lab.start("evaluate", f"--run={run}").wait()
    assert {path.name for path in tmp_path.iterdir()} == {"deep"}
    assert {path.name for path in (tmp_path / "deep").iterdir()} == {"run", "bundle"}


def test_no_source_uses_pickle_eval_or_the_network():
    """Of our own code; that the libraries do not is watched above."""
    root = Path(__file__).parents[2]
    files = [root / "main.py", *(root / "jaxseg").rglob("*.py"), *(root / "configs").glob("*.py")]
    banned = ("pickle", "eval(", "exec(", "allow_pickle=True", "import socket", "import requests",
              "urllib", "os.system", "subprocess", "yaml.load", "marshal", "shelve")  # fmt: skip
    found = [
        (path.relative_to(root).as_posix(), word) for path in files for word in banned
        if word in path.read_text().replace("jax.eval_shape(", "").replace("no pickle", "")
    ]  # fmt: skip
    # The compiler of the native convolution, git for the commit, and nothing else.
    assert sorted(found) == [
        ("jaxseg/native/library.py", "subprocess"), ("jaxseg/runs/provenance.py", "subprocess"),
    ]  # fmt: skip
