"""Expand ~ in paths that the user gives."""

import os
from pathlib import Path

from jaxseg.errors import UserError


class HomeError(UserError, RuntimeError):
    """A path below a home folder that does not exist; the message names its flag or field."""


def expanded(path: str | Path, name: str = "") -> Path:
    """Expand a leading ~ or ~USER.

    Args:
      path: any path; one without a leading ~ is returned as it is.
      name: flag or field of the path; empty if the caller adds it to the message.

    Raises:
      HomeError: there is no such home. An empty HOME counts as missing, because ~ would become `/`.
    """
    missing = os.environ.get("HOME") == "" and Path(path).parts[:1] == ("~",)
    try:
        if not missing:
            return Path(path).expanduser()
    except RuntimeError:
        pass
    prefix = f"{name}: " if name else ""
    raise HomeError(f"{prefix}expected a path below a home folder that exists, got {path}")
