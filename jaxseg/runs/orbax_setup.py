"""How Orbax is set up: which checkpoints it keeps, by their scores, and what it logs."""

import inspect
import logging
import sys
from typing import Any

import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as policies

UNSCORED = -1.0  # below every DSC; with NaN, Orbax would lose the best checkpoint
_TIMEOUT_S = 10**8


def manager_options(*, read_only: bool, trash: str) -> ocp.CheckpointManagerOptions:
    """Return the options to keep the latest and the best checkpoint, written asynchronously.

    Args:
      read_only: whether nothing is created, written or deleted.
      trash: name of the folder to which superseded checkpoints are moved.
    """
    return ocp.CheckpointManagerOptions(
        best_fn=score_of,  # without it, Orbax writes no metrics; the policy decides what to keep
        preservation_policy=policies.AnyPreservationPolicy(
            [
                policies.LatestN(1),
                policies.BestN(get_metric_fn=_rank, n=1, keep_checkpoints_without_metrics=False),
            ]
        ),
        read_only=read_only,
        create=not read_only,
        enable_async_checkpointing=not read_only,
        # The timeout follows the wall clock, so a clock set forward or a suspended laptop
        # would cost a checkpoint.
        async_options=ocp.AsyncOptions(timeout_secs=_TIMEOUT_S),
        todelete_subdir=None if read_only else trash,
    )


def score_of(metrics: dict[str, float] | None) -> float:
    """Return the score in the note of a checkpoint; `UNSCORED` if it has no note."""
    return UNSCORED if metrics is None else metrics["score"]


def _rank(metrics: dict[str, float]) -> Any:
    """Rank the best last and, among equals, the earliest, where Orbax would keep the latest."""
    score, step = metrics["score"], metrics.get("step", 0)
    return score, -step if score > UNSCORED else step


def quiet_orbax() -> None:
    """Keep Orbax from logging the failures that it also raises.

    A full disk would otherwise yield a hundred tracebacks. Orbax logs what it raises. At the first
    read or write that fails it drops all others, which Python then reports.
    """
    logging.getLogger("absl").addFilter(lambda record: "orbax" not in record.pathname)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    shown = sys.unraisablehook

    def hook(unraisable: "sys.UnraisableHookArgs") -> None:
        dropped = unraisable.object is None or inspect.iscoroutine(unraisable.object)
        if not dropped:
            shown(unraisable)

    sys.unraisablehook = hook
