"""Steps of a prediction, written out as references."""

import numpy as np

from jaxseg.data import Case, Grid, most_probable, preprocess_case, probabilities_to_native
from jaxseg.data.preprocess import corrected
from jaxseg.runs.trained import Trained


def picture(image: np.ndarray) -> np.ndarray:
    """(X, Y, slices) bool, `jaxseg.data.tissue_of` voxel by voxel."""
    shown = np.zeros(image.shape, bool)
    slices = [k for k in range(image.shape[2]) if len(np.unique(image[..., k])) > 1]
    if not slices:
        return shown
    stack = image[..., slices]
    rows = [i for i in range(len(stack)) if len(np.unique(stack[i])) > 1]
    columns = [j for j in range(stack.shape[1]) if len(np.unique(stack[:, j])) > 1]
    if not (rows and columns):
        return shown
    inner = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    for k in slices:
        cut = image[..., k][inner]
        for i, j in np.ndindex(cut.shape):
            rays = cut[: i + 1, j], cut[i:, j], cut[i, : j + 1], cut[i, j:]
            shown[..., k][inner][i, j] = all(ray.any() for ray in rays)
    return shown


def prepared(run: Trained, case: Case) -> np.ndarray:
    """The case's images (slices, H, W) as the run's settings correct and normalize them."""
    how = run.setup.preprocessing
    return preprocess_case(corrected(case, how), how)[0]


def labels_back(
    prediction: np.ndarray, shape: tuple[int, ...], spacing: tuple[float, ...], grid: Grid
) -> np.ndarray:
    """Label map (X, Y, slices) of probabilities, or of a label map (slices, H, W), on a grid."""
    if prediction.ndim == 3:
        prediction = prediction[..., None] == np.arange(int(prediction.max()) + 1)
    return most_probable(probabilities_to_native(prediction, shape, spacing, grid))
