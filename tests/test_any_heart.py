"""Position, orientation, padding and intensity of a scan do not change its label map."""

import dataclasses

import nibabel as nib
import numpy as np
import pytest

from jaxseg.data import Case, most_probable
from jaxseg.data.phantom.write import phantom_case
from jaxseg.inference.export import export
from jaxseg.inference.predictor import make_predictor
from jaxseg.metrics import dice
from jaxseg.runs.trained import load_run
from tests import by_note

pytestmark = pytest.mark.slow

SIZES = {
    "grid.size": "48,48", "grid.spacing": 2.8, "model.width": 8, "data.phantom_cases": 40,
    "data.split": "case", "train.epochs": 40, "train.validate_every": 20, "run.pictures": 0,
}  # fmt: skip
UNSEEN = range(4)
SHIFTS_MM = [(60, 0), (-60, 0), (0, 60), (0, -60), (20, -10), (-42, 42)]


@pytest.fixture(scope="module")
def workdir(command_line, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("any-heart") / "run"
    flags = [f"--config.{name}={value}" for name, value in SIZES.items()]
    process = command_line.start(*flags, f"--workdir={workdir}", config="best.py")
    _, errors = process.communicate(timeout=900)
    assert process.returncode == 0, errors
    return workdir


@pytest.fixture(scope="module")
def predict(workdir):
    return make_predictor([load_run(workdir, checkpoint="last")], mirror=True)


@pytest.fixture(scope="module")
def untouched(predict):
    """Cases of another phantom, and their label maps as they are."""
    found = []
    for index in UNSEEN:
        drawn = phantom_case(1, index, num_cases=len(UNSEEN))
        image, header = drawn.image.astype(np.float32), nib.Nifti1Header()
        case = Case(drawn.name, image, drawn.label, drawn.spacing, header)
        found.append((case, label_map(predict, case)))
        # Of hearts that the network knows: else all that follows would show nothing.
        assert dice(found[-1][1], drawn.label, 1) > 0.85
    return found


def label_map(predict, case):
    prediction = predict(case)
    assert prediction.heart_found
    return most_probable(prediction.probabilities)


def assert_unchanged(predict, untouched, change, back=lambda labels: labels, *, exactly=False):
    """Predicted as changed, and brought back, a label map is what it was.

    Exactly, where the change is one of storage. Else to what this small network on pixels of
    2.8 mm, whose myocardium is two pixels thick, keeps on every machine; it reaches 0.93 and 0.84
    in the worst case, and a heart that is lost has less than a half.
    """
    for case, wanted in untouched:
        changed = change(case)
        if isinstance(changed, np.ndarray):
            changed = dataclasses.replace(case, image=changed)
        found = back(label_map(predict, dataclasses.replace(changed, label=None)))
        for labels, least in ((1, 0.90), ((2, 3, 4), 0.80)):
            assert dice(found, wanted, labels) >= (0.999 if exactly else least), (case.name, labels)


def moved(array, pixels):
    """Cut off on one side and padded with zeros on the other: the heart moves by `pixels`."""
    found = np.zeros_like(array)
    ways = [
        (slice(max(p, 0), n + min(p, 0)), slice(max(-p, 0), n - max(p, 0)))
        for p, n in zip(pixels, array.shape, strict=False)
    ]
    found[ways[0][0], ways[1][0]] = array[ways[0][1], ways[1][1]]
    return found


@pytest.mark.parametrize("shift", SHIFTS_MM)
def test_a_shift_by_cropping_and_padding(predict, untouched, shift):
    def pixels(case):
        """Of the shift, or less, where the heart would not stay whole."""
        found = []
        for k, mm in enumerate(shift):
            lines = np.flatnonzero((case.label > 0).any((1 - k, 2)))
            room = lines[0] if mm < 0 else case.label.shape[k] - 1 - lines[-1]
            wanted = round(mm / case.spacing[k])
            found.append(int(np.clip(wanted, -room, room)))
        return found

    for case, wanted in untouched:
        by = pixels(case)
        assert (moved(case.label, by) > 0).sum() == (case.label > 0).sum()
        whole = [(case, moved(wanted, by))]
        assert_unchanged(predict, whole, lambda case, by=by: moved(case.image, by))


@pytest.mark.parametrize("value", [0, -1, 9])
def test_padding_on_one_side(predict, untouched, value):
    def change(case):
        return dataclasses.replace(
            case, image=np.pad(case.image, ((0, 80), (0, 30), (0, 0)), constant_values=value)
        )

    assert_unchanged(predict, untouched, change, lambda labels: labels[:-80, :-30], exactly=True)


@pytest.mark.parametrize("turns", range(4))
@pytest.mark.parametrize("mirrored", [False, True])
def test_all_eight_orientations(predict, untouched, turns, mirrored):
    def change(case):
        x, y, z = case.spacing
        image = np.rot90(case.image[::-1] if mirrored else case.image, turns)
        spacing = (y, x, z) if turns % 2 else (x, y, z)
        return dataclasses.replace(case, image=np.ascontiguousarray(image), spacing=spacing)

    def back(labels):
        labels = np.rot90(labels, -turns)
        return labels[::-1] if mirrored else labels

    assert_unchanged(predict, untouched, change, back)


@pytest.mark.parametrize("value", [0, 55])
def test_empty_slices_around_the_stack(predict, untouched, value):
    def change(case):
        image = np.pad(case.image, ((0, 0), (0, 0), (1, 2)), constant_values=value)
        return dataclasses.replace(case, image=image)

    def back(labels):
        assert not labels[..., [0, -2, -1]].any()
        return labels[..., 1:-2]

    assert_unchanged(predict, untouched, change, back, exactly=True)


@pytest.mark.parametrize("axis", [0, 1])
def test_a_bias_field(predict, untouched, axis):
    """The signal rises by a fifth over the picture.

    Of a stronger field `best` keeps less of the infarct: docs/results.md, "A heart anywhere".
    """

    def change(case):
        field = np.linspace(0.9, 1.1, case.image.shape[axis], dtype=np.float32)
        return case.image * np.expand_dims(field, (1 - axis, 2))

    assert_unchanged(predict, untouched, change)


def test_an_intensity_window(predict, untouched):
    """8 bits from the 2nd to the 98th percentile: the darkest of the picture are exact zeros."""

    def change(case):
        low, high = np.percentile(case.image[case.image > 0], (2, 98))
        window = np.clip((case.image - low) / (high - low), 0, 1)
        return np.round(window * 255).astype(np.float32)

    assert_unchanged(predict, untouched, change)


def test_following_preprocessing_json_finds_the_heart(workdir, untouched, tmp_path):
    """`preprocessing.json` followed without the package, in a picture whose heart is off center."""
    run = load_run(workdir, checkpoint="last")
    export(workdir, tmp_path / "bundle")
    for case, _ in untouched:
        image = np.pad(case.image, ((0, 80), (0, 30), (1, 0)))
        moved_case = dataclasses.replace(case, image=image, label=None)
        wanted = make_predictor([run])(moved_case)
        center, labels = by_note.find_and_segment(tmp_path / "bundle", image, case.spacing)
        assert center == wanted.center
        # What the batch rounds otherwise may tip a voxel between two labels.
        assert (labels == most_probable(wanted.probabilities)).mean() > 0.9999
