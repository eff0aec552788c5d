"""The example of an own pathology: stage 4 with another anatomy and reader, nothing else."""

import json
from typing import Any

import pytest

from configs import awce_penalty, edema_scar
from jaxseg.anatomy import Anatomy
from jaxseg.config.reader import reader
from jaxseg.config.settings import SettingsError, check, flatten
from jaxseg.config.setup import build
from jaxseg.data.readers import emidec, nnunet

ORIGIN = {"phantom": "phantom", "nnunet": "emidec"}


@pytest.mark.parametrize("variant", ORIGIN)
def test_it_differs_from_stage_4_in_anatomy_and_data(variant):
    stage = flatten(awce_penalty.get_config(ORIGIN[variant]).to_dict())
    own = flatten(edema_scar.get_config(variant).to_dict())
    assert own.keys() == stage.keys()
    changed = {name: value for name, value in own.items() if value != stage[name]}
    assert {name for name in changed if not name.startswith("anatomy.")} <= {
        "name", "variant", "data.layout", "data.split",
    }  # fmt: skip
    assert (own["name"], own["variant"]) == ("edema_scar", variant)
    assert (own["data.layout"], own["data.split"]) == ("nnunet", "case")
    assert (own["loss.weighted"], own["loss.penalty"], own["model.attention"]) == (True, 0.01, True)


@pytest.mark.parametrize("variant", ORIGIN)
def test_the_anatomy_by_value(variant):
    assert build(edema_scar.get_config(variant).to_dict()).anatomy == Anatomy(
        labels=("background", "cavity", "myocardium", "edema", "scar"),
        inclusions=(((4,), (4, 3)), ((4, 3), (4, 3, 2))),
        slice_regions=(("LV", (1,)), ("Myo", (2,)), ("Edema", (3,)), ("Scar", (4,))),
        case_regions=(("Myocardium", (2, 3, 4)), ("Edema with scar", (3, 4)), ("Scar", (4,))),
    )


def test_variants_are_valid_and_only_the_phantom_needs_no_folder():
    assert edema_scar.get_config()["variant"] == "phantom"
    check(edema_scar.get_config().to_dict())
    settings = edema_scar.get_config("nnunet").to_dict()
    with pytest.raises(SettingsError, match=r"^data\.root: "):
        check(settings)
    settings["data"]["root"] = "Dataset501_Scar"
    check(json.loads(json.dumps(settings)))
    with pytest.raises(ValueError, match="'emidec'"):
        edema_scar.get_config("emidec")


def test_it_is_locked_and_made_anew_each_time():
    config: Any = edema_scar.get_config()
    with pytest.raises(AttributeError):
        config.data.layot = "emidec"
    config.anatomy.labels.append("thrombus")
    config.anatomy.inclusions[0][0][0] = "edema"
    assert edema_scar.get_config().to_dict()["anatomy"] == edema_scar.anatomy()


@pytest.mark.parametrize(("layout", "module"), [("emidec", emidec), ("nnunet", nnunet)])
def test_the_layout_selects_the_reader(layout, module):
    settings = edema_scar.get_config().to_dict()
    settings["data"]["layout"] = layout
    assert reader(build(settings)).find is module.find_cases
