"""Checkpoints of a run: the only file that knows Orbax.

A checkpoint holds items, so that inference reads what it needs alone: `network`, the parameters of
the segmentation generator, `localizer`, those of the network that finds the heart, where there is
one, and `training`, everything else that a resumed run needs. The latest and the best checkpoint
are kept; writing is asynchronous and atomic (a directory appears under its final name only when it
is complete). For a bundle, parameters are also written bare.

Beside both lies a note: score, step and a digest of each item, since the format itself has no
checksum over its numbers: a flipped bit would otherwise be read as another parameter.
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
from jaxseg.runs.workdir import WorkdirError, os_reason
from jaxseg.train_step import TrainState

_UNSCORED = -1.0  # below every DSC; Orbax loses the best checkpoint to a NaN


def _score(metrics: dict[str, float] | None) -> float:
    return _UNSCORED if metrics is None else metrics["score"]


def _rank(metrics: dict[str, float]) -> Any:
    """Best last; of equals the earliest, where Orbax would keep the latest."""
    score, step = metrics["score"], metrics.get("step", 0)
    return score, -step if score > _UNSCORED else step


# Orbax deletes a checkpoint file by file; moved here first, in one move, it is whole or gone.
_TRASH = "deleted"
_TIMEOUT_S = 10**8


_LOCALIZER = "localizer"
_ITEMS = ("network", _LOCALIZER, "training")


def _split(state: TrainState) -> dict[str, Any]:
    """A state's items by name."""
    params = dict(state.params)
    items = {name: params.pop(name) for name in ("network", _LOCALIZER) if name in params}
    training = {"params": params, "opt_state": state.opt_state}
    return items | {"training": training | {"step": state.step, "seed": state.seed}}


class Checkpoints(AbstractContextManager):
    """The checkpoints under `<workdir>/checkpoints`; a context manager that waits for writes.

    Where several processes train one run, all call every method at the same time.

    Args:
      workdir: of the run, created if missing.
      read_only: for inference: nothing is created, saved or deleted.

    Raises:
      DamagedError: the note of a checkpoint is missing or not what was written.
    """

    def __init__(self, workdir: Path, *, read_only: bool = False) -> None:
        self._folder = folder = (workdir / "checkpoints").resolve()
        self._trash = None if read_only or not hosts.is_writer() else folder / _TRASH
        self._empty_trash()
        # Before Orbax reads the notes, of whose damage it would tell in its own words.
        for _ in read_notes(folder):
            pass
        options = ocp.CheckpointManagerOptions(
            best_fn=_score,  # without it no metric is written; what is kept, the policy says
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
            # Orbax reads the time of day for it: a clock set forward, or a laptop that slept, would
            # cost a checkpoint.
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
            gc.collect()  # the writes that Orbax dropped, while they can still be passed over
            if kind is None:  # else there is an error to tell of already, most likely this one
                raise

    def _superseded(self) -> list[int]:
        """Steps that a run killed before Orbax had removed them left behind."""
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
        """Errors of writes, those in the background too, as one line."""
        try:
            yield
        except Exception as error:  # Orbax and TensorStore have no class for them
            if is_spent(error):
                raise
            raise WorkdirError(
                f"{self._folder}: cannot write a checkpoint ({os_reason(error)}); the "
                "one before it is kept"
            ) from error

    @contextmanager
    def _reading(self, step: int) -> Iterator[None]:
        """Whatever part of a damaged file it is that Orbax or TensorStore trips over."""
        try:
            yield
        except Exception as error:
            if is_spent(error):
                raise
            raise DamagedError(self._folder / str(step), os_reason(error)) from error

    @property
    def steps(self) -> list[int]:
        """Steps of all complete checkpoints, the newest first."""
        return sorted(self._manager.all_steps(), reverse=True)

    @property
    def latest_step(self) -> int | None:
        """Step of the newest complete checkpoint, None where there is none."""
        return self._manager.latest_step()

    @property
    def best_step(self) -> int | None:
        """Step of the best-scored checkpoint (the earliest of equals), None if none is scored."""
        scored = [(self.score(step), -step) for step in self._manager.all_steps()]
        scored = [pair for pair in scored if pair[0] > _UNSCORED]
        return -max(scored)[1] if scored else None

    def score(self, step: int) -> float:
        """Validation score that a step was saved with; -1 where it was not validated."""
        return _score(self._manager.metrics(step))

    def save(self, state: TrainState, score: float | None) -> None:
        """Start writing a checkpoint; returns once the state is copied off the device.

        Args:
          state: of any step not saved before; a step that is there already is left alone.
          score: mean foreground DSC, None or NaN if the step was not validated.

        Raises:
          WorkdirError: this write, or the one before it, failed.
        """
        step = int(state.step)
        if step in self._manager.all_steps():
            return
        if hosts.count() > 1:
            # Each process holds all of it on its own devices; of NumPy arrays process 0 writes all.
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
          WorkdirError: a write failed.
        """
        with self._writing():
            self._manager.wait_until_finished()

    def restore(self, template: TrainState, step: int) -> TrainState:
        """Read a whole state.

        Args:
          template: a state of the same run, which gives structure, shapes, dtypes and placement.
          step: of a complete checkpoint.

        Returns:
          The state, placed as the template is.

        Raises:
          ValueError: the checkpoint's parameters are of other names or shapes than the template's.
          DamagedError: the state is not the one that was saved.
        """
        items = _split(template)
        self._check_shapes(items["network"], step)
        restored = self._restore(step, **items)
        training = restored.pop("training")
        return TrainState(**training | {"params": {**training["params"], **restored}})

    def restore_network(self, template: Any, step: int, *, item: str = "network") -> Any:
        """Read the parameters of a sub-network that inference uses, alone.

        Args:
          template: a tree of arrays or `jax.ShapeDtypeStruct`s of its parameters.
          step: of a complete checkpoint.
          item: "network", the segmentation generator, or "localizer".

        Returns:
          The parameters.

        Raises:
          ValueError: the checkpoint's parameters are of other names or shapes than the template's.
          DamagedError: the parameters are not those that were saved.
        """
        self._check_shapes(template, step, item)
        return self._restore(step, **{item: template})[item]

    def _restore(self, step: int, **templates: Any) -> Any:
        """Items by name, each of them what was saved."""
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
        """Move a checkpoint that cannot be used out of the way, into `<workdir>/damaged`.

        Returns:
          Where it lies now.
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
    """Keep Orbax from telling of a failure beside raising it: a hundred tracebacks of a full disk.

    It logs what it raises; at the first read or write that fails it drops all others, of which
    Python then tells.
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
      folder: to be made; its parent is there.
      params: a tree of arrays.

    Raises:
      OSError, ValueError: files that cannot be written.
    """
    with ocp.StandardCheckpointer() as writer:
        writer.save(folder.resolve(), jax.device_get(params))
    # Orbax notes the absolute path; a bundle goes to other people.
    note = folder / "commit_success.txt"
    if note.exists():
        note.write_text("Checkpoint commit was successful\n", encoding="utf-8")


def load_params(folder: Path, template: Any) -> Any:
    """Read what `save_params` wrote.

    Args:
      folder: of the parameters.
      template: a tree of arrays or `jax.ShapeDtypeStruct`s.

    Returns:
      The parameters, on the first local device.

    Raises:
      ValueError: the parameters are of other names or shapes than the template's.
      OSError, KeyError: files that cannot be read.
    """
    with ocp.StandardCheckpointer() as reader:
        metadata: Any = reader.metadata(folder.resolve())
        if metadata.item_metadata is None:
            raise ValueError("no parameters")
        _check_tree(metadata.item_metadata.tree, template)
        return reader.restore(folder.resolve(), _abstract(template))


def _check_tree(stored: Any, template: Any) -> None:
    """Before reading: Orbax gives up on a shape with reads under way, which it then drops."""
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
    """Shapes, dtypes and placement of a tree; what has no placement goes to the first device."""
    first = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])

    def leaf(x: Any) -> jax.ShapeDtypeStruct:
        sharding = getattr(x, "sharding", None) or first
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)

    return jax.tree.map(leaf, tree)
