"""Surroundings of the phantom's heart: chest wall, lungs, diaphragm, abdomen, right ventricle, fat.

Signal levels are in units of the case's contrast (normal myocardium 0, blood 1), lengths in mm.
"""

import numpy as np

from jaxseg.data.phantom.fields import (
    DIRECTIONS,
    cover,
    ellipse_distance,
    look_up,
    paint,
    smooth_noise,
)
from jaxseg.data.phantom.heart import LeftVentricle, WallPosition


def paint_surroundings(
    rng: np.random.Generator,
    ventricle: LeftVentricle,
    where: WallPosition,
    x: np.ndarray,
    y: np.ndarray,
) -> np.ndarray:
    """Paint all but the left ventricle, (X, Y, slices) float32, at x (X,) and y (Y,) in mm."""
    xx, yy = x[:, None, None], y[None, :, None]
    step = (float(x[1] - x[0]), float(y[1] - y[0]))
    height = np.linspace(0, 1, ventricle.center.shape[0], dtype=np.float32)
    turn = rng.uniform(-1.5, 0.2)  # orientation: from chest wall above the heart to its left
    image = _paint_chest(rng, xx, yy, height, step, turn)
    image = _paint_abdomen(rng, image, ventricle, xx, yy, step, 0.3 * turn + 0.2)
    return _paint_right_heart(rng, image, ventricle, where, xx, yy, step)


def _paint_chest(
    rng: np.random.Generator,
    xx: np.ndarray,
    yy: np.ndarray,
    height: np.ndarray,
    step: tuple[float, float],
    turn: float,
) -> np.ndarray:
    """Paint air, then subcutaneous fat, muscle with ribs, and lung with its vessels."""
    u = np.cos(turn) * xx + np.sin(turn) * yy
    v = -np.sin(turn) * xx + np.cos(turn) * yy
    half = rng.uniform(130, 170), rng.uniform(110, 140)
    # The chest wall is closer at the apex.
    above = rng.uniform(48, 66) + rng.uniform(5, 25) * height
    side = rng.uniform(-35, 10)
    u, v = np.broadcast_arrays(u - side, v - (half[1] - above))
    angle = np.arctan2(v, u)
    num_slices = height.size
    wavy = 4 * look_up(smooth_noise(rng, (DIRECTIONS.size, num_slices), (6, 1.5)), angle)
    inside = ellipse_distance(u, v, half, 2.6) + wavy
    fat, muscle = rng.uniform(4, 16), rng.uniform(7, 16)
    image = np.full(inside.shape, rng.uniform(-1.0, 0.3), np.float32)
    # Fat next to the surface coil is the brightest tissue.
    coil = 1 + rng.uniform(0.6, 1.4) * np.clip((np.hypot(xx, yy) - 70) / 60, 0, 1)
    image = paint(image, cover(inside, 2.5), _fat(rng, inside.shape, step) * coil)
    meat = 0.5 * smooth_noise(rng, inside.shape, (3 / step[0], 3 / step[1], 0.5))
    image = paint(image, cover(inside + fat, 2.5), rng.uniform(-0.4, 0.9) + meat)
    ribs = look_up(smooth_noise(rng, (DIRECTIONS.size, num_slices), (1.2, 0.8)), angle)
    near = cover(np.abs(inside + fat + 0.6 * muscle) - 0.35 * muscle, 2.5)
    image = paint(image, near * np.clip(ribs - 0.3, 0, 1), rng.uniform(1.0, 3.0))
    image = paint(image, near * np.clip(-ribs - 0.8, 0, 1), rng.uniform(-2.5, -0.8))
    lung = _lung(rng, inside.shape, step)
    return paint(image, cover(inside + fat + muscle, 2.5), lung)


def _lung(
    rng: np.random.Generator, shape: tuple[int, ...], step: tuple[float, float]
) -> np.ndarray:
    """Dark tissue with bright cross sections of vessels."""
    fine = smooth_noise(rng, shape, (1.7 / step[0], 1.7 / step[1], 0.3))
    wide = smooth_noise(rng, shape, (4 / step[0], 4 / step[1], 0.5))
    vessels = np.clip(1.2 * (fine + 0.6 * wide - rng.uniform(1.8, 2.7)), 0, 1)
    tissue = np.float32(rng.normal(-0.55, 0.6)) + np.float32(rng.uniform(0.1, 0.5)) * wide
    return paint(tissue, vessels, rng.uniform(1, 3.5))


def _fat(rng: np.random.Generator, shape: tuple[int, ...], step: tuple[float, float]) -> np.ndarray:
    """Bright, uneven tissue."""
    uneven = smooth_noise(rng, shape, (4 / step[0], 4 / step[1], 0.5))
    return np.float32(rng.uniform(1.5, 3.3)) * (1 + np.float32(0.25) * uneven)


def _paint_abdomen(
    rng: np.random.Generator,
    image: np.ndarray,
    ventricle: LeftVentricle,
    xx: np.ndarray,
    yy: np.ndarray,
    step: tuple[float, float],
    tilt: float,
) -> np.ndarray:
    """Paint liver under the diaphragm, with stomach, spleen and fat as soft patches."""
    epi = ventricle.epi.mean(axis=0)
    height = np.linspace(0, 1, epi.size)
    below = ventricle.center[:, 1] + epi + rng.uniform(-1, 5) + rng.uniform(0, 8) * height
    slope, bend = rng.uniform(-0.2, 0.3) - tilt, rng.uniform(0, 0.0025)
    depth = below + slope * xx + bend * (xx + 25) ** 2 - yy
    depth = depth.astype(np.float32)
    tissue = np.full(image.shape, rng.normal(0.9, 0.6), np.float32)
    tissue = tissue + 0.35 * smooth_noise(rng, image.shape, (3 / step[0], 3 / step[1], 0.5))
    fat = rng.uniform(1.5, 3.2)
    rough = 5 * smooth_noise(rng, image.shape, (6 / step[0], 6 / step[1], 0.7))
    for _ in range(7):
        at = rng.uniform(-100, 100), rng.uniform(45, 120)
        drift = rng.normal(0, 12, 2)
        px, py = (at[i] + drift[i] * (height - 0.5) for i in range(2))
        size = rng.uniform(10, 30), rng.uniform(8, 20)
        distance = ellipse_distance(xx - px, yy - py, size, 2.0) + rough
        tissue = paint(tissue, cover(distance - rng.uniform(0, 5), 3), fat)
        tissue = paint(tissue, cover(distance, 3), rng.normal(0.6, 1.4))
    image = paint(image, cover(depth, 3), tissue)
    # Fat and chemical shift make the diaphragm a bright or a dark line.
    line = cover(np.abs(depth) - rng.uniform(0.3, 1.8), 2)
    image = paint(image, 0.8 * line, rng.choice([rng.uniform(1.0, 3.0), rng.uniform(-2.5, -1)]))
    # Descending aorta.
    px, py = rng.uniform(10, 55), rng.uniform(55, 80)
    distance = np.hypot(xx - px, yy - py - 6 * height) - rng.uniform(9, 13)
    image = paint(image, cover(distance - 2, 2), rng.uniform(-0.3, 1.5))
    return paint(image, cover(distance, 2), rng.normal(1.0, 0.15))


def _paint_right_heart(
    rng: np.random.Generator,
    image: np.ndarray,
    ventricle: LeftVentricle,
    where: WallPosition,
    xx: np.ndarray,
    yy: np.ndarray,
    step: tuple[float, float],
) -> np.ndarray:
    """Paint epicardial fat, then the crescent of the right ventricle with its thin wall."""
    num_slices = ventricle.center.shape[0]
    to_right = _right_ventricle(rng, ventricle, xx, yy)
    table = rng.uniform(-2, 1.5) + 3.5 * smooth_noise(rng, (DIRECTIONS.size, num_slices), (5, 1.2))
    for direction in (-2.0, 2.4):  # fat fills the grooves between the ventricles
        away = np.cos(DIRECTIONS - direction - rng.normal(0, 0.3))[:, None]
        table = table + rng.uniform(0, 14) * np.clip(2 * away - 1, 0, 1)
    fat = look_up(np.clip(table, 0, 16), where.angle)
    outside = np.minimum(where.to_epi, to_right - 3)
    image = paint(
        image, cover(outside - fat, 2.5) * np.clip(fat / 2, 0, 1), _fat(rng, image.shape, step)
    )
    # Chemical shift at the pericardium: a thin dark line on one side of the heart.
    dark = np.clip(np.cos(DIRECTIONS - rng.normal(1.6, 0.6)) * 3 - 1.5, 0, 1)[:, None]
    dark = np.repeat(dark.astype(np.float32), num_slices, axis=1) * rng.choice([0.0, 0.5, 0.9])
    share = cover(np.abs(where.to_epi - 1.8) - 0.9, 1.8) * look_up(dark, where.angle)
    image = paint(image, share, rng.uniform(-3.0, -1.0))
    image = paint(image, cover(to_right - 2.8, 2), rng.uniform(-0.3, 0.5))
    strands = smooth_noise(rng, image.shape, (2 / step[0], 2 / step[1], 0.5))
    meat = np.clip((strands - 0.7) * 0.6, 0, 0.8) * np.clip(1.2 + to_right / 12, 0, 1)
    blood = np.float32(rng.normal(0.97, 0.15)) - meat * np.float32(rng.uniform(0.4, 1.0))
    return paint(image, cover(to_right, 2), blood)


def _right_ventricle(
    rng: np.random.Generator, ventricle: LeftVentricle, xx: np.ndarray, yy: np.ndarray
) -> np.ndarray:
    """Signed distance to an ellipse, which the left ventricle later covers to form a crescent."""
    epi = ventricle.epi.mean(axis=0)
    height = np.linspace(0, 1, epi.size)
    grown = rng.uniform(0.35, 0.6) + (rng.uniform(0.9, 1.15) - 0.5) * np.minimum(height / 0.7, 1)
    toward = np.pi + rng.uniform(-0.1, 0.7)
    wide, long = 0.68 * epi * grown, 1.05 * epi * np.minimum(grown + 0.1, 1.1)
    away = epi + 0.1 * wide
    dx = xx - ventricle.center[:, 0] - away * np.cos(toward)
    dy = yy - ventricle.center[:, 1] - away * np.sin(toward)
    along = dx * np.cos(toward) + dy * np.sin(toward)
    across = dy * np.cos(toward) - dx * np.sin(toward)
    # Bend the ellipse around the septum.
    return ellipse_distance(along + 0.012 * across**2, across, (wide, long), 2.2)
