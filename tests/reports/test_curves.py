"""Learning curves: metrics read back line by line, means by hand, panels by their data."""

import json
import re

import numpy as np
import pytest

from jaxseg.anatomy import EMIDEC
from jaxseg.reports.curves import Curve, curves, read_history, spread
from jaxseg.runs.files import WorkdirError
from jaxseg.runs.logbook import Logbook

REGIONS = ("LV", "Inf")


def line(step, group="train", **values):
    return json.dumps({"step": step, "group": group, "epoch": step / 10} | values)


def write(tmp_path, *lines, end="\n"):
    path = tmp_path / "metrics.jsonl"
    path.write_text("\n".join(lines) + end)
    return path


def curve(epochs, values):
    return Curve(np.array(epochs, float), np.array(values, float))


def history(*, loss=(2.0, 1.0), dsc=(0.5, 0.75), weights=None, epochs=(1.0, 2.0)):
    run = {"train/loss": curve(epochs, loss), "train/cross_entropy": curve(epochs, loss)}
    run |= {f"validation/dsc/{region}": curve(epochs, dsc) for region in REGIONS}
    return run | {
        f"train/label_weights/{name}": curve(epochs, values)
        for name, values in (weights or {}).items()
    }


def test_written_metrics_are_read_back(tmp_path):
    with Logbook(tmp_path, step=0) as logbook:
        values = {"loss": 0.5, "label_weights": {"background": 0.25, "no-reflow": 4}, "epoch": 0.5}
        logbook.scalars(5, "train", values)
        dsc = {"dsc": {"LV": 0.75, "NoR": float("nan")}, "epoch": 1.0}
        logbook.scalars(10, "validation", dsc)
        logbook.scalars(10, "train", {"loss": 0.25, "epoch": 1})
    read = read_history(tmp_path / "metrics.jsonl")
    assert list(read) == [
        "train/loss", "train/label_weights/background", "train/label_weights/no-reflow",
        "validation/dsc/LV", "validation/dsc/NoR",
    ]  # fmt: skip
    assert read["train/loss"].epochs.tolist() == [0.5, 1.0]
    assert read["train/loss"].values.tolist() == [0.5, 0.25]
    assert read["train/label_weights/no-reflow"].values.tolist() == [4.0]
    assert np.isnan(read["validation/dsc/NoR"].values).tolist() == [True]
    assert {(c.epochs.dtype, c.values.dtype) for c in read.values()} == {(np.dtype(float),) * 2}


def test_repeated_steps_count_once(tmp_path):
    path = write(tmp_path, line(10, loss=1), line(20, loss=2), line(30, loss=3), line(20, loss=4))
    read = read_history(path)["train/loss"]
    assert read.epochs.tolist() == [1, 2, 3]
    assert read.values.tolist() == [1, 4, 3]


@pytest.mark.parametrize("end", ["\n", "", "\n" + line(30, loss=3)[:-1], '\n{"st'])
def test_an_incomplete_last_line_is_ignored(tmp_path, end):
    path = write(tmp_path, line(10, loss=1), line(20, loss=2), end=end)
    assert read_history(path)["train/loss"].values.tolist() == [1, 2]


@pytest.mark.parametrize(
    ("damaged", "named"),
    [
        (line(20, loss=2)[:-1], ""),
        ("", ""),
        ("[" * 10**5, ""),
        ("[1]", ""),
        ('{"step": 1, "epoch": 1}', "group: "),
        ('{"group": "train", "epoch": 1}', "step: "),
        (line(20, epoch=None), "epoch: "),
        (line(20, loss="low"), "loss: "),
        (line(20, loss=True), "loss: "),
    ],
)
def test_a_damaged_line_is_named(tmp_path, damaged, named):
    path = write(tmp_path, line(10, loss=1), damaged, line(30, loss=3))
    with pytest.raises(WorkdirError, match=f"^{re.escape(str(path))}, line 2: {named}"):
        read_history(path)


def test_unreadable_files_are_named(tmp_path):
    path = tmp_path / "metrics.jsonl"
    for content in (None, b"", b'{"step": 1', b"\xff\n"):
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(WorkdirError, match=r"metrics\.jsonl: "):
            read_history(path)


def test_spread_by_hand():
    # At epoch 2 the first run stands between 1 and 3, at epoch 3 the second between 2 and 4.
    runs = [curve([1, 3, 5], [0, 4, 6]), curve([0, 2, 4], [9, 10, 20])]
    epochs, mean, low, high = spread(runs)
    assert epochs.tolist() == [1, 2, 3, 4]
    assert low.tolist() == [0, 2, 4, 5]
    assert high.tolist() == [9.5, 10, 15, 20]
    assert mean.tolist() == [4.75, 6, 9.5, 12.5]


def test_spread_ignores_nan():
    holes = curve([1, 2, 3], [1, np.nan, 3])
    nothing = curve([1, 2], [np.nan, np.nan])
    assert spread([holes, nothing]).tolist() == [[1, 3]] * 4
    assert spread([nothing]).shape == (4, 0)
    assert spread([curve([1], [1]), curve([2], [2])]).shape == (4, 0)


def test_panels_of_losses_and_regions():
    other = history(loss=(4.0, 3.0), dsc=(0.25, 1.0))
    figure = curves({"baseline": [history(), other], "attention": [history()]}, REGIONS)
    assert len(figure.axes) == 4
    for axis, region in zip(figure.axes[2:], REGIONS, strict=True):
        assert axis.get_title().endswith(region)
    for axis, means in zip(figure.axes, [(3, 2)] * 2 + [(0.375, 0.875)] * 2, strict=True):
        drawn = [np.asarray(found.get_ydata()).tolist() for found in axis.lines]
        single = [2, 1] if axis.get_yscale() == "log" else [0.5, 0.75]
        assert drawn == [list(means), single]
        (band,) = axis.collections  # of the stage of two runs
        lowest, highest = (1, 4) if axis.get_yscale() == "log" else (0.25, 1.0)
        heights = band.get_paths()[0].vertices[:, 1]
        assert (heights.min(), heights.max()) == (lowest, highest)
    assert [axis.get_yscale() for axis in figure.axes] == ["log"] * 2 + ["linear"] * 2
    assert [axis.get_ylim() for axis in figure.axes[2:]] == [(0, 1)] * 2
    (legend,) = figure.legends
    assert [t.get_text().split()[0] for t in legend.get_texts()] == ["baseline", "attention"]
    styles = [(found.get_color(), found.get_linestyle()) for found in figure.axes[0].lines]
    assert styles == [(h.get_color(), h.get_linestyle()) for h in legend.get_lines()]
    assert len(set(styles)) == 2


def test_label_weights_of_the_stages_that_have_them():
    weights = {"background": (1, 0.5), "cavity": (1, 1.5)}
    runs = [history(weights=weights), history(weights={"background": (1, 1), "cavity": (1, 2)})]
    figure = curves({"baseline": [history()], "awce": runs}, ("LV", "Inf"))
    assert [axis.get_title() for axis in figure.axes].count("label weights\nawce") == 1
    panel = figure.axes[2]
    assert [np.asarray(found.get_ydata()).tolist() for found in panel.lines] == [
        [1, 0.75], [1, 1.75],
    ]  # fmt: skip
    names = [[text.get_text() for text in legend.get_texts()] for legend in figure.legends]
    assert names[1] == ["background", "cavity"]
    assert panel.lines[1].get_color() == "#56B4E9"  # the cavity's in every picture


def test_titles_do_not_overlap():
    weights = {"background": (1, 0.5), "cavity": (1, 1.5)}
    stages = ("attention+AWCE", "attention+AWCE+penalty")
    runs = {"baseline": [history()], **{stage: [history(weights=weights)] for stage in stages}}
    figure = curves(runs, REGIONS)
    figure.draw_without_rendering()
    width = figure.bbox.width
    top = sorted(axis.title.get_window_extent().intervalx.tolist() for axis in figure.axes[:4])
    assert [axis.get_title().split("\n")[-1] for axis in figure.axes[2:4]] == list(stages)
    edges = [0, *(edge for title in top for edge in title), width]
    assert edges == sorted(edges)


def test_a_negative_loss_and_a_single_point():
    figure = curves({"a": [history(loss=(1.0, -0.5))]}, REGIONS)
    assert figure.axes[0].get_yscale() == "linear"
    point = history(loss=(1.0,), dsc=(0.5,), epochs=(1.0,))
    figure = curves({"a": [point]}, REGIONS)
    assert [found.get_marker() for axis in figure.axes for found in axis.lines] == ["o"] * 4


def test_a_region_without_slices_has_an_empty_panel():
    run = history(dsc=(np.nan, np.nan))
    assert [len(a.lines[0].get_xdata()) for a in curves({"a": [run]}, REGIONS).axes] == [2, 2, 0, 0]


def test_missing_metrics_are_named():
    complete = history() | {"validation/dsc/NoR": curve([1], [1])}
    with pytest.raises(ValueError, match=r"awce, run 2: .*validation/dsc/NoR"):
        curves({"awce": [complete, history()]}, ("LV", "NoR"))


def test_curves_of_a_real_run(finished_run):
    regions = [name for name, _ in EMIDEC.slice_regions]
    figure = curves({"mine": [read_history(finished_run / "metrics.jsonl")]}, regions)
    titles = [axis.get_title() for axis in figure.axes]
    assert len(titles) == 7
    panel = figure.axes[titles.index("label weights\nmine")]
    assert len(panel.lines) == EMIDEC.num_labels
    assert len(figure.axes[titles.index("validation DSC, LV")].lines[0].get_xdata()) == 4
