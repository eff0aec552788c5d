"""Networks that come with the package, as bundles; each folder has a license and a model card."""

from pathlib import Path

from jaxseg.home import expanded

EMIDEC = Path(__file__).parent / "emidec"
"""`configs/best.py`, trained on 80 cases of EMIDEC. CC BY-NC-SA 4.0: no commercial use."""

NAME = "pretrained"
"""Stands for the folder `EMIDEC` wherever a run folder or bundle is expected."""


def folder_of(run: str, name: str = "") -> Path:
    """Return the folder that a user means by a run; arguments and errors as in `expanded`."""
    return EMIDEC if run == NAME else expanded(run, name)
