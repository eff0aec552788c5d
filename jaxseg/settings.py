"""Check a run's settings before anything is read or compiled."""

import copy
import math
from collections.abc import Callable, Mapping
from typing import Any

from jaxseg import balance
from jaxseg.anatomy import Anatomy
from jaxseg.data.cohort import SPLITS
from jaxseg.data.phantom_layout import LAYOUTS
from jaxseg.data.preprocess import NORMALIZATIONS

SCHEDULES = ("cosine", "cubic", "exponential", "linear", "constant")
PRECISIONS = ("float32", "bfloat16")
# Far above any short-axis slice: what asks for more is a slip, and would take all memory.
_MAX_SIDE = 4096
_MAX_DEPTH = 12  # log2 of the longest side
_MAX_WIDTH = 4096


class SettingsError(ValueError):
    """Settings that cannot be run; every line names a field and what was expected."""


Rule = tuple[Callable[[Any], bool], str]


def _is_number(value: Any) -> bool:
    # bool is an int to Python; as a number it is a slip.
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _whole(low: int) -> Rule:
    return lambda v: _is_whole(v) and v >= low, f"a whole number of at least {low}"


def _whole_between(low: int, high: int) -> Rule:
    return lambda v: _is_whole(v) and low <= v <= high, f"a whole number from {low} to {high}"


def _is_name(value: Any) -> bool:
    """The name of a run is part of a folder's name, which must not lead elsewhere."""
    return isinstance(value, str) and bool(value.strip(". ")) and _is_plain(value)


def _is_plain(value: str) -> bool:
    return value.isprintable() and not set(value) & set("/\\:")


def _at_least(low: float) -> Rule:
    return lambda v: _is_number(v) and v >= low, f"a number of at least {low}"


def _above(low: float) -> Rule:
    return lambda v: _is_number(v) and v > low, f"a number above {low}"


def _between(low: float, high: float) -> Rule:
    return lambda v: _is_number(v) and low <= v <= high, f"a number from {low} to {high}"


def _one_of(names: tuple[str, ...]) -> Rule:
    return lambda v: isinstance(v, str) and v in names, f"one of {', '.join(names)}"


def _pair(inside: Rule) -> Rule:
    test, text = inside
    return lambda v: len(v) == 2 and all(test(x) for x in v), f"two values, each {text}"


_SEED: Rule = (lambda v: _is_whole(v) and 0 <= v < 2**32, "a whole number from 0 to 2^32 - 1")
_NAME = "a name without slashes, backslashes and colons"
_SWITCH: Rule = (lambda v: isinstance(v, bool), "True or False")
_RULES: dict[str, Rule] = {
    "name": (_is_name, _NAME),
    "variant": (_is_name, _NAME),
    "seed": _SEED,
    "data.root": (lambda v: v is None or isinstance(v, str), "a folder, or None"),
    "data.layout": _one_of(LAYOUTS),
    "data.apex_first": _SWITCH,
    "data.phantom_cases": _whole(0),
    "data.phantom_seed": _SEED,
    "data.split": _one_of(SPLITS),
    "data.validation_fraction": (
        lambda v: _is_number(v) and 0 < v < 1,
        "a share between 0 and 1",
    ),
    "data.folds": (
        lambda v: _is_whole(v) and (v == 0 or v >= 2),
        "0, or a whole number of at least 2",
    ),
    "data.fold": _whole(0),
    "data.split_seed": _SEED,
    "grid.size": _pair(_whole_between(1, _MAX_SIDE)),
    "grid.spacing": _at_least(0),
    "grid.center": _pair(_between(0, 1)),
    "grid.allow_outside": _SWITCH,
    "intensity.method": _one_of(NORMALIZATIONS),
    "intensity.low": _between(0, 100),
    "intensity.high": _between(0, 100),
    "mixup.probability": _between(0, 1),
    "mixup.tolerance": _between(0, 1),
    "augment.probability": _between(0, 1),
    "augment.flip": _SWITCH,
    "augment.rotation": _between(0, 180),
    "augment.zoom": _between(0, 9),
    "augment.gamma": _between(0, 9),
    "augment.contrast": _between(0, 9),
    "augment.brightness": _at_least(0),
    "augment.noise": _at_least(0),
    "model.slices": (
        lambda v: _is_whole(v) and 0 < v < 16 and v % 2 == 1,
        "an odd whole number up to 15",
    ),
    "model.width": _whole_between(1, _MAX_WIDTH),
    "model.depth": _whole_between(0, _MAX_DEPTH),
    "model.attention": _SWITCH,
    "model.dense": _SWITCH,
    "model.groups": _whole(1),
    "model.precision": _one_of(PRECISIONS),
    "loss.weighted": _SWITCH,
    "loss.penalty": _at_least(0),
    "loss.epsilon": _between(0, 1),
    "loss.support": _between(0, 1),
    "loss.dice": _at_least(0),
    "balance.method": _one_of(balance.METHODS),
    "balance.difficulty": _one_of(balance.DIFFICULTIES),
    "balance.strength": _at_least(0),
    "balance.prevalence_power": _between(0, 1),
    "balance.width": _whole_between(1, _MAX_WIDTH),
    "optimizer.learning_rate": _above(0),
    "optimizer.final_learning_rate": _above(0),
    "optimizer.schedule": _one_of(SCHEDULES),
    "optimizer.warmup_epochs": _at_least(0),
    "optimizer.clip_norm": _at_least(0),
    "optimizer.average": (lambda v: _is_number(v) and 0 <= v < 1, "a number from 0 to below 1"),
    "train.batch_size": _whole(1),
    "train.epochs": _whole(1),
    "train.validate_every": _whole(1),
    "run.devices": _whole(0),
    "run.cpu_devices": _whole_between(1, 256),
    "run.log_every": _whole(1),
    "run.pictures": _whole(0),
    "run.compilation_cache": (lambda v: isinstance(v, str), "a folder, or an empty text"),
}


_OPTIONAL = frozenset({"variant"})  # a config that is one only has none


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings to dotted names: {"data": {"fold": 0}} to {"data.fold": 0}."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def replace(settings: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of nested settings with some fields set anew.

    Args:
      settings: nested mapping; it is left as it is.
      fields: values by dotted name, each of a field that is there.

    Raises:
      KeyError: no such field.
    """
    new: dict[str, Any] = copy.deepcopy(dict(settings))
    for name, value in fields.items():
        *path, last = name.split(".")
        parent = new
        for part in path:
            parent = parent[part]
        if last not in parent:
            raise KeyError(name)
        parent[last] = value
    return new


def without_places(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings without folders of the machine that trained, which are nobody else's concern."""
    data, run = settings["data"], settings["run"]
    return {
        **settings,
        "data": {**data, "root": None},
        "run": {**run, "compilation_cache": ""},
    }


def check(settings: Mapping[str, Any]) -> None:
    """Check every value and what values say of each other.

    Args:
      settings: nested mapping of the shape of `configs/default.py`.

    Raises:
      SettingsError: one line a problem, all problems at once.
    """
    # A dot is for names that are nested: {"seed": 1} and {"data": {"fold": 0}}.
    problems = [f"{name!r:.80}: expected a name without a dot" for name in settings if "." in name]
    try:
        flat = flatten(settings)
    except RecursionError:
        raise SettingsError("expected settings of two levels, got many more") from None
    for name, (test, expected) in _RULES.items():
        if name not in flat and name in _OPTIONAL:
            continue
        if name not in flat:
            problems.append(f"{name}: missing, expected {expected}")
        elif not _passes(test, flat[name]):
            problems.append(f"{name}: expected {expected}, got {flat[name]!r}")
    try:
        Anatomy.from_dict(settings["anatomy"])
    except KeyError:
        problems.append("anatomy: missing, expected labels, inclusions and regions")
    except ValueError as error:
        problems.append("anatomy: " + str(error).removeprefix("anatomy: "))
    if problems := problems or _contradictions(flat):
        raise SettingsError("\n".join(problems))


def _passes(test: Callable[[Any], bool], value: Any) -> bool:
    try:
        return bool(test(value))
    except (TypeError, OverflowError):
        return False


def _contradictions(flat: Mapping[str, Any]) -> list[str]:
    problems = []

    def require(condition: bool, problem: str) -> None:
        if not condition:
            problems.append(problem)

    multiple = 2 ** flat["model.depth"]
    require(
        all(side % multiple == 0 for side in flat["grid.size"]),
        f"grid.size: expected sides divisible by 2^model.depth = {multiple}, "
        f"got {flat['grid.size']}",
    )
    groups = flat["model.groups"]
    levels = {"model.width": flat["model.depth"], "balance.width": 2}
    for name, deepest in levels.items():
        channels = [flat[name] * 2**level for level in range(deepest + 1)]
        # Where a layer has fewer channels than groups, every channel is a group.
        require(
            all(c < groups or c % groups == 0 for c in channels),
            f"{name}: expected layers of fewer channels than model.groups = {groups}, or of a "
            f"multiple, got {flat[name]} and so {channels}",
        )
    require(
        flat["intensity.low"] < flat["intensity.high"],
        f"intensity.low: expected less than intensity.high = {flat['intensity.high']}, "
        f"got {flat['intensity.low']}",
    )
    require(
        flat["optimizer.final_learning_rate"] <= flat["optimizer.learning_rate"],
        "optimizer.final_learning_rate: expected at most optimizer.learning_rate = "
        f"{flat['optimizer.learning_rate']}, got {flat['optimizer.final_learning_rate']}",
    )
    require(
        flat["optimizer.warmup_epochs"] < flat["train.epochs"],
        f"optimizer.warmup_epochs: expected fewer than train.epochs = {flat['train.epochs']}, "
        f"got {flat['optimizer.warmup_epochs']}",
    )
    require(
        flat["data.fold"] < max(flat["data.folds"], 1),
        f"data.fold: expected less than data.folds = {flat['data.folds']}, got {flat['data.fold']}",
    )
    require(
        flat["run.devices"] == 0 or flat["train.batch_size"] % flat["run.devices"] == 0,
        f"train.batch_size: expected a multiple of run.devices = {flat['run.devices']}, "
        f"got {flat['train.batch_size']}",
    )
    require(
        bool(flat["data.phantom_cases"]) or bool(flat["data.root"]),
        "data.root: expected the folder of the cases, got nothing; pass --config.data.root=DIR",
    )
    require(
        flat["balance.method"] != "adversarial" or flat["balance.strength"] > 0,
        "balance.strength: expected more than 0 with balance.method = adversarial, whose weights "
        "would otherwise all go to one label, got 0",
    )
    require(
        not flat["loss.penalty"] or bool(flat["anatomy.inclusions"]),
        "loss.penalty: expected 0 where anatomy.inclusions names no pair, "
        f"got {flat['loss.penalty']}",
    )
    return problems
