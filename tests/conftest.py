"""Strictness that every test runs under, and what several test files share."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg.config.setup import build
from jaxseg.inference.export import export
from jaxseg.models import UNet
from jaxseg.runs.checkpoint import Checkpoints
from jaxseg.runs.config_file import read_settings
from jaxseg.runs.files import write_atomic
from jaxseg.train_step import TrainState
from tests.allowed_warnings import ORBAX_THREADS, STRICT

# Silent broadcasting of (B,) against (B, 1) is the commonest way to a wrong loss.
jax.config.update("jax_numpy_rank_promotion", "raise")


# Folders whose tests are all slow: damage and kills, compiled convolution, benchmarks, ablations.
SLOW = {"benchmarks", "faults", "native", "ablation"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if SLOW & set(item.path.relative_to(Path(__file__).parent).parts):
            item.add_marker(pytest.mark.slow)


def pytest_configure(config: pytest.Config) -> None:
    for allowed in ORBAX_THREADS:
        config.addinivalue_line("filterwarnings", allowed)


@pytest.fixture(scope="session")
def emidec_root() -> Path:
    """Folder of the real cases, from JAXSEG_EMIDEC; tests that ask for it are skipped without."""
    root = os.environ.get("JAXSEG_EMIDEC")
    if not root:
        pytest.skip("JAXSEG_EMIDEC does not name a folder of EMIDEC cases")
    return Path(root)


MAIN = Path(__file__).parents[1] / "main.py"
TINY = {
    "grid.size": "32,32", "grid.spacing": 4.2, "model.width": 4, "model.depth": 1,
    "model.groups": 4, "balance.width": 4, "data.phantom_cases": 6, "train.epochs": 4,
    "train.batch_size": 4, "train.validate_every": 1, "run.log_every": 2, "run.pictures": 2,
    "optimizer.warmup_epochs": 1.0,
}  # fmt: skip


@dataclass(frozen=True)
class CommandLine:
    """`python main.py` in processes of its own, on one phantom and one compilation cache.

    Attributes:
      folder: current directory of the processes; not the repository's.
    """

    folder: Path

    @property
    def phantom(self) -> Path:
        """Where the first run writes the phantom."""
        return self.folder / "data" / "phantom-6-cases-seed-0"

    def start(
        self, *flags: str, config: str | None = "awce_penalty.py", devices: int = 1, **extra: str
    ) -> subprocess.Popen[str]:
        """Start a process with the given flags alone; `extra` goes into its environment."""
        # Tiny nets compile far longer than they run: with few optimizations runs end twice as fast.
        environment = os.environ | {
            "JAX_PLATFORMS": "cpu",
            "JAX_NUMPY_RANK_PROMOTION": "raise",
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "XLA_FLAGS": "--xla_backend_optimization_level=1 "
            f"--xla_force_host_platform_device_count={devices}",
            **extra,
        }
        stage = [f"--config={MAIN.parent / 'configs' / config}"] if config else []
        return subprocess.Popen(
            [sys.executable, *STRICT, str(MAIN), *stage, *flags],
            cwd=self.folder, env=environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def start_tiny(
        self, workdir: Path, *flags: str, config: str = "awce_penalty.py", **changes: object
    ) -> subprocess.Popen[str]:
        """Start a tiny run, by default of stage 4, with `changes` as `tiny_flags`."""
        return self.start(*self.tiny_flags(workdir, **changes), *flags, config=config)

    def tiny_flags(self, workdir: Path, **changes: object) -> list[str]:
        """Flags of a tiny run; `changes` set fields, with __ for the dot."""
        fields = TINY | {"data.root": self.phantom, "run.compilation_cache": self.folder / "cache"}
        fields |= {name.replace("__", "."): value for name, value in changes.items()}
        flags = [f"--config.{name}={value}" for name, value in fields.items() if value is not None]
        return [*flags, f"--workdir={workdir}"]


@pytest.fixture(scope="session")
def command_line(tmp_path_factory: pytest.TempPathFactory) -> CommandLine:
    return CommandLine(tmp_path_factory.mktemp("elsewhere"))


@pytest.fixture(scope="session")
def finished_run(command_line: CommandLine) -> Path:
    """The workdir of a tiny run that nothing interrupted, which wrote the phantom itself."""
    workdir = command_line.folder / "finished"
    process = command_line.start_tiny(workdir, data__root=None)
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    (workdir / "output.txt").write_text(output)
    return workdir


@pytest.fixture(scope="session")
def random_run(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workdir of the same run with random parameters, which predict every label.

    Its config names the phantom by its folder, as inference runs in the tests' own process.
    """
    folder = tmp_path_factory.mktemp("random")
    for name in ("config.json", "data.json"):
        shutil.copy(finished_run / name, folder / name)
    settings = read_settings(folder)
    settings["data"] |= {
        "root": str(finished_run.parent / "data" / "phantom-6-cases-seed-0"),
        "phantom_cases": 0,
    }
    write_atomic(folder / "config.json", json.dumps(settings))
    network = build(settings).networks.segmentation
    save_random_network(folder, network, seed=175, step=5, score=0.5)
    save_random_network(folder, network, seed=16, step=6, score=0.25)
    return folder


@pytest.fixture(scope="session")
def bundle_folder(random_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The random run's last network, exported, moved elsewhere, and the run deleted."""
    folder = tmp_path_factory.mktemp("exported")
    run = shutil.copytree(random_run, folder / "run")
    export(run, folder / "bundle")
    shutil.rmtree(run)
    return Path(shutil.move(folder / "bundle", tmp_path_factory.mktemp("moved") / "mine"))


def save_random_network(folder: Path, network: UNet, *, seed: int, step: int, score: float) -> None:
    """Save a checkpoint of normally distributed parameters; few seeds predict every label."""
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, 32, 32, 1)))["params"]
    params = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), leaf.dtype), shapes)
    params["logits"]["bias"] = jnp.zeros_like(params["logits"]["bias"])
    state = TrainState({"network": params}, {"rate": jnp.zeros(())}, jnp.int32(step), jnp.uint32(0))
    with Checkpoints(folder) as checkpoints:
        checkpoints.save(state, score)
        checkpoints.wait()
