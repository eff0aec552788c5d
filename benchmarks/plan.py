"""Extent of a benchmark: reference workload, turns and sweeps of a quick or a full run."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.process import compare
from benchmarks.workload import CHANNELS_LAST, COMPILED, JAXSEG, SIDES, Workload


@dataclass(frozen=True)
class Plan:
    """A run of the benchmark.

    Attributes:
      device: "cpu" or "gpu".
      quick: fewer turns, points and sides.
      cores: threads of either framework.
      data: folder of the phantom.
      caches: folder of both frameworks' compilation caches.
      size, width, batch: values of the reference workload; None for the defaults of the device.
    """

    device: str
    quick: bool
    cores: int
    data: Path
    caches: Path
    size: int | None = None
    width: int | None = None
    batch: int | None = None

    @property
    def turns(self) -> int:
        return 3 if self.quick else 7

    @property
    def turn_seconds(self) -> float:
        return 0.4 if self.quick or self.device == "gpu" else 0.8

    @property
    def together(self) -> bool:
        """Whether the processes of a group start and compile at the same time."""
        return self.cores >= 8

    @property
    def sides(self) -> tuple[str, ...]:
        """The sides to compare; a quick run omits torch.compile, which takes a minute."""
        return SIDES[:3] if self.quick else SIDES

    @property
    def rival(self) -> str:
        """PyTorch's side in sweeps.

        On a CPU, torch.compile gains little over channels_last and takes a minute per shape. On a
        GPU it gains much.
        """
        return COMPILED if self.device == "gpu" and not self.quick else CHANNELS_LAST

    @property
    def precisions(self) -> tuple[str, ...]:
        """Compute dtypes to compare."""
        return ("float32", "bfloat16") if self.device == "gpu" else ("float32",)

    def reference(self, task: str, side: str = JAXSEG, **changes: Any) -> Workload:
        """The reference workload of the device, with changes.

        96 x 96 at width 16 and batch 8 on a CPU; the paper's batch of 16 at this project's default
        128 x 128 and width 32 on a GPU.
        """
        size, width, batch = (128, 32, 16) if self.device == "gpu" else (96, 16, 8)
        workload = Workload(
            side,
            task,
            device=self.device,
            cores=self.cores,
            data=str(self.data),
            size=self.size or size,
            width=self.width or width,
            batch=self.batch or batch,
        )
        return replace(workload, **changes)

    def compare(
        self, workloads: Mapping[str, Workload], *, turns: int | None = None
    ) -> dict[str, list[float]]:
        """Seconds of each workload in a separate process, measured in turns."""
        return compare(
            workloads,
            self.caches,
            turns=turns or self.turns,
            turn_seconds=self.turn_seconds,
            together=self.together,
        )

    def compare_groups(
        self,
        groups: Mapping[tuple[str, ...], Mapping[str, Workload]],
        *,
        turns: int | None = None,
    ) -> dict[tuple[str, ...], dict[str, list[float]]]:
        """Run `compare` for several groups, all at once if their processes start together.

        Args:
          groups: workloads by group and side.
          turns: number of measurements of each; by default that of the plan.

        Returns:
          Seconds by group and side, without sides that failed.
        """
        if not self.together:
            return {key: self.compare(group, turns=turns) for key, group in groups.items()}
        names = {(key, side): "/".join((*key, side)) for key, g in groups.items() for side in g}
        workloads = {name: groups[key][side] for (key, side), name in names.items()}
        times = self.compare(workloads, turns=turns)
        return {
            key: {side: times[names[key, side]] for side in group if names[key, side] in times}
            for key, group in groups.items()
        }

    def sweeps(self) -> dict[str, tuple[Any, ...]]:
        """Fields of a workload and their values; the other fields stay at the reference."""
        if self.device == "gpu":
            full = {
                "size": (96, 128, 256),
                "width": (16, 64),
                "batch": (8, 64),
                "slices": (10_000,),
            }
        else:
            full = {
                "size": (64, 96, 128),
                "width": (8, 16, 32),
                "batch": (4, 8, 16),
                "slices": (96, 10_000),
            }
        if not self.quick:
            return full
        return {name: (values[0], values[-1]) for name, values in full.items() if name != "slices"}
