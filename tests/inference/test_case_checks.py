"""Cases unlike those of training: refused, warned of, or remarked on."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from jaxseg.augment import Augmentation
from jaxseg.inference.case_checks import check_spacing, other_orientation, unusual_shape
from jaxseg.runs.trained import load_run


def test_a_case_stored_in_another_orientation_is_told_of(run, random_run, case):
    assert run.data["orientations"] == [case.orientation]
    other = load_run(random_run, checkpoint="best")
    assert other_orientation([run, other], case) is None
    header = case.header.copy()
    header.set_sform(header.get_best_affine() @ np.diag([1, -1, 1, 1]), code=2)
    turned = dataclasses.replace(case, header=header)
    told = other_orientation([run], turned)
    assert told is not None
    assert f"lead to {turned.orientation} by its header, in training they led to" in told
    data = {name: value for name, value in run.data.items() if name != "orientations"}
    older = dataclasses.replace(run, data=data)
    assert other_orientation([older], turned) is None
    assert other_orientation([older, run], turned) == told
    every_way = Augmentation(probability=0.5, flip=True, turn=True)
    setup = dataclasses.replace(run.setup, augmentation=every_way)
    versed = dataclasses.replace(run, setup=setup)
    assert other_orientation([versed], turned) is None
    assert other_orientation([versed, run], turned) == told
    header.set_sform(None, code=0)
    header.set_qform(None, code=0)
    assert other_orientation([run], dataclasses.replace(case, header=header)) is None


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_spacing_far_from_training_s_is_refused(run, case, axis):
    low, high = (np.array(edges) for edges in run.data["spacing"])

    def check(spacing):
        check_spacing(run, dataclasses.replace(case, spacing=tuple(spacing)), Path("x.nii"))

    for edges, factor, past in ((low, 0.5, 0.98), (high, 2.0, 1.02)):
        spacing = edges.copy()
        spacing[axis] *= factor * (1.001 if factor < 1 else 0.999)
        check(spacing)
        spacing[axis] *= past
        with pytest.raises(ValueError, match=r"x.nii: voxels of .* mm are far from those trained"):
            check(spacing)


def test_a_run_without_a_note_of_its_spacing_lets_everything_pass(run, case):
    data = {name: value for name, value in run.data.items() if name != "spacing"}
    case = dataclasses.replace(case, spacing=(100.0, 100.0, 100.0))
    check_spacing(dataclasses.replace(run, data=data), case, Path("x.nii"))


def resized(case, shape, spacing):
    return dataclasses.replace(case, image=np.resize(case.image, shape), spacing=spacing)


def test_stacks_of_a_usual_shape_need_no_remark(run, case):
    assert unusual_shape([run], case) == ()


def test_unusual_shapes_are_remarked_on(run, case):
    (x, y, z), (rows, columns, distance) = case.image.shape, case.spacing
    _, most = run.data["slices"]
    assert unusual_shape([run], resized(case, (x, y, 2 * most), case.spacing)) == ()
    (many,) = unusual_shape([run], resized(case, (x, y, 2 * most + 1), case.spacing))
    assert many.startswith(f"{2 * most + 1} slices")
    (narrow,) = unusual_shape([run], resized(case, (1, y, z), case.spacing))
    assert "field of view" in narrow
    (thin,) = unusual_shape([run], resized(case, (x, y, z), (rows, columns, distance / 3)))
    assert f"{distance / 3:.3g} mm" in thin
    single = resized(case, (x, y, 1), (rows, columns, 1.0))
    assert unusual_shape([run], single) == (), "a single slice is at no distance from others"


def test_runs_without_notes_of_their_cases_say_nothing(run, case):
    older = dataclasses.replace(run, data={})
    odd = resized(case, (*case.image.shape[:2], 60), (1.4, 1.4, 2.0))
    assert unusual_shape([older], odd) == ()
