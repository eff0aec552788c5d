"""Hearts of known measures, drawn on a grid of any pixel size; labels as in EMIDEC."""

import numpy as np

SIDE = 90.0  # of the picture, in mm


def plane(pixel, shift=(0.0, 0.0)):
    """Distance from the center in mm and direction in degrees, of every pixel of a picture.

    The first array axis leads to the right, the second one downwards. The center is off the middle
    of the picture by `shift` pixels, as real hearts lie anywhere on the grid.
    """
    right, down = (
        (np.arange(round(SIDE / p)) - round(SIDE / p) / 2 + s) * p
        for p, s in zip(pixel, shift, strict=True)
    )
    right, down = np.meshgrid(right, down, indexing="ij")
    return np.hypot(right, down), np.degrees(np.arctan2(-down, right)) % 360


def ring(pixel, *, endo=25, epi=35, infarct=(), no_reflow=(), gap=None, shift=(0.3, -0.2)):
    """A cavity in a wall, (X, Y) uint8.

    `infarct` and `no_reflow` are (inner depth, outer depth, first direction, width): parts of the
    wall's depth, and degrees. `gap` is (first direction, width) of background in the wall.
    """
    radius, direction = plane(pixel, shift)
    label_map = np.where(radius < endo, 1, np.where(radius < epi, 2, 0)).astype(np.uint8)
    for label, part in ((3, infarct), (4, no_reflow)):
        if part:
            inner, outer, first, width = part
            depth = (radius - endo) / (epi - endo)
            here = (depth >= inner) & (depth < outer) & ((direction - first) % 360 < width)
            label_map[here & (label_map > 1)] = label
    if gap:
        first, width = gap
        label_map[(label_map > 1) & ((direction - first) % 360 < width)] = 0
    return label_map
