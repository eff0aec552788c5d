"""The prior as data: what it accepts, what it refuses and by which words, and its JSON form."""

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


@pytest.mark.parametrize("anatomy", [EMIDEC, SCAR])
def test_round_trip_through_json_is_exact(anatomy):
    assert Anatomy.from_dict(json.loads(json.dumps(anatomy.to_dict()))) == anatomy


def test_equal_anatomies_hash_alike_and_are_frozen():
    twin = Anatomy.from_dict(SCAR.to_dict())
    assert {SCAR: "found"}[twin] == "found"
    assert hash(SCAR) != hash(EMIDEC)
    with pytest.raises(dataclasses.FrozenInstanceError):
        twin.labels = ()


def test_whole_regions_are_those_of_cases_and_what_they_leave():
    assert EMIDEC.whole_regions == ((0,), (1,), (2, 3, 4), (3, 4), (4,))
    assert SCAR.whole_regions == ((0,), (1, 2), (2,))
    wall = dataclasses.replace(SCAR, case_regions=(("Muscle", (1,)),))
    assert wall.whole_regions == ((0,), (2,), (1,))


def test_inclusions_may_be_empty():
    free = dataclasses.replace(SCAR, inclusions=())
    assert Anatomy.from_dict(free.to_dict()) == free


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("labels", ["background", "muscle", "scar"], "labels: expected a tuple"),
        ("labels", ("background", "", "scar"), "labels: expected non-empty names"),
        ("labels", ("background", 1, "scar"), "labels: expected non-empty names"),
        ("labels", ("background", "a\nb", "scar"), "labels: expected non-empty names that print"),
        ("labels", ("background", "\ud800", "scar"), "labels: expected non-empty names that print"),
        ("labels", tuple(map(str, range(257))), "labels: expected at most 256, got 257"),
        ("labels", ("background", "scar", "scar"), "labels: names must be unique"),
        ("labels", ("background",), "labels: expected the background and at least one"),
        ("labels", (), "labels: expected the background and at least one"),
        ("labels", ("background", "muscle"), r"inclusions: label 2 is outside 0\.\.1"),
        ("inclusions", [((2,), (2, 1))], "inclusions: expected a tuple"),
        ("inclusions", (((2,),),), "inclusions: expected pairs"),
        ("inclusions", ((2, (2, 1)),), "inclusions: expected a non-empty tuple"),
        ("inclusions", (((), (2, 1)),), "inclusions: expected a non-empty tuple"),
        ("inclusions", (((3,), (3, 1)),), r"inclusions: label 3 is outside 0\.\.2"),
        ("inclusions", (((-1,), (-1, 1)),), r"inclusions: label -1 is outside 0\.\.2"),
        ("inclusions", (((True,), (1, 2)),), "inclusions: label values must be int"),
        ("inclusions", (((1.0,), (1, 2)),), "inclusions: label values must be int"),
        ("inclusions", (((0,), (0, 1)),), "inclusions: the background"),
        ("inclusions", (((1,), (1, 0)),), "inclusions: the background"),
        ("inclusions", (((2,), (2,)),), "inclusions: inner must be a strict subset"),
        ("inclusions", (((1, 2), (2, 1)),), "inclusions: inner must be a strict subset"),
        ("inclusions", (((2,), (1,)),), "inclusions: inner must be a strict subset"),
        ("inclusions", (((2,), (2, 1, 1)),), "inclusions: a label appears twice"),
        ("slice_regions", (), "slice_regions: expected a non-empty tuple"),
        ("slice_regions", {"A": (1,)}, "slice_regions: expected a non-empty tuple"),
        ("slice_regions", (("A",),), r"slice_regions: expected \(name, labels\)"),
        ("slice_regions", ((" ", (1,)),), "slice_regions: expected a non-empty region name"),
        ("slice_regions", (("A", ()),), "slice_regions 'A': expected a non-empty tuple"),
        ("case_regions", (("A", (7,)),), r"case_regions 'A': label 7 is outside 0\.\.2"),
        ("case_regions", (("A", (1,)), ("A", (2,))), "case_regions: region names must be unique"),
        ("case_regions", (), "case_regions: expected a non-empty tuple"),
    ],
)
def test_a_malformed_field_is_named(field, value, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        dataclasses.replace(SCAR, **{field: value})


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("labels", "background", "labels: expected a list"),
        ("labels", ["background", "muscle", 3], "labels: expected non-empty names"),
        ("inclusions", [["scar"]], "inclusions: expected pairs"),
        ("inclusions", ["scar"], "inclusions: expected a list"),
        ("inclusions", [["scar", ["scar", "muscle"]]], "inclusions: expected a list"),
        ("slice_regions", {"A": ["scar"]}, "slice_regions: expected a list"),
        ("slice_regions", ["scar"], "slice_regions: expected a list"),
        ("slice_regions", [["scar"]], "slice_regions: expected pairs"),
        ("slice_regions", [["A", "scar"]], "slice_regions 'A': expected a list"),
        ("slice_regions", [["A", [2]]], "slice_regions 'A': unknown label 2"),
        ("slice_regions", [[1, ["scar"]]], "slice_regions: expected a non-empty region name"),
    ],
)
def test_from_dict_names_the_malformed_field(field, value, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        Anatomy.from_dict(SCAR.to_dict() | {field: value})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("inclusions", [[["scars"], ["scar", "muscle"]]]),
        ("slice_regions", [["A", ["scars"]]]),
        ("case_regions", [["A", ["muscle", "scars"]]]),
    ],
)
def test_an_unknown_label_is_answered_with_the_known_ones(field, value):
    message = rf"^{field}.*'scars'; known labels are \['background', 'muscle', 'scar'\]"
    with pytest.raises(ValueError, match=message):
        Anatomy.from_dict(SCAR.to_dict() | {field: value})


def test_from_dict_refuses_missing_and_unknown_fields():
    fields = SCAR.to_dict()
    with pytest.raises(ValueError, match=r"expected the fields .*got .*'regions'"):
        Anatomy.from_dict(fields | {"regions": {}})
    del fields["case_regions"]
    with pytest.raises(ValueError, match=r"expected the fields .*case_regions"):
        Anatomy.from_dict(fields)
    with pytest.raises(ValueError, match="expected a mapping"):
        Anatomy.from_dict([])  # type: ignore[arg-type]


def test_the_module_needs_no_jax():
    code = "import sys, jaxseg.anatomy; sys.exit('jax' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
