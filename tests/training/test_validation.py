"""Validation scores of given label maps, and their table."""

import csv
import io
import math

import numpy as np
import pytest

from configs import awce
from jaxseg.anatomy import EMIDEC
from jaxseg.config.setup import build
from jaxseg.data import Cohort
from jaxseg.metrics import Summary
from jaxseg.reports.pictures import pixels
from jaxseg.training.validation import Validation, foreground_mean, score_table

REFERENCE = np.array([[[1, 1], [2, 0]], [[1, 2], [2, 2]], [[0, 0], [0, 0]]], np.uint8)
PREDICTION = np.array([[[1, 0], [2, 2]], [[1, 2], [2, 2]], [[0, 4], [1, 0]]], np.uint8)
COHORT = Cohort(
    images=np.arange(12, dtype=np.float32).reshape(3, 2, 2),
    labels=REFERENCE,
    heights=np.array([1, 0, 0.5], np.float32),
    case_index=np.array([2, 2, 0], np.int32),
    slice_index=np.array([0, 6, 3], np.int32),
    case_names=("Case_N001", "Case_P002", "Case_P003"),
)


def validation():
    def segment(params, images):
        return (images > params).astype(np.uint8)

    return Validation(COHORT, COHORT.images, segment, EMIDEC)


def summary(mean, n):
    n = np.array(n)
    return Summary(np.array(mean), np.where(n > 1, 0.125, np.nan), n)


def test_scores_by_hand():
    found = validation().score(PREDICTION)
    # LV: 2 * 1 / (1 + 2) and 1; Myo: 2 * 1 / (2 + 1) and 1. The third slice holds no label, so
    # what is predicted there is not scored.
    np.testing.assert_allclose(found.mean, [5 / 6, 5 / 6, np.nan, np.nan])
    np.testing.assert_allclose(found.std, [math.sqrt(1 / 18), math.sqrt(1 / 18), np.nan, np.nan])
    assert found.n.tolist() == [2, 2, 0, 0]
    assert validation().regions == ("LV", "Myo", "Inf", "NoR")


def test_a_perfect_and_an_empty_prediction():
    np.testing.assert_array_equal(validation().score(REFERENCE).mean, [1, 1, np.nan, np.nan])
    empty = validation().score(np.zeros_like(REFERENCE))
    np.testing.assert_array_equal(empty.mean, [0, 0, np.nan, np.nan])


def test_predict_segments_the_images():
    found = validation().predict(5.0)
    assert found.tolist() == [[[0, 0], [0, 0]], [[0, 0], [1, 1]], [[1, 1], [1, 1]]]


@pytest.mark.parametrize(
    ("mean", "n", "expected"),
    [
        ([0.5, 1.0, 0.25, 0.25], [9, 9, 5, 1], 0.5),
        ([0.5, 1.0, math.nan, math.nan], [2, 1, 0, 0], 0.75),  # an absent label is no zero
        ([0.0, 1.0, math.nan, 0.0], [2, 1, 0, 7], 1 / 3),  # a missed one is
        ([math.nan] * 4, [0] * 4, math.nan),
    ],
)
def test_foreground_mean(mean, n, expected):
    assert foreground_mean(summary(mean, n)) == pytest.approx(expected, nan_ok=True)


def test_picture_shows_one_slice_a_case_with_its_number():
    figure = validation().picture(PREDICTION, 6)
    assert [axis.get_title() for axis in figure.axes[:2]] == [
        "Case_P003 slice 0",  # three labels, the background with them; slice 6 has two
        "Case_N001 slice 3",
    ]
    assert [axis.get_ylabel() for axis in figure.axes[::2]] == ["image", "reference", "prediction"]
    assert pixels(figure).shape[2] == 3
    assert len(validation().picture(PREDICTION, 1).axes) == 3


ROWS = {
    "best (epoch 8)": summary([0.9, 0.8, 0.5, math.nan], [7, 7, 3, 0]),
    "last (epoch 10)": summary([0.875, 0.75, 0.25, math.nan], [7, 7, 3, 0]),
}


def table(rows=ROWS, **changes):
    config = awce.get_config().to_dict()
    config["data"] |= changes
    config["seed"] = 11
    return score_table(build(config), ("LV", "Myo", "Inf", "NoR"), rows, (63, 7))


def test_the_table_states_the_protocol():
    text, _ = table(split="slice", validation_fraction=0.1)
    head = text.splitlines()
    assert all(fact in text for fact in ("awce", "0.1", "63 slices", "Seed 11"))
    assert head[-2] == (
        "| best (epoch 8)  | 0.900 ± 0.125 (7) | 0.800 ± 0.125 (7) | 0.500 ± 0.125 (3) | - (0) |"
    )
    assert head[-4].split("|")[1].strip() == "checkpoint"


def test_a_run_without_scores_has_no_best():
    text, _ = table(rows={"last (epoch 10)": ROWS["last (epoch 10)"]})
    assert "best" not in text


def test_splits_are_named():
    folds = {"split": "case", "folds": 5, "fold": 2}
    assert "fold 2 of 5" in table(**folds)[0]
    assert "0.333" in table(split="case", validation_fraction=1 / 3)[0]
    assert "fold 2 of splits.json" in table(**folds, splits="/some/where/splits.json")[0]


def test_the_csv_holds_the_same_numbers():
    _, text = table()
    read = list(csv.DictReader(io.StringIO(text)))
    assert len(read) == 8
    assert read[6] == {
        "checkpoint": "last (epoch 10)", "region": "Inf", "mean": "0.25", "std": "0.125",
        "slices": "3",
    }  # fmt: skip
