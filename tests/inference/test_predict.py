"""Prediction end to end: output files, and inputs that are refused."""

import csv
import dataclasses
import errno
import gzip
import os
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from jaxseg.data import DataError, most_probable, read_case, read_volume
from jaxseg.data.phantom.write import write_phantom
from jaxseg.inference import inputs, volumes_file
from jaxseg.inference import predict as module
from jaxseg.inference.measure import measure
from jaxseg.inference.predict import PredictionError, predict
from jaxseg.inference.predictor import make_predictor
from jaxseg.measures.aha import Septum
from jaxseg.reports import pictures
from jaxseg.runs.files import WorkdirError
from jaxseg.runs.trained import load_run
from tests.inference.conftest import files
from tests.logged import logged


@pytest.fixture(scope="module")
def stack(phantom):
    return phantom / "Case_P001" / "Images" / "Case_P001.nii.gz"


def go(run, source, output, **options):
    with logged() as lines:
        predict([run], source, output, **options)
    return lines


def volumes(output):
    return {
        row["case"]: row
        for row in csv.DictReader((output / "volumes.csv").read_text().splitlines())
    }


def test_output_files_of_one_stack(run, stack, tmp_path):
    output = tmp_path / "new" / "out"
    lines = go(run, stack, output, probabilities=True)
    assert files(output) == [
        "Case_P001.nii.gz", "bullseyes/Case_P001.png", "measures.csv", "measures/Case_P001.json",
        "measures_slices.csv", "overviews/Case_P001.png", "probabilities/Case_P001.nii.gz",
        "report.html", "volumes.csv",
    ]  # fmt: skip
    assert "synthetic" in lines[0]
    assert "synthetic" in volumes(output)["Case_P001"]["remarks"]
    real = dataclasses.replace(run, data={**run.data, "synthetic": False})
    go(real, stack, tmp_path / "real")
    assert "synthetic" not in volumes(tmp_path / "real")["Case_P001"]["remarks"]
    case = read_case("A", stack)
    wanted = make_predictor([run])(case).probabilities
    labels, header = read_volume(output / "Case_P001.nii.gz")
    assert header.get_data_dtype() == labels.dtype == np.uint8
    np.testing.assert_array_equal(labels, most_probable(wanted))
    assert len(np.unique(labels)) == 5
    probabilities = nib.load(output / "probabilities" / "Case_P001.nii.gz")
    assert probabilities.get_data_dtype() == np.float32
    np.testing.assert_array_equal(np.asarray(probabilities.dataobj), wanted)


def test_volumes_in_ml_and_shares_of_the_whole(run, stack, tmp_path):
    go(run, stack, tmp_path)
    labels, header = read_volume(tmp_path / "Case_P001.nii.gz")
    voxel = float(np.prod(header.get_zooms()[:3])) / 1000
    myocardium, infarct, no_reflow = (np.isin(labels, v).sum() for v in ((2, 3, 4), (3, 4), (4,)))
    row = volumes(tmp_path)["Case_P001"]
    columns = {
        "Myocardium_ml": myocardium * voxel, "Infarction_ml": infarct * voxel,
        "NoReflow_ml": no_reflow * voxel, "Infarction_share": infarct / myocardium,
        "NoReflow_share": no_reflow / myocardium,
    }  # fmt: skip
    assert list(row) == ["case", *columns, "heart_row", "heart_column", "remarks"]
    assert {name: float(row[name]) for name in columns} == pytest.approx(columns)


def test_undefined_shares_are_empty(run):
    row = volumes_file.row_of(run.anatomy, "A", [0.0] * 3, None, ())
    assert row == ["A", 0.0, 0.0, 0.0, "", "", "", "", ""]
    row = volumes_file.row_of(run.anatomy, "B", [4000.0, 1000.0, 0.0], (90, 88), ("x", "y"))
    assert row == ["B", 4.0, 1.0, 0.0, 0.25, 0.0, 90, 88, "x; y"]


def test_measures_agree_with_those_of_the_label_map(run, stack, tmp_path):
    go(run, stack, tmp_path / "out", septum=Septum(120))
    measure([tmp_path / "out"], tmp_path / "again", septum=Septum(120))
    for file in ("measures.csv", "measures_segments.csv", "measures/Case_P001.json"):
        assert (tmp_path / "out" / file).read_text() == (tmp_path / "again" / file).read_text()


def test_a_label_map_that_cannot_be_measured_is_written(run, stack, tmp_path):
    """All of the grid is cavity; measures of an earlier prediction are removed."""
    go(run, stack, tmp_path)
    params = jax.tree.map(jnp.zeros_like, run.params)
    params["logits"]["bias"] = jnp.array([0.0, 9.0, 0.0, 0.0, 0.0])
    lines = go(dataclasses.replace(run, params=params), stack, tmp_path, overwrite=True)
    assert any("myocardium" in line for line in lines)
    assert np.unique(read_volume(tmp_path / "Case_P001.nii.gz")[0]).tolist() == [0, 1]
    assert not (tmp_path / "measures" / "Case_P001.json").exists()


def test_labels_without_a_cavity_are_not_measured(run, stack, tmp_path):
    names = tuple(name.replace("cavity", "blood") for name in run.anatomy.labels)
    anatomy = dataclasses.replace(run.anatomy, labels=names)
    other = dataclasses.replace(run, setup=dataclasses.replace(run.setup, anatomy=anatomy))
    lines = go(other, stack, tmp_path)
    assert any("blood" in line for line in lines)
    assert files(tmp_path) == ["Case_P001.nii.gz", "overviews/Case_P001.png", "volumes.csv"]
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["overviews"]


def test_a_folder_of_cases(run, phantom, tmp_path):
    go(run, phantom, tmp_path)
    names = sorted(folder.name for folder in phantom.iterdir() if folder.is_dir())
    assert list(volumes(tmp_path)) == names
    assert sorted(path.name for path in tmp_path.glob("*.nii.gz")) == [f"{n}.nii.gz" for n in names]
    for name in names:
        wanted = read_volume(phantom / name / "Images" / f"{name}.nii.gz")[0].shape
        assert read_volume(tmp_path / f"{name}.nii.gz")[0].shape == wanted


def nnunet_run(run):
    """The run, as if it had been trained on nnU-Net's layout."""
    source = dataclasses.replace(run.setup.source, layout="nnunet")
    return dataclasses.replace(run, setup=dataclasses.replace(run.setup, source=source))


def test_names_and_label_values_follow_the_data_set(run, phantom, tmp_path):
    root = write_phantom(tmp_path / "own", seed=3, num_cases=2, layout="nnunet")
    plain = tmp_path / "plain"
    go(run, root, plain)
    images = sorted(path.name for path in (root / "imagesTr").iterdir())
    assert sorted(path.name for path in plain.glob("*.nii.gz")) == images  # no label map
    data = {**run.data, "label_values": [0, 500, 200, 2221, 7]}
    other = dataclasses.replace(nnunet_run(run), data=data)
    go(other, root, tmp_path / "out")
    for image in (root / "imagesTr").iterdir():
        name = image.name.replace("_0000.nii.gz", "")
        found, header = read_volume(tmp_path / "out" / f"{name}.nii.gz")
        wanted, _ = read_volume(plain / image.name)
        assert header.get_data_dtype() == np.uint16
        np.testing.assert_array_equal(found, np.array([0, 500, 200, 2221, 7])[wanted])


def test_a_second_channel_is_refused(run, stack, tmp_path):
    other = nnunet_run(run)
    source = tmp_path / "in"
    source.mkdir()
    for name in ("a_0000", "a_0001"):
        shutil.copy(stack, source / f"{name}.nii.gz")
    with pytest.raises(PredictionError, match=r"a_0001\.nii\.gz"):
        go(other, source, tmp_path / "out")
    assert [p.name for p in (tmp_path / "out").glob("*.nii.gz")] == ["a.nii.gz"]
    with pytest.raises(DataError, match=r"a_0001\.nii\.gz: "):
        go(other, source / "a_0001.nii.gz", tmp_path / "alone")


def test_an_unusual_stack_is_remarked_on(run, stack, tmp_path):
    image = nib.load(stack)
    pixels = np.tile(np.asarray(image.dataobj), (1, 1, 8))
    tall = nib.Nifti1Image(pixels, image.affine, image.header)
    tall.to_filename(tmp_path / "tall.nii.gz")
    lines = go(run, tmp_path / "tall.nii.gz", tmp_path / "out")
    remark = f"{pixels.shape[2]} slices"
    assert any(remark in line for line in lines)
    assert remark in volumes(tmp_path / "out")["tall"]["remarks"]


def stored(array, header, path, dtype, slope=1.0, order="<"):
    """A file of other storage; its values times slope are the array's."""
    kind = nib.Nifti1Header(endianness=order)
    image = nib.Nifti1Image((array / slope).astype(dtype), header.get_best_affine(), kind)
    image.header.set_zooms((*header.get_zooms()[:3], 1.0)[: array.ndim])
    image.header.set_slope_inter(slope, 0)
    image.to_filename(path)


def test_the_storage_type_does_not_change_the_label_map(run, stack, tmp_path):
    array, header = read_volume(stack)
    source = tmp_path / "in"
    source.mkdir()
    stored(array, header, source / "a.nii", np.float64)
    stored(array, header, source / "b.nii.gz", np.uint8)
    stored(array, header, source / "c.nii", np.int32, order=">")
    stored(array[..., None], header, source / "d.nii.gz", np.float32)
    stored(array, header, source / "e.nii", np.float32, slope=0.5)
    go(run, source, tmp_path / "out", probabilities=True)
    maps = [read_volume(tmp_path / "out" / f"{name}.nii.gz")[0] for name in "abcde"]
    for other in maps[1:]:
        np.testing.assert_array_equal(other, maps[0])
    rows = volumes(tmp_path / "out")
    assert len({row["Myocardium_ml"] for row in rows.values()}) == 1
    swapped = nib.load(tmp_path / "out" / "probabilities" / "c.nii.gz")
    plain = nib.load(tmp_path / "out" / "probabilities" / "a.nii.gz")
    np.testing.assert_array_equal(np.asarray(swapped.dataobj), np.asarray(plain.dataobj))


def test_mirror_images_and_runs_are_averaged(run, random_run, stack, tmp_path):
    other = load_run(random_run, checkpoint="best")
    predict([run, other], stack, tmp_path / "both", mirror=True)
    wanted = make_predictor([run, other], mirror=True)(read_case("A", stack)).probabilities
    found = read_volume(tmp_path / "both" / "Case_P001.nii.gz")[0]
    np.testing.assert_array_equal(found, most_probable(wanted))


def test_pathology_smaller_than_in_training_is_dropped(run, stack, tmp_path):
    go(run, stack, tmp_path / "all", probabilities=True)
    plain = read_volume(tmp_path / "all" / "Case_P001.nii.gz")[0]
    assert {2, 3, 4} <= set(np.unique(plain))
    large = dataclasses.replace(run, data={**run.data, "smallest_mm3": [1e8, 1e8]})
    go(large, stack, tmp_path / "without", drop_small=True, probabilities=True)
    found = read_volume(tmp_path / "without" / "Case_P001.nii.gz")[0]
    np.testing.assert_array_equal(found, np.where(plain >= 3, 2, plain))
    assert float(volumes(tmp_path / "without")["Case_P001"]["Infarction_ml"]) == 0
    kept = [
        nib.load(tmp_path / out / "probabilities" / "Case_P001.nii.gz")
        for out in ("all", "without")
    ]
    np.testing.assert_array_equal(*(np.asarray(image.dataobj) for image in kept))


def test_the_overview_shows_up_to_12_slices(run, stack, tmp_path, monkeypatch):
    shown = []
    original = pictures.comparison

    def spy(images, maps, titles, names, caption):
        (labels,) = maps.values()
        assert "synthetic" in caption
        shown.append((images.shape, labels.shape, list(titles)))
        return original(images, maps, titles, names, caption=caption)

    monkeypatch.setattr(pictures, "comparison", spy)
    go(run, stack, tmp_path)
    array, header = read_volume(stack)
    count = array.shape[-1]
    titles = [f"slice {number}" for number in range(count)]
    assert shown == [((count, 32, 32), (count, 32, 32), titles)]
    with Image.open(tmp_path / "overviews" / "Case_P001.png") as picture:
        assert picture.format == "PNG"
        assert picture.width > 150 * count
    stored(np.tile(array, 5)[..., :30], header, tmp_path / "tall.nii", np.int16)
    go(run, tmp_path / "tall.nii", tmp_path)
    assert len(shown[1][2]) == 12
    assert (shown[1][2][0], shown[1][2][-1]) == ("slice 0", "slice 29")


def test_bad_files_are_reported_after_the_others(run, stack, tmp_path):
    source, output = tmp_path / "in", tmp_path / "out"
    (source / "deeper").mkdir(parents=True)
    shutil.copy(stack, source / "z_good.nii.gz")
    shutil.copy(stack, source / "deeper" / "good.nii.gz")
    shutil.copy(stack, source / "z_good.nii")  # gzip under another name
    (source / "cut.nii.gz").write_bytes(stack.read_bytes()[:2000])
    (source / "gone.nii.gz").symlink_to("/annex/none.nii.gz")
    array, header = read_volume(stack)
    stored(np.stack([array] * 2, -1), header, source / "series.nii", np.int16)
    far = header.copy()
    far.set_zooms((10.0, 1.4, 1.4))
    stored(array, far, source / "turned.nii", np.int16)
    narrow = np.zeros((1, *array.shape[1:]))
    narrow[0, 0] = array[0, 0] + np.arange(array.shape[2])
    stored(narrow, header, source / "narrow.nii", np.float32)
    (source / "notes.txt").write_text("not a stack")
    with pytest.raises(PredictionError) as caught:
        go(run, source, output)
    first, *lines = str(caught.value).splitlines()
    assert "6 of 7" in first
    reasons = {line.split(": ")[0].split("/")[-1]: line for line in lines}
    bad = ["cut.nii.gz", "gone.nii.gz", "narrow.nii", "series.nii", "turned.nii", "z_good.nii"]
    assert sorted(reasons) == bad
    assert "/annex/none.nii.gz" in reasons["gone.nii.gz"]
    assert "4D" in reasons["series.nii"]
    assert "10 x 1.4 x 1.4 mm" in reasons["turned.nii"]
    assert "z_good.nii.gz" in reasons["z_good.nii"]
    assert files(output) == [
        "bullseyes/good.png", "good.nii.gz", "measures.csv", "measures/good.json",
        "measures_slices.csv", "overviews/good.png", "report.html", "volumes.csv",
    ]  # fmt: skip


def test_a_single_bad_file_leaves_nothing(run, tmp_path):
    bad = tmp_path / "bad.nii"
    bad.write_bytes(b"no stack" * 100)
    with pytest.raises(DataError, match=r"bad\.nii: "):
        go(run, bad, tmp_path / "out")
    assert files(tmp_path) == ["bad.nii"]
    assert not (tmp_path / "out").exists()


def test_missing_and_other_inputs_are_refused(run, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "picture.png").touch()
    for name in ("empty", "none.nii", "picture.png"):
        with pytest.raises(DataError, match=name):
            go(run, tmp_path / name, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_existing_files_are_kept_without_overwrite(run, stack, tmp_path):
    go(run, stack, tmp_path)
    label = tmp_path / "Case_P001.nii.gz"
    label.write_bytes(b"mine")
    with pytest.raises(WorkdirError, match=r"P001\.nii\.gz and 3 "):
        go(run, stack, tmp_path)
    for other in ("overviews/Case_P001.png", "bullseyes/Case_P001.png", "measures/Case_P001.json"):
        (tmp_path / other).unlink()
    with pytest.raises(WorkdirError, match=r"Case_P001\.nii\.gz .*--overwrite"):
        go(run, stack, tmp_path)
    assert label.read_bytes() == b"mine"
    go(run, stack, tmp_path, overwrite=True)
    assert read_volume(label)[0].any()


def test_rows_of_earlier_predictions_are_kept(run, stack, tmp_path):
    for name in "ab":
        shutil.copy(stack, tmp_path / f"{name}.nii.gz")
        go(run, tmp_path / f"{name}.nii.gz", tmp_path / "out")
    both = volumes(tmp_path / "out")
    assert list(both) == ["a", "b"]
    go(run, tmp_path / "a.nii.gz", tmp_path / "out", overwrite=True)
    assert volumes(tmp_path / "out") == both
    assert len({tuple(row.values())[1:] for row in both.values()}) == 1


def test_rows_added_by_another_process_are_kept(run, phantom, stack, tmp_path, monkeypatch):
    """Another prediction into the same folder runs during the first case of this one."""
    save, begun = module.write_like, []

    def with_another_within(*arguments):
        if not begun:
            begun.append(True)
            go(run, stack, tmp_path)
        save(*arguments)

    monkeypatch.setattr(module, "write_like", with_another_within)
    go(run, phantom / "Case_N003", tmp_path)
    assert list(volumes(tmp_path)) == ["Case_P001", "Case_N003"]


def test_a_failed_file_keeps_its_earlier_outputs(run, stack, tmp_path):
    source = Path(shutil.copy(stack, tmp_path / "a.nii.gz"))
    go(run, source, tmp_path / "out")
    before = (tmp_path / "out" / "a.nii.gz").read_bytes()
    source.write_bytes(stack.read_bytes()[:2000])
    with pytest.raises(DataError, match=r"a\.nii\.gz: .*earlier files"):
        go(run, source, tmp_path / "out", overwrite=True)
    assert (tmp_path / "out" / "a.nii.gz").read_bytes() == before
    assert list(volumes(tmp_path / "out")) == ["a"]


def test_label_maps_of_the_same_name_are_refused(run, phantom, tmp_path):
    """In a folder of unknown name, which sorts before the images'."""
    for folder, part in (("GT", "Contours"), ("images", "Images")):
        (tmp_path / folder).mkdir()
        for name in ("Case_P001", "Case_N003"):
            shutil.copy(phantom / name / part / f"{name}.nii.gz", tmp_path / folder)
    with pytest.raises(PredictionError, match=r"GT/Case_P001\.nii\.gz: "):
        go(run, tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_links_are_followed_and_hidden_files_skipped(run, phantom, stack, tmp_path):
    source = tmp_path / "in"
    source.mkdir()
    (source / "case").symlink_to(stack.parent)
    (source / "loop").symlink_to(source)
    shutil.copy(phantom / "Case_N003" / "Images" / "Case_N003.nii.gz", source / "own.nii.gz")
    (source / "._own.nii.gz").write_bytes(b"of macOS")
    go(run, source, tmp_path / "out")
    assert list(volumes(tmp_path / "out")) == ["Case_P001", "own"]


@pytest.fixture(scope="module")
def oblique(stack, tmp_path_factory):
    """A stack whose header states where it lies in the body: oblique, in the usual display."""
    array, header = read_volume(stack)
    rows, columns = np.array([-0.72, -0.62, 0.3]), np.array([0.16, -0.57, -0.8])
    rows = rows / np.linalg.norm(rows)
    columns = columns - (columns @ rows) * rows
    columns = columns / np.linalg.norm(columns)
    affine = np.eye(4)
    axes = np.transpose([rows, columns, np.cross(rows, columns)])
    affine[:3] = np.c_[axes * header.get_zooms()[:3], [40.0, 30.0, -20.0]]
    image = nib.Nifti1Image(array, affine)
    image.to_filename(tmp_path_factory.mktemp("oblique") / "oblique.nii.gz")
    return image


@pytest.mark.parametrize(
    "known",
    [["LI", "PR"], *(pytest.param(x, marks=pytest.mark.slow) for x in (None, ["LP"], ["PI"]))],
)
def test_the_stored_orientation_does_not_change_the_label_map(run, oblique, tmp_path, known):
    """Eight orientations of a stack and its header; the random network itself has no symmetry."""
    data = {name: value for name, value in run.data.items() if name != "orientations"}
    run = dataclasses.replace(run, data=data | ({"orientations": known} if known else {}))
    source, places = tmp_path / "in", {}
    source.mkdir()
    for number, (x, y) in enumerate([(0, 1), (1, 0)]):
        for flips in range(4):
            # Each axis of the new array is one of the old, in a direction: nibabel's orientation.
            ways = [[x, -1 if flips & 1 else 1], [y, -1 if flips & 2 else 1], [2, 1]]
            name = f"{number}{flips}"
            places[name] = oblique.as_reoriented(np.array(ways))
            places[name].to_filename(source / f"{name}.nii.gz")
    go(run, source, tmp_path / "out", probabilities=True)
    wanted = nib.load(tmp_path / "out" / "00.nii.gz")
    assert len(np.unique(wanted.dataobj)) == 5
    for name, image in places.items():
        found = nib.load(tmp_path / "out" / f"{name}.nii.gz")
        np.testing.assert_allclose(found.affine, image.affine, atol=1e-5)
        back = nib.as_closest_canonical(found)
        np.testing.assert_array_equal(back.dataobj, nib.as_closest_canonical(wanted).dataobj)
        back = nib.as_closest_canonical(nib.load(tmp_path / "out/probabilities" / f"{name}.nii.gz"))
        first = nib.as_closest_canonical(nib.load(tmp_path / "out/probabilities/00.nii.gz"))
        np.testing.assert_array_equal(back.dataobj, first.dataobj)


def test_the_center_is_given_in_the_stored_orientation(run, oblique, tmp_path):
    turned = oblique.as_reoriented(np.array([[1, -1], [0, 1], [2, 1]]))
    oblique.to_filename(tmp_path / "a.nii.gz")
    turned.to_filename(tmp_path / "b.nii.gz")
    # The first axis of the turned stack is the second of the other, the second its first, mirrored.
    go(run, tmp_path / "a.nii.gz", tmp_path / "out", center=(0.4, 0.55))
    go(run, tmp_path / "b.nii.gz", tmp_path / "out", center=(0.55, 0.6))
    found = [nib.load(tmp_path / "out" / f"{name}.nii.gz") for name in "ab"]
    one, other = (np.asarray(nib.as_closest_canonical(image).dataobj) for image in found)
    np.testing.assert_array_equal(one, other)


def test_an_orientation_may_be_given(run, stack, tmp_path):
    array, header = read_volume(stack)
    stored(array, header, tmp_path / "a.nii", np.int16)
    swapped = header.copy()
    x, y, z = header.get_zooms()
    swapped.set_zooms((y, x, z))
    stored(array[:, ::-1].swapaxes(0, 1), swapped, tmp_path / "b.nii", np.int16)
    go(run, tmp_path / "a.nii", tmp_path / "out", orientation="LI")
    go(run, tmp_path / "b.nii", tmp_path / "out", orientation="SL")
    go(run, stack, tmp_path / "out")
    one, other, plain = (
        read_volume(tmp_path / "out" / f"{name}.nii.gz")[0] for name in ("a", "b", "Case_P001")
    )
    np.testing.assert_array_equal(one, plain)
    np.testing.assert_array_equal(other, plain[:, ::-1].swapaxes(0, 1))


@pytest.mark.parametrize("code", [0, 1])
def test_an_unknown_orientation_is_remarked_on(run, stack, tmp_path, code):
    """Codes of 0, or a code whose affine is zero."""
    content = bytearray(gzip.decompress(stack.read_bytes()))
    content[252:256] = np.array([0, code], "<i2").tobytes()
    content[280:328] = bytes(48)
    (tmp_path / "a.nii").write_bytes(content)
    lines = go(run, tmp_path / "a.nii", tmp_path / "out")
    for text in (lines[-1], volumes(tmp_path / "out")["a"]["remarks"]):
        assert "orientation" in text
        assert "None" not in text


@pytest.mark.parametrize("text", ["", "case,Lesion_ml\na,3.0\n", b"\xff\xfe"])
def test_another_table_is_not_overwritten(run, stack, tmp_path, text):
    (tmp_path / "volumes.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(WorkdirError, match=r"volumes\.csv: "):
        go(run, stack, tmp_path)
    assert files(tmp_path) == ["volumes.csv"]
    go(run, stack, tmp_path, overwrite=True)
    assert list(volumes(tmp_path)) == ["Case_P001"]


def test_inputs_are_never_overwritten(run, stack, tmp_path):
    scan = Path(shutil.copy(stack, tmp_path))
    before = scan.read_bytes()
    for source in (scan, tmp_path):
        with pytest.raises(WorkdirError, match=r"P001\.nii\.gz: "):
            go(run, source, tmp_path, overwrite=True)
    assert files(tmp_path) == ["Case_P001.nii.gz"]
    assert scan.read_bytes() == before


def test_inputs_may_lie_in_the_output_folder(run, stack, tmp_path):
    (tmp_path / "stacks").mkdir()
    shutil.copy(stack, tmp_path / "stacks")
    go(run, tmp_path / "stacks", tmp_path)
    assert list(volumes(tmp_path)) == ["Case_P001"]


def test_predictions_are_reproducible_to_the_byte(run, stack, tmp_path):
    for name in ("first", "second"):
        go(run, stack, tmp_path / name, probabilities=True)
    for name in ("Case_P001.nii.gz", "probabilities/Case_P001.nii.gz", "volumes.csv"):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()


def test_outputs_inside_the_input_folder_are_skipped(run, stack, tmp_path):
    shutil.copy(stack, tmp_path / "a.nii.gz")
    go(run, tmp_path, tmp_path / "out")
    go(run, tmp_path, tmp_path / "out", overwrite=True)
    assert list(volumes(tmp_path / "out")) == ["a"]


def test_an_unwritable_output_is_refused_before_the_work(run, stack, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setattr(inputs, "read_case", lambda *_: pytest.fail("work was begun"))
    with pytest.raises(WorkdirError, match=r"file/out: "):
        go(run, stack, tmp_path / "file" / "out")
    monkeypatch.setattr("jaxseg.runs.files.os.access", lambda *_: False)
    with pytest.raises(WorkdirError, match=r"out: "):
        go(run, stack, tmp_path / "out")


def test_a_full_disk_leaves_only_complete_files(run, phantom, tmp_path, monkeypatch):
    original, written = module.write_like, []

    def write(path, array, source):
        if len(written) == 2:
            path.write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append(path)
        original(path, array, source)

    monkeypatch.setattr(module, "write_like", write)
    with pytest.raises(WorkdirError, match="No space left on device"):
        go(run, phantom, tmp_path)
    names = sorted(path.name for path in tmp_path.glob("*.nii.gz"))
    assert len(names) == 2
    assert list(volumes(tmp_path)) == [name.removesuffix(".nii.gz") for name in names]
    assert not [name for name in files(tmp_path) if "tmp" in name]
    for name in names:
        gzip.decompress((tmp_path / name).read_bytes())


@pytest.mark.parametrize("kind", ["CT", "long axis", "label map", "other label map"])
def test_other_images_than_short_axis_mr_are_refused(run, stack, tmp_path, kind):
    array, header = read_volume(stack)
    values = np.array([0, 1, 2, 3, 4] if kind == "label map" else [0, 200, 500, 1220, 2221])
    if kind == "CT":  # air around soft tissue, in voxels like those of a heart
        array = array.astype(float) / 5 + 20
        array[:20] = np.random.default_rng(0).normal(-1000, 8, array[:20].shape)
        array[-20:] = -1024
    elif kind == "long axis":
        array = array[..., :1]
    else:
        array = values[array.astype(int) % len(values)]
    stored(np.rint(array), header, tmp_path / "x.nii.gz", np.int16)
    with pytest.raises(DataError, match=r"x\.nii\.gz: "):
        go(run, tmp_path / "x.nii.gz", tmp_path / "out")
    assert not list((tmp_path / "out").rglob("*.nii.gz"))


def test_files_that_appear_during_a_prediction_are_kept(run, stack, tmp_path, monkeypatch):
    """Of two processes on the same files, the later one reports what it did not write."""
    write, label = module.write_like, tmp_path / "out" / "Case_P001.nii.gz"

    def with_another_meanwhile(*arguments):
        write(*arguments)
        label.write_bytes(b"another's")

    monkeypatch.setattr(module, "write_like", with_another_meanwhile)
    with pytest.raises(DataError, match=r"Case_P001\.nii\.gz: "):
        go(run, stack, tmp_path / "out")
    assert label.read_bytes() == b"another's"
    go(run, stack, tmp_path / "out", overwrite=True)
    assert read_volume(label)[0].any()


@pytest.mark.parametrize(
    "name",
    ["two\nlines", "tab\tname", "line\u2028name", 'quote"s, comma', os.fsdecode(b"cas\xe9")],
    ids=["newline", "tab", "separator", "quote", "latin-1"],  # xdist sends names as UTF-8
)
def test_rows_of_files_of_any_name(run, stack, tmp_path, name):
    shutil.copy(stack, tmp_path / f"{name}.NII.GZ")
    for overwrite in (False, True):
        go(run, tmp_path / f"{name}.NII.GZ", tmp_path / "out", overwrite=overwrite)
    assert (tmp_path / "out" / f"{name}.nii.gz").exists()
    with (tmp_path / "out" / "volumes.csv").open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    assert [row[0] for row in rows] == [name.encode(errors="backslashreplace").decode()]
    assert len(header) == len(rows[0])
