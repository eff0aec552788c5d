"""Networks on a case: the network's own numbers on its grid."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from jaxseg.config.settings import SettingsError
from jaxseg.data import most_probable
from jaxseg.inference import predictor
from jaxseg.inference.locate import FLIPS, averaged
from jaxseg.inference.predictor import make_predictor, presence_rule
from jaxseg.localizer import make_localizer
from jaxseg.models import convolve_xla
from jaxseg.presence import PresenceRule
from jaxseg.runs.files import WorkdirError
from jaxseg.runs.trained import load_run
from tests.by_hand import labels_back, prepared


def segmented(run, images):
    """Softmax of the network, slice by slice, without the code under test."""
    apply = jax.jit(lambda x: jax.nn.softmax(run.network.apply({"params": run.params}, x)))
    return np.concatenate([np.asarray(apply(jnp.asarray(x[None, ..., None]))) for x in images])


def test_a_prediction_is_the_resampled_output_of_the_network(run, case):
    prediction = make_predictor([run])(case)
    assert (prediction.center, prediction.heart_found) == (None, True)
    found = prediction.probabilities
    assert (found.shape, found.dtype) == ((*case.image.shape, 5), np.float32)
    np.testing.assert_allclose(found.sum(-1), 1, atol=1e-5)
    labels = most_probable(found)
    probabilities = segmented(run, prepared(run, case))
    wanted = labels_back(probabilities, case.image.shape, case.spacing, run.grid)
    # What the batch rounds otherwise may tip a voxel between two labels.
    assert (labels == wanted).mean() > 0.9999
    assert len(np.unique(labels)) == 5, "a test on a single label would show nothing"
    assert not labels[0].any(), "outside the network grid is background"
    unlabeled = dataclasses.replace(case, label=None)
    np.testing.assert_array_equal(make_predictor([run])(unlabeled).probabilities, found)


def with_context(run):
    """The run with layers for context of random parameters."""
    network = run.network.clone(context=True)
    shapes = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, 64, 64, 1)))["params"]
    rng = np.random.default_rng(0)
    new = jax.tree.map(lambda x: jnp.float32(rng.normal(size=x.shape)), shapes)
    return dataclasses.replace(run, network=network, params={**new, **run.params})


@pytest.mark.parametrize("value", [0, 77])
def test_empty_slices_are_background(run, case, value):
    image = case.image.copy()
    image[..., [0, -1]] = value
    changed = dataclasses.replace(case, image=image)
    found = make_predictor([run])(changed).probabilities
    np.testing.assert_array_equal(found[..., [0, -1], 0], 1)
    np.testing.assert_array_equal(found[..., [0, -1], 1:], 0)
    assert (most_probable(found)[..., 1:-1] > 0).any((0, 1)).all()


def test_context_skips_empty_slices(run, case):
    """Slices without an image are nobody's neighbors, wherever they lie in the stack."""
    context = with_context(run)
    expected = make_predictor([context])(case).probabilities
    assert np.abs(expected - make_predictor([run])(case).probabilities).max() > 0.1
    filled = np.insert(case.image, [0, 2, case.image.shape[2]], 0, axis=2)
    where = [1, 2, *range(4, filled.shape[2] - 1)]
    found = make_predictor([context])(dataclasses.replace(case, image=filled, label=None))
    np.testing.assert_allclose(found.probabilities[:, :, where], expected, atol=1e-5)


def test_mirroring_averages_the_four_mirror_images(run, case):
    images = prepared(run, case)
    views = [
        segmented(run, images),
        segmented(run, images[:, ::-1])[:, ::-1],
        segmented(run, images[:, :, ::-1])[:, :, ::-1],
        segmented(run, images[:, ::-1, ::-1])[:, ::-1, ::-1],
    ]
    found = averaged(lambda _, x: segmented(run, x), run.params, images, FLIPS)
    np.testing.assert_allclose(found, np.mean(views, axis=0), atol=1e-6)
    wanted = labels_back(np.mean(views, axis=0), case.image.shape, case.spacing, run.grid)
    labels = most_probable(make_predictor([run], mirror=True)(case).probabilities)
    assert (labels == wanted).mean() > 0.9999
    assert (labels == most_probable(make_predictor([run])(case).probabilities)).mean() < 0.99


def test_runs_on_different_grids_are_averaged(run, random_run, case):
    other = load_run(random_run, checkpoint="best")
    how = other.setup.preprocessing
    how = dataclasses.replace(how, grid=dataclasses.replace(how.grid, spacing=5.0))
    setup = dataclasses.replace(other.setup, preprocessing=how)
    other = dataclasses.replace(other, setup=setup)
    both = make_predictor([run, other])(case).probabilities
    parts = [make_predictor([each])(case).probabilities for each in (run, other)]
    np.testing.assert_allclose(both, (parts[0] + parts[1]) / 2, atol=1e-6)
    assert np.abs(parts[0] - parts[1]).max() > 0.1


def test_a_run_given_twice_is_refused(run, random_run):
    again = load_run(random_run)
    with pytest.raises(WorkdirError, match=str(random_run)):
        make_predictor([run, load_run(random_run, checkpoint="best"), again])


def test_a_run_without_a_heart_is_left_out_of_the_average(run, case):
    localizer = make_localizer(convolve_xla)
    params = localizer.init(jax.random.key(0), jnp.zeros((1, 8, 8, 1)))["params"]
    nowhere = jax.tree.map(jnp.zeros_like, params)
    nowhere["logits"]["bias"] = jnp.array([9.0, -9.0])
    lost = dataclasses.replace(
        run, folder=Path("lost"), setup=run.setup.with_center(None), localizer=localizer,
        localizer_params=nowhere,
    )  # fmt: skip
    alone = make_predictor([lost])(case)
    assert not alone.heart_found
    assert not most_probable(alone.probabilities).any()
    found = make_predictor([run])(case)
    for runs in ([lost, run], [run, lost]):
        both = make_predictor(runs)(case)
        assert both.heart_found
        np.testing.assert_array_equal(both.probabilities, found.probabilities)


def test_an_empty_label_map_has_no_heart(run, case):
    """Also without a localizer: an empty label map would pass for a heart without infarct."""
    params = jax.tree.map(jnp.zeros_like, run.params)
    params["logits"]["bias"] = jnp.array([9.0, 0.0, 0.0, 0.0, 0.0])
    prediction = make_predictor([dataclasses.replace(run, params=params)])(case)
    assert not prediction.heart_found
    assert not most_probable(prediction.probabilities).any()
    assert prediction.remarks() == ("no heart found",)


@pytest.mark.parametrize("gap", [0, 2])
def test_labels_at_the_border_of_the_image_are_remarked(run, case, monkeypatch, gap):
    """A padded picture of 42 x 42 mm in a larger crop, labeled up to `gap` pixels of its border."""
    image = np.zeros_like(case.image)
    picture = tuple(slice(40, 40 + round(42 / mm)) for mm in case.spacing[:2])
    image[picture] = case.image[picture] + 1

    def segment(params, images):
        heart = ndimage.binary_erosion(images != 0, np.ones((1, 1 + 2 * gap, 1 + 2 * gap)))
        return np.eye(5, dtype=np.float32)[heart.astype(int)]

    monkeypatch.setattr(predictor, "make_probabilities", lambda network, batch_size: segment)
    prediction = make_predictor([run])(dataclasses.replace(case, image=image, label=None))
    assert prediction.heart_found
    assert prediction.at_border == (gap == 0)


def test_runs_whose_average_labels_nothing_find_no_heart(run, case):
    """Background 0.45 and another label 0.55 each: of the average, background is the largest."""

    def labeling(value):
        params = jax.tree.map(jnp.zeros_like, run.params)
        odds = np.full(5, 1e-9)
        odds[[0, value]] = 0.45, 0.55
        params["logits"]["bias"] = jnp.log(odds)
        return dataclasses.replace(run, folder=Path(f"label-{value}"), params=params)

    runs = [labeling(1), labeling(2)]
    assert all(make_predictor([each])(case).heart_found for each in runs)
    both = make_predictor(runs)(case)
    assert not most_probable(both.probabilities).any()
    assert not both.heart_found
    assert both.remarks() == ("no heart found",)


def with_anatomy(run, anatomy):
    setup = dataclasses.replace(run.setup, anatomy=anatomy)
    return dataclasses.replace(run, folder=Path("other"), setup=setup)


def test_runs_of_different_labels_are_refused(run):
    labels = ("background", "scar")
    fields = {"labels": labels, "inclusions": (), "slice_regions": (("S", (1,)),)}
    anatomy = type(run.anatomy)(**fields, case_regions=(("S", (1,)),))
    other = with_anatomy(run, anatomy)
    with pytest.raises(WorkdirError, match=r"other: .*background, scar.*background, cav"):
        make_predictor([run, other])


def test_the_smallest_volume_of_several_runs_is_used(run):
    def noting(*volumes):
        return dataclasses.replace(run, data={**run.data, "smallest_mm3": list(volumes)})

    runs = [noting(300.0, 2000.0), noting(None, 1500.0), noting(400.0, None)]
    assert presence_rule(runs, drop_small=True) == PresenceRule((300.0, 1500.0), drop_small=True)
    assert presence_rule([noting(None, 5.0)], drop_small=True).smallest_mm3 == (None, 5.0)
    noted = {name: value for name, value in run.data.items() if name != "smallest_mm3"}
    for bad in (dataclasses.replace(run, data=noted), noting(300.0)):
        assert presence_rule([bad]) == PresenceRule()  # nothing is asked of it
        assert presence_rule([run, bad], min_dice=[0.5]).min_dice == (0.5, 0.5)
        with pytest.raises(WorkdirError, match="smallest"):
            presence_rule([run, bad], drop_small=True)


def test_min_dice_is_given_for_each_pair_or_for_all(run):
    def bounds(*values):
        return presence_rule([run], min_dice=values).min_dice

    assert (bounds(), bounds(0.5), bounds(0.5, 0.9)) == ((), (0.5, 0.5), (0.5, 0.9))
    with pytest.raises(SettingsError, match=r"--min_dice: .*3"):
        bounds(0.1, 0.2, 0.3)
    without = with_anatomy(run, dataclasses.replace(run.anatomy, inclusions=()))
    for flag, asked in {"drop_small": True, "min_dice": [0.5]}.items():
        with pytest.raises(SettingsError, match=f"--{flag}: "):
            presence_rule([without], **{flag: asked})


def test_odds_need_a_label_in_one_inner_region_alone(run):
    assert presence_rule([run], odds=0.5) == PresenceRule(odds=0.5)
    twice = (((3, 4), (2, 3, 4)), ((3, 4), (1, 2, 3, 4)))
    for pairs in ((), twice):
        other = with_anatomy(run, dataclasses.replace(run.anatomy, inclusions=pairs))
        with pytest.raises(SettingsError, match="--pathology_odds: "):
            presence_rule([other], odds=0.5)


def test_runs_of_different_pairs_have_no_common_rule(run):
    turned = dataclasses.replace(run.anatomy, inclusions=run.anatomy.inclusions[::-1])
    other = with_anatomy(run, turned)
    assert presence_rule([run, other]) == PresenceRule()
    with pytest.raises(WorkdirError, match="other: "):
        presence_rule([run, other], drop_small=True)
