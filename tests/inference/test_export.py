"""Export end to end: a bundle replaces its run, and is written atomically."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import jax.export
import numpy as np
import pytest

from jaxseg.config.settings import SettingsError
from jaxseg.data import load_case
from jaxseg.evaluation.evaluate import evaluate
from jaxseg.evaluation.methods import NETWORK
from jaxseg.inference import export as module
from jaxseg.inference.export import export
from jaxseg.inference.predict import predict
from jaxseg.inference.predictor import make_predictor
from jaxseg.models.segment import make_probabilities
from jaxseg.runs.checkpoint import Checkpoints
from jaxseg.runs.config_file import read_settings
from jaxseg.runs.files import WorkdirError
from jaxseg.runs.lock import locked
from jaxseg.runs.trained import load_run
from tests.by_hand import prepared
from tests.logged import logged

REPOSITORY = Path(__file__).parents[2]
# Exports, and is stopped for good once the artifact is about to be written.
KILLED = """
import os, signal, sys
from pathlib import Path
from jaxseg.inference import export as module
def stop(*args):
    print("there", flush=True)
    os.kill(os.getpid(), getattr(signal, sys.argv[3]))
    signal.pause()
module.export_probabilities = stop
module.export(Path(sys.argv[1]), Path(sys.argv[2]))
"""


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def content(folder):
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.fixture
def small(monkeypatch):
    """Export without the artifact, which takes most of the time."""

    class Exported:
        calling_convention_version = 0

        def serialize(self):
            return b"artifact"

    monkeypatch.setattr(module, "export_probabilities", lambda *args: Exported())


def test_contents_of_a_bundle(bundle_folder, random_run, run):
    assert names(bundle_folder) == [
        "MODEL_CARD.md", "config.json", "data.json", "manifest.json", "model.stablehlo", "params",
        "preprocessing.json",
    ]  # fmt: skip
    manifest = json.loads((bundle_folder / "manifest.json").read_text())
    assert [manifest[field] for field in ("name", "checkpoint", "step")] == [
        "awce_penalty", "last", 6,
    ]  # fmt: skip
    files = content(bundle_folder)
    assert set(manifest["files"]) == set(files) - {"manifest.json", "MODEL_CARD.md"}
    assert manifest["made_with"]["jax"] == jax.__version__
    assert json.loads(files["data.json"]) == run.data
    config = json.loads(files["config.json"])
    assert config["anatomy"] == run.anatomy.to_dict()
    known = read_settings(random_run)
    assert config["data"] == known["data"] | {"root": None}
    same = set(config) - {"data", "run"}
    assert {name: config[name] for name in same} == {name: known[name] for name in same}


def test_a_bundle_contains_no_paths_of_the_machine(bundle_folder, random_run, phantom):
    places = [str(path).encode() for path in (random_run, phantom, REPOSITORY, Path(sys.prefix))]
    places += [b"/tmp-", b".tmp-", str(Path.home()).encode() + b"/", b"site-packages"]
    for name, data in content(bundle_folder).items():
        assert not [place for place in places if place in data], name
        if not name.startswith(("params/", "model.")):
            absolute = re.findall(r"(?<![\w.:/<])/\w+[\w/.-]*", data.decode())
            assert not absolute, f"{name}: {absolute}"


def test_a_bundle_predicts_the_same_files_as_its_run(bundle_folder, run, phantom, tmp_path):
    source = tmp_path / "in"
    for name in ("Case_P001", "Case_N003"):
        shutil.copytree(phantom / name, source / name)
    bundle = load_run(bundle_folder)
    before = content(bundle_folder)
    predict([run], source, tmp_path / "run", probabilities=True)
    predict([bundle], source, tmp_path / "bundle", probabilities=True)
    found = content(tmp_path / "bundle")
    assert len(found) == 2 * 5 + 5  # tables of volumes and measures, the report and a lock
    assert found == content(tmp_path / "run")
    assert content(bundle_folder) == before


def test_a_bundle_and_a_run_are_averaged(bundle_folder, run, phantom):
    case = load_case(phantom / "Case_P001")
    alone = make_predictor([run])(case).probabilities
    both = make_predictor([run, load_run(bundle_folder)])(case).probabilities
    np.testing.assert_array_equal(both, alone)


def test_a_bundle_evaluates_to_the_same_files_as_its_run(
    bundle_folder, random_run, phantom, tmp_path
):
    evaluate(random_run, output=tmp_path / "run")
    found = evaluate(bundle_folder, root=phantom, output=tmp_path / "bundle-scores")[NETWORK]
    assert content(tmp_path / "bundle-scores") == content(tmp_path / "run")
    assert found.checkpoint == "last, step 6"
    assert [case.name for case in found.cases] == ["Case_P002"]


def test_scores_are_not_written_into_a_bundle_by_default(bundle_folder, phantom):
    before = names(bundle_folder)
    with pytest.raises(SettingsError, match="--output"):
        evaluate(bundle_folder, root=phantom)
    assert names(bundle_folder) == before


def test_a_bundle_has_no_data_set_of_its_own(
    small, bundle_folder, finished_run, tmp_path, monkeypatch
):
    """Nor does it write the phantom of its run."""
    monkeypatch.chdir(tmp_path)
    export(finished_run, tmp_path / "bundle")
    for bundle in (bundle_folder, Path("bundle")):
        with pytest.raises(WorkdirError, match="CASES"):
            evaluate(bundle, output=tmp_path / "out")
    assert names(tmp_path) == ["bundle"]


def test_the_artifact_is_the_network(bundle_folder, run, phantom):
    artifact = jax.export.deserialize(bytearray((bundle_folder / "model.stablehlo").read_bytes()))
    images = prepared(run, load_case(phantom / "Case_P001"))
    wanted = make_probabilities(run.network, batch_size=3)(run.params, images[:3])
    for count in (1, 3):
        found = np.asarray(artifact.call(images[:count]))
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, wanted[:count], atol=1e-6)
    assert len(np.unique(wanted.argmax(-1))) == 5


def test_a_compact_bundle(random_run, run, phantom, tmp_path):
    folder = tmp_path / "compact"
    export(random_run, folder, compact=True)
    assert "model.stablehlo" not in content(folder)
    assert 'model.stablehlo")' not in (folder / "MODEL_CARD.md").read_text()
    bundle, case = load_run(folder), load_case(phantom / "Case_P001")
    for ours, theirs in zip(
        jax.tree.leaves(bundle.params), jax.tree.leaves(run.params), strict=True
    ):
        np.testing.assert_array_equal(ours, np.asarray(theirs, np.float16).astype(np.float32))
    expected, found = (make_predictor([one])(case).probabilities for one in (run, bundle))
    np.testing.assert_allclose(found, expected, atol=0.01)


def test_the_best_checkpoint(small, random_run, tmp_path):
    with logged() as lines:
        export(random_run, tmp_path / "new" / "bundle", checkpoint="best")
    bundle = load_run(tmp_path / "new" / "bundle")
    assert (bundle.checkpoint, bundle.step) == ("best", 5)
    assert load_run(bundle.folder, checkpoint="best").step == 5
    with pytest.raises(WorkdirError, match=r"best.*last"):
        load_run(bundle.folder, checkpoint="last")
    assert lines[0].startswith(f"{bundle.folder}: ")
    assert "--checkpoint" not in (bundle.folder / "MODEL_CARD.md").read_text()
    assert len(lines) == 2
    assert "synthetic" in lines[1]


def test_exporting_own_data_warns(small, random_run, tmp_path):
    folder = shutil.copytree(random_run, tmp_path / "run")
    text = (folder / "data.json").read_text().replace("Case_", "Doe_")
    (folder / "data.json").write_text(json.dumps(json.loads(text) | {"synthetic": False}))
    with logged() as lines:
        export(folder, tmp_path / "bundle")
    assert all(name in lines[1] for name in ("data.json", "MODEL_CARD.md"))


def test_the_card_has_the_scores_of_its_own_checkpoint(small, random_run, phantom, tmp_path):
    folder = shutil.copytree(random_run, tmp_path / "run")

    def card(name, **options):
        export(folder, tmp_path / name, **options)
        return (tmp_path / name / "MODEL_CARD.md").read_text()

    bare = card("bare")
    (folder / "table.md").write_text("# Title\n\nAt the end 0.123.\n")
    evaluate(folder)
    text = card("last")
    assert "At the end 0.123." in text
    summary = (folder / "evaluation" / "summary.md").read_text()
    rows = [line for line in summary.splitlines() if line.startswith("| Infarction")]
    assert len(rows) == 6
    assert all(row in text and row not in bare for row in rows)
    text = card("best", checkpoint="best")
    assert "last, step 6" in text
    assert rows[0] not in text
    for content in ("[]", "{}", "[" * 10**5):
        (folder / "evaluation" / "summary.json").write_text(content)
        with pytest.raises(WorkdirError, match=r"summary\.json: "):
            card("damaged")
    assert not (tmp_path / "damaged").exists()


def refused(name, folder, output, **options):
    """Export fails with one line that holds the name, and writes nothing."""
    before = content(output.parent)
    with pytest.raises(WorkdirError) as caught:
        export(folder, output, **options)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)
    assert content(output.parent) == before


def test_only_a_bundle_is_overwritten(small, random_run, bundle_folder, tmp_path):
    bundle = shutil.copytree(bundle_folder, tmp_path / "bundle")
    refused("bundle: ", random_run, bundle)
    export(random_run, bundle, checkpoint="best", overwrite=True)
    assert load_run(bundle).step == 5
    assert names(tmp_path) == ["bundle"]
    (bundle / "evaluation").mkdir()
    (bundle / "evaluation" / "mine.csv").touch()
    refused("mine.csv: ", random_run, bundle, overwrite=True)
    mine = tmp_path / "mine"
    mine.mkdir()
    refused("mine: ", random_run, mine)
    (mine / "thesis.txt").write_text("years")
    refused("mine: ", random_run, mine, overwrite=True)
    refused("thesis.txt: ", random_run, mine / "thesis.txt", overwrite=True)
    run = shutil.copytree(random_run, tmp_path / "run")
    refused("run: ", run, run, overwrite=True)


def test_links_to_folders_are_followed(small, random_run, tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    for checkpoint, step in (("best", 5), ("last", 6)):
        export(random_run, tmp_path / "link", checkpoint=checkpoint, overwrite=True)
        assert load_run(tmp_path / "real").step == step
    assert (tmp_path / "link").is_symlink()
    assert names(tmp_path) == ["link", "real"]


def test_folders_that_cannot_be_exported_are_refused(random_run, bundle_folder, tmp_path):
    output = tmp_path / "parent" / "out"
    output.parent.mkdir()
    refused("none: ", tmp_path / "none", output)
    (tmp_path / "file").touch()
    refused("file", random_run, tmp_path / "file" / "x")
    refused("inside", bundle_folder, bundle_folder / "x")
    run = shutil.copytree(random_run, tmp_path / "run")
    (run / "data.json").write_text('{"cases": []}')
    refused("data.json", run, output)
    (run / "data.json").write_text((random_run / "data.json").read_text())
    (run / "table.md").write_bytes(b"\xff")
    refused("table.md: ", run, output)


STEPS = {"save_params": ValueError, "export_probabilities": KeyboardInterrupt,
         "preprocessing_note": OSError}  # fmt: skip


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("existing", [False, True])
def test_a_failure_keeps_the_existing_folder(
    step, existing, random_run, bundle_folder, tmp_path, monkeypatch
):
    output = tmp_path / "a" / "b"
    if existing:
        shutil.copytree(bundle_folder, output)
    before = content(tmp_path)

    def fail(*args, **kwargs):
        raise STEPS[step](*((28, "No space left") if STEPS[step] is OSError else ("No space",)))

    monkeypatch.setattr(module, step, fail)
    kind = KeyboardInterrupt if STEPS[step] is KeyboardInterrupt else WorkdirError
    with pytest.raises(kind) as caught:
        export(random_run, output, overwrite=existing)
    if kind is WorkdirError:
        assert re.search(r"b: .*No space", str(caught.value))
    assert content(tmp_path) == before
    assert (tmp_path / "a").exists() == existing


def test_a_failed_rename_restores_the_old_bundle(
    small, random_run, bundle_folder, tmp_path, monkeypatch
):
    output = shutil.copytree(bundle_folder, tmp_path / "bundle")
    before = content(tmp_path)
    rename = Path.rename

    def fail(self, target):
        if (self / "manifest.json").exists() and not (self / "model.stablehlo").stat().st_size > 9:
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(WorkdirError, match=r"bundle: .*Input/output error"):
        export(random_run, output, overwrite=True)
    assert content(tmp_path) == before


def test_a_folder_that_appears_meanwhile_is_kept(small, random_run, tmp_path, monkeypatch):
    output = tmp_path / "bundle"
    note = module.preprocessing_note

    def appear(*arguments, **facts):
        output.mkdir()
        (output / "thesis.txt").write_text("years")
        return note(*arguments, **facts)

    monkeypatch.setattr(module, "preprocessing_note", appear)
    with pytest.raises(WorkdirError, match=r"bundle: .*Directory not empty"):
        export(random_run, output)
    assert content(tmp_path) == {"bundle/thesis.txt": b"years"}
    assert names(tmp_path) == ["bundle"]


@pytest.mark.parametrize("name", ["SIGTERM", "SIGKILL"])
def test_a_killed_export_leaves_no_bundle(name, small, random_run, tmp_path):
    output = tmp_path / "bundle"
    process = subprocess.run(
        [sys.executable, "-c", KILLED, str(random_run), str(output), name],
        env=os.environ | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE, timeout=120, check=False,
    )  # fmt: skip
    assert process.stdout == b"there\n"
    if name == "SIGTERM":
        assert process.returncode == 128 + signal.SIGTERM
        assert not list(tmp_path.iterdir())
    else:
        assert process.returncode == -signal.SIGKILL
        assert not output.exists()
        lock, folder = names(tmp_path)
        assert re.fullmatch(r"\.tmp-bundle-[0-9a-f]{8}", folder)
        assert lock == folder.replace("tmp", "lock")
    export(random_run, output)
    assert load_run(output).step == 6
    assert names(tmp_path) == ["bundle"]  # what was left is gone


def test_leftovers_in_use_are_kept(small, random_run, tmp_path):
    for name in ("bundle-0123abcd", "bundle-0123abcd-replaced", "bundle-cafe0000", "other-0123abcd",
                 "bundle-mine"):  # fmt: skip
        (tmp_path / f".tmp-{name}" / "params").mkdir(parents=True)
    (tmp_path / ".lock-bundle-0123abcd").touch()
    (tmp_path / ".lock-other-0123abcd").touch()
    kept = {".tmp-other-0123abcd", ".lock-other-0123abcd", ".tmp-bundle-mine"}
    at_work = {".tmp-bundle-cafe0000", ".lock-bundle-cafe0000"}
    with locked(tmp_path, name=".lock-bundle-cafe0000", keep=False):
        export(random_run, tmp_path / "bundle")
        # An old bundle killed on its way out is kept as long as nothing is in its place.
        assert set(names(tmp_path)) == {"bundle", ".tmp-bundle-0123abcd-replaced", *kept, *at_work}
    export(random_run, tmp_path / "bundle", overwrite=True)
    assert set(names(tmp_path)) == {"bundle", *kept}


def test_export_does_not_change_the_run(small, random_run, tmp_path):
    before = content(random_run)
    export(random_run, tmp_path / "bundle")
    assert content(random_run) == before
    with Checkpoints(random_run, read_only=True) as checkpoints:
        assert checkpoints.latest_step == 6


def test_file_modes_follow_the_umask(small, random_run, tmp_path):
    previous = os.umask(0o027)
    try:
        export(random_run, tmp_path / "bundle")
    finally:
        os.umask(previous)
    modes = {path.stat().st_mode & 0o777 for path in (tmp_path / "bundle").rglob("*")}
    assert modes <= {0o750, 0o640}
    assert (tmp_path / "bundle").stat().st_mode & 0o777 == 0o750


def test_onnx_beside_stablehlo(random_run, bundle_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "onnx_probabilities", lambda *_: b"a network")
    monkeypatch.setattr(module, "find_spec", lambda _: True)
    export(random_run, tmp_path / "bundle", onnx=True)
    assert (tmp_path / "bundle" / "model.onnx").read_bytes() == b"a network"
    assert set(names(tmp_path / "bundle")) - set(names(bundle_folder)) == {"model.onnx"}
    assert "model.onnx" in (tmp_path / "bundle" / "MODEL_CARD.md").read_text()
    assert load_run(tmp_path / "bundle").checkpoint == "last"


def test_onnx_without_its_package_is_refused_early(random_run, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "find_spec", lambda _: None)
    with pytest.raises(SettingsError, match="--onnx: "):
        export(random_run, tmp_path / "bundle", onnx=True)
    assert not list(tmp_path.iterdir())


def test_a_bundle_in_another_form(bundle_folder, tmp_path):
    bundle = shutil.copytree(bundle_folder, tmp_path / "bundle")
    (bundle / "LICENSE").write_text("terms")
    card = (bundle / "MODEL_CARD.md").read_text()
    (bundle / "MODEL_CARD.md").write_text(card.replace("## Limits", "By hand.\n\n## Limits"))
    export(bundle, tmp_path / "compact", compact=True)
    export(tmp_path / "compact", tmp_path / "whole")
    before, after = content(bundle), content(tmp_path / "whole")
    assert set(after) >= {"LICENSE", "model.stablehlo"}
    for name in ("config.json", "data.json", "preprocessing.json", "LICENSE"):
        assert after[name] == before[name]
    card = after["MODEL_CARD.md"].decode()
    assert card.count("By hand.") == card.count("## How to use it") == 1
    assert "model.stablehlo" in card
    assert "model.stablehlo |" not in content(tmp_path / "compact")["MODEL_CARD.md"].decode()
    assert load_run(tmp_path / "whole").step == load_run(bundle).step
    with pytest.raises(WorkdirError, match="checkpoint=last"):
        export(bundle, tmp_path / "best", checkpoint="best")
