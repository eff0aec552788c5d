"""The stages side by side: rows, cut-outs and scores by hand."""

import numpy as np
import pytest

from jaxseg.anatomy import Anatomy
from jaxseg.reports.pictures import overlay
from jaxseg.reports.stage_figure import stage_figure

ANATOMY = Anatomy(
    labels=("background", "cavity", "infarct"),
    inclusions=(),
    slice_regions=(("LV", (1,)), ("Inf", (2,))),
    case_regions=(("LV", (1,)),),
)


def stacks():
    rng = np.random.default_rng(0)
    images = rng.normal(size=(2, 20, 20)).astype(np.float32)
    reference = np.zeros((2, 20, 20), np.uint8)
    reference[0, 8:12, 8:12] = 1
    reference[0, 8:10, 8:10] = 2  # 12 pixels of cavity, 4 of infarct
    reference[1, 2:4, 15:18] = 1
    first = reference.copy()
    first[0, 8:10, 8:10] = 1  # cavity 2 * 12 / (12 + 16) = 0.857, infarct 0
    first[0, 0, :3] = 1  # 3 more, beyond the cut-out: 2 * 12 / (12 + 19) = 0.774
    return images, reference, {"first": first, "second": reference}


def test_rows_cut_outs_and_scores():
    images, reference, predictions = stacks()
    figure = stage_figure(images, reference, predictions, ["a", "b"], ANATOMY, margin=2)
    assert [figure.axes[k].get_ylabel() for k in (0, 2, 4, 6)] == [
        "image", "reference", "first", "second",
    ]  # fmt: skip
    notes = [[text.get_text() for text in axis.texts] for axis in figure.axes]
    assert notes == [
        [], [], [], [],
        ["LV\u00a00.77  Inf\u00a00.00\n3 px outside"], ["LV\u00a01.00"],
        ["LV\u00a01.00  Inf\u00a01.00"], ["LV\u00a01.00"],
    ]  # fmt: skip
    # 4 pixels and 2 on each side: rows and columns 6 .. 14; at the rim the window is moved in.
    windows = [(slice(6, 14), slice(6, 14)), (slice(0, 8), slice(12, 20))]
    for k, window in enumerate(windows):
        for row, maps in ((1, reference), (2, predictions["first"])):
            shown = np.asarray(figure.axes[2 * row + k].images[0].get_array())
            expected = overlay(images[k][window], maps[k][window])
            np.testing.assert_array_equal(shown, expected.transpose(1, 0, 2))


def test_scores_of_many_regions_are_wrapped():
    names = ("Myocardium", "Infarction", "NoReflow")
    anatomy = Anatomy(
        labels=("background", *names),
        inclusions=(),
        slice_regions=tuple((name, (k,)) for k, name in enumerate(names, 1)),
        case_regions=(("all", (1, 2, 3)),),
    )
    maps = np.repeat(np.arange(4, dtype=np.uint8), 4).reshape(1, 4, 4)
    figure = stage_figure(maps.astype(np.float32), maps, {"a": maps}, [""], anatomy)
    (note,) = figure.axes[2].texts
    assert note.get_text().replace("\u00a0", " ").split("\n") == [
        "Myocardium 1.00", "Infarction 1.00", "NoReflow 1.00",
    ]  # fmt: skip


def test_missing_slices_and_reserved_names_are_refused():
    images, reference, predictions = stacks()
    with pytest.raises(ValueError, match="slice"):
        stage_figure(images[:0], reference[:0], {}, [], ANATOMY)
    predictions["reference"] = reference
    with pytest.raises(ValueError, match="'reference'"):
        stage_figure(images, reference, predictions, ["a", "b"], ANATOMY)
