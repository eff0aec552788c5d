"""Figure of pathology mixup: pairs, their registration and their mixtures (the paper's Fig. 1)."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from jaxseg.data import Cohort
from jaxseg.mixup import choose_partner, pathology_mixup, registration_matrix, warp
from jaxseg.reports import pictures

_CONTOUR = "#FF6EFF"  # neither a gray of the image nor a label's color


def caption(*, tolerance: float) -> str:
    """Return a caption that describes the figure and how its slices were selected."""
    return (
        "Pathology mixup of training slices. The moving slice M is registered onto the fixed one F "
        "by scale s and translation (Eq. 1) and mixed with it, (1 - λ) M∘T + λ F, inside F's "
        "foreground (contour); outside it image and labels stay those of F (Eq. 2). Label colors "
        "blend by probability; each pair has one gray scale, and all are cut out at one size. "
        "Fixed slices follow from a rule: one a case, those with the most labels and, among these, "
        "the most pixels of the rarest. Each partner is drawn at random with training's own rule, "
        "among slices with foreground whose relative height (0 base, 1 apex) differs by at most "
        f"{tolerance:g}, here from another case."
    )


def choose_pairs(
    cohort: Cohort, *, count: int, tolerance: float, seed: int = 0
) -> list[tuple[int, int]]:
    """Select pairs of slices to mix.

    Args:
      cohort: the training slices.
      count: number of pairs; fewer if fewer cases have a partner.
      tolerance: largest difference of relative height, as in training.
      seed: seed for drawing the partners.

    Returns:
      Index pairs (fixed, moving). The fixed slices are those of `pictures.representative_slices`
      that have a partner. The moving slices are drawn by `jaxseg.mixup.choose_partner` from other
      cases.
    """
    foreground = np.any(cohort.labels > 0, axis=(1, 2))
    heights, key = jnp.asarray(cohort.heights), jax.random.key(seed)
    order = pictures.representative_slices(cohort.labels, cohort.case_index, len(cohort))
    pairs: list[tuple[int, int]] = []
    for fixed in order[foreground[order]].tolist():
        if len(pairs) == count:
            break
        eligible = foreground & (cohort.case_index != cohort.case_index[fixed])
        moving, found = choose_partner(
            jax.random.fold_in(key, fixed),
            jnp.int32(fixed),
            heights,
            jnp.asarray(eligible),
            tolerance=tolerance,
        )
        if bool(found):
            pairs.append((fixed, int(moving)))
    return pairs


def mixup_figure(
    cohort: Cohort,
    label_names: Sequence[str],
    *,
    tolerance: float,
    count: int = 3,
    lambdas: Sequence[float] = (0.25, 0.5, 0.75),
    margin: int = 16,
) -> Figure:
    """Draw two rows per pair, images and labels: F, M, M registered onto F, and the mixtures.

    Args:
      cohort: the training slices.
      label_names: names by label value, background first, for the legend.
      tolerance: largest difference of relative height, as in training.
      count: largest number of pairs; see `choose_pairs`.
      lambdas: shares of the fixed slice, one column each.
      margin: pixels of the network grid shown around the labels of both slices.

    Returns:
      A figure, to be written with `pictures.png` or `pictures.save`.

    Raises:
      ValueError: if no slice has a partner.
    """
    pairs = choose_pairs(cohort, count=count, tolerance=tolerance)
    if not pairs:
        raise ValueError(
            "no two slices with foreground, of different cases, whose relative heights differ by "
            f"at most {tolerance:g}; expected at least one pair to mix"
        )
    labels = np.stack([np.maximum(*cohort.labels[list(pair)]) for pair in pairs])
    cuts = pictures.close_up(labels, margin=margin)
    cells, notes = [], []
    for (fixed, moving), cut in zip(pairs, cuts, strict=True):
        images, labels, scale = _steps(cohort, fixed, moving, len(label_names), lambdas)
        window = _window(cohort.images[[fixed, moving]])
        gray = [pictures.overlay(one[cut], np.zeros((), np.uint8), window=window) for one in images]
        colored = [
            pictures.soft_overlay(image[cut], probabilities[cut], window=window)
            for image, probabilities in zip(images, labels, strict=True)
        ]
        cells += [gray, colored]
        texts = [_name(cohort, fixed), _name(cohort, moving), f"s = {scale:.2f}"]
        notes += [texts + [""] * len(lambdas), [""] * (3 + len(lambdas))]
    columns = ["fixed F", "moving M", "registered M∘T", *(f"mixed, λ = {lam:g}" for lam in lambdas)]
    contour = Line2D([], [], color=_CONTOUR, linewidth=1, label="foreground of F")
    handles = [*pictures.label_handles(label_names), contour]
    figure = pictures.panels(cells, ["image", "labels"] * len(pairs), columns, handles, notes=notes)
    for row, ((fixed, _), cut) in enumerate(zip(pairs, cuts, strict=True)):
        foreground = cohort.labels[fixed][cut] > 0
        _draw_contours(figure, foreground, 2 * row * len(columns), len(columns))
    return figure


def _steps(
    cohort: Cohort, fixed: int, moving: int, num_labels: int, lambdas: Sequence[float]
) -> tuple[list[np.ndarray], list[np.ndarray], float]:
    """Compute images (H, W), label probabilities (H, W, L) of a pair's columns, and the scale."""
    fixed_image, moving_image = (jnp.asarray(cohort.images[i]) for i in (fixed, moving))
    fixed_label, moving_label = (jnp.asarray(cohort.labels[i]) for i in (fixed, moving))
    matrix = registration_matrix(fixed_label > 0, moving_label > 0)
    steps: list[tuple[Array, Array]] = [
        (fixed_image, jax.nn.one_hot(fixed_label, num_labels)),
        (moving_image, jax.nn.one_hot(moving_label, num_labels)),
        (warp(moving_image, matrix), _warped_labels(moving_label, matrix, num_labels)),
    ]
    steps += [
        pathology_mixup(
            fixed_image, fixed_label, moving_image, moving_label, lam, num_labels=num_labels
        )
        for lam in lambdas
    ]
    images, labels = zip(*steps, strict=True)
    return list(map(np.asarray, images)), list(map(np.asarray, labels)), float(matrix[0, 0])


def _warped_labels(labels: Array, matrix: Array, num_labels: int) -> Array:
    """Warp labels to probabilities (H, W, L); beyond the border of the slice is background."""
    inner = warp(jax.nn.one_hot(labels, num_labels)[..., 1:], matrix)
    return jnp.concatenate([1 - inner.sum(-1, keepdims=True), inner], -1).clip(0, 1)


def _window(images: NDArray[np.floating]) -> tuple[float, float]:
    low, high = np.percentile(images, (1, 99))
    return float(low), float(high)


def _name(cohort: Cohort, index: int) -> str:
    return f"{cohort.titles()[index]}\nheight {cohort.heights[index]:.2f}"


def _draw_contours(figure: Figure, foreground: NDArray[np.bool_], first: int, count: int) -> None:
    """Outline F's foreground on F and on all slices registered onto it, from axis `first` on."""
    for column in (0, *range(2, count)):
        figure.axes[first + column].contour(
            foreground.T.astype(np.float32), levels=[0.5], colors=_CONTOUR, linewidths=1.0
        )
