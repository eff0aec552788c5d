"""What tells the stages of an ablation apart."""

from collections.abc import Mapping
from typing import Any

from jaxseg.config import settings


def stage_changes(
    default: Mapping[str, Any], stages: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """What tells stages apart, so that they can be applied over other settings.

    Args:
      default: settings that the stages build on.
      stages: settings by stage.

    Returns:
      By stage, every dotted field in which any of the stages differs from `default`, with the
      stage's own value: over settings that switch a field on, a stage without it is still without.
    """
    base = settings.flatten(default)
    flat = {stage: settings.flatten(own) for stage, own in stages.items()}
    fields = [name for name in base if any(own[name] != base[name] for own in flat.values())]
    return {stage: {name: own[name] for name in ["name", *fields]} for stage, own in flat.items()}
