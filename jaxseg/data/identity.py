"""By what a case is known: its native voxels, whatever its name, folder or file format.

Image and label map have a digest each. The image says whose heart it is: a case whose label map was
corrected is still one that a run has seen. Whether a run may be resumed depends on both.
"""

import hashlib
from typing import NamedTuple

import numpy as np

from jaxseg.data.case import Case


class Digests(NamedTuple):
    """SHA-256, hexadecimal, of a case on its own grid; `label` is None without a label map."""

    image: str
    label: str | None


def digests(case: Case) -> Digests:
    """Digests of a case: image as float32 with its voxel size, label map as uint8.

    Arrays are taken in their order (X, Y, slices), last axis fastest, little endian, each after its
    shape. Voxel sizes count in whole micrometers, so that units and rounding of a header do not.
    """
    micrometers = tuple(round(edge * 1000) for edge in case.spacing)
    image = case.image + np.float32(0)  # -0 becomes 0
    label = None if case.label is None else _sha256("label", case.label, "u1")
    return Digests(_sha256(f"image {micrometers}", image, "<f4"), label)


def _sha256(start: str, array: np.ndarray, dtype: str) -> str:
    digest = hashlib.sha256(f"{start} {array.shape}".encode())
    digest.update(np.ascontiguousarray(array, dtype).data)
    return digest.hexdigest()
