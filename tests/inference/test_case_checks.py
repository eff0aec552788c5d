"""Cases unlike those of training: refused, warned of, or remarked on."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from jaxseg.augment import Augmentation
from jaxseg.data import DataError
from jaxseg.inference.case_checks import (
    check_case,
    check_spacing,
    orientation_remark,
    unusual_shape,
    unusual_size,
)


def stated(case, rows, columns):
    """The case with directions of rows and columns in its header, in nibabel's coordinates."""
    x, y, z = case.spacing
    header, affine = case.header.copy(), np.eye(4)
    affine[:3, :3] = np.transpose([rows, columns, np.cross(rows, columns)]) * (x, y, z)
    header.set_sform(affine, code=1)
    return dataclasses.replace(case, header=header)


def along(degrees):
    """Directions turned in the plane of LP."""
    turn = np.radians(degrees)
    rows, columns = np.array([-np.cos(turn), -np.sin(turn), 0]), [np.sin(turn), -np.cos(turn), 0]
    return rows, np.array(columns)


@pytest.mark.parametrize("degrees", [40, 45, 50, 130, -48])
def test_an_ambiguous_orientation_is_remarked_on(run, case, degrees):
    run = dataclasses.replace(run, data={**run.data, "orientations": ["LP"]})
    turned = stated(case, *along(degrees))
    remark = orientation_remark([run], turned)
    assert remark is not None
    assert "--orientation" in remark
    assert orientation_remark([run], turned, "LP") is None
    every_way = Augmentation(probability=0.5, flip=True, turn=True)
    versed = dataclasses.replace(run, setup=dataclasses.replace(run.setup, augmentation=every_way))
    assert orientation_remark([versed], turned) is None
    assert orientation_remark([versed, run], turned) == remark


@pytest.mark.parametrize("degrees", [0, 30, 60, 90, 180, -100])
def test_a_clear_orientation_has_no_remark(run, case, degrees):
    run = dataclasses.replace(run, data={**run.data, "orientations": ["LP"]})
    assert orientation_remark([run], stated(case, *along(degrees))) is None
    assert orientation_remark([run], case) is None


def test_an_unknown_orientation_is_remarked_on(run, case):
    header = case.header.copy()
    header.set_sform(None, code=0)
    header.set_qform(None, code=0)
    silent = dataclasses.replace(case, header=header)
    remark = orientation_remark([run], silent)
    assert remark is not None
    assert "unknown" in remark
    assert orientation_remark([run], silent, "LP") is None


def test_fewer_slices_than_a_short_axis_stack_are_refused(run, case):
    for count in (1, 2):
        few = dataclasses.replace(case, image=case.image[..., :count])
        with pytest.raises(DataError, match=rf"x\.nii: {count} slice"):
            check_case([run], few, Path("x.nii"))
    check_case([run], dataclasses.replace(case, image=case.image[..., :3]), Path("x.nii"))
    single = dataclasses.replace(run, data={**run.data, "slices": [1, 9]})
    check_case([single], dataclasses.replace(case, image=case.image[..., :1]), Path("x.nii"))


def test_voxel_sizes_are_compared_in_the_orientation_of_training(run, case):
    """Pixels of 1 x 2.4 mm are usual, but for their orientation."""
    data = {**run.data, "spacing": [[1, 2.4, 8], [1, 2.4, 13]], "orientations": ["LP"]}
    run = dataclasses.replace(run, data=data)
    turned = dataclasses.replace(case, spacing=(2.4, 1.0, 8.0))
    check_case([run], turned, Path("x.nii"), "PL")
    with pytest.raises(DataError, match=r"x\.nii: "):
        check_case([run], turned, Path("x.nii"), "LP")


def test_a_case_is_checked_without_its_voxels(run, case):
    """A turned copy of a large stack would cost time and memory."""
    unread = np.broadcast_to(np.float32(0), (10**6, 10**6, case.image.shape[2]))
    large = dataclasses.replace(case, image=unread)
    check_case([run], large, Path("x.nii"), "LP")
    check_case([run], large, Path("x.nii"), "PL")


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_an_unusual_spacing_is_refused(run, axis):
    low, high = (np.array(edges) for edges in run.data["spacing"])

    def check(spacing):
        check_spacing(run, tuple(spacing), Path("x.nii"))

    for edges, factor, past in ((low, 0.5, 0.98), (high, 2.0, 1.02)):
        spacing = edges.copy()
        spacing[axis] *= factor * (1.001 if factor < 1 else 0.999)
        check(spacing)
        spacing[axis] *= past
        with pytest.raises(ValueError, match=r"x\.nii: .* mm"):
            check(spacing)


def test_without_a_recorded_spacing_any_is_accepted(run):
    data = {name: value for name, value in run.data.items() if name != "spacing"}
    check_spacing(dataclasses.replace(run, data=data), (100.0, 100.0, 100.0), Path("x.nii"))


def resized(case, shape, spacing):
    return dataclasses.replace(case, image=np.resize(case.image, shape), spacing=spacing)


def test_unusual_shapes_are_remarked_on(run, case):
    (x, y, z), (rows, columns, distance) = case.image.shape, case.spacing
    _, most = run.data["slices"]
    assert unusual_shape([run], case) == ()
    assert unusual_shape([run], resized(case, (x, y, 2 * most), case.spacing)) == ()
    (many,) = unusual_shape([run], resized(case, (x, y, 2 * most + 1), case.spacing))
    assert str(2 * most + 1) in many
    (narrow,) = unusual_shape([run], resized(case, (1, y, z), case.spacing))
    assert "field of view" in narrow
    (thin,) = unusual_shape([run], resized(case, (x, y, z), (rows, columns, distance / 3)))
    assert f"{distance / 3:.3g} mm" in thin
    single = resized(case, (x, y, 1), (rows, columns, 1.0))
    assert unusual_shape([run], single) == (), "a single slice is at no distance from others"


def test_shapes_are_checked_without_recorded_data(run, case):
    older = dataclasses.replace(run, data={})
    odd = resized(case, (*case.image.shape[:2], 60), (1.4, 1.4, 2.0))
    (many,) = unusual_shape([older], odd)
    assert "60" in many
    odd = resized(case, (*case.image.shape[:2], 20), (1.4, 1.4, 2.0))
    assert unusual_shape([older], odd) == ()


def test_a_heart_smaller_than_in_training_is_remarked_on(run):
    """Eight voxels of 10 x 10 x 10 mm are 8 ml."""
    probabilities = np.zeros((4, 4, 2, 3), np.float32)
    probabilities[..., 0] = 1
    probabilities[1:3, 1:3] = [0.2, 0.5, 0.3]
    size = probabilities, (10.0, 10.0, 10.0)
    known = [
        dataclasses.replace(run, data={**run.data, "smallest_heart_mm3": mm3})
        for mm3 in (8001.0, 7999.0, None)
    ]
    (remark,) = unusual_size([known[0], known[2]], *size)
    assert "8 ml" in remark
    assert unusual_size(known, *size) == ()
    older = dataclasses.replace(run, data={})
    assert unusual_size([older], *size) == ()
