"""Differences between two configs, for a run that starts from the parameters of another."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jaxseg.config.settings import flatten

# Fields that determine the shapes of parameters or what the network computes from them. Context may
# be added, but not removed.
_NETWORK = ("model.width", "model.depth", "model.attention", "model.dense", "model.groups")
# Fields that determine how the images of a network look.
_IMAGES = (
    "grid.size",
    "grid.spacing",
    "intensity.method",
    "intensity.low",
    "intensity.high",
    "intensity.bias_field",
)


def network_differences(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> list[str]:
    """Differences with which the parameters of one network do not fit the other.

    Args:
      theirs: checked config of the source.
      ours: checked config of the run.

    Returns:
      For each field that differs, its name and both values.
    """
    names = _NETWORK + (("balance.width",) if _both_weighted(theirs, ours) else ())
    if theirs["model"]["context"]:
        names += ("model.context",)
    return list(_differences(names, flatten(theirs), flatten(ours)))


def condition_differences(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> list[str]:
    """Differences that may change what the parameters mean; as `network_differences`."""
    # The method determines what the generator's parameters mean.
    generator = ("balance.method",) if _both_weighted(theirs, ours) else ()
    return list(_differences(_IMAGES + generator, flatten(theirs), flatten(ours)))


def _both_weighted(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> bool:
    return theirs["loss"]["weighted"] and ours["loss"]["weighted"]


def _differences(
    names: Sequence[str], theirs: Mapping[str, Any], ours: Mapping[str, Any]
) -> Iterator[str]:
    for name in names:
        values = [list(v) if isinstance(v, tuple) else v for v in (theirs[name], ours[name])]
        if values[0] != values[1]:
            yield f"{name} {values[0]} there and {values[1]} here"
