"""The preprocessing that a config describes, without importing JAX."""

from collections.abc import Mapping
from typing import Any

from jaxseg.data import Grid, Preprocessing


def preprocessing(settings: Mapping[str, Any]) -> Preprocessing:
    """Read the preprocessing of each case, with the network grid.

    Args:
      settings: config with the fields of `configs/default.py`, which has passed
        `jaxseg.config.settings.check`.
    """
    grid, intensity = settings["grid"], settings["intensity"]
    return Preprocessing(
        grid=Grid(
            size=tuple(grid["size"]),
            spacing=grid["spacing"] or None,
            center=tuple(grid["center"]) if grid["center"] is not None else None,
        ),
        num_labels=len(settings["anatomy"]["labels"]),
        normalization=intensity["method"],
        percentiles=(intensity["low"], intensity["high"]),
        bias_field=intensity["bias_field"],
    )
