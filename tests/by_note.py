"""A bundle's `preprocessing.json` applied with NumPy and its artifacts alone.

The artifacts are those of JAX's export or, on request, those for onnxruntime.
"""

import json
from pathlib import Path

import jax.export
import numpy as np
import scipy.ndimage
import SimpleITK as sitk  # noqa: N813

from tests.by_hand import picture


def geometry(note, axis, n, edge):
    """Offset and step of one axis, by the formula that the note gives."""
    size, center = note["grid"]["size"][axis], note["grid"]["center"][axis]
    spacing = note["grid"]["spacing_mm"]
    if spacing is None:
        assert note["to_network"][1] == "step = 1; offset = floor(center * n - size / 2 + 0.5)"
        return np.floor(center * n - size / 2 + 0.5), 1.0
    assert note["to_network"][1].startswith("step = spacing_mm / voxel size; offset = center * n +")
    step = spacing / edge
    return center * n + (0.5 - size / 2) * step - 0.5, step


def forward(note, axis, n, edge):
    """(size, n) weights."""
    offset, step = geometry(note, axis, n, edge)
    p = offset + np.arange(note["grid"]["size"][axis])[:, None] * step
    everywhere = np.arange(-1000, n + 1000)
    weights = np.maximum(0, 1 - np.abs(p - everywhere) / max(1, step))
    return (weights / weights.sum(1, keepdims=True))[:, 1000 : 1000 + n]


def backward(note, axis, n, edge):
    """(n, size) weights."""
    offset, step = geometry(note, axis, n, edge)
    size = note["grid"]["size"][axis]
    q = (np.arange(n)[:, None] - offset) / step
    weights = np.maximum(0, 1 - np.abs(q - np.arange(size)))
    return np.where((q < -0.5) | (q > size - 0.5), 0, weights)


def on_grid(note, image, edges):
    """Pixels on the grid, 0 in padding, and which are tissue."""
    rows, columns = (forward(note, k, image.shape[k], edges[k]) for k in (0, 1))
    shown = np.moveaxis(picture(image), -1, 0)
    total = rows @ np.where(shown, np.moveaxis(image.astype(float), -1, 0), 0) @ columns.T
    covered = rows @ shown @ columns.T
    tissue = covered >= 0.5 - 1e-9
    return np.divide(total, covered, out=np.zeros_like(total), where=tissue), tissue


def normalized(note, image, edges):
    """Pixels on the grid as the network takes them, and which are tissue."""
    assert note["intensity"]["method"] == "zscore"
    pixels, tissue = on_grid(note, image, edges)
    low, high = np.percentile(pixels[tissue], note["intensity"]["percentiles"])
    values = np.clip(pixels[tissue], low, high)
    pixels[tissue] = (values - values.mean()) / values.std()
    return pixels, tissue


def without_bias_field(note, image, edges):
    """The stack (X, Y, slices), corrected if the note says so."""
    if "bias_field" not in note:
        return image
    shown = picture(image)
    (top, bottom), (left, right) = (np.flatnonzero(shown.any((1 - k, 2)))[[0, -1]] for k in (0, 1))
    first, last = np.flatnonzero(shown.any((0, 1)))[[0, -1]]
    inner = np.s_[top : bottom + 1, left : right + 1, first : last + 1]
    low, high = np.percentile(image[shown], [0.05, 99.9])
    signal = (np.clip(image[inner], low, high) - low) / (high - low) + 0.1
    sides = zip(edges[:2], signal.shape, strict=False)
    shrink = [*(max(1, min(round(8 / edge), n // 8)) for edge, n in sides), 1]
    volumes = []
    for array in (signal.astype(np.float32), shown[inner].astype(np.uint8)):
        volumes.append(sitk.GetImageFromArray(array.transpose(2, 1, 0)))  # rows along x
        volumes[-1].SetSpacing([float(edge) for edge in edges])
    n4 = sitk.N4BiasFieldCorrectionImageFilter()
    n4.SetMaximumNumberOfIterations([50])
    n4.Execute(*(sitk.Shrink(volume, shrink) for volume in volumes))
    log_field = sitk.GetArrayFromImage(n4.GetLogBiasFieldAsImage(volumes[0])).transpose(2, 1, 0)
    found = image.astype(float)
    corrected = low + (found[inner] - low) / np.exp(log_field)
    found[inner] = np.where(shown[inner], corrected, found[inner])
    return found


def load(path: Path):
    """A function from images to probabilities."""
    if path.suffix == ".onnx":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # threads that wait for each other would share a core
        session = onnxruntime.InferenceSession(str(path), options)
        return lambda images: session.run(None, {"images": images})[0]
    return jax.export.deserialize(bytearray(path.read_bytes())).call


def segment(folder, note, image, edges, *, suffix=".stablehlo"):
    """Probabilities (slices, H, W, L) on the note's grid, and the label map on the stack's own."""
    pixels, _ = normalized(note, image, edges)
    assert list(pixels.shape[1:]) == note["input"]["shape"][1:]
    network = load(folder / f"model{suffix}")
    shown = np.ptp(image, axis=(0, 1)) > 0
    found = np.array(network(pixels[shown].astype(note["input"]["dtype"])))
    assert list(found.shape[1:]) == note["output"]["shape"][1:]
    assert found.dtype == note["output"]["dtype"]
    background = np.eye(len(note["labels"]), dtype=found.dtype)[0]
    probabilities = np.tile(background, (*pixels.shape, 1))
    probabilities[shown] = found
    rows, columns = (backward(note, k, image.shape[k], edges[k]) for k in (0, 1))
    native = np.einsum("xr,srcl,yc->xysl", rows, probabilities, columns)
    native[..., 0] += 1 - np.outer(rows.sum(1), columns.sum(1))[..., None]
    return probabilities, np.round(native, 5).argmax(-1)


def read(folder):
    return json.loads((folder / "preprocessing.json").read_text())


def centered(note, center, **grid):
    return {**note, "grid": {**note["grid"], "center": center, **grid}}


def middle(heart):
    found = []
    for axis in (1, 2):
        counts = heart.sum((0, 3 - axis))
        total, edges = np.append(0, counts.cumsum()), np.arange(len(counts) + 1) - 0.5
        found.append(float(np.interp(total[-1] / 2, total, edges)))
    return found


def find_and_segment(folder, image, edges, *, suffix=".stablehlo"):
    """The label map of a bundle that finds the heart, and the voxel at its center.

    The steps of the note's "heart", in its order.
    """
    note, shape = read(folder), image.shape
    image = without_bias_field(note, image, edges)
    shown = picture(image)
    spans = [np.flatnonzero(shown.any((1 - k, 2))) for k in (0, 1)]
    center = [(span[0] + span[-1]) / 2 for span in spans]
    sides = [
        max(48, 8 * int(np.ceil((span[-1] - span[0] + 1) * edge / 8 / 8)))
        for span, edge in zip(spans, edges, strict=False)
    ]

    def at(position, **grid):
        fractions = [(v + 0.5) / n for v, n in zip(position, shape, strict=False)]
        return centered(note, fractions, **grid)

    def rounded(position):
        return tuple(int(np.floor(v + 0.5)) for v in position)

    def place(there, pixel):
        """Row and column, in voxels, of a pixel of a grid."""
        geometries = [geometry(there, k, shape[k], edges[k]) for k in (0, 1)]
        return [
            float(np.clip(offset + at * step, 0, n - 1))
            for (offset, step), at, n in zip(geometries, pixel, shape, strict=False)
        ]

    scout = at(center, size=sides, spacing_mm=8.0)
    pixels, tissue = normalized(scout, image, edges)
    pixels = np.where(tissue, pixels, pixels[tissue].min()).astype(np.float32)
    localizer = load(folder / f"localizer{suffix}")
    total = 0.0
    for flips in ((), (1,), (2,), (1, 2)):
        straight = np.flip(pixels, flips)
        turned = np.flip(pixels.swapaxes(1, 2), flips)
        total = total + np.flip(np.asarray(localizer(np.ascontiguousarray(straight))), flips)
        total = total + np.flip(
            np.asarray(localizer(np.ascontiguousarray(turned))), flips
        ).swapaxes(1, 2)
    heart = total[..., 1] / 8
    heart[~shown.any((0, 1))] = 0
    assert (heart > 0.5).sum() * 64 * edges[2] >= 5000
    heat = scipy.ndimage.gaussian_filter(
        heart.sum(0), np.sqrt(12.5 / 2), mode="constant", truncate=40
    )
    peak = np.unravel_index(heat.argmax(), heat.shape)

    def tried_at(position):
        """Distance of the heart from the position in mm, its own position and the label map."""
        there = at(position)
        probabilities, labels = segment(folder, there, image, edges, suffix=suffix)
        heart = place(there, middle(np.round(probabilities, 5).argmax(-1) > 0))
        gap = np.hypot(*np.multiply(np.subtract(heart, position), edges[:2]))
        return gap, heart, labels

    voxel, tried = rounded(place(scout, peak)), {}
    while voxel not in tried and len(tried) < 8:
        tried[voxel] = tried_at(voxel)
        voxel = rounded(tried[voxel][1])
    path = list(tried)
    path = path[path.index(voxel) :] if voxel in tried else path[-1:]
    best = min(path, key=lambda v: (tried[v][0], v))
    center = tried[best][1]
    return rounded(center), tried_at(center)[2]
