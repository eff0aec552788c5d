"""Identify a case by its native voxels, independent of name, folder and file format.

Image and label map have separate digests. The image digest identifies the scan: a run counts as
having seen a case even if the label map was corrected later. Resuming a run requires both digests
to match.
"""

import hashlib
from typing import NamedTuple

import numpy as np

from jaxseg.data.case import Case


class Digests(NamedTuple):
    """Hexadecimal SHA-256 digests of a case on its native grid; `label` is None without labels."""

    image: str
    label: str | None


def digests(case: Case) -> Digests:
    """Compute the digests of a case: image as float32 with its voxel size, label map as uint8.

    Each array is hashed after its shape, in the order (X, Y, slices) with the last axis fastest,
    little endian. Voxel sizes are rounded to whole micrometers, so that a header's units and
    rounding have no effect.
    """
    micrometers = tuple(round(edge * 1000) for edge in case.spacing)
    image = case.image + np.float32(0)  # turns -0 into 0
    label = None if case.label is None else _sha256("label", case.label, "u1")
    return Digests(_sha256(f"image {micrometers}", image, "<f4"), label)


def _sha256(start: str, array: np.ndarray, dtype: str) -> str:
    digest = hashlib.sha256(f"{start} {array.shape}".encode())
    digest.update(np.ascontiguousarray(array, dtype).data)
    return digest.hexdigest()
