"""Fine-tuning: start a run from the network of another run or of an exported bundle.

Parameters are copied, whereas optimizer and step start afresh. The configs of both networks are
compared before arrays are read or files written.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.sharding import Sharding

from jaxseg.config import run_data
from jaxseg.config.differences import condition_differences, network_differences
from jaxseg.config.sections import Split
from jaxseg.config.settings import SettingsError
from jaxseg.config.setup import Setup
from jaxseg.data import Cohort
from jaxseg.models.context import EXCHANGE
from jaxseg.models.segment import Params
from jaxseg.models.weight_generator import ZERO_LAYER
from jaxseg.runs import bundle, provenance, unseen
from jaxseg.runs.checkpoint import Checkpoints
from jaxseg.runs.checkpoint_note import digest
from jaxseg.runs.data_file import STARTED_FROM, read_data
from jaxseg.runs.files import WorkdirError
from jaxseg.runs.trained import Trained, check_data, load_run, read_config
from jaxseg.train_step import TrainState, init_state


@dataclass(frozen=True, eq=False)
class Start:
    """Parameters from which a run starts.

    Attributes:
      params: NumPy arrays by sub-network, as `TrainState.params`, if present in the source.
      same_labels: whether the source has the same label set as the run.
      facts: entry "started_from" of the run's `data.json`.
    """

    params: Mapping[str, Params]
    same_labels: bool
    facts: Mapping[str, Any]

    def describe(self) -> str:
        """Describe the source and its checkpoint in one line."""
        name, checkpoint, step = (self.facts[key] for key in ("name", "checkpoint", "step"))
        return f"{self.facts['path']} ({name}, {checkpoint} checkpoint, step {step})"

    def apply(self, state: TrainState, sharding: Sharding) -> tuple[TrainState, tuple[str, ...]]:
        """Put the parameters into a fresh state.

        Args:
          state: state from `init_state`.
          sharding: sharding of the state.

        Returns:
          The state, and the names of the sub-networks and layers that keep their initial values.
        """
        own = jax.device_get(state.params)
        params, fresh = merge(own, self.params, same_labels=self.same_labels)
        # Copy, because a buffer that belongs to NumPy cannot be donated.
        copied = jax.jit(lambda trees: jax.tree.map(jnp.copy, trees), out_shardings=sharding)
        return state.replace(params=copied(params)), fresh


def merge(
    own: Mapping[str, Params], source: Mapping[str, Params], *, same_labels: bool
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Take the parameters of the source where present, else those of a fresh state.

    Args:
      own: parameter trees of the fresh state by sub-network.
      source: parameter trees of the source by sub-network.
      same_labels: whether to also copy layers with one output per label.

    Returns:
      Trees like `own`, and the names of the sub-networks and layers that were not copied.

    Raises:
      ValueError: a layer to copy is missing from the source or from the fresh state, or has another
        shape. Layers of `jaxseg.models.context` and those with one output per label may be missing
        from the source.
    """
    merged: dict[tuple[str, ...], Any] = flatten_dict(dict(own))  # pyright: ignore
    found: dict[tuple[str, ...], Any] = flatten_dict(dict(source))  # pyright: ignore
    fresh = []
    for path in sorted(merged.keys() | {path for path in found if path[0] in own}):
        added = path not in found and path[1].startswith(EXCHANGE)
        if path[0] not in source:
            fresh.append(path[0])
        elif added or (_is_per_label(path) and not (same_labels and path in found)):
            fresh.append("/".join(path[:2]))
        else:
            shapes = [leaves[path].shape if path in leaves else None for leaves in (merged, found)]
            if shapes[0] != shapes[1]:
                raise ValueError(f"{'/'.join(path)}: expected shape {shapes[0]}, got {shapes[1]}")
            merged[path] = found[path]
    return unflatten_dict(merged), tuple(dict.fromkeys(fresh))


def _is_per_label(path: tuple[str, ...]) -> bool:
    """Whether a layer has one output per label: network head or last layer of the generator."""
    return (path[0] == "network" and path[1].startswith("logits")) or (
        path[:2] == ("generator", ZERO_LAYER)
    )


def is_begun(folder: Path) -> bool:
    """Whether a run has a checkpoint, so that it resumes and ignores its `train.init_from`."""
    return any(path.name.isdecimal() for path in (folder / "checkpoints").glob("*"))


def check(folder: Path, config: Mapping[str, Any]) -> tuple[str, ...]:
    """Check that a run can start from the parameters of another, without reading arrays.

    Args:
      folder: folder of the source, a run or a bundle.
      config: checked config of the run.

    Returns:
      Warnings for the user about differences that may change what the parameters mean.

    Raises:
      WorkdirError: the source is neither a run nor a bundle, or it is a damaged bundle; or the run
        lacks a checkpoint or a complete record of its cases.
      SettingsError: the network of the source differs, or its config is invalid.
    """
    theirs = read_config(folder)
    if not (bundle.is_bundle(folder) or is_begun(folder)):
        raise WorkdirError(f"{folder}: the run has no checkpoint yet")
    check_data(folder, read_data(folder))
    if other := ", ".join(network_differences(theirs, config)):
        raise SettingsError(
            f"train.init_from: the network of {folder} is another: {other}; expected the same"
        )
    if other := ", ".join(condition_differences(theirs, config)):
        return (
            f"the parameters of {folder} were trained under other settings, and may do "
            f"worse here: {other}",
        )
    return ()


def check_held_out(folder: Path, split: Split, cohort: Cohort, name: str) -> None:
    """Check before training that a run of a study can be scored on all its held-out cases.

    Args:
      folder: folder of the source, which has passed `check`.
      split: split of the run.
      cohort: cohort of all cases.
      name: name of the run.

    Raises:
      SettingsError: the source has seen cases that the run holds out.
    """
    parts = run_data.split_cohort(split, cohort)
    facts = cohort.facts() | run_data.split_facts(split, cohort, parts)
    facts[STARTED_FROM] = {"seen": unseen.seen(read_data(folder))}
    if names := unseen.validated_though_seen(facts):
        raise SettingsError(
            f"train.init_from: {folder} has seen cases that {name} holds out: "
            f"{unseen.some(names)}; expected a run of other cases"
        )


def load(folder: Path, setup: Setup) -> Start:
    """Load the parameters to start from: the last checkpoint of a run, or those of a bundle.

    Args:
      folder: folder of the source, which has passed `check`.
      setup: setup of the run that starts from it.

    Raises:
      WorkdirError: parameters are missing or damaged.
      SettingsError: as `check`.
    """
    run = load_run(folder)
    params = {"network": run.params}
    if run.localizer is not None:
        params["localizer"] = run.localizer_params
    both = setup.architecture.weighted and run.setup.architecture.weighted
    if both and not bundle.is_bundle(run.folder):  # a bundle only holds what inference needs
        params["generator"] = _generator(run)
    same = run.anatomy.labels == setup.anatomy.labels
    return Start(jax.device_get(params), same, _facts(run))


def _generator(run: Trained) -> Params:
    """Load the label weight generator from the same checkpoint, by restoring the full state."""
    networks = run.setup.with_convolution("xla").networks
    optimizer = run.setup.optimization.optimizer(optax.constant_schedule(0.0))
    template = jax.eval_shape(lambda: init_state(networks, optimizer, 0, run.grid.size))
    with Checkpoints(run.folder, read_only=True) as checkpoints:
        return checkpoints.restore(template, run.step).params["generator"]


def _facts(run: Trained) -> dict[str, Any]:
    sittings = provenance.read(run.folder)
    facts = {
        "path": str(run.folder),
        "name": run.setup.name,
        "checkpoint": run.checkpoint,
        "step": run.step,
        "network_sha256": digest(run.params),
        "jaxseg": sittings[-1]["versions"].get("jaxseg") if sittings else None,
    }
    if before := run.data.get(STARTED_FROM):
        chain = {name: value for name, value in before.items() if name != "seen"}
        facts[STARTED_FROM] = chain
    return facts | {"seen": sorted(unseen.seen(run.data))}
