"""The same seed on the same kind of device: the same bits, in every mode."""

import shutil
from pathlib import Path

import pytest

from tests.faults.lab import FIELDS, notes

# Of a run; events of TensorBoard hold the time.
OUTPUTS = ("metrics.jsonl", "table.md", "table.csv", "data.json")


def files(folder: Path) -> dict[str, bytes]:
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def test_training_is_deterministic(lab, reference, tmp_path):
    """In another process, compiled anew."""
    again = tmp_path / "again"
    lab.finish(again, run__compilation_cache=tmp_path / "cache")
    assert notes(again) == notes(reference)
    for name in OUTPUTS:
        assert (again / name).read_bytes() == (reference / name).read_bytes()
    assert files(again / "pictures") == files(reference / "pictures")


def test_another_seed_gives_another_network(lab, reference, tmp_path):
    other = tmp_path / "other"
    lab.finish(other, seed=1)
    assert notes(other)["27"]["network_sha256"] != notes(reference)["27"]["network_sha256"]


@pytest.mark.parametrize("mode", ["evaluate", "predict", "export"])
def test_inference_is_deterministic(lab, reference, tmp_path, mode):
    flags = {"predict": [lab.folder / 'data', "--probabilities", "--mirror"],
             "evaluate": ["--mirror"], "export": []}[mode]  # fmt: skip
    outputs = [tmp_path / name / "out" for name in ("first", "second")]
    for output in outputs:
        output.parent.mkdir()
        ended = lab.start(mode, f"--run={reference}", *flags, f"--output={output}")
        assert ended.wait().status == 0
    found = [files(output) for output in outputs]
    for each in found if mode == "export" else ():
        # Orbax notes the time of writing and draws names of files; the manifest and the card list
        # them. Numbers are compared below.
        drawn = [name for name in each if name.startswith(("params/", "manifest", "MODEL_CARD"))]
        assert len(drawn) > 3
        for name in drawn:
            del each[name]
    assert len(found[0]) >= 4
    assert found[0] == found[1]


def test_a_bundle_and_its_copy_predict_the_same_bytes(lab, reference, tmp_path):
    maps = []
    for number in (1, 2):
        bundle, output = tmp_path / f"bundle-{number}", tmp_path / f"maps-{number}"
        for flags in (
            ["export", f"--run={reference}", f"--output={bundle}"],
            ["predict", f"--run={bundle}", lab.folder / 'data',
             f"--output={output}", "--probabilities"],
        ):  # fmt: skip
            assert lab.start(*flags).wait().status == 0
        maps.append(files(output))
    assert len(maps[0]) > 12
    assert maps[0] == maps[1]


@pytest.mark.slow
def test_the_report_of_an_ablation_is_deterministic(lab, reference, tmp_path):
    """Written anew from the same runs; all tables, figures and the page."""
    folder = tmp_path / "study"
    config = Path(__file__).parents[2] / "configs" / "default.py"
    phantom = next((lab.folder / "data").iterdir())
    fields = FIELDS | {"run.compilation_cache": lab.folder / "cache", "data.root": phantom,
                       "train.epochs": 2, "run.pictures": 0,
                       "mixup.probability": 0.5}  # fmt: skip
    command = [f"--config={config}", "--mode=ablate", "--seeds=1", f"--workdir={folder}",
               *(f"--config.{name}={value}" for name, value in fields.items())]  # fmt: skip
    reports = []
    for _ in range(2):
        ended = lab.start(*command).wait()
        assert ended.status == 0, ended
        reports.append({p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()})
        for path in folder.iterdir():
            if path.is_file():
                path.unlink()
    assert {"table1.md", "tests.csv", "report.html", "figure3.png"} <= reports[0].keys()
    assert reports[0] == reports[1]
    shutil.rmtree(folder)
