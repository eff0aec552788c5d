"""Validation rules for each field of a config."""

import math
import re
from collections.abc import Callable
from typing import Any

from jaxseg import label_weights, native
from jaxseg.data.phantom.layout import LAYOUTS
from jaxseg.data.preprocess import NORMALIZATIONS
from jaxseg.data.split import SPLITS
from jaxseg.losses import DICE_OF

OPTIMIZERS = ("adam", "muon")
SCHEDULES = ("cosine", "linear", "constant")
PRECISIONS = ("float32", "bfloat16")
# Far larger than any short-axis slice: a larger value is a mistake and would exhaust memory.
_MAX_SIDE = 4096
_MAX_DEPTH = 12  # log2 of the longest side
_MAX_WIDTH = 4096

Rule = tuple[Callable[[Any], bool], str]
"""A test of a value, which may raise TypeError or OverflowError, and the expected value as text."""


def _is_number(value: Any) -> bool:
    # Python counts bool as int, but a bool in place of a number is a mistake.
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _whole(low: int) -> Rule:
    return lambda v: _is_whole(v) and v >= low, f"a whole number of at least {low}"


def _whole_between(low: int, high: int) -> Rule:
    return lambda v: _is_whole(v) and low <= v <= high, f"a whole number from {low} to {high}"


def _is_name(value: Any) -> bool:
    """Whether a value is a valid run name, which becomes part of a folder name."""
    return isinstance(value, str) and bool(value.strip(". ")) and _is_plain(value)


def _is_plain(value: str) -> bool:
    return value.isprintable() and not set(value) & set("/\\:")


def _has_group(pattern: str) -> bool:
    try:
        return re.compile(pattern).groups > 0
    except re.error:
        return False


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
    return lambda v: len(v) == 2 and all(test(x) for x in v), f"two values A,B, each {text}"


_SEED: Rule = (lambda v: _is_whole(v) and 0 <= v < 2**32, "a whole number from 0 to 2^32 - 1")
_NAME = "a name without slashes, backslashes and colons"
_BELOW_1: Rule = (lambda v: _is_number(v) and 0 <= v < 1, "a number from 0 to below 1")
_SWITCH: Rule = (lambda v: isinstance(v, bool), "True or False")
RULES: dict[str, Rule] = {
    "name": (_is_name, _NAME),
    "variant": (_is_name, _NAME),
    "seed": _SEED,
    "data.root": (lambda v: v is None or isinstance(v, str), "a folder, or None"),
    "data.layout": _one_of(LAYOUTS),
    "data.apex_first": _SWITCH,
    "data.phantom_cases": _whole_between(0, 10_000),
    "data.phantom_seed": _SEED,
    "data.split": _one_of(SPLITS),
    "data.validation_fraction": _BELOW_1,
    "data.folds": (
        lambda v: _is_whole(v) and (v == 0 or v >= 2),
        "0, or a whole number of at least 2",
    ),
    "data.fold": _whole(0),
    "data.split_seed": _SEED,
    "data.patients": (
        lambda v: v is None or (isinstance(v, str) and (v.endswith(".csv") or _has_group(v))),
        "a regular expression with a group, a file ending in .csv, or None",
    ),
    "data.label_values": (
        lambda v: v is None or isinstance(v, str),
        "VALUE=LABEL, separated by commas, or None",
    ),
    "data.splits": (
        lambda v: v is None or (isinstance(v, str) and v.endswith((".csv", ".json"))),
        "a file ending in .json or .csv, or None",
    ),
    "grid.size": _pair(_whole_between(1, _MAX_SIDE)),
    "grid.spacing": _between(0, 100),
    "grid.center": (
        lambda v: v is None or _pair(_between(0, 1))[0](v),
        "two values, each a number from 0 to 1, or None",
    ),
    "grid.allow_outside": _SWITCH,
    "grid.soft_labels": _SWITCH,
    "intensity.method": _one_of(NORMALIZATIONS),
    "intensity.low": _between(0, 100),
    "intensity.high": _between(0, 100),
    "intensity.bias_field": _SWITCH,
    "mixup.probability": _between(0, 1),
    "mixup.tolerance": _between(0, 1),
    "mixup.transplant": _between(0, 1),
    "augment.probability": _between(0, 1),
    "augment.flip": _SWITCH,
    "augment.turn": _SWITCH,
    "augment.rotation": _between(0, 180),
    "augment.zoom": _between(0, 9),
    "augment.shift": _between(0, 1000),
    "augment.gamma": _between(0, 9),
    "augment.contrast": _between(0, 9),
    "augment.brightness": _at_least(0),
    "augment.noise": _at_least(0),
    "augment.bias": _between(0, 9),
    "model.width": _whole_between(1, _MAX_WIDTH),
    "model.depth": _whole_between(0, _MAX_DEPTH),
    "model.attention": _SWITCH,
    "model.dense": _SWITCH,
    "model.context": _SWITCH,
    "model.groups": _whole(0),
    "model.precision": _one_of(PRECISIONS),
    "loss.weighted": _SWITCH,
    "loss.penalty": _at_least(0),
    "loss.epsilon": _BELOW_1,
    "loss.dice": _at_least(0),
    "loss.dice_of": _one_of(DICE_OF),
    "balance.method": _one_of(label_weights.METHODS),
    "balance.strength": _at_least(0),
    "balance.width": _whole_between(1, _MAX_WIDTH),
    "optimizer.method": _one_of(OPTIMIZERS),
    "optimizer.learning_rate": _above(0),
    "optimizer.final_learning_rate": _above(0),
    "optimizer.schedule": _one_of(SCHEDULES),
    "optimizer.warmup_epochs": _at_least(0),
    "optimizer.clip_norm": _at_least(0),
    "train.batch_size": _whole_between(1, 65_536),
    "train.epochs": _whole_between(1, 1_000_000),
    "train.validate_every": _whole(1),
    "train.init_from": (
        lambda v: v is None or (isinstance(v, str) and bool(v.strip())),
        "the folder of a run or of an exported bundle, pretrained, or None",
    ),
    "run.devices": _whole(0),
    "run.convolution": _one_of(native.CHOICES),
    "run.log_every": _whole(1),
    "run.pictures": _whole(0),
    "run.compilation_cache": (lambda v: isinstance(v, str), "a folder, or an empty text"),
}
