"""Label sets, regions and inclusion pairs: validation and JSON form."""

import dataclasses
import json
import subprocess
import sys

import pytest

from jaxseg.anatomy import EMIDEC, Anatomy

SCAR = Anatomy(
    labels=("background", "muscle", "scar"),
    inclusions=(((2,), (2, 1)),),
    slice_regions=(("Muscle", (1,)),),
    case_regions=(("Wall", (1, 2)), ("Scar", (2,))),
)

EMIDEC_DICT = {
    "labels": ["background", "cavity", "myocardium", "infarct", "no-reflow"],
    "inclusions": [
        [["no-reflow"], ["no-reflow", "infarct"]],
        [["no-reflow", "infarct"], ["no-reflow", "infarct", "myocardium"]],
    ],
    "slice_regions": [
        ["LV", ["cavity"]],
        ["Myo", ["myocardium"]],
        ["Inf", ["infarct"]],
        ["NoR", ["no-reflow"]],
    ],
    "case_regions": [
        ["Myocardium", ["myocardium", "infarct", "no-reflow"]],
        ["Infarction", ["infarct", "no-reflow"]],
        ["NoReflow", ["no-reflow"]],
    ],
}


def test_emidec_is_the_documented_anatomy():
    assert EMIDEC.num_labels == 5
    assert EMIDEC.to_dict() == EMIDEC_DICT
    assert EMIDEC.inclusions == (((4,), (4, 3)), ((4, 3), (4, 3, 2)))


@pytest.mark.parametrize("anatomy", [EMIDEC, SCAR, dataclasses.replace(SCAR, inclusions=())])
def test_round_trip_through_json_is_exact(anatomy):
    assert Anatomy.from_dict(json.loads(json.dumps(anatomy.to_dict()))) == anatomy


def test_equal_anatomies_hash_alike_and_are_frozen():
    twin = Anatomy.from_dict(SCAR.to_dict())
    assert {SCAR: "found"}[twin] == "found"
    assert hash(SCAR) != hash(EMIDEC)
    with pytest.raises(dataclasses.FrozenInstanceError):
        twin.labels = ()


def test_whole_regions_cover_all_labels():
    assert EMIDEC.whole_regions == ((0,), (1,), (2, 3, 4), (3, 4), (4,))
    assert SCAR.whole_regions == ((0,), (1, 2), (2,))
    wall = dataclasses.replace(SCAR, case_regions=(("Muscle", (1,)),))
    assert wall.whole_regions == ((0,), (2,), (1,))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("labels", ["background", "muscle", "scar"]),
        ("labels", ("background", "", "scar")),
        ("labels", ("background", 1, "scar")),
        ("labels", ("background", "a\nb", "scar")),
        ("labels", ("background", "\ud800", "scar")),
        ("labels", tuple(map(str, range(257)))),
        ("labels", ("background", "scar", "scar")),
        ("labels", ("background",)),
        ("labels", ()),
        ("inclusions", [((2,), (2, 1))]),
        ("inclusions", (((2,),),)),
        ("inclusions", ((2, (2, 1)),)),
        ("inclusions", (((), (2, 1)),)),
        ("inclusions", (((3,), (3, 1)),)),
        ("inclusions", (((-1,), (-1, 1)),)),
        ("inclusions", (((True,), (1, 2)),)),
        ("inclusions", (((1.0,), (1, 2)),)),
        ("inclusions", (((0,), (0, 1)),)),
        ("inclusions", (((1,), (1, 0)),)),
        ("inclusions", (((2,), (2,)),)),
        ("inclusions", (((1, 2), (2, 1)),)),
        ("inclusions", (((2,), (1,)),)),
        ("inclusions", (((2,), (2, 1, 1)),)),
        ("slice_regions", ()),
        ("slice_regions", {"A": (1,)}),
        ("slice_regions", (("A",),)),
        ("slice_regions", ((" ", (1,)),)),
        ("slice_regions", (("A", ()),)),
        ("case_regions", (("A", (7,)),)),
        ("case_regions", (("A", (1,)), ("A", (2,)))),
        ("case_regions", ()),
    ],
)
def test_a_malformed_field_is_named(field, value):
    with pytest.raises(ValueError, match=f"^{field}"):
        dataclasses.replace(SCAR, **{field: value})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("labels", "background"),
        ("labels", ["background", "muscle", 3]),
        ("inclusions", [["scar"]]),
        ("inclusions", ["scar"]),
        ("inclusions", [["scar", ["scar", "muscle"]]]),
        ("inclusions", [[["scars"], ["scar", "muscle"]]]),
        ("slice_regions", {"A": ["scar"]}),
        ("slice_regions", ["scar"]),
        ("slice_regions", [["scar"]]),
        ("slice_regions", [["A", "scar"]]),
        ("slice_regions", [["A", [2]]]),
        ("slice_regions", [["A", ["scars"]]]),
        ("slice_regions", [[1, ["scar"]]]),
        ("case_regions", [["A", ["muscle", "scars"]]]),
    ],
)
def test_from_dict_names_the_malformed_field(field, value):
    with pytest.raises(ValueError, match=f"^{field}"):
        Anatomy.from_dict(SCAR.to_dict() | {field: value})


def test_from_dict_refuses_missing_and_unknown_fields():
    fields = SCAR.to_dict()
    with pytest.raises(ValueError, match="'regions'"):
        Anatomy.from_dict(fields | {"regions": {}})
    del fields["case_regions"]
    with pytest.raises(ValueError, match="case_regions"):
        Anatomy.from_dict(fields)
    with pytest.raises(ValueError, match="mapping"):
        Anatomy.from_dict([])  # type: ignore[arg-type]


def test_the_module_needs_no_jax():
    code = "import sys, jaxseg.anatomy; sys.exit('jax' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
