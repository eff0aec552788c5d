"""Checkpoints of a run, written and read with Orbax.

A checkpoint has separate items, so that inference reads only what it needs. The item `network`
holds the parameters of the segmentation generator and `localizer`, if there is one, those of the
network that finds the heart. The item `training` holds everything else that a resumed run needs.
The latest and the best checkpoint are kept. Writing is asynchronous and atomic: a folder appears
under its final name only when it is complete. Bundles contain bare parameters instead.

Each checkpoint has a note with its score, its step and a digest of each item. The format itself has
no checksum of its numbers, so that a flipped bit would be read as a different parameter.
"""

import gc
import math
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from jaxseg.machine.memory import is_spent
from jaxseg.runs import hosts
from jaxseg.runs.checkpoint_note import DamagedError, check_notes, make_note, verify
from jaxseg.runs.files import WorkdirError, os_reason
from jaxseg.runs.orbax_setup import UNSCORED, manager_options, score_of
from jaxseg.runs.params import abstract, check_shapes, stored_tree
from jaxseg.train_step import TrainState

# Orbax deletes a checkpoint file by file; moving it here first makes the deletion atomic.
_TRASH = "deleted"
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
        if self._trash is not None:
            # Orbax would remove them in the background, and does not wait for this in `close`, so
            # that it may remove what the next manager of this folder has begun to write.
            for unfinished in folder.glob("*.orbax-checkpoint-tmp*"):
                shutil.rmtree(unfinished, ignore_errors=True)
        # Read before Orbax reads the notes, whose own messages on damage are less clear.
        check_notes(folder)
        options = manager_options(read_only=read_only, trash=_TRASH)
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
        scored = [pair for pair in scored if pair[0] > UNSCORED]
        return -max(scored)[1] if scored else None

    def score(self, step: int) -> float:
        """Return the validation score that a step was saved with; -1 if it was not validated."""
        return score_of(self._manager.metrics(step))

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
        score = UNSCORED if score is None or math.isnan(score) else score
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
                name: ocp.args.StandardRestore(abstract(tree)) for name, tree in templates.items()
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
        with self._reading(step):
            stored = stored_tree(self._folder / str(step) / item)
        if stored is None:
            raise DamagedError(self._folder / str(step), f"it has no {item}")
        check_shapes(stored, template)
