"""Whole runs: output files, interruptions and run folders that are refused."""

import csv
import json
import os
import shutil
import signal
from pathlib import Path

import jax
import pytest

from jaxseg.config.settings import SettingsError
from jaxseg.data import DataError
from jaxseg.evaluation.evaluate import evaluate
from jaxseg.inference.export import export
from jaxseg.runs.checkpoint import Checkpoints
from jaxseg.runs.files import WorkdirError
from jaxseg.runs.lock import locked
from jaxseg.runs.signals import Interrupted
from jaxseg.training import train
from tests.logged import logged
from tests.stopped import assert_same_end, end_state, train_stopped

pytestmark = pytest.mark.slow

STEPS = 35  # 35 slices, batches of 4, 4 epochs


def config_of(run: Path) -> dict:
    return json.loads((run / "config.json").read_text())


def metrics(run: Path) -> list[dict]:
    path = run / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def devices_alone(line: str) -> None:
    assert line.startswith("jax ")


# ---- a run that nothing interrupts


def test_metrics_of_steps_and_validations(finished_run):
    lines = metrics(finished_run)
    validations = [9, 18, 27, 35]  # ceil(35 / 4 * epoch)
    train_steps = [line["step"] for line in lines if line["group"] == "train"]
    assert train_steps == sorted({*range(2, STEPS + 1, 2), *validations})
    validated = [line for line in lines if line["group"] == "validation"]
    assert [line["step"] for line in validated] == validations
    terms = {"loss", "cross_entropy", "weighted_cross_entropy", "generator_objective",
             "neighboring_loss", "gradient_norm", "update_norm", "learning_rate", "epoch",
             "label_weights/background", "label_weights/no-reflow"}  # fmt: skip
    assert all(terms < line.keys() for line in lines if line["group"] == "train")
    regions = {"dsc/LV", "dsc/Myo", "dsc/Inf", "dsc/NoR", "mean_foreground_dsc", "epoch"}
    assert all(regions < line.keys() for line in validated)
    losses = [line["loss"] for line in lines if line["group"] == "train"]
    assert losses[-1] < 0.8 * losses[0]


def test_table_pictures_and_curves(finished_run):
    pictures = sorted(path.name for path in (finished_run / "pictures").iterdir())
    assert pictures == [f"step-0000{step:02d}.png" for step in (9, 18, 27, 35)]
    (events,) = (finished_run / "tensorboard").iterdir()
    assert events.stat().st_size > 1000
    rows = list(csv.DictReader((finished_run / "table.csv").read_text().splitlines()))
    assert [row["region"] for row in rows] == ["LV", "Myo", "Inf", "NoR"] * 2
    last = [line for line in metrics(finished_run) if line["group"] == "validation"][-1]
    by_region = {row["region"]: row for row in rows if row["checkpoint"] == "last (epoch 4)"}
    for region, row in by_region.items():
        if int(row["slices"]):
            assert float(row["mean"]) == last[f"dsc/{region}"]
        else:
            assert last[f"dsc/{region}"] is None
    assert "| last (epoch 4) " in (finished_run / "table.md").read_text()


def test_the_best_checkpoint_has_the_best_validation_score(finished_run):
    validated = [line for line in metrics(finished_run) if line["group"] == "validation"]
    scores = {line["step"]: line["mean_foreground_dsc"] for line in validated}
    best = max(scores, key=lambda step: (scores[step], -step))
    with Checkpoints(finished_run, read_only=True) as checkpoints:
        assert checkpoints.best_step == best
        assert checkpoints.score(best) == scores[best]
    folders = {path.name for path in (finished_run / "checkpoints").iterdir()}
    assert folders == {str(best), str(STEPS)}


def test_a_finished_run_is_not_trained_again(command_line, finished_run, tmp_path):
    run = shutil.copytree(finished_run, tmp_path / "run")
    shutil.rmtree(run / "pictures")
    process = command_line.start_tiny(run)
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert f"resuming at step {STEPS} of {STEPS}\n" in output
    assert "\nepoch " not in output
    assert output.strip().endswith((finished_run / "table.md").read_text().strip())
    for name in ("table.md", "table.csv", "metrics.jsonl"):
        assert (run / name).read_text() == (finished_run / name).read_text()
    assert not (run / "pictures").exists()


# ---- interruptions (signals and kills: tests/faults/test_kills.py)


def test_a_run_with_a_localizer_resumes_to_the_same_bits(finished_run, tmp_path):
    config = config_of(finished_run)
    config["grid"]["center"] = None
    config["loss"] |= {"weighted": False, "penalty": 0.0}
    config["train"]["epochs"], config["run"]["pictures"] = 2, 0
    config["optimizer"]["method"] = "muon"
    config["data"] |= {"phantom_cases": 0}
    train.train(config, tmp_path / "whole")
    train_stopped(config, tmp_path / "stopped")
    train.train(config, tmp_path / "stopped")
    assert "localizer" in end_state(tmp_path / "whole").params
    assert_same_end(tmp_path / "stopped", tmp_path / "whole")


def test_a_run_without_held_out_slices(finished_run, tmp_path):
    config, run = config_of(finished_run), tmp_path / "run"
    config["data"] |= {"phantom_cases": 0, "validation_fraction": 0.0}
    config["train"]["epochs"] = 1
    table = train.train(config, run)
    data = json.loads((run / "data.json").read_text())
    slices = data["training"]["slices"]
    assert f"{slices} slices" in table
    assert data["training"]["cases"] == data["cases"]
    assert data["validation"]["cases"] == []
    with Checkpoints(run, read_only=True) as checkpoints:
        assert checkpoints.best_step is None
    with pytest.raises(DataError, match="6 cases"):
        evaluate(run)
    export(run, tmp_path / "bundle")
    assert (tmp_path / "bundle" / "MODEL_CARD.md").exists()


def test_a_signal_after_the_last_step_is_reported(
    command_line, finished_run, tmp_path, monkeypatch
):
    """An ablation would go on with its next run."""
    run = shutil.copytree(finished_run, tmp_path / "run")
    monkeypatch.chdir(command_line.folder)

    def stop(line):
        if "DSC on the validation slices" in line:
            os.kill(os.getpid(), signal.SIGTERM)

    stopped_last = pytest.raises(Interrupted, match=f"SIGTERM at step {STEPS}")
    with stopped_last, logged(stop) as lines:
        train.train(config_of(run), run)
    assert "DSC on the validation slices" in lines[-1]
    assert (run / "table.md").read_text() == (finished_run / "table.md").read_text()


def test_a_diverged_run_keeps_its_checkpoints(command_line, finished_run, tmp_path):
    # A run that goes on from a sound checkpoint under a rate that no network survives.
    run = shutil.copytree(finished_run, tmp_path / "run")
    shutil.rmtree(run / "checkpoints" / str(STEPS))
    changes = {"learning_rate": 1e30, "clip_norm": 0.0, "schedule": "constant"}
    config = config_of(run)
    config["optimizer"] |= changes
    (run / "config.json").write_text(json.dumps(config))
    (sound,) = (run / "checkpoints").iterdir()
    before = contents(sound)
    process = command_line.start_tiny(run, **{f"optimizer__{k}": v for k, v in changes.items()})
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 1
    assert f"resuming at step {sound.name} of {STEPS}\n" in output
    assert errors.startswith("error: ")
    assert errors.count("\n") == 1
    assert str(run) in errors
    assert list((run / "checkpoints").iterdir()) == [sound]
    assert contents(sound) == before
    numbers = [
        value for line in metrics(run) for value in line.values() if line["group"] == "train"
    ]
    assert None not in numbers


# ---- refused run folders


def contents(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


def test_another_config_is_refused(finished_run):
    config = config_of(finished_run)
    config["optimizer"]["learning_rate"] = 5e-3
    config["mixup"]["tolerance"] = 0.2
    config["run"]["log_every"] = 7  # free to differ
    before = contents(finished_run)
    with pytest.raises(WorkdirError) as refusal, logged(pytest.fail):
        train.train(config, finished_run)
    first, *differences = str(refusal.value).splitlines()
    assert first.startswith(f"{finished_run}: ")
    names = [line.split(":")[0].strip() for line in differences]
    assert names == ["mixup.tolerance", "optimizer.learning_rate"]
    assert contents(finished_run) == before


def test_a_locked_run_folder_is_refused(tmp_path, finished_run):
    config = config_of(finished_run)
    with locked(tmp_path), pytest.raises(WorkdirError, match=str(tmp_path)), logged(devices_alone):
        train.train(config, tmp_path)
    config["data"]["root"] = str(tmp_path / "nope")
    config["data"]["phantom_cases"] = 0
    with pytest.raises(ValueError, match="nope: "), logged(devices_alone):
        train.train(config, tmp_path)


def test_invalid_settings_create_no_run_folder(tmp_path, finished_run):
    config = config_of(finished_run)
    config["train"]["batch_size"] = 0
    with pytest.raises(SettingsError, match=r"train\.batch_size"), logged(pytest.fail):
        train.train(config, tmp_path / "run")
    config["train"]["batch_size"] = 4
    count = jax.local_device_count()
    config["run"]["devices"] = count * 4
    if count == 1:
        few = pytest.raises(SettingsError, match=r"run.devices: ")
        with few, logged(pytest.fail):
            train.train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
