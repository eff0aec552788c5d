"""Networks that come with the package, as bundles; each folder has a license and a model card."""

from pathlib import Path

from jaxseg.home import expanded

EMIDEC = Path(__file__).parent / "emidec"
"""`best`, trained on 80 EMIDEC cases (docs/how-to/export.md). CC BY-NC-SA 4.0, non-commercial."""

NAME = "pretrained"
"""Stands for the folder `EMIDEC` wherever a run folder or bundle is expected."""


def folder_of(run: str, name: str = "") -> Path:
    """Return the folder that a user means by a run; arguments and errors as in `expanded`."""
    return EMIDEC if run == NAME else expanded(run, name)
