"""Check a config before data is read or code is compiled, and copy it with changes."""

import copy
from collections.abc import Callable, Iterator, Mapping
from pathlib import PurePath
from typing import Any

from jaxseg.anatomy import Anatomy
from jaxseg.config.setting_rules import RULES
from jaxseg.data.label_values import LabelValues
from jaxseg.errors import UserError
from jaxseg.models.weight_generator import HALVINGS


class SettingsError(UserError, ValueError):
    """Raised for an invalid config; each line of the message names a field and what it expects."""


_OPTIONAL = frozenset({"variant"})  # a config without variants lacks this field


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten a nested config to dotted names: {"data": {"fold": 0}} to {"data.fold": 0}."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def replace(settings: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    """Copy a nested config with some fields replaced.

    Args:
      settings: nested mapping, which is not modified.
      fields: new values by dotted name; each field must exist.

    Raises:
      KeyError: there is no such field.
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


def starting_from(settings: Mapping[str, Any], source: str | None) -> Mapping[str, Any]:
    """Copy a config with `train.init_from` set by --init_from, its short form.

    Args:
      settings: nested mapping, not checked yet.
      source: value of the flag; None if it was not given.

    Raises:
      SettingsError: the config names another source.
    """
    train = settings.get("train")
    if source is None or not isinstance(train, Mapping):  # `check` reports a missing section
        return settings
    known = train.get("init_from")
    if known not in (None, source):
        raise SettingsError(f"--init_from: expected {known}, as train.init_from says, got {source}")
    return {**settings, "train": {**train, "init_from": source}}


def without_places(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Remove paths from a config, because they only have a meaning on the machine that trained."""
    data, run, train = settings["data"], settings["run"], settings["train"]
    files = {
        name: PurePath(data[name]).name
        for name in ("patients", "splits")
        if (data.get(name) or "").endswith((".csv", ".json"))
    }
    source = train.get("init_from")
    return {
        **settings,
        "data": {**data, "root": None, **files},
        "run": {**run, "compilation_cache": ""},
        "train": {**train, "init_from": PurePath(source).name if source else None},
    }


def check(settings: Mapping[str, Any]) -> None:
    """Check each value and the consistency between values.

    Args:
      settings: nested mapping with the fields of `configs/default.py`.

    Raises:
      SettingsError: there are problems; the message lists all of them, one on each line.
    """
    # A dot would be ambiguous: it separates the names of nested fields.
    problems = [f"{name!r:.80}: expected a name without a dot" for name in settings if "." in name]
    try:
        flat = flatten(settings)
    except RecursionError:
        raise SettingsError("expected a config of two levels, got a deeper one") from None
    for name, (test, expected) in RULES.items():
        if name not in flat and name in _OPTIONAL:
            continue
        if name not in flat:
            problems.append(f"{name}: missing, expected {expected}")
        elif not _passes(test, flat[name]):
            problems.append(f"{name}: expected {expected}, got {flat[name]!r}")
    # A value in place of a section is already reported by the fields that are then missing.
    sections = {name.partition(".")[0] for name in RULES}
    problems += [
        f"{name!r:.80}: no such field"
        for name in sorted(flat.keys() - RULES.keys() - sections)
        if name.partition(".")[0] != "anatomy"
    ]
    try:
        Anatomy.from_dict(settings["anatomy"])
    except KeyError:
        problems.append("anatomy: missing, expected labels, inclusions and regions")
    except ValueError as error:
        problems.append("anatomy: " + str(error).removeprefix("anatomy: "))
    if problems := problems or _contradictions(flat):
        raise SettingsError("\n".join(problems))


def check_without_places(settings: Mapping[str, Any]) -> None:
    """Check a config from `without_places`, which names no folder of cases; raises as `check`."""
    data = settings.get("data")
    if isinstance(data, Mapping):
        settings = {**settings, "data": {**data, "root": "removed"}}
    check(settings)


def _passes(test: Callable[[Any], bool], value: Any) -> bool:
    try:
        return bool(test(value))
    except (TypeError, OverflowError):
        return False


def _contradictions(flat: Mapping[str, Any]) -> list[str]:
    """Problems of values that are valid on their own but not together."""
    return [*_of_the_networks(flat), *_of_data_and_course(flat), *_of_loss_and_mixup(flat)]


def _of_the_networks(flat: Mapping[str, Any]) -> Iterator[str]:
    multiple, size = 2 ** flat["model.depth"], flat["grid.size"]
    if any(side % multiple for side in size):
        yield f"grid.size: expected sides divisible by 2^model.depth = {multiple}, got {size}"
    groups, deepest = flat["model.groups"], {"model.width": flat["model.depth"], "balance.width": 2}
    for name, doublings in deepest.items() if groups else ():
        channels = [flat[name] * 2**level for level in range(doublings + 1)]
        # In a layer with fewer channels than groups, each channel is a group.
        if any(c >= groups and c % groups for c in channels):
            yield (
                f"{name}: expected layers with fewer channels than model.groups = {groups}, or a "
                f"multiple of it, got {flat[name]}, which gives {channels} channels"
            )
    halvings = {"model.width": flat["model.depth"], "balance.width": HALVINGS}
    for name in deepest if flat["loss.weighted"] else ("model.width",):
        channels = flat[name] * 2 ** deepest[name]
        # On a map of one pixel, instance normalization keeps nothing but its own shift.
        if max(size) <= 2 ** halvings[name] and not 0 < groups < channels:
            yield (
                f"model.groups: expected 1 to {channels - 1} with grid.size = {size}, which is "
                f"reduced to one pixel in the deepest layer ({channels} channels by {name}), got "
                f"{groups}"
            )
            return


def _of_data_and_course(flat: Mapping[str, Any]) -> Iterator[str]:
    if not (flat["data.phantom_cases"] or flat["data.root"]):
        yield (
            f"data.root: expected the folder of the cases, got {flat['data.root']!r}; pass "
            "--config.data.root=DIR"
        )
    low, high = flat["intensity.low"], flat["intensity.high"]
    if not low < high:
        yield f"intensity.low: expected less than intensity.high = {high}, got {low}"
    if flat["augment.turn"] and len(set(flat["grid.size"])) > 1:
        yield f"augment.turn: expected False, or a square grid.size, got {flat['grid.size']}"
    for name in ("augment.rotation", "augment.shift"):
        if flat["augment.probability"] and flat[name] and not flat["grid.spacing"]:
            yield (
                f"{name}: expected 0 with grid.spacing = 0 (pixels of unknown size and shape), got "
                f"{flat[name]}"
            )
    for name in ("data.patients", "data.splits"):
        if flat[name] and flat["data.split"] != "case":
            yield f"{name}: expected None with data.split = {flat['data.split']}, got {flat[name]}"
    if flat["data.label_values"]:
        try:
            LabelValues.parse(flat["data.label_values"], flat["anatomy.labels"])
        except ValueError as error:
            yield f"data.label_values: {error}"
    fold, folds = flat["data.fold"], flat["data.folds"]
    if fold and not folds and not flat["data.splits"]:
        yield f"data.fold: expected 0 without data.folds, got {fold}"
    elif folds and fold >= folds:
        yield f"data.fold: expected less than data.folds = {folds}, got {fold}"
    first, last = "optimizer.learning_rate", "optimizer.final_learning_rate"
    if flat[last] > flat[first]:
        yield f"{last}: expected at most {first} = {flat[first]}, got {flat[last]}"
    if flat["run.devices"] and flat["train.batch_size"] % flat["run.devices"]:
        yield (
            f"train.batch_size: expected a multiple of run.devices = {flat['run.devices']}, "
            f"got {flat['train.batch_size']}"
        )


def _of_loss_and_mixup(flat: Mapping[str, Any]) -> Iterator[str]:
    if flat["balance.method"] == "adversarial" and not flat["balance.strength"]:
        yield (
            "balance.strength: expected more than 0 with balance.method = adversarial (at 0 all "
            "weight goes to one label), got 0"
        )
    pairs = flat["anatomy.inclusions"]
    for name in ("loss.penalty", "mixup.transplant"):
        if flat[name] and not pairs:
            yield f"{name}: expected 0 without pairs in anatomy.inclusions, got {flat[name]}"
    inner, outer = ({label for pair in pairs for label in pair[k]} for k in (0, 1))
    if flat["mixup.transplant"] and pairs and outer <= inner:
        yield (
            "mixup.transplant: expected 0, because anatomy.inclusions leave no tissue: each label "
            f"lies inside another, got {flat['mixup.transplant']}"
        )
