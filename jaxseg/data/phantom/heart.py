"""Shape, infarct, labels and signal levels of the phantom's left ventricle.

Signal levels are in units of the case's contrast: normal myocardium is 0, blood in the cavity 1.
Lengths are in mm. x points to the patient's left (image right), y downward, and slice 0 is the
apex. The constants of this package are calibrated against the 80 EMIDEC training cases that Lalande
et al. (Data 5(4):89, 2020) describe. The targets are in tests/data/phantom/test_write.py.
"""

import dataclasses

import numpy as np
from scipy import ndimage

from jaxseg.data.phantom.fields import (
    ANGLES,
    DIRECTIONS,
    cover,
    look_up,
    paint,
    smooth_noise,
)

# Mid-direction of each coronary territory and how often it holds the culprit vessel: anteroseptal
# (left anterior descending), inferior (right), lateral (circumflex).
TERRITORIES = ((-2.1, 0.5), (1.75, 0.3), (0.35, 0.2))
PAPILLARY_DIRECTIONS = (-0.45, 1.9)


@dataclasses.dataclass(frozen=True)
class LeftVentricle:
    """Shape and damage of one ventricle.

    Attributes:
      center: (slices, 2) in mm from the image center, breathing shifts included.
      endo: (ANGLES, slices) endocardial radius in mm.
      epi: (ANGLES, slices) epicardial radius in mm.
      infarct: (ANGLES, slices) transmural depth of the infarct, 0 (endocardium) to 1 (epicardium);
        negative where there is no infarct.
      no_reflow: (ANGLES, slices) transmural depth of the dark core, in the same convention.
      rim: depth at which the core starts; 0 if it touches the cavity.
      slip: (ANGLES, slices) error of the expert's contours in mm.
    """

    center: np.ndarray
    endo: np.ndarray
    epi: np.ndarray
    infarct: np.ndarray
    no_reflow: np.ndarray
    rim: float
    slip: np.ndarray

    def between(self, fraction: float) -> "LeftVentricle":
        """The anatomy `fraction` (-1 to 1) of a slice distance above, in the same breath-hold."""

        def move(table: np.ndarray) -> np.ndarray:
            last = table.shape[1] - 1
            near = np.clip(np.arange(last + 1) + (1 if fraction > 0 else -1), 0, last)
            return table + abs(fraction) * (table[:, near] - table)

        names = ("endo", "epi", "infarct", "no_reflow")
        return dataclasses.replace(self, **{name: move(getattr(self, name)) for name in names})


@dataclasses.dataclass(frozen=True)
class WallPosition:
    """Position of each voxel; all fields are (X, Y, slices), floating point.

    Attributes:
      to_endo: distance to the endocardium in mm, negative inside.
      to_epi: distance to the epicardium in mm, negative inside.
      depth: transmural depth, 0 (endocardium) to 1 (epicardium).
      angle: direction seen from the center, in radians in [-pi, pi].
    """

    to_endo: np.ndarray
    to_epi: np.ndarray
    depth: np.ndarray
    angle: np.ndarray


def draw_left_ventricle(
    rng: np.random.Generator, num_slices: int, *, infarcted: bool, no_reflow: bool
) -> LeftVentricle:
    """Draw a random ventricle; `no_reflow` adds a dark core and requires `infarcted`."""
    height = np.linspace(0, 1, num_slices)
    endo, epi = _draw_contours(rng, height)
    infarct = np.full((ANGLES, num_slices), -1.0, np.float32)
    core = infarct
    if infarcted:
        infarct, core = _draw_infarct(rng, height, no_reflow=no_reflow)
        # Old scars are thin. A case with no-reflow is days old, so its wall is not thinned yet.
        thinning = 0.0 if no_reflow else rng.uniform(0, 0.3)
        wall = (epi - endo) * (1 - thinning * np.clip(infarct, 0, 1))
        endo = epi - np.maximum(wall, 4.0).astype(np.float32)
    axis = rng.normal(0, 2.5, 2)  # the long axis is tilted against the slice normal
    center = rng.normal(0, 0.5, 2) + (height[:, None] - 0.5) * axis
    center = center + rng.normal(0, 0.65, (num_slices, 2))  # shifts between breath-holds
    rim = rng.uniform(0.1, 0.2) if rng.random() < 0.2 else 0.0
    slip = 0.4 * smooth_noise(rng, endo.shape, (5, 0.0))
    return LeftVentricle(center.astype(np.float32), endo, epi, infarct, core, rim, slip)


def _draw_contours(rng: np.random.Generator, height: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Draw endo- and epicardial radii (ANGLES, slices) in mm that taper toward the apex."""
    radius = np.clip(rng.normal(24.8, 3.4), 17, 33)
    wall = np.clip(rng.normal(10.1, 1.7), 6.8, 15)
    apex = np.clip(rng.normal(0.55, 0.1), 0.3, 0.75)
    rise = 1 - np.clip(1 - height / 0.75, 0, 1) ** 2.2
    fall = 1 - 0.5 * np.clip(height - 0.75, 0, 1) ** 2
    cavity = radius * (apex + (1 - apex) * rise) * fall * (1 + rng.normal(0, 0.025, height.size))
    thickness = wall * (0.76 + 0.3 * np.minimum(height / 0.8, 1))
    shape = (ANGLES, height.size)
    oval = rng.uniform(0, 0.06) * np.cos(2 * (DIRECTIONS - rng.uniform(0, np.pi)))
    bumps = 0.025 * smooth_noise(rng, shape, (8, 1)) + 0.008 * smooth_noise(rng, shape, (3, 0.4))
    epi = (cavity + thickness) * (1 + oval[:, None] + bumps)
    uneven = 1 + 0.12 * smooth_noise(rng, shape, (7, 1)) + 0.05 * smooth_noise(rng, shape, (2, 0.4))
    endo = np.maximum(epi - np.maximum(thickness * uneven, 3.0), 3.0)
    return endo.astype(np.float32), epi.astype(np.float32)


def _window(distance: np.ndarray, half_width: np.ndarray | float, edge: float) -> np.ndarray:
    """1 in the middle, 0 beyond `half_width`, with a smooth step of width `edge` between."""
    ramp = np.clip((half_width - distance) / edge, 0, 1)
    return ramp * ramp * (3 - 2 * ramp)


def _draw_infarct(
    rng: np.random.Generator, height: np.ndarray, *, no_reflow: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Draw the depth tables of the infarct and of its no-reflow core."""
    middle, _ = TERRITORIES[rng.choice(len(TERRITORIES), p=[share for _, share in TERRITORIES])]
    anterior = middle == TERRITORIES[0][0]
    middle = middle + rng.normal(0, 0.35) + 0.8 * rng.normal() * (height - 0.5)
    half_width = np.clip(np.exp(rng.normal(0.45 + 0.15 * no_reflow, 0.48)), 0.5, 3.0)
    reach = rng.uniform(0.42, 0.97) if not no_reflow else rng.uniform(0.65, 1.15)
    half_width = min(half_width, rng.uniform(1.3, 2.1) / reach)  # larger infarcts are not survived
    # The left anterior descending artery supplies the apex, the others the base.
    low, high = (-0.6, rng.uniform(0.7, 1.35)) if anterior else (rng.uniform(-0.5, 0.25), 1.6)
    along = _window(np.abs(height - (low + high) / 2), (high - low) / 2, 0.2)
    wide = half_width * (1 + 0.6 * np.clip(0.5 - height, 0, 1))  # the apex is a small circle
    around = np.abs((DIRECTIONS[:, None] - middle + np.pi) % (2 * np.pi) - np.pi)
    shape = (ANGLES, height.size)
    window = _window(around, wide, min(0.8, half_width)) * along
    infarct = (reach + 0.5) * window - 0.5 + 0.17 * smooth_noise(rng, shape, (3, 0.6))
    core = np.full(shape, -1.0)
    if no_reflow:
        core_height = np.clip((low + high) / 2 + rng.normal(0, 0.15), 0.25, 0.75)
        core_height = height[np.argmin(np.abs(height - core_height))]  # the nearest slice
        narrow = _window(around, half_width * rng.uniform(0.4, 0.75), 0.3)
        core_along = _window(np.abs(height - core_height), rng.uniform(0.25, 0.65), 0.2)
        deep = max(reach * rng.uniform(0.3, 0.62), 0.28)
        core = (deep + 0.4) * narrow * core_along - 0.4
        core = core + 0.12 * smooth_noise(rng, shape, (2.5, 0.5)) * (core > -0.3)
    return infarct.astype(np.float32), core.astype(np.float32)


def wall_position(ventricle: LeftVentricle, x: np.ndarray, y: np.ndarray) -> WallPosition:
    """Position of voxels at x (X,) and y (Y,) in mm relative to the ventricle."""
    dx = x[:, None, None] - ventricle.center[:, 0]
    dy = y[None, :, None] - ventricle.center[:, 1]
    radius, angle = np.hypot(dx, dy), np.arctan2(dy, dx)
    endo, epi = look_up(ventricle.endo, angle), look_up(ventricle.epi, angle)
    depth = (radius - endo) / (epi - endo)
    return WallPosition(radius - endo, radius - epi, depth, angle)


def damage(
    ventricle: LeftVentricle, where: WallPosition, patches: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Signed depth of each voxel inside the infarct and the no-reflow core.

    Args:
      ventricle: the damaged ventricle.
      where: positions of the voxels.
      patches: (X, Y, slices) noise of root mean square 1 that makes the edges uneven.

    Returns:
      Infarct and core, both (X, Y, slices), in units of depth; negative outside.
    """
    infarct = look_up(ventricle.infarct, where.angle) - where.depth + 0.14 * patches
    core = look_up(ventricle.no_reflow, where.angle) - where.depth - 0.1 * patches
    if ventricle.rim > 0:
        core = np.minimum(core, where.depth - np.float32(ventricle.rim))
    return infarct, np.minimum(core, infarct)


def draw_labels(
    ventricle: LeftVentricle, where: WallPosition, patches: np.ndarray, *, pixel_area: float
) -> np.ndarray:
    """Draw the expert's contours, which omit specks: infarct under 30 mm2, no-reflow under 12 mm2.

    Args:
      ventricle: the damaged ventricle.
      where: positions of the voxels.
      patches: noise as in `damage`.
      pixel_area: area of a pixel in mm2.

    Returns:
      (X, Y, slices) uint8 with the labels of `jaxseg.anatomy.EMIDEC`.
    """
    infarct, core = damage(ventricle, where, patches)
    label = np.where(where.to_epi < look_up(ventricle.slip, where.angle), 2, 0)
    label = np.where(where.to_endo < look_up(ventricle.slip[::-1], where.angle), 1, label)
    scar = _without_specks((label == 2) & (infarct > 0), 30 / pixel_area)
    label = np.where(scar, 3, label)
    label = np.where(_without_specks(scar & (core > 0), 12 / pixel_area), 4, label)
    return label.astype(np.uint8)


def _without_specks(mask: np.ndarray, smallest: float) -> np.ndarray:
    """Drop in-plane components of fewer than `smallest` pixels, but always keep the largest."""
    structure = np.zeros((3, 3, 3), bool)
    structure[:, :, 1] = True
    components = np.zeros(mask.shape, np.int32)
    ndimage.label(mask, structure, output=components)
    sizes = np.bincount(components.ravel())
    sizes[0] = 0
    large = (sizes >= min(smallest, sizes.max())) & (sizes > 0)
    return large[components]


@dataclasses.dataclass(frozen=True)
class HeartLevels:
    """Signal levels of one case, in units of its contrast."""

    infarct: float
    no_reflow: float
    papillary: float
    trabecula: float


def draw_heart_levels(rng: np.random.Generator) -> HeartLevels:
    """Draw levels that vary between cases with dose, delay and inversion time."""
    return HeartLevels(
        infarct=float(np.clip(np.exp(rng.normal(0.24, 0.29)), 0.75, 2.6)),
        no_reflow=float(rng.normal(0.27, 0.6)),
        papillary=float(rng.uniform(-0.6, 0.5)),
        trabecula=float(rng.uniform(-0.2, 0.6)),
    )


def paint_left_ventricle(
    image: np.ndarray,
    ventricle: LeftVentricle,
    where: WallPosition,
    *,
    patches: np.ndarray,
    levels: HeartLevels,
    papillaries: np.ndarray,
    trabeculae: np.ndarray,
) -> np.ndarray:
    """Paint wall, scar and blood over `image` (X, Y, slices).

    `papillaries` and `trabeculae` are fractions in 0 to 1 of muscle inside the cavity.
    """
    edge = 1.8  # mm, width of the acquisition's point spread function
    infarct, core = damage(ventricle, where, patches)
    wall = paint(np.zeros_like(image), np.clip(infarct / 0.2 + 0.5, 0, 1), levels.infarct)
    wall = paint(wall, np.clip(core / 0.2 + 0.6, 0, 1), levels.no_reflow)
    blood = paint(np.ones_like(image), trabeculae, levels.trabecula)
    blood = paint(blood, papillaries, levels.papillary)
    image = paint(image, cover(where.to_epi, edge), wall)
    return paint(image, cover(where.to_endo, edge), blood)


def draw_papillaries(
    rng: np.random.Generator,
    ventricle: LeftVentricle,
    x: np.ndarray,
    y: np.ndarray,
    rough: np.ndarray,
) -> np.ndarray:
    """Fraction of papillary muscle (X, Y, slices): two columns between apex and mid-base."""
    num_slices = ventricle.center.shape[0]
    height = np.linspace(0, 1, num_slices)
    inner = ventricle.endo.mean(axis=0)
    share = np.zeros((x.size, y.size, num_slices), np.float32)
    for direction in PAPILLARY_DIRECTIONS:
        angle = direction + rng.normal(0, 0.25) + rng.normal(0, 0.08, num_slices)
        outward = inner * (0.72 + rng.normal(0, 0.04, num_slices))
        px = ventricle.center[:, 0] + outward * np.cos(angle)
        py = ventricle.center[:, 1] + outward * np.sin(angle)
        size = rng.uniform(2.5, 6.0) * _window(np.abs(height - 0.48), 0.4, 0.25)
        distance = np.hypot(x[:, None, None] - px, y[None, :, None] - py)
        share = np.maximum(share, cover(distance + 1.2 * rough - size, 2.5) * (size > 1))
    return share


def draw_trabeculae(
    rng: np.random.Generator, where: WallPosition, spacing: tuple[float, float, float]
) -> np.ndarray:
    """Fraction of trabecular muscle (X, Y, slices): strands near the wall of the cavity."""
    strands = smooth_noise(rng, where.depth.shape, (1.6 / spacing[0], 1.6 / spacing[1], 0.5))
    rim = np.clip(1 + where.to_endo / rng.uniform(5, 10), 0, 1)
    return np.clip((strands - rng.uniform(0.2, 1.1)) * 0.9, 0, 0.9) * rim
