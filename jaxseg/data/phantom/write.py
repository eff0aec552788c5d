"""Generate and write synthetic cohorts of late gadolinium enhancement stacks.

The phantom lets every part of the project run and be tested without the real cases. It is read by
the same readers as real cases, and its headers have the same peculiarities. No-reflow is as hard
to segment as in real cases: its signal overlaps those of normal myocardium and blood. A seed
determines everything; nothing is derived from a patient's image.
"""

import dataclasses
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from jaxseg.data.phantom import fields as fields
from jaxseg.data.phantom import heart as heart
from jaxseg.data.phantom.layout import LAYOUTS, case_files, write_case, write_description
from jaxseg.data.phantom.thorax import paint_surroundings

GENERATOR_VERSION = 1  # increase this if a seed gives other cases than before
MANIFEST = "phantom.json"

# Fractions of all cases, and slice counts by slice thickness, in the real cohort.
PATHOLOGICAL_SHARE = 0.67
NO_REFLOW_SHARE = 0.40
SLICES = {
    8.0: ((6, 1), (7, 2), (8, 4), (9, 1)),
    10.0: ((5, 3), (6, 3), (7, 20), (8, 13), (9, 6), (10, 4)),
    13.0: ((4, 1), (5, 5), (6, 11), (7, 3), (8, 1)),
}
THICKNESS_SHARES = ((8.0, 0.10), (10.0, 0.62), (13.0, 0.28))
_ROLE_STREAM = 0x524F4C45  # separates the random stream of roles from that of each case


@dataclasses.dataclass(frozen=True)
class PhantomCase:
    """One synthetic case.

    Attributes:
      name: `N007` (normal) or `P007` (infarcted).
      image: (X, Y, slices) int16 in 0..255; slice 0 is the apex.
      label: (X, Y, slices) uint8 with EMIDEC's labels 0-4.
      spacing: voxel size in mm.
    """

    name: str
    image: np.ndarray
    label: np.ndarray
    spacing: tuple[float, float, float]


def phantom_case(seed: int, index: int, *, num_cases: int) -> PhantomCase:
    """Generate case `index` of a cohort of `num_cases`, determined by these three numbers.

    `num_cases` only affects the role of the case: normal, infarcted, or infarcted with no-reflow.

    Raises:
      ValueError: `seed` is negative, or `index` is not in 0 .. num_cases - 1.
    """
    if seed < 0:
        raise ValueError(f"seed is {seed}, expected 0 or more")
    if not 0 <= index < num_cases:
        raise ValueError(f"index is {index}, expected 0 to {num_cases - 1} (num_cases - 1)")
    rng = np.random.default_rng([seed, index])
    infarcted, no_reflow = _role(seed, index, num_cases)
    num_slices, shape, spacing = _draw_grid(rng)
    ventricle = heart.draw_left_ventricle(rng, num_slices, infarcted=infarcted, no_reflow=no_reflow)
    x, y = (
        (np.arange(n) - (n - 1) / 2).astype(np.float32) * s
        for n, s in zip(shape, spacing[:2], strict=True)
    )
    levels, label = _render(rng, ventricle, x, y, spacing)
    image = _acquire(rng, levels, spacing)
    return PhantomCase(_name(seed, index, num_cases), image, label, spacing)


def case_names(seed: int, num_cases: int, layout: str) -> list[str]:
    """Names by which a cohort's cases are read, known before it is written."""
    prefix = "" if layout == "nnunet" else "Case_"
    return [f"{prefix}{_name(seed, index, num_cases)}" for index in range(num_cases)]


def _name(seed: int, index: int, num_cases: int) -> str:
    infarcted, _ = _role(seed, index, num_cases)
    return f"{'P' if infarcted else 'N'}{index + 1:03d}"


def _role(seed: int, index: int, num_cases: int) -> tuple[bool, bool]:
    """Whether the case is infarcted and whether it has no-reflow, in fixed fractions per cohort."""
    order = np.random.default_rng([_ROLE_STREAM, seed]).permutation(num_cases)
    rank = int(order[index])
    return rank < round(PATHOLOGICAL_SHARE * num_cases), rank < round(NO_REFLOW_SHARE * num_cases)


def _draw_grid(
    rng: np.random.Generator,
) -> tuple[int, tuple[int, int], tuple[float, float, float]]:
    """Draw the number of slices, in-plane size (at least 200 mm) and voxel size in mm."""
    values, shares = zip(*THICKNESS_SHARES, strict=True)
    thickness = float(rng.choice(values, p=shares))
    counts, weights = zip(*SLICES[thickness], strict=True)
    num_slices = int(rng.choice(counts, p=np.array(weights) / sum(weights)))
    ratio = 1.0 if rng.random() < 0.3 else np.exp(rng.normal(0, 0.3))
    pixel = rng.uniform(1.15, 1.6) * np.array([ratio**0.5, ratio**-0.5])
    pixel = np.clip(pixel, 0.9, 1.9).astype(np.float32)
    view = np.array([rng.uniform(250, 360), rng.uniform(200, 270)])
    view = view if rng.random() < 0.6 else view[::-1]
    size = np.maximum(np.ceil(200 / pixel), np.minimum(np.rint(view / pixel), 216))
    return (
        num_slices,
        (int(size[0]), int(size[1])),
        (float(pixel[0]), float(pixel[1]), thickness),
    )


def _render(
    rng: np.random.Generator,
    ventricle: heart.LeftVentricle,
    x: np.ndarray,
    y: np.ndarray,
    spacing: tuple[float, float, float],
) -> tuple[np.ndarray, np.ndarray]:
    """Noise-free levels (in units of the contrast) and the label map, both (X, Y, slices)."""
    where = heart.wall_position(ventricle, x, y)
    image = paint_surroundings(rng, ventricle, where, x, y)
    # The rest only affects the neighborhood of the ventricle.
    reach = float(ventricle.epi.max()) + 12
    rows, columns = (np.flatnonzero(np.abs(axis) < reach) for axis in (x, y))
    box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    x, y = x[box[0]], y[box[1]]
    near = heart.wall_position(ventricle, x, y)
    patches = fields.smooth_noise(rng, near.depth.shape, (2.5 / spacing[0], 2.5 / spacing[1], 0.4))
    tissue = {
        "patches": patches,
        "levels": heart.draw_heart_levels(rng),
        "papillaries": heart.draw_papillaries(rng, ventricle, x, y, patches),
        "trabeculae": heart.draw_trabeculae(rng, near, spacing),
    }
    # Average the anatomy over the slice thickness.
    total = np.zeros_like(patches)
    for fraction in (-0.3, 0.0, 0.3):
        part = ventricle.between(fraction)
        there = heart.wall_position(part, x, y)
        total += heart.paint_left_ventricle(image[box], part, there, **tissue)
    image[box] = total / 3
    label = np.zeros(image.shape, np.uint8)
    label[box] = heart.draw_labels(ventricle, near, patches, pixel_area=spacing[0] * spacing[1])
    return image, label


def _acquire(
    rng: np.random.Generator, levels: np.ndarray, spacing: tuple[float, float, float]
) -> np.ndarray:
    """Simulate the scanner: texture, bias field, Rician noise, scaling to 0..255, zero padding."""
    shape = levels.shape
    contrast = np.clip(np.exp(rng.normal(2.62, 0.36)), 7, 30)  # gray values
    myocardium = np.clip(rng.normal(115, 8), 98, 135)
    blur = (0.9 / spacing[0], 0.9 / spacing[1], 0.0)
    grain = (rng.uniform(2.0, 3.5) / spacing[0], rng.uniform(2.0, 3.5) / spacing[1], 0.3)
    texture = np.exp(rng.normal(1.02, 0.3)) * fields.smooth_noise(rng, shape, grain)
    point_spread = (0.65 / spacing[0], 0.65 / spacing[1], 0.0)
    levels = ndimage.gaussian_filter(levels, point_spread, mode="nearest", truncate=3.0)
    signal = myocardium + contrast * levels + texture
    bias = sum(
        share * fields.slow_noise(rng, shape, nodes, along)
        for share, nodes, along in ((0.02, 3, 2.0), (0.02, 6, 1.0), (0.015, 11, 0.5))
    )
    signal = signal * (1 + bias + rng.normal(0, 0.035, shape[2]))
    # The signal null lies far below the tissue in phase-sensitive, close to it in magnitude images.
    null = myocardium - contrast * rng.uniform(2, 8)
    sigma = np.float32(np.exp(rng.normal(0.4, 0.3)))
    real, imaginary = (sigma * fields.smooth_noise(rng, shape, blur) for _ in range(2))
    image = null + np.hypot(signal - null + real, imaginary)
    image = _pad(rng, np.maximum(image, 0), spacing)
    return np.rint(image * (255 / image.max())).astype(np.int16)


def _pad(
    rng: np.random.Generator, image: np.ndarray, spacing: tuple[float, float, float]
) -> np.ndarray:
    """Set the borders along one axis to zero, as a rectangular field of view does."""
    axis = int(rng.integers(2))
    edges = rng.uniform(80, 150, 2) if rng.random() < 0.5 else np.full(2, np.inf)
    at = (np.arange(image.shape[axis]) - (image.shape[axis] - 1) / 2) * spacing[axis]
    kept = (at > -edges[0]) & (at < edges[1])
    return image * np.expand_dims(kept, (1 - axis, 2) if axis == 0 else (0, 2))


def write_phantom(
    root: Path,
    *,
    seed: int,
    num_cases: int,
    layout: str = "emidec",
    progress: Callable[[int, int], object] | None = None,
) -> Path:
    """Write a cohort, such as `root/Case_P001/{Images,Contours}/Case_P001.nii.gz`; return `root`.

    Nothing appears at `root` before the cohort is complete. A complete cohort of the same seed,
    size, layout and generator version is kept. The same library versions give the same bytes.

    Args:
      root: folder to create, together with its parents.
      seed: 0 or more.
      num_cases: 1 or more.
      layout: "emidec", or "nnunet" for an nnU-Net data set with other label names and values; see
        `jaxseg.data.phantom.layout`.
      progress: called with (cases done, total cases) after each case.

    Raises:
      ValueError: the seed, size or layout is invalid; or `root` holds something else, or another
        phantom.
    """
    if num_cases < 1:
        raise ValueError(f"num_cases is {num_cases}, expected 1 or more")
    if seed < 0:
        raise ValueError(f"seed is {seed}, expected 0 or more")
    if layout not in LAYOUTS:
        raise ValueError(f"layout is {layout!r}, expected one of {', '.join(LAYOUTS)}")
    root = Path(root)
    manifest = {
        "generator_version": GENERATOR_VERSION,
        "layout": layout,
        "num_cases": num_cases,
        "seed": seed,
    }
    if _is_complete(root, manifest):
        return root
    root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{root.name}.", dir=root.parent) as folder:
        partial = Path(folder) / "cohort"  # unlike the temporary folder, it has normal permissions
        partial.mkdir()
        for index in range(num_cases):
            case = phantom_case(seed, index, num_cases=num_cases)
            write_case(partial, case.name, case.image, case.label, case.spacing, layout=layout)
            if progress is not None:
                progress(index + 1, num_cases)
        write_description(partial, num_cases, layout=layout)
        (partial / MANIFEST).write_text(json.dumps(manifest, indent=2, sort_keys=True) + "\n")
        try:
            partial.rename(root)
        except OSError:
            # Another process may have finished the same cohort in the meantime.
            if not _is_complete(root, manifest):
                raise
    return root


def _is_complete(root: Path, manifest: dict[str, Any]) -> bool:
    """Whether `root` holds this phantom; False if there is nothing yet."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    path = root / MANIFEST
    if not path.is_file():
        raise ValueError(f"{root} exists and is not a phantom cohort (it has no {MANIFEST})")
    try:
        found = json.loads(path.read_text())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not readable as JSON: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds {type(found).__name__}, expected an object")
    found = {"layout": "emidec", **found}  # older manifests do not state the layout
    keys = sorted(set(found) | set(manifest))
    differ = [
        f"{key} is {found.get(key)}, expected {manifest.get(key)}"
        for key in keys
        if found.get(key) != manifest.get(key)
    ]
    if differ:
        raise ValueError(f"{path} is of another phantom: {'; '.join(differ)}")
    for index in range(manifest["num_cases"]):
        name = _name(manifest["seed"], index, manifest["num_cases"])
        for file in case_files(root, name, manifest["layout"]):
            if not file.is_file():
                raise ValueError(f"{file} is missing from the phantom; delete {root} to rebuild it")
    return True
