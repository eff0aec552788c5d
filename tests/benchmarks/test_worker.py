"""Fresh processes of both sides: every task runs, and one that fails says why."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import compare as compare_sides
from benchmarks import machine
from benchmarks.plan import Plan
from benchmarks.process import Process, compare, sides
from benchmarks.run import SECTIONS, arguments
from benchmarks.workload import CHANNELS_LAST, JAXSEG, Workload, read_slices, write_data

ROOT = Path(__file__).parents[2]

with_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None,
    reason="torch, the benchmark's own requirement, is missing",
)
"""Skips by name, without importing torch into the tests' own process."""


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_data(folder)
    return folder


@pytest.fixture(autouse=True)
def few_optimizations(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiling takes nearly all of these tests' time."""
    monkeypatch.setenv("XLA_FLAGS", "--xla_backend_optimization_level=0")


def workload(data: Path, task: str, side: str, **changes) -> Workload:
    small = {"size": 32, "width": 4, "batch": 2, "slices": 4} | changes
    return Workload(side, task, data=str(data), **small)


def test_slices_repeat_until_there_are_enough(data: Path):
    few = read_slices(workload(data, "step", JAXSEG, slices=4))
    many = read_slices(workload(data, "step", JAXSEG, slices=300))
    assert many.images.shape == many.labels.shape == (300, 32, 32)
    assert (many.images[:4] == few.images).all()
    assert (many.labels > 0).any((1, 2)).mean() > 0.8, "the heart must be in the images"


def test_jax_is_no_part_of_the_other_side():
    script = "import sys, benchmarks.worker; print('jax' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert done.stdout.strip() == "False"


def test_workloads_are_serialized(data: Path):
    sent = workload(data, "epoch", CHANNELS_LAST, loader_workers=2)
    assert Workload.from_json(sent.to_json()) == sent
    with pytest.raises(ValueError, match=r"fly|task"):
        Workload("jaxseg", "fly")


@pytest.mark.parametrize(("task", "devices"), [("step", 1), ("step", 2), ("scan", 1)])
def test_this_projects_side(data: Path, tmp_path: Path, task: str, devices: int):
    with Process(workload(data, task, JAXSEG, devices=devices), tmp_path) as process:
        assert process.ready["wall"] > process.ready["imports"] > 0
        assert process.run(2) > 0
        report = process.close()
    assert report["peak"] >= process.ready["memory_before"] > 10**7
    assert report["device_peak"] is None
    assert report["devices"] == devices


@with_torch
def test_both_sides_in_turns(data: Path, tmp_path: Path):
    workloads = sides(workload(data, "step", JAXSEG, precision="bfloat16"), (JAXSEG, CHANNELS_LAST))
    workloads["loader"] = workload(data, "epoch", CHANNELS_LAST, loader_workers=1)
    times = compare(workloads, tmp_path, turns=2, turn_seconds=0.0, together=True)
    assert {name: len(values) for name, values in times.items()} == dict.fromkeys(workloads, 2)
    assert all(value > 0 for values in times.values() for value in values)


def test_a_failed_process_is_left_out(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    bad = workload(tmp_path / "missing", "step", JAXSEG)
    both = {"good": workload(data, "matmul", JAXSEG), "bad": bad}
    times = compare(both, tmp_path, turns=1, turn_seconds=0.0, together=False)
    assert list(times) == ["good"]
    said = capsys.readouterr().err
    assert "jaxseg, step" in said


def test_plans_scale_with_device_and_flags(tmp_path: Path):
    cpu = Plan("cpu", False, 2, tmp_path, tmp_path)
    gpu = Plan("gpu", False, 16, tmp_path, tmp_path, width=64)
    assert (cpu.reference("step").size, cpu.reference("step").width) == (96, 16)
    assert (gpu.reference("step").size, gpu.reference("step").width) == (128, 64)
    assert "bfloat16" in gpu.precisions
    assert "bfloat16" not in cpu.precisions
    assert Plan("cpu", True, 2, tmp_path, tmp_path).turns < cpu.turns


def test_variants_by_cores_and_batch(tmp_path: Path):
    def variants(cores: int, batch: int, device: str = "cpu") -> list[tuple[str, int]]:
        plan = Plan(device, False, cores, tmp_path, tmp_path, batch=batch)
        found = compare_sides._variants(plan, plan.reference("step", CHANNELS_LAST))
        assert {workload.side for workload in found.values()} <= {JAXSEG}
        return [(workload.convolution, workload.devices) for workload in found.values()]

    assert variants(4, 8) == [("xla", 1), ("auto", 4)]
    assert variants(1, 8) == variants(3, 8) == [("xla", 1)]
    assert variants(4, 8, "gpu") == []


def test_flags(capsys: pytest.CaptureFixture[str]):
    assert arguments(["--quick", "--sections=steps,scaling"]).sections == ["steps", "scaling"]
    assert arguments([]).sections == list(SECTIONS)
    assert set(arguments(["--quick"]).sections) < set(SECTIONS)
    with pytest.raises(SystemExit):
        arguments(["--sections=steps,fun"])
    assert "got fun" in capsys.readouterr().err


def test_the_machine_is_described():
    text = machine.describe("cpu", None)
    assert f"{machine.cores()} cores" in text
    assert "no GPU" in text
    assert "jax 0." in text
