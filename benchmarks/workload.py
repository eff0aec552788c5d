"""Definition of a measurement: side, task, config and slices."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from configs import attention, awce_penalty
from jaxseg.config.preprocessing import preprocessing  # `setup` would import JAX
from jaxseg.data import Case, Grid, build_cohort
from jaxseg.data.phantom.write import phantom_case

JAXSEG, EAGER, CHANNELS_LAST, COMPILED = (
    "jaxseg",
    "torch eager",
    "torch channels_last",
    "torch compiled",
)
SIDES = (JAXSEG, EAGER, CHANNELS_LAST, COMPILED)
"""jaxseg; the twin as written; with channels_last; and with channels_last and torch.compile."""

TASKS = {
    "forward": "loss alone, no mixup",
    "gradient": "loss and gradient, no mixup",
    "bare step": "loss, gradient and Adam, no mixup",
    "mixup": "a batch mixed on the device",
    "step": "a training step with mixup on the device",
    "scan": "several training steps with mixup in one call, for jaxseg",
    "epoch": "every slice once, as in training",
    "predict": "a case's slices on the network grid to probabilities",
    "case": "a case from its native grid to probabilities on it",
    "matmul": "a product of square matrices",
    "copy": "one added to every number of a large array",
    "trace": "training steps under JAX's profiler",
    "cost": "FLOPs and bytes of the bare step, as XLA counts them; nothing is run",
}
MATRIX_SIZE = {"cpu": 2048, "gpu": 8192}
"""Rows of the matrices of task "matmul", by device."""
COPIED_NUMBERS = {"cpu": 2**26, "gpu": 2**28}
"""Numbers of the array of task "copy", by device: far more than fit into a cache."""
STEPS_PER_CALL = 8
"""Steps of task "scan"."""
_STAGES = {"attention": attention, "awce_penalty": awce_penalty}
_PHANTOM_CASES = 12


@dataclass(frozen=True)
class Workload:
    """A task with its parameters, for one process.

    Attributes:
      side: one of `SIDES`.
      task: one of `TASKS`.
      stage: stage of the ablation; "attention" has plain cross-entropy.
      size: H and W of the network grid, pixels.
      width: channels of the finest level.
      batch: slices per step.
      slices: slices of the cohort.
      precision: compute dtype, "float32" or "bfloat16".
      loader_workers: for PyTorch, number of workers of a DataLoader that mix with SciPy, 0 for the
        training process itself; None mixes on the device.
      device: "cpu" or "gpu".
      devices: for jaxseg, number of devices that share the CPU cores, in the tasks "step"
        and "epoch".
      convolution: for jaxseg, as `run.convolution`.
      cores: threads of either framework.
      data: folder written by `write_data`.
    """

    side: str
    task: str
    stage: str = "attention"
    size: int = 96
    width: int = 16
    batch: int = 8
    slices: int = 96
    precision: str = "float32"
    loader_workers: int | None = None
    device: str = "cpu"
    devices: int = 1
    convolution: str = "auto"
    cores: int = 1
    data: str = ""

    def __post_init__(self) -> None:
        if self.side not in SIDES or self.task not in TASKS or self.stage not in _STAGES:
            raise ValueError(f"side, task or stage: expected known ones, got {self}")

    def on(self, side: str) -> "Workload":
        """The same workload on another side."""
        return replace(self, side=side)

    def to_json(self) -> str:
        """Convert to one line of JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, line: str) -> "Workload":
        """Read the output of `to_json`."""
        return cls(**json.loads(line))

    def settings(self) -> Mapping[str, Any]:
        """The config of the run, from which both sides are built."""
        config = _STAGES[self.stage].get_config("emidec")
        config.update_from_flattened_dict(
            {
                "grid.size": (self.size, self.size),
                "model.width": self.width,
                "model.precision": self.precision,
                "train.batch_size": self.batch,
                "run.convolution": self.convolution,
            }
        )
        return config.to_dict()


@dataclass(frozen=True, eq=False)
class Slices:
    """A cohort as plain arrays: (N, H, W) float32, (N, H, W) uint8, (N,) float32."""

    images: np.ndarray
    labels: np.ndarray
    heights: np.ndarray


def write_data(folder: Path) -> None:
    """Write the phantom cases of all measurements, once for all processes."""
    for index in range(_PHANTOM_CASES):
        case = phantom_case(0, index, num_cases=_PHANTOM_CASES)
        np.savez(
            folder / f"{case.name}.npz",
            image=case.image,
            label=case.label,
            spacing=np.array(case.spacing),
        )


def read_cases(folder: Path) -> list[Case]:
    """Read the phantom cases."""
    cases = []
    for path in sorted(folder.glob("*.npz")):
        with np.load(path) as arrays:
            x, y, z = arrays["spacing"].tolist()
            image = arrays["image"].astype(np.float32)
            header = nib.Nifti1Header()
            cases.append(Case(path.stem, image, arrays["label"], (x, y, z), header))
    return cases


def read_slices(workload: Workload) -> Slices:
    """The cohort on the network grid, with the slices of the phantom repeated as needed."""
    # The field of view is that of 96 pixels at any size, so that every image contains the heart.
    grid = Grid((workload.size, workload.size), spacing=1.4 * 96 / workload.size)
    how = replace(preprocessing(workload.settings()), grid=grid)
    cohort = build_cohort(read_cases(Path(workload.data)), how, allow_outside=True)
    order = np.resize(np.arange(len(cohort)), workload.slices)
    taken = cohort.take(order)
    return Slices(taken.images, taken.labels, taken.heights)
