"""Parts of the heart in an anatomy."""

import dataclasses

import pytest

from configs import edema_scar
from jaxseg.anatomy import EMIDEC, Anatomy
from jaxseg.measures.heart import HeartLabels, MeasureError


def test_emidec():
    assert HeartLabels.of(EMIDEC) == HeartLabels((1,), (2, 3, 4), (3, 4), (4,))


def test_scar_without_no_reflow_in_another_order():
    anatomy = Anatomy.from_dict(edema_scar.anatomy())
    assert HeartLabels.of(anatomy) == HeartLabels((1,), (2, 3, 4), (4,), ())
    moved = Anatomy(
        ("background", "scar", "myocardium", "cavity"),
        (),
        (("Scar", (1,)),),
        (("Scar", (1,)), ("Myocardium", (2,))),
    )
    assert HeartLabels.of(moved) == HeartLabels((3,), (1, 2), (1,), ())


@pytest.mark.parametrize("missing", ["cavity", "myocardium", "infarct"])
def test_missing_labels_are_named(missing):
    names = tuple("other" if name == missing else name for name in EMIDEC.labels)
    anatomy = dataclasses.replace(EMIDEC, labels=names)
    with pytest.raises(MeasureError, match="other"):
        HeartLabels.of(anatomy)
