"""The side of PyTorch: the same tasks with the twin, in the usual style of PyTorch."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks import twin_mixup
from benchmarks.loaders import MixupSlices, make_loader
from benchmarks.twin_objective import Stage
from benchmarks.workload import (
    COMPILED,
    COPIED_NUMBERS,
    EAGER,
    MATRIX_SIZE,
    Workload,
    read_cases,
    read_slices,
)
from jaxseg.config.preprocessing import preprocessing  # `setup` would import JAX
from jaxseg.data import preprocess_case, probabilities_to_native

_RATE = 1e-3


class Task:
    """A task, as a function that does one run."""

    def __init__(self, start: Callable[[], Any], device: torch.device) -> None:
        self._start, self._device = start, device

    def run(self, times: int) -> None:
        """Run the task that many times, and wait for the device."""
        for _ in range(times):
            self._start()
        if self._device.type == "cuda":
            torch.cuda.synchronize()

    def report(self) -> dict[str, Any]:
        """Peak memory of a GPU in bytes."""
        on_gpu = self._device.type == "cuda"
        return {"device_peak": torch.cuda.max_memory_allocated() if on_gpu else None}


def build(workload: Workload) -> Task:
    """Build the workload without running it."""
    torch.set_num_threads(workload.cores)
    torch.manual_seed(0)
    # TF32 is also what XLA uses for float32 on a GPU.
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    device = torch.device("cuda" if workload.device == "gpu" else "cpu")
    match workload.task:
        case "matmul" | "copy":
            return _rate(workload, device)
        case "predict" | "case":
            return _predict(workload, device)
        case "epoch" if workload.loader_workers is not None:
            return _loader_epoch(workload, device)
        case "step" | "epoch":
            return _device_mixup(workload, device)
        case "mixup":
            return _mixup(workload, device)
        case "trace" | "cost" | "scan":
            raise ValueError(f"task {workload.task} is available only for jaxseg")
        case _:
            return _without_mixup(workload, device)


class Trainer:
    """Stage, optimizer and the step on a given batch.

    Attributes:
      stage: the twin on its device.
      format: memory format of images.
    """

    def __init__(self, workload: Workload, device: torch.device) -> None:
        settings = workload.settings()
        eager = workload.side == EAGER
        self.format = torch.contiguous_format if eager else torch.channels_last
        self.stage = Stage.from_settings(settings).to(device)
        # The stubs of torch lack this overload.
        self.stage.to(memory_format=self.format)  # pyright: ignore[reportCallIssue]
        self.half = workload.precision == "bfloat16"
        self.device = device
        self.loss: Callable[[Tensor, Tensor], Tensor] = self.stage
        self.compiled = workload.side == COMPILED
        if self.compiled:
            self.loss = compiled(self.stage, device)
        self.clip = settings["optimizer"]["clip_norm"]
        self.optimizer = torch.optim.Adam(self.stage.parameters(), lr=_RATE, fused=True)

    def forward(self, images: Tensor, targets: Tensor) -> Tensor:
        """The loss on (B, 1, H, W) and (B, L, H, W)."""
        if self.compiled:
            torch.compiler.cudagraph_mark_step_begin()
        images = images.to(memory_format=self.format)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
            return self.loss(images, targets)

    def gradient(self, images: Tensor, targets: Tensor) -> Tensor:
        """The loss; its gradients are stored in the parameters."""
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.forward(images, targets)
        loss.backward()
        return loss

    def step(self, images: Tensor, targets: Tensor) -> Tensor:
        """One step of Adam on the gradient, clipped for each sub-network separately."""
        loss = self.gradient(images, targets)
        for network in self.stage.children():
            torch.nn.utils.clip_grad_norm_(network.parameters(), self.clip)
        self.optimizer.step()
        return loss


def compiled(function: Callable[..., Any], device: torch.device) -> Callable[..., Any]:
    """torch.compile for fixed shapes; on a GPU with CUDA graphs."""
    mode = "reduce-overhead" if device.type == "cuda" else "default"
    return torch.compile(function, dynamic=False, mode=mode)


class DeviceCohort:
    """Slices on the device, and batches that are mixed there."""

    def __init__(self, workload: Workload, device: torch.device) -> None:
        data, mixup = read_slices(workload), workload.settings()["mixup"]
        self.images = torch.from_numpy(data.images).to(device)
        self.labels = torch.from_numpy(data.labels).to(device)
        self.heights = torch.from_numpy(data.heights).to(device)
        self.eligible = (self.labels > 0).any(2).any(1)
        self.num_labels = len(workload.settings()["anatomy"]["labels"])
        self.tolerance, self.probability = mixup["tolerance"], mixup["probability"]
        # Compiled without CUDA graphs, whose outputs the next replay would overwrite.
        compiles = workload.side == COMPILED
        self.mix = torch.compile(twin_mixup.mix, dynamic=False) if compiles else twin_mixup.mix

    def batch(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """(B,) indices to images (B, 1, H, W) and targets (B, L, H, W)."""
        partners, lam = twin_mixup.draw(
            self.heights,
            self.eligible,
            indices,
            tolerance=self.tolerance,
            probability=self.probability,
        )
        return self.mix(
            self.images[indices],
            self.labels[indices],
            self.images[partners],
            self.labels[partners],
            lam,
            self.num_labels,
        )


def _without_mixup(workload: Workload, device: torch.device) -> Task:
    trainer = Trainer(workload, device)
    cohort = DeviceCohort(workload, device)
    images, targets = cohort.batch(torch.arange(workload.batch, device=device))
    if workload.task == "forward":

        def forward() -> None:
            with torch.no_grad():
                trainer.forward(images, targets)

        return Task(forward, device)
    run = trainer.gradient if workload.task == "gradient" else trainer.step
    return Task(lambda: run(images, targets), device)


def _mixup(workload: Workload, device: torch.device) -> Task:
    cohort = DeviceCohort(workload, device)
    indices = torch.arange(workload.batch, device=device)
    return Task(lambda: cohort.batch(indices), device)


def _device_mixup(workload: Workload, device: torch.device) -> Task:
    trainer, cohort = Trainer(workload, device), DeviceCohort(workload, device)
    size, batch = len(cohort.images), workload.batch
    rng = np.random.default_rng(0)

    def step(indices: np.ndarray) -> None:
        trainer.step(*cohort.batch(torch.from_numpy(indices).to(device)))

    def epoch() -> None:
        order = rng.permutation(size)
        for start in range(0, size - batch + 1, batch):
            step(order[start : start + batch])

    if workload.task == "epoch":
        return Task(epoch, device)
    return Task(lambda: step(rng.integers(0, size, batch)), device)


def _loader_epoch(workload: Workload, device: torch.device) -> Task:
    data, mixup = read_slices(workload), workload.settings()["mixup"]
    dataset = MixupSlices(
        data.images,
        data.labels,
        data.heights,
        tolerance=mixup["tolerance"],
        probability=mixup["probability"],
        num_labels=len(workload.settings()["anatomy"]["labels"]),
    )
    on_gpu = device.type == "cuda"
    workers = workload.loader_workers or 0
    loader = make_loader(dataset, batch_size=workload.batch, workers=workers, pin=on_gpu)
    trainer = Trainer(workload, device)

    def epoch() -> None:
        for images, targets in loader:
            trainer.step(
                images.to(device, non_blocking=True), targets.to(device, non_blocking=True)
            )

    return Task(epoch, device)


def _predict(workload: Workload, device: torch.device) -> Task:
    trainer = Trainer(workload, device)
    network = trainer.stage.network.eval()
    run = compiled(network, device) if trainer.compiled else network

    def segment(images: np.ndarray) -> np.ndarray:
        """(N, H, W) to (N, H, W, L), from and to NumPy like the other side."""
        with torch.inference_mode():
            batch = torch.from_numpy(images)[:, None].to(device).to(memory_format=trainer.format)
            with torch.autocast(device.type, torch.bfloat16, enabled=trainer.half):
                probabilities = torch.softmax(run(batch), 1)
            return probabilities.movedim(1, -1).cpu().numpy()

    if workload.task == "predict":
        images = read_slices(workload).images
        return Task(lambda: segment(images), device)
    case, how = read_cases(Path(workload.data))[0], preprocessing(workload.settings())

    def predict() -> None:
        images, _ = preprocess_case(case, how)
        probabilities_to_native(segment(images), case.image.shape, case.spacing, how.grid)

    return Task(predict, device)


def _rate(workload: Workload, device: torch.device) -> Task:
    if workload.task == "copy":
        array = torch.zeros(COPIED_NUMBERS[workload.device], device=device)
        result = torch.empty_like(array)
        return Task(lambda: torch.add(array, 1.0, out=result), device)
    size = MATRIX_SIZE[workload.device]
    matrix = torch.randn(size, size, device=device, dtype=getattr(torch, workload.precision))
    return Task(lambda: matrix @ matrix, device)
