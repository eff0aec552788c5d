"""Checkpoints of a run, written and read with Orbax; no other module imports it.

A checkpoint has separate items, so that inference reads only what it needs. The item `network`
holds the parameters of the segmentation generator and `localizer`, if there is one, those of the
network that finds the heart. The item `training` holds everything else that a resumed run needs.
The latest and the best checkpoint are kept. Writing is asynchronous and atomic: a folder appears
under its final name only when it is complete. Bundles contain bare parameters instead.

Each checkpoint has a note with its score, its step and a digest of each item. The format itself has
no checksum of its numbers, so that a flipped bit would be read as a different parameter.
"""

import gc
import inspect
import logging
import math
import shutil
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as policies

from jaxseg.machine.memory import is_spent
from jaxseg.runs import hosts
from jaxseg.runs.checkpoint_note import DamagedError, make_note, read_notes, verify
from jaxseg.runs.files import WorkdirError, os_reason
from jaxseg.train_step import TrainState

_UNSCORED = -1.0  # below every DSC; with NaN, Orbax would lose the best checkpoint


def _score(metrics: dict[str, float] | None) -> float:
    return _UNSCORED if metrics is None else metrics["score"]


def _rank(metrics: dict[str, float]) -> Any:
    """Rank the best last and, among equals, the earliest, where Orbax would keep the latest."""
    score, step = metrics["score"], metrics.get("step", 0)
    return score, -step if score > _UNSCORED else step


# Orbax deletes a checkpoint file by file; moving it here first makes the deletion atomic.
_TRASH = "deleted"
_TIMEOUT_S = 10**8


_LOCALIZER = "localizer"
_ITEMS = ("network", _LOCALIZER, "training")


def _split(state: TrainState) -> dict[str, Any]:
    """Split a state into items by name."""
    params = dict(state.params)
    items = {name: params.pop(name) for name in ("network", _LOCALIZER) if name in params}
    training = {"params": params, "opt_state": state.opt_state}
    return items | {"training": training | {"step": state.step, "seed": state.seed}}


class Checkpoints(AbstractContextManager):
    """The checkpoints under `<workdir>/checkpoints`, as a context manager that waits for writes.

    If several processes train one run, all of them must call every method at the same time.

    Args:
      workdir: run folder, created if missing.
      read_only: for inference; nothing is created, saved or deleted.

    Raises:
      DamagedError: if the note of a checkpoint is missing or is not what was written.
    """

    def __init__(self, workdir: Path, *, read_only: bool = False) -> None:
        self._folder = folder = (workdir / "checkpoints").resolve()
        self._trash = None if read_only or not hosts.is_writer() else folder / _TRASH
        self._empty_trash()
        # Read before Orbax reads the notes, whose own messages on damage are less clear.
        for _ in read_notes(folder):
            pass
        options = ocp.CheckpointManagerOptions(
            best_fn=_score,  # without it, Orbax writes no metrics; the policy decides what to keep
            preservation_policy=policies.AnyPreservationPolicy(
                [
                    policies.LatestN(1),
                    policies.BestN(
                        get_metric_fn=_rank, n=1, keep_checkpoints_without_metrics=False
                    ),
                ]
            ),
            read_only=read_only,
            create=not read_only,
            cleanup_tmp_directories=not read_only,
            enable_async_checkpointing=not read_only,
            # The timeout follows the wall clock, so a clock set forward or a suspended laptop
            # would cost a checkpoint.
            async_options=ocp.AsyncOptions(timeout_secs=_TIMEOUT_S),
            todelete_subdir=None if read_only else _TRASH,
        )
        self._manager = ocp.CheckpointManager(folder, item_names=_ITEMS, options=options)

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            with self._writing():
                self._manager.wait_until_finished()
                superseded = self._superseded() if kind is None else []
                self._manager.close()
                self._discard(superseded)
        except WorkdirError:
            gc.collect()  # collects the writes that Orbax dropped while they are still silenced
            if kind is None:  # otherwise an error is being raised, most likely this one
                raise

    def _superseded(self) -> list[int]:
        """Return the steps left behind by a run that was killed before Orbax removed them."""
        return [step for step in self.steps if step not in (self.latest_step, self.best_step)]

    def _discard(self, steps: list[int]) -> None:
        if self._trash is not None:
            for step in steps:
                self._trash.mkdir(exist_ok=True)
                (self._folder / str(step)).rename(self._trash / str(step))
        self._empty_trash()

    def _empty_trash(self) -> None:
        if self._trash is not None:
            shutil.rmtree(self._trash, ignore_errors=True)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Turn errors of writes, including those in the background, into one line."""
        try:
            yield
        except Exception as error:  # Orbax and TensorStore have no class of errors
            if is_spent(error):
                raise
            raise WorkdirError(
                f"{self._folder}: cannot write a checkpoint ({os_reason(error)}); the "
                "one before it is kept"
            ) from error

    @contextmanager
    def _reading(self, step: int) -> Iterator[None]:
        """Turn any error of Orbax or TensorStore on a damaged file into a DamagedError."""
        try:
            yield
        except Exception as error:
            if is_spent(error):
                raise
            raise DamagedError(self._folder / str(step), os_reason(error)) from error

    @property
    def steps(self) -> list[int]:
        """Steps of all complete checkpoints, newest first."""
        return sorted(self._manager.all_steps(), reverse=True)

    @property
    def latest_step(self) -> int | None:
        """Step of the newest complete checkpoint; None if there is none."""
        return self._manager.latest_step()

    @property
    def best_step(self) -> int | None:
        """Step of the best-scored checkpoint, the earliest of equals; None if none is scored."""
        scored = [(self.score(step), -step) for step in self._manager.all_steps()]
        scored = [pair for pair in scored if pair[0] > _UNSCORED]
        return -max(scored)[1] if scored else None

    def score(self, step: int) -> float:
        """Return the validation score that a step was saved with; -1 if it was not validated."""
        return _score(self._manager.metrics(step))

    def save(self, state: TrainState, score: float | None) -> None:
        """Start writing a checkpoint; return once the state is copied off the device.

        Args:
          state: state to save; nothing happens if its step is already saved.
          score: mean foreground DSC; None or NaN if the step was not validated.

        Raises:
          WorkdirError: if this write or the previous one failed.
        """
        step = int(state.step)
        if step in self._manager.all_steps():
            return
        if hosts.count() > 1:
            # Every process holds the whole state; given NumPy arrays, only process 0 writes.
            state = jax.device_get(state)
        items = _split(state)
        score = _UNSCORED if score is None or math.isnan(score) else score
        with self._writing():
            self._empty_trash()
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    **{name: ocp.args.StandardSave(tree) for name, tree in items.items()}
                ),
                metrics=make_note(score, step, items),
            )

    def wait(self) -> None:
        """Block until every write is complete.

        Raises:
          WorkdirError: if a write failed.
        """
        with self._writing():
            self._manager.wait_until_finished()

    def restore(self, template: TrainState, step: int) -> TrainState:
        """Read a whole state.

        Args:
          template: state of the same run that gives structure, shapes, dtypes and placement.
          step: step of a complete checkpoint.

        Returns:
          The state, placed like the template.

        Raises:
          ValueError: if the checkpoint's parameters have other names or shapes than the template's.
          DamagedError: if the state is not the one that was saved.
        """
        items = _split(template)
        self._check_shapes(items["network"], step)
        restored = self._restore(step, **items)
        training = restored.pop("training")
        return TrainState(**training | {"params": {**training["params"], **restored}})

    def restore_network(self, template: Any, step: int, *, item: str = "network") -> Any:
        """Read only the parameters of one sub-network, for inference.

        Args:
          template: a tree of arrays or `jax.ShapeDtypeStruct`s of its parameters.
          step: step of a complete checkpoint.
          item: "network", the segmentation generator, or "localizer".

        Returns:
          The parameters.

        Raises:
          ValueError: if the checkpoint's parameters have other names or shapes than the template's.
          DamagedError: if the parameters are not those that were saved.
        """
        self._check_shapes(template, step, item)
        return self._restore(step, **{item: template})[item]

    def _restore(self, step: int, **templates: Any) -> Any:
        """Read items by name and verify each of them."""
        with self._reading(step):
            args = {
                name: ocp.args.StandardRestore(_abstract(tree)) for name, tree in templates.items()
            }
            restored = dict(self._manager.restore(step, args=ocp.args.Composite(**args)).items())
            folder = self._folder / str(step)
            verify(
                Path(folder), self._manager.metrics(step), {name: restored[name] for name in args}
            )
        return restored

    def set_aside(self, step: int) -> Path:
        """Move an unusable checkpoint to `<workdir>/damaged`.

        Returns:
          The new path of the checkpoint.
        """
        target = self._folder.parent / "damaged" / str(step)
        with self._writing():
            shutil.rmtree(target, ignore_errors=True)
            target.parent.mkdir(exist_ok=True)
            (self._folder / str(step)).rename(target)
            self._manager.reload()
        return target

    def _check_shapes(self, template: Any, step: int, item: str = "network") -> None:
        with self._reading(step), ocp.StandardCheckpointer() as reader:
            metadata: Any = reader.metadata(self._folder / str(step) / item)
        if metadata.item_metadata is None:
            raise DamagedError(self._folder / str(step), f"it has no {item}")
        _check_tree(metadata.item_metadata.tree, template)


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


def save_params(folder: Path, params: Any) -> None:
    """Write bare parameters as NumPy arrays, which any machine restores without a template.

    Args:
      folder: folder to create; its parent must exist.
      params: a tree of arrays.

    Raises:
      OSError, ValueError: if a file cannot be written.
    """
    with ocp.StandardCheckpointer() as writer:
        writer.save(folder.resolve(), jax.device_get(params))
    # Orbax records the absolute path, which should not be passed on with a bundle.
    note = folder / "commit_success.txt"
    if note.exists():
        note.write_text("Checkpoint commit was successful\n", encoding="utf-8")


def load_params(folder: Path, template: Any) -> Any:
    """Read parameters written by `save_params`.

    Args:
      folder: folder of the parameters.
      template: a tree of arrays or `jax.ShapeDtypeStruct`s.

    Returns:
      The parameters, on the first local device.

    Raises:
      ValueError: if the names or shapes of the parameters differ from the template's.
      OSError, KeyError: if a file cannot be read.
    """
    with ocp.StandardCheckpointer() as reader:
        metadata: Any = reader.metadata(folder.resolve())
        if metadata.item_metadata is None:
            raise ValueError("no parameters")
        _check_tree(metadata.item_metadata.tree, template)
        return reader.restore(folder.resolve(), _abstract(template))


def _check_tree(stored: Any, template: Any) -> None:
    """Check shapes before reading: Orbax fails on a shape while other reads are under way."""
    found, expected = _shapes(stored), _shapes(template)
    for name in sorted(found.keys() | expected.keys()):
        if found.get(name) != expected.get(name):
            raise ValueError(
                f"its network has {name} of shape {found.get(name)}, its settings describe "
                f"{expected.get(name)}"
            )


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    pairs = jax.tree.leaves_with_path(tree)
    return {jax.tree_util.keystr(path): tuple(getattr(leaf, "shape", ())) for path, leaf in pairs}


def _abstract(tree: Any) -> Any:
    """Return shapes, dtypes and placement of a tree; the default is the first local device."""
    first = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])

    def leaf(x: Any) -> jax.ShapeDtypeStruct:
        sharding = getattr(x, "sharding", None) or first
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)

    return jax.tree.map(leaf, tree)
