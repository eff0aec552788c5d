"""Runs of two processes with two devices each on this machine."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxseg.config.setup import build
from jaxseg.runs import hosts
from jaxseg.runs.checkpoint import Checkpoints
from jaxseg.runs.config_file import read_settings
from jaxseg.runs.data_file import read_data
from jaxseg.runs.signals import StopVote
from jaxseg.train_step import TrainState, init_state

pytestmark = pytest.mark.slow

STEPS, FIRST = 35, 9  # of all; of the first validation, the best one
TESTS = Path(__file__).parent
# Of connections, by the runtime's threads, which now and then write into each other's lines.
NOTE = re.compile(r"Gloo|peer rank|connected to|^ *\d+ *$")
SLURM = {"SLURM_JOB_ID": "", "SLURM_STEP_NODELIST": "localhost", "SLURM_NTASKS": "2"}


def free_port(low: int = 20000, high: int = 29000) -> int:
    """A port below those that the system gives away by itself."""
    for port in np.random.default_rng().permutation(np.arange(low, high)):
        with closing(socket.socket()) as probe:
            if probe.connect_ex(("127.0.0.1", int(port))):
                return int(port)
    raise AssertionError("no free port")


@contextmanager
def ended(processes: Sequence[subprocess.Popen[str]]) -> Iterator[Sequence[subprocess.Popen[str]]]:
    """Kill the processes at the end of a test."""
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def explicit(run: Path, command_line, *own: Sequence[str], **changes):
    """Two processes of one run that connect by flags; `own` are flags of each process."""
    place = (f"--distributed=127.0.0.1:{free_port()}", "--num_processes=2", "--connect_seconds=90")
    flags = [*command_line.tiny_flags(run, **changes), *place, "--heartbeat_seconds=20"]
    own = own or ((), ())
    return ended([
        command_line.start(*flags, f"--process_id={k}", *own[k], devices=2) for k in (0, 1)
    ])  # fmt: skip


def results(processes) -> list[tuple[int, str, str]]:
    """Status, output and errors of each; the runtime's note of a connection is left out."""
    ends = []
    for process in processes:
        output, errors = process.communicate(timeout=240)
        lines = [line for line in output.splitlines() if not NOTE.search(line)]
        ends.append((process.returncode, "\n".join(lines).strip(), errors))
    return ends


def wait_for_step(processes, run: Path, step: int) -> None:
    deadline, path = time.monotonic() + 240, run / "metrics.jsonl"
    while time.monotonic() < deadline:
        for process in processes:
            assert process.poll() is None, process.communicate()
        lines = path.read_text().split("\n")[:-1] if path.exists() else []
        if lines and json.loads(lines[-1])["step"] >= step:
            return
        time.sleep(0.01)
    raise AssertionError(f"no step {step} in time")


def template(run: Path) -> TrainState:
    return jax.eval_shape(lambda: first_state(run))


def first_state(run: Path) -> TrainState:
    setup = build(read_settings(run))
    optimizer = setup.optimization.optimizer(lambda step: 0.0 * step)
    return init_state(setup.networks, optimizer, 0, setup.grid.size)


def state_of(run: Path, step: int = STEPS) -> TrainState:
    with Checkpoints(run, read_only=True) as checkpoints:
        assert checkpoints.latest_step == step
        return checkpoints.restore(template(run), step)


def largest_differences(first, second):
    return jax.tree.map(lambda a, b: float(abs(a - b).max()), first, second)


def assert_close(run: Path, other: Path) -> None:
    """Same numbers up to the order of sums over devices."""
    ours, theirs = state_of(run), state_of(other)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-5), ours, theirs)
    largest = max(jax.tree.leaves(largest_differences(ours.params, theirs.params)))
    print(f"largest difference of a parameter: {largest:.1e}")
    assert largest < 1e-5
    assert (run / "table.csv").read_text() == (other / "table.csv").read_text()


def assert_same_bits(run: Path, other: Path) -> None:
    for a, b in zip(jax.tree.leaves(state_of(run)), jax.tree.leaves(state_of(other)), strict=True):
        np.testing.assert_array_equal(a, b)
    assert (run / "table.csv").read_text() == (other / "table.csv").read_text()


def cut(run: Path, copy: Path) -> Path:
    """A run as it was after its first validation."""
    shutil.copytree(run, copy)
    shutil.rmtree(copy / "checkpoints" / str(STEPS))
    for name in ("table.md", "table.csv"):
        (copy / name).unlink()
    return copy


@pytest.fixture(scope="module")
def finished_pair(command_line, finished_run) -> Path:
    """A run of two processes as SLURM would start them, which wrote a phantom of their own."""
    run = command_line.folder / "pair"
    # From the job's number the runtime makes the port.
    port = free_port(2**16 - 2**12, 2**16)
    slurm = SLURM | {"SLURM_JOB_ID": str(port % 2**12)}
    flags = command_line.tiny_flags(run, data__root=command_line.folder / "phantom-of-a-pair")
    processes = [
        command_line.start(
            *flags, "--distributed=auto", devices=2,
            **slurm, SLURM_PROCID=str(k), SLURM_LOCALID=str(k),
        )
        for k in (0, 1)
    ]  # fmt: skip
    with ended(processes):
        (status, output, errors), other = results(processes)
    assert (status, errors) == (0, "")
    assert other == (0, "", "")  # the other process prints nothing
    (run / "output.txt").write_text(output)
    return run


# ---- a run that nothing interrupts


def test_two_processes_give_the_parameters_of_one(finished_pair, finished_run):
    assert_close(finished_pair, finished_run)
    start = first_state(finished_run)
    moved = largest_differences(start.params, state_of(finished_pair).params)
    assert max(jax.tree.leaves(moved)) > 0.05  # far more than the tolerance


def test_one_process_writes(finished_pair, finished_run):
    lines, alone = (
        [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        for run in (finished_pair, finished_run)
    )
    assert [(x["step"], x["group"]) for x in lines] == [(x["step"], x["group"]) for x in alone]
    for ours, theirs in zip(lines, alone, strict=True):
        assert ours.keys() == theirs.keys()
        for name, value in theirs.items():
            assert ours[name] == (pytest.approx(value, rel=1e-3) if type(value) is float else value)
    assert len(list((finished_pair / "tensorboard").iterdir())) == 1
    names = {path.name for path in finished_pair.iterdir()} - {"output.txt"}
    assert names == {path.name for path in finished_run.iterdir()} - {"output.txt"}
    output = (finished_pair / "output.txt").read_text()
    assert output.count("\nepoch ") == 4
    assert output.strip().endswith((finished_run / "table.md").read_text().strip())


def test_the_phantom_is_that_of_a_single_process(finished_pair, command_line):
    files = [
        {path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.is_file()}
        for root in (command_line.folder / "phantom-of-a-pair", command_line.phantom)
    ]
    assert files[0] == files[1]
    assert not list(command_line.folder.glob(".phantom-of-a-pair*"))


# ---- interruptions


@pytest.mark.parametrize("victim", [0, 1])
def test_interrupted_pairs_resume_to_the_same_bits(command_line, finished_pair, tmp_path, victim):
    """Process 0 writes, and is where the others meet."""
    run = tmp_path / "run"
    # One process alone is asked to stop.
    with explicit(run, command_line) as processes:
        wait_for_step(processes, run, FIRST + 1)
        processes[victim].send_signal(signal.SIGTERM)
        ends = results(processes)
    with Checkpoints(run, read_only=True) as checkpoints:
        stopped = checkpoints.latest_step
    assert stopped is not None
    assert stopped > FIRST
    for status, _, errors in ends:
        assert status == 143
        assert f"at step {stopped}" in errors.splitlines()[-1]
    # Only the one that received the signal answers at once.
    assert ["\nSIGTERM: " in errors for _, _, errors in ends] == [k == victim for k in (0, 1)]
    # One process alone is killed; what the other says depends on what it was doing.
    with explicit(run, command_line) as processes:
        wait_for_step(processes, run, 2 * FIRST + 1)
        start = time.monotonic()
        processes[victim].kill()
        ends = results(processes)
        assert time.monotonic() - start < 60
    if victim == 1:  # the output of a killed process 0 may be lost
        assert f"resuming at step {stopped} of {STEPS}" in ends[0][1]
    assert ends[victim][0] == -signal.SIGKILL
    status, _, errors = ends[1 - victim]
    assert status not in (0, 143)
    assert "another process ended" in errors or "another task died" in errors
    assert not (run / "table.md").exists()
    with explicit(run, command_line) as processes:
        ends = results(processes)
    assert [(status, errors) for status, _, errors in ends] == [(0, "")] * 2
    (resumed,) = re.findall(r"resuming at step (\d+) of", ends[0][1])
    assert int(resumed) >= stopped
    assert_same_bits(run, finished_pair)


# ---- other numbers of processes and devices


def test_a_run_of_two_processes_is_resumed_by_one(command_line, finished_pair, tmp_path):
    run = cut(finished_pair, tmp_path / "run")
    with ended([command_line.start(*command_line.tiny_flags(run))]) as processes:
        ((status, output, errors),) = results(processes)
    assert (status, errors) == (0, "")
    assert f"resuming at step {FIRST} of {STEPS}" in output
    assert_close(run, finished_pair)


def test_a_run_of_one_process_is_resumed_by_two(command_line, finished_run, tmp_path):
    run = cut(finished_run, tmp_path / "run")
    with explicit(run, command_line) as processes:
        (status, output, errors), other = results(processes)
    assert (status, errors, other) == (0, "", (0, "", ""))
    assert f"resuming at step {FIRST} of {STEPS}" in output
    assert_close(run, finished_run)


def fingerprint(state: TrainState) -> str:
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(state)]
    return hosts.digest(str([(leaf.dtype, leaf.shape, leaf.tobytes()) for leaf in leaves]))


def restore_and_save(run: str, copy: str) -> None:
    """Runs in processes of its own, one or two of them."""
    from jaxseg.train_step import placement

    place = placement(jax.local_device_count())
    state = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place),
        template(Path(run)),
    )
    with Checkpoints(Path(run), read_only=True) as checkpoints:
        state = checkpoints.restore(state, STEPS)
    assert {leaf.sharding.num_devices for leaf in jax.tree.leaves(state)} == {place.num_devices}
    with Checkpoints(Path(copy)) as checkpoints:
        checkpoints.save(state, 0.5)
    print("state", fingerprint(state))


SCRIPT = """
import runpy, sys
from jaxseg.runs import hosts
path, place, process, function, *arguments = sys.argv[1:]
function = runpy.run_path(path)[function]
if place == "alone":
    function(*arguments)
else:
    with hosts.connected(
        distributed=place, num_processes=2, process_id=int(process),
        connect_seconds=90, heartbeat_seconds=10,
    ):
        function(*arguments)
"""


def in_processes(function: str, *arguments: object, number: int = 2, devices: int = 2):
    """Run a function of this file in processes of its own."""
    place = f"127.0.0.1:{free_port()}" if number > 1 else "alone"
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(TESTS.parents[1]),
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
    }
    return ended([
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT, __file__, place, str(k), function, *map(str, arguments)],
            env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for k in range(number)
    ])  # fmt: skip


def test_a_state_is_restored_bitwise_on_any_layout(finished_pair, tmp_path):
    expected = f"state {fingerprint(state_of(finished_pair))}"
    for number, devices in ((2, 2), (1, 4)):
        copy = tmp_path / f"{number}x{devices}"
        arguments = ("restore_and_save", finished_pair, copy)
        with in_processes(*arguments, number=number, devices=devices) as processes:
            ends = results(processes)
        assert [(status, output) for status, output, _ in ends] == [(0, expected)] * number, ends
        shutil.copy(finished_pair / "config.json", copy)
        assert f"state {fingerprint(state_of(copy))}" == expected


def test_fine_tuning_starts_from_the_same_parameters(command_line, finished_run, tmp_path):
    """All processes read them; without them, two steps would not come near."""
    changes = {"train__init_from": finished_run, "train__epochs": 1, "run__pictures": 0}
    alone = command_line.start_tiny(tmp_path / "alone", **changes)
    with explicit(tmp_path / "pair", command_line, **changes) as processes:
        ends = results(processes)
    with ended([alone]) as processes:
        ends += results(processes)
    assert [status for status, *_ in ends] == [0, 0, 0], ends
    runs = [tmp_path / "alone", tmp_path / "pair"]
    ours, theirs = (state_of(run, FIRST) for run in runs)
    assert max(jax.tree.leaves(largest_differences(ours.params, theirs.params))) < 1e-5
    facts = [read_data(run)["started_from"] for run in runs]
    assert facts[0] == facts[1]
    assert facts[0]["step"] == STEPS


# ---- errors of one process


def refusals(finished: str, other_cases: str, folder: str) -> None:
    """One after the other, in the same two processes: an agreed failure leaves both sound."""
    from jaxseg.training import train

    first, run = jax.process_index() == 0, Path(folder)
    known = read_settings(Path(finished))
    known["run"]["compilation_cache"] = ""

    def attempt(name: str, folder: Path, *fields: tuple[str, object]) -> None:
        config = json.loads(json.dumps(known))
        for field, value in fields:
            group, _, key = field.rpartition(".")
            (config[group] if group else config)[key] = value
        try:
            train.train(config, folder)
        except Exception as error:
            print(f"{name}: {type(error).__name__}: {error}".splitlines()[0])

    root = known["data"]["root"]
    attempt("settings", run / "settings", ("seed", jax.process_index()))
    attempt("one", run / "one", ("train.epochs", 4 if first else 0))
    attempt("batch", run / "batch", ("train.batch_size", 6))
    attempt("devices", run / "devices", ("run.devices", jax.process_index() + 1))
    attempt("workdir", Path(finished), ("seed", 5))
    attempt("missing", run / "missing", ("data.phantom_cases", 0),
            ("data.root", root if first else str(run / "nope")))  # fmt: skip
    attempt("cases", run / "cases", ("data.phantom_cases", 0),
            ("data.root", root if first else other_cases))  # fmt: skip
    attempt("unshared", run / ("here" if first else "there"))


def test_an_error_of_one_process_stops_all(finished_run, command_line, tmp_path):
    cases = shutil.copytree(command_line.phantom, tmp_path / "other")
    folder = cases / "Case_P001"
    shutil.copy(folder / "Contours" / "Case_P001.nii.gz", folder / "Images" / "Case_P001.nii.gz")
    before = (finished_run / "config.json").read_text()
    finished = tmp_path / "finished"
    shutil.copytree(finished_run, finished)
    config = json.loads(before)
    config["data"]["root"] = str(command_line.phantom)
    (finished / "config.json").write_text(json.dumps(config))
    with in_processes("refusals", finished, cases, tmp_path) as processes:
        ends = results(processes)
    assert [status for status, *_ in ends] == [0, 0], ends
    ours, theirs = (
        {line.split(":")[0]: line.partition(": ")[2] for line in output.splitlines()}
        for _, output, _ in ends
    )
    # Both raise the same error, or one its own error and the other the reason.
    for name in ("settings", "batch", "devices", "cases"):
        assert ours[name] == theirs[name]
        assert ours[name].startswith(("HostsError: ", "SettingsError: "))
    for name, mine, other, found in (
        ("one", theirs, ours, "SettingsError: train.epochs: "),
        ("workdir", ours, theirs, f"WorkdirError: {finished}: "),
        ("missing", theirs, ours, f"DataError: {tmp_path / 'nope'}: "),
        ("unshared", theirs, ours, f"WorkdirError: {tmp_path / 'there'}: "),
    ):
        assert mine[name].startswith(found)
        assert other[name].startswith("HostsError: process ")
        assert found.split(": ")[1] in other[name]
    assert not (tmp_path / "there").exists()
    assert len(ours) == len(theirs) == 8


def test_a_refused_pair_is_one_line_each_and_status_1(command_line, finished_run):
    with explicit(finished_run, command_line, seed=5) as processes:
        ends = results(processes)
    assert [(status, output) for status, output, _ in ends] == [(1, ""), (1, "")]
    assert ends[0][2].startswith(f"error: {finished_run}: ")
    assert "seed: " in ends[0][2].splitlines()[-1]
    assert ends[1][2].startswith("error: process 0 stopped: ")


@pytest.mark.parametrize("place", ["alone", "unknown"])
def test_processes_that_do_not_meet_are_one_line_and_status_1(command_line, tmp_path, place):
    alone = (f"--distributed=127.0.0.1:{free_port()}", "--num_processes=2", "--process_id=0",
             "--connect_seconds=2")  # fmt: skip
    flags = alone if place == "alone" else ("--distributed=auto",)
    process = command_line.start(*command_line.tiny_flags(tmp_path / "run"), *flags)
    with ended([process]) as processes:
        ((status, output, errors),) = results(processes)
    assert (status, output, errors.count("\n")) == (1, "", 1)
    assert errors.startswith("error: ")
    assert not (tmp_path / "run").exists()


def die(how: str, victim: str) -> None:
    """One process ends, the other waits for it."""
    hosts.highest(0)
    if str(jax.process_index()) != victim:
        hosts.highest(1)
        print("went on")
    elif how == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    elif how == "hung":
        os.kill(os.getpid(), signal.SIGSTOP)
    else:
        with hosts.exit_at_once(unless=(ValueError,)):
            raise ZeroDivisionError("on its own")


@pytest.mark.parametrize(("how", "victim"), [("killed", 0), ("hung", 1), ("erring", 1)])
def test_a_failed_process_ends_the_other(how, victim):
    start = time.monotonic()
    with in_processes("die", how, victim) as processes:
        ((status, output, errors),) = results([processes[1 - victim]])
        assert time.monotonic() - start < 90
        assert status != 0
        assert not output
        assert "another process ended" in errors or "another task died" in errors
        if how == "erring":
            ((status, _, errors),) = results([processes[victim]])
            assert status == 1
            assert errors.endswith("ZeroDivisionError: on its own\n")


# ---- a single process


def test_a_single_process_is_the_writer():
    assert (hosts.count(), hosts.is_writer()) == (1, True)
    with hosts.agreed():
        pass
    with pytest.raises(ZeroDivisionError), hosts.agreed():
        raise ZeroDivisionError
    with pytest.raises(ZeroDivisionError), hosts.exit_at_once():
        raise ZeroDivisionError
    hosts.check_same("anything", "at all")
    assert hosts.highest(15) == 15
    np.testing.assert_array_equal(hosts.gather([3, 4]), [[3, 4]])
    vote = StopVote()
    assert [vote(None), vote(15)] == [None, 15]


def test_a_function_is_not_shared_by_a_single_process():
    def function(params, rows):
        return rows + params

    assert hosts.shared(function) is function


def test_shares_cover_all_rows(monkeypatch):
    """Three processes, seven rows: each process does three, two of them twice."""
    rows, calls = np.arange(14.0).reshape(7, 2), []
    monkeypatch.setattr(hosts, "count", lambda: 3)
    for process in range(3):
        monkeypatch.setattr(jax, "process_index", lambda process=process: process)
        monkeypatch.setattr(hosts, "gather", lambda own: calls.append(own) or np.zeros((3, 3, 2)))
        hosts.shared(lambda params, own: own * params)(10.0, rows)
    assert [call.shape for call in calls] == [(3, 2)] * 3
    monkeypatch.setattr(hosts, "gather", lambda own: np.stack(calls))
    np.testing.assert_array_equal(hosts.shared(lambda params, own: own)(0.0, rows), 10 * rows)
