"""`measure` end to end: the files of each case and of the study, and what cannot be measured."""

import csv
import json
import shutil

import nibabel as nib
import numpy as np
import pytest

from jaxseg.data import DataError
from jaxseg.inference.measure import measure
from jaxseg.measures.aha import Septum
from jaxseg.measures.heart import MeasureError
from jaxseg.runs.files import WorkdirError
from tests.inference.conftest import files
from tests.logged import logged
from tests.measures.shapes import ring
from tests.measures.test_aha import typical

PIXEL = (1.0, 1.5)
HEART = np.stack([ring(PIXEL, endo=20, infarct=(0, 0.6, 0, 90)), *[ring(PIXEL)] * 3], -1)


def write(path, label_map=HEART, affine=None):
    """A label map whose affine carries no spacing, as in EMIDEC; or one with an affine."""
    image = nib.Nifti1Image(label_map, np.diag([-1, -1, 1, 1]))
    image.header.set_zooms((*PIXEL, 10.0))
    if affine is not None:
        unit = affine / np.append(np.linalg.norm(affine[:3, :3], axis=0), 1)
        image.header.set_sform(unit @ np.diag([*PIXEL, 10.0, 1.0]), code=1)
        image = nib.Nifti1Image(label_map, None, image.header)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.to_filename(path)
    return path


def go(*sources, **options):
    with logged() as lines:
        measure(sources, **options)
    return lines


def table(path):
    return list(csv.DictReader(path.read_text().splitlines()))


@pytest.fixture
def maps(tmp_path):
    for name in "AB":
        write(tmp_path / "maps" / f"{name}.nii.gz")
    return tmp_path / "maps"


def test_the_files_of_a_study(maps, tmp_path):
    output = tmp_path / "new" / "out"
    go(maps, output=output)
    kinds = {"bullseyes": "png", "measures": "json", "overviews": "png"}
    cases = [f"{kind}/{name}.{end}" for kind, end in kinds.items() for name in "AB"]
    assert files(output) == sorted([*cases, "measures.csv", "measures_slices.csv", "report.html"])
    row = table(output / "measures.csv")[0]
    assert row["case"] == "A"
    volume = 0.015 * (HEART == 1).sum()
    assert float(row["cavity_ml"]) == pytest.approx(volume, rel=1e-4)
    assert float(row["infarct_g"]) == pytest.approx(1.05 * 0.015 * (HEART == 3).sum(), rel=1e-4)
    assert row["transmurality_over_75_percent_of_chords"] == "0.0"
    slices = table(output / "measures_slices.csv")
    assert [(one["case"], one["slice"]) for one in slices[:5]] == [
        ("A", "0"), ("A", "1"), ("A", "2"), ("A", "3"), ("B", "0"),
    ]  # fmt: skip
    assert slices[1]["transmurality_mean_percent"] == ""
    found = json.loads((output / "measures" / "A.json").read_text())
    assert found["voxel_mm"] == [1.0, 1.5, 10.0]
    assert found["measures"]["cavity_ml"] == float(row["cavity_ml"])
    assert np.shape(found["chords"]["infarct_percent_of_wall"]) == (4, 100)
    assert found["septum"] is None
    assert "orientation" in found["orientation"]


def test_measures_are_read_by_name_not_by_place(maps, tmp_path):
    output = tmp_path / "out"
    go(maps / "A.nii.gz", output=output)
    path = output / "measures" / "A.json"
    found = json.loads(path.read_text())
    path.write_text(json.dumps(found | {"measures": dict(reversed(found["measures"].items()))}))
    go(maps / "B.nii.gz", output=output)
    for row, name in zip(table(output / "measures.csv"), "AB", strict=True):
        measures = json.loads((output / "measures" / f"{name}.json").read_text())["measures"]
        assert float(row["cavity_ml"]) == measures["cavity_ml"]


def test_cases_measured_earlier_stay_in_the_tables(maps, tmp_path):
    output = tmp_path / "out"
    go(maps / "A.nii.gz", output=output)
    go(maps / "B.nii.gz", output=output, septum=Septum(120))
    assert [row["case"] for row in table(output / "measures.csv")] == ["A", "B"]
    segments = table(output / "measures_segments.csv")
    assert [row["case"] for row in segments] == ["B"] * 17
    assert (segments[0]["name"], segments[0]["slices"]) == ("basal anterior", "3")
    assert segments[16]["infarct_percent_of_wall"] == ""
    with pytest.raises(WorkdirError, match=r"A\.\w+ .*exist"):
        go(maps / "A.nii.gz", output=output)
    go(maps / "A.nii.gz", output=output, septum=Septum(120), overwrite=True)
    assert len(table(output / "measures_segments.csv")) == 34


def septum_of(path, output, **options):
    go(path, output=output, overwrite=True, **options)
    found = json.loads((output / "measures" / f"{path.name[:-7]}.json").read_text())
    return found["septum"], found["orientation"]


def test_the_septum_is_given_or_read_from_the_header(tmp_path):
    oblique = write(tmp_path / "oblique.nii.gz", affine=typical())
    given = {"anterior_degrees": 90.0, "extent_degrees": 120.0}
    assert septum_of(oblique, tmp_path / "out", septum=Septum(90.0))[0] == given
    found, how = septum_of(oblique, tmp_path / "out")
    assert found == {"anterior_degrees": 120.0, "extent_degrees": 120.0}
    assert "estimated" in how
    found, why = septum_of(oblique, tmp_path / "out", base_first=True)
    assert found is None
    assert "slice 0" in why
    few = write(tmp_path / "few.nii.gz", HEART[..., :2])
    assert "three slices" in septum_of(few, tmp_path / "out", septum=Septum(90.0))[1]
    image = nib.load(oblique)
    image.header["sform_code"] = image.header["qform_code"] = 0
    nib.Nifti1Image(HEART, None, image.header).to_filename(tmp_path / "none.nii.gz")
    assert "no orientation" in septum_of(tmp_path / "none.nii.gz", tmp_path / "out")[1]


def test_label_values_of_a_run(random_run, tmp_path):
    run = shutil.copytree(random_run, tmp_path / "run")
    data = json.loads((run / "data.json").read_text())
    values = [0, 500, 200, 2221, 7]
    (run / "data.json").write_text(json.dumps({**data, "label_values": values}))
    path = write(tmp_path / "A.nii.gz", np.array(values, np.int16)[HEART])
    go(path, output=tmp_path / "by-run", run=run)
    go(write(tmp_path / "plain" / "A.nii.gz"), output=tmp_path / "plain-out")
    by_run, plain = (
        (tmp_path / folder / "measures" / "A.json").read_text()
        for folder in ("by-run", "plain-out")
    )
    assert by_run == plain
    with pytest.raises(DataError, match=r"A\.nii\.gz: .*200, 500.*--run"):
        go(path, output=tmp_path / "other")


@pytest.mark.parametrize(
    ("label_map", "error", "message"),
    [
        (HEART * 1.5, DataError, r"A\.nii\.gz: .*1\.5"),
        (HEART * 50, DataError, r"A\.nii\.gz: .*50, 100"),
        (HEART * 0 + 1, MeasureError, r"A\.nii\.gz: .*myocardium"),
    ],
)
def test_label_maps_that_cannot_be_measured(tmp_path, label_map, error, message):
    path = write(tmp_path / "A.nii.gz", label_map)
    with pytest.raises(error, match=message):
        go(path, output=tmp_path / "out")
    assert not list(tmp_path.glob("out/*"))
    good = write(tmp_path / "B.nii.gz")
    with pytest.raises(MeasureError, match=rf"\n.*{message}"):
        go(path, good, output=tmp_path / "out")
    assert [row["case"] for row in table(tmp_path / "out" / "measures.csv")] == ["B"]


def test_missing_and_repeated_inputs_are_refused(maps, tmp_path):
    (tmp_path / "empty").mkdir()
    other = write(tmp_path / "other" / "A.nii.gz")
    for sources, message in (
        ([tmp_path / "empty"], "empty: "),
        ([tmp_path / "none.nii.gz"], "none.nii.gz: "),
        ([maps, other], "A"),
    ):
        with pytest.raises(DataError, match=message):
            go(*sources, output=tmp_path / "out")
    with pytest.raises(WorkdirError, match="none: "):
        go(maps, output=tmp_path / "out", run=tmp_path / "none")
    assert not (tmp_path / "out").exists()


def test_a_damaged_file_of_measures_is_named(maps, tmp_path):
    output = tmp_path / "out"
    go(maps / "A.nii.gz", output=output)
    for content in ("{", '{"case": "A"}'):
        (output / "measures" / "A.json").write_text(content)
        with pytest.raises(WorkdirError, match=r"A.json"):
            go(maps / "B.nii.gz", output=output, overwrite=True)
    parts = {name: [] for name in ("segments", "remarks", "slices")} | {"orientation": ""}
    for measures in ({}, None):  # the parts of this version with other content
        content = json.dumps({"case": "A", "measures": measures, **parts})
        (output / "measures" / "A.json").write_text(content)
        with pytest.raises(WorkdirError, match="measures: "):
            go(maps / "B.nii.gz", output=output, overwrite=True)
