"""Fine-tuning: what a run starts from, where that is the network of another run or of a bundle.

Parameters are copied, optimizer and step start afresh. What the two networks must share is compared
by their fields, before anything is read or written; arrays come last.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.sharding import Sharding

from jaxseg.config import recipe, run_data
from jaxseg.config.settings import SettingsError, flatten, replace
from jaxseg.data import Cohort
from jaxseg.models.segment import Params
from jaxseg.models.weight_generator import ZERO_LAYER
from jaxseg.runs import bundle, provenance, unseen, workdir
from jaxseg.runs.checkpoint import Checkpoints
from jaxseg.runs.checkpoint_note import digest
from jaxseg.runs.trained import Trained, check_facts, load_run, read_config
from jaxseg.runs.workdir import STARTED_FROM, WorkdirError
from jaxseg.train_step import TrainState, init_state

# Fields by which parameters are of other shapes, or the same numbers compute something else.
_NETWORK = ("width", "depth", "attention", "dense", "groups")
# Fields by which the images of one network look unlike those of the other.
_IMAGES: tuple[str, ...] = (
    "grid.size", "grid.spacing", "intensity.method", "intensity.low", "intensity.high",
    "intensity.even",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Start:
    """The parameters that a run starts from.

    Attributes:
      params: NumPy arrays by sub-network, as `TrainState.params`, as far as the source has them.
      same_labels: whether the source has the very label set of the run.
      facts: what the run's `data.json` says of it under "started_from".
    """

    params: Mapping[str, Params]
    same_labels: bool
    facts: Mapping[str, Any]

    def describe(self) -> str:
        """A line that names the source and its checkpoint."""
        name, checkpoint, step = (self.facts[key] for key in ("name", "checkpoint", "step"))
        return f"{self.facts['path']} ({name}, {checkpoint} checkpoint, step {step})"

    def apply(self, state: TrainState, sharding: Sharding) -> tuple[TrainState, tuple[str, ...]]:
        """Put the parameters into a fresh state.

        Args:
          state: of `init_state`.
          sharding: where it lies.

        Returns:
          The state, and the names of the sub-networks and layers that stay as initialized.
        """
        own = jax.device_get(state.params)
        params, fresh = merge(own, self.params, same_labels=self.same_labels)
        # Copies: a buffer that is NumPy's cannot be donated.
        copied = jax.jit(lambda trees: jax.tree.map(jnp.copy, trees), out_shardings=sharding)
        return state.replace(params=copied(params)), fresh


def merge(
    own: Mapping[str, Params], source: Mapping[str, Params], *, same_labels: bool
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Parameters of the source where it has them, else those of a fresh state.

    Args:
      own: trees of the fresh state, by sub-network.
      source: the same of the source.
      same_labels: whether the layers with one output a label are copied too.

    Returns:
      Trees as `own`, and the names of the sub-networks and layers that are its own.

    Raises:
      ValueError: a layer that the source lacks or has in excess, or of another shape, other than
        one with an output a label.
    """
    merged: dict[tuple[str, ...], Any] = flatten_dict(dict(own))  # pyright: ignore
    found: dict[tuple[str, ...], Any] = flatten_dict(dict(source))  # pyright: ignore
    fresh = []
    for path in sorted(merged.keys() | {path for path in found if path[0] in own}):
        per_label = _is_per_label(path)
        if path[0] not in source:
            fresh.append(path[0])
        elif per_label and (not same_labels or path not in found):
            fresh.append("/".join(path[:2]))
        else:
            shapes = [leaves[path].shape if path in leaves else None for leaves in (merged, found)]
            if shapes[0] != shapes[1]:
                raise ValueError(f"{'/'.join(path)}: expected shape {shapes[0]}, got {shapes[1]}")
            merged[path] = found[path]
    return unflatten_dict(merged), tuple(dict.fromkeys(fresh))


def _is_per_label(path: tuple[str, ...]) -> bool:
    """Heads of the network and the generator's last layer; never the localizer's head."""
    return (path[0] == "network" and path[1].startswith("logits")) or (
        path[:2] == ("generator", ZERO_LAYER)
    )


def is_begun(folder: Path) -> bool:
    """Whether a run has a checkpoint, from which it goes on without what it started from."""
    return any(path.name.isdecimal() for path in (folder / "checkpoints").glob("*"))


def check(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Make sure that a run can start from its `train.init_from`; reads no arrays.

    Returns:
      Lines for the user on what differs, and may make the parameters mean something else.

    Raises:
      WorkdirError: no run and no bundle, a damaged bundle, or a run without a checkpoint or a whole
        note of its cases.
      SettingsError: the source's network is another, or its config describes no run.
    """
    folder = Path(config["train"]["init_from"])
    theirs, ours = flatten(read_config(folder)), flatten(config)
    if not (bundle.is_bundle(folder) or is_begun(folder)):
        raise WorkdirError(f"{folder}: the run has no checkpoint yet")
    check_facts(folder, workdir.read_data(folder))
    names = [f"model.{name}" for name in _NETWORK]
    images = list(_IMAGES)
    if theirs["loss.weighted"] and ours["loss.weighted"]:
        names.append("balance.width")
        images.append("balance.method")  # what the generator's numbers mean
    if other := ", ".join(_differences(names, theirs, ours)):
        raise SettingsError(
            f"train.init_from: the network of {folder} is another: {other}; expected the same"
        )
    if other := ", ".join(_differences(images, theirs, ours)):
        return (
            f"warning: the parameters of {folder} were trained under other settings, and may do "
            f"worse here: {other}",
        )
    return ()


def _differences(
    names: list[str], theirs: Mapping[str, Any], ours: Mapping[str, Any]
) -> Iterator[str]:
    for name in names:
        values = [
            list(v) if isinstance(v, tuple) else v for v in (theirs.get(name), ours.get(name))
        ]
        if values[0] != values[1]:
            yield f"{name} {values[0]} there and {values[1]} here"


def check_held_out(config: Mapping[str, Any], cohort: Cohort, name: str) -> None:
    """Make sure, before hours of training, that a run of a study can be scored on all its cases.

    Args:
      config: of the run, that has passed `check`.
      cohort: all of its cases.
      name: of the run.

    Raises:
      SettingsError: a source that has seen cases which the run holds out.
    """
    folder = Path(config["train"]["init_from"])
    parts = run_data.split_cohort(config, cohort)
    facts = cohort.facts() | run_data.split_facts(config, cohort, parts)
    facts[STARTED_FROM] = {"seen": unseen.seen(workdir.read_data(folder))}
    if names := unseen.validated_though_seen(facts):
        raise SettingsError(
            f"train.init_from: {folder} has seen cases that {name} holds out: "
            f"{unseen.some(names)}; expected a run of other cases"
        )


def load(config: Mapping[str, Any]) -> Start:
    """Read what a run starts from: the last checkpoint of a run, or a bundle's own.

    Raises:
      WorkdirError: parameters that are missing or damaged.
      SettingsError: as `check`.
    """
    run = load_run(Path(config["train"]["init_from"]))
    params = {"network": run.params}
    if run.localizer is not None:
        params["localizer"] = run.localizer_params
    both = config["loss"]["weighted"] and run.settings["loss"]["weighted"]
    if both and not bundle.is_bundle(run.folder):  # which holds what inference uses
        params["generator"] = _generator(run)
    same = run.anatomy.labels == recipe.anatomy(config).labels
    return Start(jax.device_get(params), same, _facts(run))


def _generator(run: Trained) -> Params:
    """Of the same checkpoint, out of what a resumed run needs."""
    networks = recipe.networks(replace(run.settings, {"run.convolution": "xla"}))
    optimizer = recipe.optimizer(run.settings, optax.constant_schedule(0.0))
    size = recipe.grid(run.settings).size
    template = jax.eval_shape(lambda: init_state(networks, optimizer, 0, size))
    with Checkpoints(run.folder, read_only=True) as checkpoints:
        return checkpoints.restore(template, run.step).params["generator"]


def _facts(run: Trained) -> dict[str, Any]:
    sittings = provenance.read(run.folder)
    facts = {
        "path": str(run.folder),
        "name": run.settings["name"],
        "checkpoint": run.checkpoint,
        "step": run.step,
        "network_sha256": digest(run.params),
        "jaxseg": sittings[-1]["versions"].get("jaxseg") if sittings else None,
    }
    if before := run.data.get(STARTED_FROM):
        chain = {name: value for name, value in before.items() if name != "seen"}
        facts[STARTED_FROM] = chain
    return facts | {"seen": sorted(unseen.seen(run.data))}
