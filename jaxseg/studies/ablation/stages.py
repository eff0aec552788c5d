"""The config fields that distinguish the stages of an ablation."""

from collections.abc import Mapping
from typing import Any

from jaxseg.config import settings


def stage_changes(
    default: Mapping[str, Any], stages: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Extract the fields that distinguish the stages, to be applied to another config.

    Args:
      default: config that the stages build on.
      stages: config of each stage.

    Returns:
      For each stage, the value of every field, by dotted name, in which any stage differs from
      `default`. A stage thus keeps a feature off even if the other config switches it on.
    """
    base = settings.flatten(default)
    flat = {stage: settings.flatten(own) for stage, own in stages.items()}
    fields = [name for name in base if any(own[name] != base[name] for own in flat.values())]
    return {stage: {name: own[name] for name in ["name", *fields]} for stage, own in flat.items()}
