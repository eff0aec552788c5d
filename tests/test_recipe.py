"""Settings to objects: schedules and Adam by hand, networks by stage, cohorts from disk."""

import re
from typing import Any

import jax.numpy as jnp
import nibabel as nib
import numpy as np
import optax
import pytest

from configs import attention, awce, awce_penalty, baseline
from jaxseg import recipe
from jaxseg.anatomy import EMIDEC
from jaxseg.data import DataError, Grid
from jaxseg.train_step import Mixup


def settings(module=baseline, **changes):
    """A stage's settings with changes as section__field=value."""
    config = module.get_config().to_dict()
    for name, value in changes.items():
        section, field = name.split("__")
        config[section][field] = value
    return config


def rates(steps, steps_per_epoch, *, module=baseline, **fields):
    changes = {f"optimizer__{name}": value for name, value in fields.items()}
    schedule = recipe.learning_rate(settings(module, **changes), steps, steps_per_epoch)
    return np.array([float(np.asarray(schedule(step))) for step in range(steps)])


# 11 steps, 2 of them warm-up: the decay from 1e-2 to 1e-6 takes 8 steps, from step 2 to step 10.
@pytest.mark.parametrize(
    ("schedule", "at_4", "at_6", "at_10"),
    [
        # (1 + cos(pi / 4)) / 2 = 0.853553
        ("cosine", 1e-6 + 0.853553 * (1e-2 - 1e-6), (1e-2 + 1e-6) / 2, 1e-6),
        ("exponential", 1e-3, 1e-4, 1e-6),
        # (3 / 4)^3 and (1 / 2)^3 of the way
        ("cubic", 1e-6 + 0.421875 * (1e-2 - 1e-6), 1e-6 + 0.125 * (1e-2 - 1e-6), 1e-6),
        ("linear", 0.75e-2 + 0.25e-6, (1e-2 + 1e-6) / 2, 1e-6),
        ("constant", 1e-2, 1e-2, 1e-2),
    ],
)
def test_learning_rate_by_hand(schedule, at_4, at_6, at_10):
    found = rates(11, 2.0, schedule=schedule, warmup_epochs=1.0)
    expected = [1e-2 / 3, 2e-2 / 3, 1e-2, at_4, at_6, at_10]
    np.testing.assert_allclose(found[[0, 1, 2, 4, 6, 10]], expected, rtol=1e-4)


@pytest.mark.parametrize("schedule", ["cosine", "cubic", "exponential", "linear"])
@pytest.mark.parametrize("warmup_epochs", [0.0, 0.5, 1.0, 3.0])
def test_the_rate_rises_then_falls_to_the_final_one(schedule, warmup_epochs):
    found = rates(41, 10.0, schedule=schedule, warmup_epochs=warmup_epochs)
    top = round(10 * warmup_epochs)
    assert found[top] == pytest.approx(1e-2, rel=1e-5)
    assert (np.diff(found[: top + 1]) > 0).all()
    assert (np.diff(found[top:]) < 0).all()
    assert found[0] > 0
    assert found[-1] == pytest.approx(1e-6, rel=1e-2)


def test_a_warm_up_as_long_as_the_run_still_ends_at_the_final_rate():
    found = rates(10, 10.0, warmup_epochs=0.98)
    assert found[8] == pytest.approx(1e-2)
    assert found[9] == pytest.approx(1e-6, rel=1e-2)
    np.testing.assert_allclose(rates(1, 0.5, warmup_epochs=0.9), [1e-2])


def test_the_paper_s_run_starts_at_1e_2_and_ends_at_1e_6():
    """639 slices in batches of 16, 400 epochs: 15975 steps, the first 5 epochs (200) warm up."""
    schedule = recipe.learning_rate(baseline.get_config("emidec").to_dict(), 15975, 639 / 16)
    assert float(np.asarray(schedule(199))) < 1e-2
    assert float(np.asarray(schedule(200))) == pytest.approx(1e-2)
    assert float(np.asarray(schedule(15974))) == pytest.approx(1e-6, rel=1e-2)


def adam_by_hand(gradients, rate):
    """Kingma and Ba, algorithm 1."""
    x = m = v = np.zeros(2)
    for t, gradient in enumerate(gradients, start=1):
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        x = x - rate * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    return x


@pytest.mark.parametrize("clip_norm", [0.0, 1.0])
def test_optimizer_is_adam_with_the_gradient_clipped_before_it(clip_norm):
    gradients = [np.array([3.0, 4.0]), np.array([0.3, -0.4])]  # norms 5 and 0.5
    config = settings(optimizer__clip_norm=clip_norm)
    optimizer = recipe.optimizer(config, optax.constant_schedule(0.1))
    params: Any = {"network": jnp.zeros(1), "generator": jnp.zeros(1)}  # one norm over both
    state = optimizer.init(params)
    for g in gradients:
        tree = {"network": jnp.array(g[:1]), "generator": jnp.array(g[1:])}
        updates, state = optimizer.update(tree, state, params)
        params = optax.apply_updates(params, updates)
    clipped = [gradients[0] / 5, gradients[1]]
    expected = adam_by_hand(clipped if clip_norm else gradients, 0.1)
    found = [float(params["network"][0]), float(params["generator"][0])]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert abs(adam_by_hand(clipped, 0.1) - adam_by_hand(gradients, 0.1)).max() > 1e-3


@pytest.mark.parametrize(
    ("module", "has_attention", "has_generator"),
    [
        (baseline, False, False),
        (attention, True, False),
        (awce, True, True),
        (awce_penalty, True, True),
    ],
)
def test_networks_by_stage(module, has_attention, has_generator):
    networks = recipe.networks(settings(module, model__depth=2, model__groups=4))
    assert networks.segmentation.attention is has_attention
    assert (networks.generator is not None) is has_generator
    unet = networks.segmentation
    assert (unet.num_labels, unet.width, unet.depth, unet.groups) == (5, 8, 2, 4)
    assert unet.dense is False
    assert unet.dtype == jnp.float32


@pytest.mark.parametrize(
    ("method", "activation"),
    [("adversarial", "softmax"), ("barrier", "exp"), ("minimize", "softmax")],
)
def test_the_generator_s_activation_follows_the_method(method, activation):
    config = settings(
        awce, balance__method=method, balance__width=4, model__precision="bfloat16",
        model__dense=True,
    )  # fmt: skip
    networks = recipe.networks(config)
    generator = networks.generator
    assert generator is not None
    assert generator.activation == activation
    assert (generator.num_labels, generator.width, generator.groups) == (5, 4, 8)
    assert generator.dtype == networks.segmentation.dtype == jnp.bfloat16
    assert networks.segmentation.dense is True


def test_objective_of_the_last_stage():
    labels = np.repeat([0, 1, 2, 3], [10, 5, 4, 1]).astype(np.uint8).reshape(1, 4, 5)
    config = settings(awce_penalty, balance__prevalence_power=1.0, loss__support=0.25)
    found = recipe.objective(config, labels)
    # Prevalence 0.5, 0.25, 0.2, 0.05; its inverses 2, 4, 5, 20 weigh 4 in sum; the absent label
    # counts as the rarest.
    np.testing.assert_allclose(found.factors, [0.5, 1.0, 1.25, 5.0, 5.0], rtol=1e-6)
    assert (found.weighted, found.method, found.strength) == (True, "adversarial", 0.7)
    assert (found.penalty, found.epsilon, found.support) == (0.01, 1e-3, 0.25)
    assert found.inclusions == EMIDEC.inclusions
    hash(found)  # a static argument of compiled functions


def test_pathology_is_what_the_pairs_name_as_inner():
    labels = np.array([[[0, 1, 2]], [[0, 0, 3]], [[0, 0, 0]], [[4, 3, 2]]], np.uint8)
    assert recipe.pathology_slices(settings(train__pathology=0.7), labels) == (1, 3)
    assert recipe.pathology_slices(settings(), labels) == ()


def test_objective_of_the_baseline():
    found = recipe.objective(settings(), np.array([[[0, 1], [1, 4]]], np.uint8))
    assert (found.weighted, found.penalty) == (False, 0.0)
    np.testing.assert_allclose(found.factors, np.ones(5), rtol=1e-6)  # power 0


def test_anatomy_grid_and_mixup():
    assert recipe.anatomy(settings()) == EMIDEC
    assert recipe.mixup(settings(mixup__probability=0.5)) == Mixup(probability=0.5, tolerance=0.1)
    found = recipe.grid(settings(grid__size=[96, 64], grid__spacing=1.4, grid__center=[0.5, 0.25]))
    assert found == Grid((96, 64), 1.4, (0.5, 0.25))
    assert recipe.grid(settings(grid__spacing=0.0)).spacing is None  # native pixels


@pytest.fixture
def in_tmp(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def num_slices(root, name):
    image: Any = nib.load(root / name / "Images" / f"{name}.nii.gz")
    return image.shape[2]


def test_a_cohort_of_the_phantom(in_tmp):
    config = settings(data__phantom_cases=2, data__phantom_seed=3, grid__size=(64, 64))
    config["grid"]["spacing"] = 2.0
    cohort = recipe.load_cohort(config)
    root = in_tmp / "data" / "phantom-2-cases-seed-3"
    names = sorted(path.name for path in root.glob("Case_*"))
    assert cohort.case_names == tuple(names)
    assert len(names) == 2
    depths = [num_slices(root, name) for name in names]
    assert np.bincount(cohort.case_index).tolist() == depths
    assert cohort.images.shape == cohort.labels.shape == (sum(depths), 64, 64)
    assert set(np.unique(cohort.labels)) >= {0, 1, 2, 3}
    written = {path: path.stat().st_mtime_ns for path in root.rglob("*.nii.gz")}
    assert recipe.load_cohort(config).fingerprint() == cohort.fingerprint()
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*.nii.gz")} == written
    config["data"]["root"] = str(in_tmp / "elsewhere")
    config["data"]["phantom_cases"] = 1
    assert len(recipe.load_cohort(config).case_names) == 1
    assert (in_tmp / "elsewhere" / "phantom.json").is_file()


def write_case(root, name, image, label):
    for kind, array in (("Images", image), ("Contours", label)):
        volume = nib.Nifti1Image(array, np.diag([-1.0, -1.0, 1.0, 1.0]))
        volume.header.set_zooms((1.5, 1.5, 10.0))
        path = root / name / kind / f"{name}.nii.gz"
        path.parent.mkdir(parents=True)
        nib.save(volume, path)


def own_cases(root):
    """Two cases of 20 x 20 pixels; with native pixels the grid of 16 x 16 is a crop by 2."""
    rng = np.random.default_rng(0)
    for name, slices in (("Case_P002", 3), ("Case_N001", 2)):
        image = rng.integers(50, 200, (20, 20, slices)).astype(np.float64)
        label = np.zeros((20, 20, slices), np.uint8)
        label[5:9, 6:12] = 1
        label[9, 6:12] = 3 if "P" in name else 2
        write_case(root, name, image, label)
    return settings(
        data__root=str(root), data__phantom_cases=0, grid__size=(16, 16), grid__spacing=0.0
    )


def test_a_cohort_of_one_s_own_cases(in_tmp):
    cohort = recipe.load_cohort(own_cases(in_tmp / "cases"))
    assert cohort.case_names == ("Case_N001", "Case_P002")
    assert cohort.case_index.tolist() == [0, 0, 1, 1, 1]
    np.testing.assert_allclose(cohort.heights, [1, 0, 1, 0.5, 0])
    expected = np.zeros((16, 16), np.uint8)
    expected[3:7, 4:10] = 1
    expected[7, 4:10] = 2
    np.testing.assert_array_equal(cohort.labels[0], expected)
    assert np.unique(cohort.labels[2]).tolist() == [0, 1, 3]
    assert not (in_tmp / "data").exists()  # no phantom


def test_intensity_settings_reach_the_images(in_tmp):
    config = own_cases(in_tmp / "cases")
    config["intensity"] = {"method": "none", "low": 1.0, "high": 99.0}
    raw = recipe.load_cohort(config).images
    assert 50 <= raw.min() < raw.max() < 200
    config["intensity"]["method"] = "percentile"
    scaled = recipe.load_cohort(config).images
    assert (scaled.min(), scaled.max()) == (0, 1)
    config["intensity"] |= {"low": 40.0, "high": 60.0}
    assert (recipe.load_cohort(config).images == 1).mean() > 0.3


def test_a_label_beyond_the_anatomy_is_refused(in_tmp):
    config = own_cases(in_tmp / "cases")
    for field in ("inclusions", "case_regions", "slice_regions", "labels"):
        config["anatomy"][field] = {
            "labels": ["background", "cavity", "myocardium"], "inclusions": [],
        }.get(field, [["LV", ["cavity"]]])  # fmt: skip
    with pytest.raises(DataError, match=r"Case_P002.*3"):
        recipe.load_cohort(config)


def test_a_missing_folder_is_named(in_tmp):
    config = settings(data__root="nowhere", data__phantom_cases=0)
    with pytest.raises(DataError, match="nowhere: no such folder"):
        recipe.load_cohort(config)


def test_the_phantom_is_not_written_among_real_cases(in_tmp):
    """The likeliest slip: real cases in root, and the variant forgotten."""
    config = own_cases(in_tmp / "cases")
    config["data"]["phantom_cases"] = 2
    with pytest.raises(DataError, match=r"data\.root: .*cases exists and is no phantom") as error:
        recipe.load_cohort(config)
    assert "data.phantom_cases=0" in str(error.value)
    assert not (in_tmp / "cases" / "phantom.json").exists()


def test_a_place_where_the_phantom_cannot_be_written_is_named(in_tmp):
    (in_tmp / "data").write_text("a file")
    root = "data/phantom-1-cases-seed-0"
    with pytest.raises(DataError, match=re.escape(f"{root}: cannot write the phantom here (")):
        recipe.load_cohort(settings(data__phantom_cases=1))


def test_real_cases_with_the_paper_s_settings(emidec_root, tmp_path):
    for name in ("Case_N012", "Case_P001"):
        (tmp_path / name).symlink_to(emidec_root / name)
    config = awce_penalty.get_config("emidec").to_dict()
    config["data"]["root"] = str(tmp_path)
    cohort = recipe.load_cohort(config)
    slices = sum(num_slices(emidec_root, name) for name in cohort.case_names)
    assert cohort.images.shape == (slices, 128, 128)
    objective = recipe.objective(config, cohort.labels)
    assert objective.factors == pytest.approx([1.0] * 5)
