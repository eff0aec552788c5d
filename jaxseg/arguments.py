"""Parsers of command line arguments, from text to value.

Each raises argparse.ArgumentTypeError for invalid text; the message states what is expected.
"""

import argparse
import math
from pathlib import Path

from jaxseg.data.case import directions_of
from jaxseg.home import HomeError, expanded
from jaxseg.measures.aha import Septum
from jaxseg.pretrained import folder_of


def path(text: str) -> Path:
    """A path, with a leading ~ expanded, because few shells expand it after --flag=."""
    try:
        return expanded(text)
    except HomeError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def run(text: str) -> Path:
    """The folder of a run or bundle, as in `folder_of`."""
    try:
        return folder_of(text)
    except HomeError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def names(text: str) -> list[str]:
    """Names separated by commas."""
    return text.split(",")


def share(text: str) -> float:
    """A number from 0 to 1."""
    return _fractions(text, 1)[0]


def factor(text: str) -> float:
    """A finite number above 0."""
    try:
        found = float(text)
    except ValueError:
        found = 0.0
    if not (math.isfinite(found) and found > 0):
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {text!r}")
    return found


def center(text: str) -> tuple[float, ...]:
    """Two numbers from 0 to 1, separated by a comma."""
    return _fractions(text, 2)


def orientation(text: str) -> str:
    """Anatomical directions of rows and columns, as in `directions_of`."""
    try:
        directions_of(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def septum(text: str) -> Septum:
    """One or two directions in degrees, separated by a comma."""
    expected = argparse.ArgumentTypeError(
        f"expected degrees of one or of two distinct directions, got {text!r}"
    )
    try:
        anterior, *inferior = (float(part) for part in text.split(","))
        found = Septum.between(anterior, *inferior) if inferior else Septum(anterior)
    except (ValueError, TypeError):
        raise expected from None
    if not (math.isfinite(found.anterior) and 0 < abs(found.extent) < 180):
        raise expected
    return found


def _fractions(text: str, count: int) -> tuple[float, ...]:
    try:
        found = tuple(float(part) for part in text.split(","))
    except ValueError:
        found = ()
    if len(found) != count or not all(0 <= number <= 1 for number in found):
        raise argparse.ArgumentTypeError(
            f"expected {'a number' if count == 1 else 'two numbers'} from 0 to 1, got {text!r}"
        )
    return found
