"""The file `config.json` of a run, in the format of this and of older versions."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxseg.config.settings import flatten
from jaxseg.runs.files import WorkdirError, read_json

SETTINGS = "config.json"
# Fields that may change when a run is resumed: how it is run, and the path of the data set. The
# data set itself may not change, which is checked by the digests of the cases.
_FREE = ("run.", "data.root")
# Values that fields had in effect before they existed, so that older runs can still be read. Every
# new field needs an entry here.
_BEFORE = {
    "augment": {"turn": False, "shift": 0.0, "bias": 0.0},
    "intensity": {"bias_field": False},
    "data": {"patients": None, "splits": None, "label_values": None},
    "grid": {"soft_labels": False},
    "loss": {"dice_of": "labels"},
    "mixup": {"transplant": 0.0},
    "model": {"context": False},
    "optimizer": {"method": "adam"},
    "run": {"convolution": "xla"},
    "train": {"init_from": None},
}
# Removed fields by the last commit that has them, with the value at which they had no effect; None
# if no value had any. Older runs have these fields.
_REMOVED: dict[str, dict[str, Any]] = {
    "f458d8a": {
        "balance.difficulty": "image",
        "balance.prevalence_power": 0.0,
        "loss.deep": 0.0,
        "loss.dice_over": "image",
        "loss.dice_smooth": 0.0,
        "loss.support": 0.0,
        "model.slices": 1,
        "optimizer.average": 0.0,
        "run.cpu_devices": None,
        "train.pathology": 0.0,
    },
    "f0d4276": {"intensity.even": False},
}


def read_settings(workdir: Path) -> dict[str, Any]:
    """Read the config of the run in a folder, converted from older versions if necessary.

    Newer fields are set to the values that were in effect, and removed fields are left out.

    Raises:
      WorkdirError: if there is no run, its config cannot be read, or a removed field was in use.
    """
    settings = read_json(workdir / SETTINGS)
    for name, before in _BEFORE.items():
        if isinstance(settings.get(name), dict):
            settings[name] = before | settings[name]
    removed = ((commit, *one) for commit, fields in _REMOVED.items() for one in fields.items())
    for commit, name, unused in removed:
        section, _, field = name.partition(".")
        if not isinstance(settings.get(section), dict) or field not in settings[section]:
            continue
        value = settings[section].pop(field)
        if unused is not None and value != unused:
            raise WorkdirError(
                f"{workdir / SETTINGS}: {name}: expected {unused!r} (the field was removed), got "
                f"{value!r:.80}; {commit} is the last commit that reads this run"
            )
    return settings


def check_settings(workdir: Path, settings: Mapping[str, Any]) -> None:
    """Check that a folder has no run, or a run of the same config.

    Raises:
      WorkdirError: if the folder has a run of another config; the message lists all differences.
    """
    if not (workdir / SETTINGS).exists():
        return
    known, wanted = read_settings(workdir), json.loads(json.dumps(settings))
    if differences := _differences(known, wanted):
        if _epochs(wanted) > _epochs(known):
            differences.append(
                "  to train its network further, pass another --workdir, the number of further "
                f"epochs, and --init_from={workdir}"
            )
        raise WorkdirError(
            f"{workdir}: holds a run of another config; pass another --workdir, or undo these "
            "changes:\n" + "\n".join(differences)
        )


def _differences(known: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    old, new = flatten(known), flatten(wanted)
    lines = []
    for name in sorted(old.keys() | new.keys()):
        if name.startswith(_FREE) or old.get(name) == new.get(name):
            continue
        lines.append(f"  {name}: expected {old.get(name)!r}, got {new.get(name)!r}")
    return lines


def _epochs(settings: Mapping[str, Any]) -> int:
    found = flatten(settings).get("train.epochs")
    return found if isinstance(found, int) else 0
