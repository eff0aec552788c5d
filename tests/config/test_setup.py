"""A config as typed values: networks by stage, loss terms, cases, and what is not built."""

from collections.abc import Mapping
from pathlib import Path

import jax.numpy as jnp
import pytest

from configs import attention, awce, awce_penalty, baseline, best, default
from jaxseg import native
from jaxseg.anatomy import EMIDEC
from jaxseg.config.settings import flatten, replace
from jaxseg.config.setup import build
from jaxseg.data import Grid
from jaxseg.data.label_values import LabelValues
from jaxseg.train_step import Mixup


def setup(module=baseline, **changes):
    """A stage's setup with changes as section__field=value."""
    fields = {name.replace("__", "."): value for name, value in changes.items()}
    return build(replace(module.get_config().to_dict(), fields))


@pytest.mark.parametrize(
    ("module", "has_attention", "has_generator"),
    [(baseline, False, False), (attention, True, False), (awce, True, True)],
)
def test_networks_by_stage(module, has_attention, has_generator):
    networks = setup(module, model__depth=2, model__groups=4).networks
    assert networks.segmentation.attention is has_attention
    assert (networks.generator is not None) is has_generator
    unet = networks.segmentation
    assert (unet.num_labels, unet.width, unet.depth, unet.groups) == (5, 8, 2, 4)
    assert (unet.dense, unet.context) == (False, False)
    assert unet.dtype == jnp.float32


def test_generator_and_precision():
    fields = {"model__precision": "bfloat16", "model__dense": True, "model__context": True}
    fields |= {"balance__width": 4}
    networks = setup(awce, **fields).networks
    generator = networks.generator
    assert generator is not None
    assert (generator.num_labels, generator.width, generator.groups) == (5, 4, 8)
    assert generator.dtype == networks.segmentation.dtype == jnp.bfloat16
    assert (networks.segmentation.dense, networks.segmentation.context) == (True, True)


def test_objective_of_the_first_and_the_last_stage():
    found = setup(awce_penalty).objective
    assert (found.method, found.strength) == ("adversarial", 0.7)
    assert (found.penalty, found.epsilon) == (0.01, 1e-3)
    assert found.inclusions == EMIDEC.inclusions
    hash(found)  # a static argument of compiled functions
    assert setup().objective.penalty == 0.0


def test_dice_regions():
    assert setup().objective.dice_regions == ()
    found = setup(loss__dice_of="regions").objective
    assert found.dice_regions == ((0,), (1,), (2, 3, 4), (3, 4), (4,))


def test_anatomy_grid_and_mixup():
    assert setup().anatomy == EMIDEC
    assert setup(mixup__probability=0.5, mixup__transplant=0.25).mixup == Mixup(
        probability=0.5, tolerance=0.1, transplant=0.25, inclusions=EMIDEC.inclusions
    )
    found = setup(grid__size=[96, 64], grid__spacing=1.4, grid__center=[0.5, 0.25]).grid
    assert found == Grid((96, 64), 1.4, (0.5, 0.25))
    assert setup(grid__spacing=0.0).grid.spacing is None  # native pixels


def test_the_shift_is_converted_to_pixels():
    found = setup(best, grid__spacing=2.0, augment__shift=5.0).augmentation
    assert (found.shift, found.rotation) == (2.5, 30.0)
    # Pixels of no known size are not shifted; such a config has augmentation switched off.
    native = setup(grid__spacing=0.0, augment__shift=5.0)
    assert (native.augmentation.shift, native.margin) == (0.0, 0)


def test_a_config_without_a_center_has_a_localizer():
    found = setup(best)
    assert found.networks.localizer is not None
    assert found.with_center((0.5, 0.5)).networks.localizer is None
    assert found.grid.center is None, "changed in place"


def test_source_split_and_course():
    values = ",".join(f"{100 * k}={name}" for k, name in enumerate(EMIDEC.labels))
    found = setup(data__root="~/cases", data__label_values=values, train__init_from="runs/a")
    assert found.source.folder == Path.home() / "cases"
    assert found.source.label_values == LabelValues.parse(values, EMIDEC.labels)
    assert found.course.init_from == Path("runs/a")
    assert setup().source.label_values is setup().course.init_from is None
    assert setup().split.fold_title is None
    assert setup(data__folds=5, data__fold=2).split.fold_title == "fold 2 of 5"
    own = setup(data__fold=1, data__splits="/some/where/splits.json").split
    assert own.fold_title == "fold 1 of splits.json"


def test_plan_follows_course_and_seed():
    plan = setup(train__batch_size=4, train__epochs=3, train__validate_every=2).plan(35)
    assert (plan.num_slices, plan.batch_size, plan.seed) == (35, 4, 0)
    assert (plan.steps, plan.epochs, plan.validate_every) == (27, 3, 2)


def test_the_native_library_is_only_built_when_it_is_used(monkeypatch):
    monkeypatch.setattr(native, "choose", lambda *wanted: pytest.fail("asked for a library"))
    found = setup(run__convolution="native")
    assert found.anatomy == EMIDEC
    assert found.with_convolution("xla").options.convolution == "xla"


def test_every_setting_is_read():
    config, asked = default.get_config().to_dict(), set()
    build(Recording(config, "", asked))
    known = {name for name in flatten(config) if not name.startswith("anatomy.")}
    assert known - asked == {"variant"}  # which only names folders


class Recording(Mapping):
    """A config that records the dotted names of the fields that are read."""

    def __init__(self, fields, prefix, asked):
        self.fields, self.prefix, self.asked = fields, prefix, asked

    def __getitem__(self, name):
        value = self.fields[name]
        if isinstance(value, dict) and name != "anatomy":
            return Recording(value, f"{name}.", self.asked)
        self.asked.add(f"{self.prefix}{name}")
        return value

    def __iter__(self):
        return iter(self.fields)

    def __len__(self):
        return len(self.fields)
