"""Settings to cases: the phantom and own cases from disk, and what cannot be read."""

from typing import Any

import nibabel as nib
import numpy as np
import pytest

from configs import awce_penalty, baseline
from jaxseg.config import run_data
from jaxseg.config.settings import replace
from jaxseg.config.setup import build
from jaxseg.data import DataError
from jaxseg.data.phantom.write import case_names


def settings(**changes):
    """The baseline's settings with changes as section__field=value."""
    fields = {name.replace("__", "."): value for name, value in changes.items()}
    return replace(baseline.get_config().to_dict(), fields)


@pytest.fixture
def in_tmp(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"phantom_cases": 1, "split": "case"}, "got 1"),
        ({"split": "case", "folds": 7}, "got 6"),
        ({"split": "case", "folds": 3, "patients": "(Case)"}, "got 1"),
        ({"split": "case", "patients": "none.csv"}, "none.csv: cannot be read"),
        ({"split": "case", "splits": "none.csv"}, "none.csv: cannot be read"),
        ({"split": "case", "splits": "other.csv"}, "other.csv: .*P001"),
    ],
)
def test_a_split_of_the_phantom_is_checked_before_it_is_written(in_tmp, changes, message):
    (in_tmp / "other.csv").write_text("case,fold\nP001,0\n")
    changes = {"phantom_cases": 6} | changes
    setup = build(settings(**{f"data__{name}": value for name, value in changes.items()}))
    with pytest.raises(ValueError, match=message):
        run_data.check_phantom_split(setup)


@pytest.mark.parametrize(("layout", "name"), [("emidec", "Case_N001"), ("nnunet", "N001")])
def test_valid_splits_of_a_phantom_pass(in_tmp, layout, name):
    source = {"data__phantom_cases": 2, "data__phantom_seed": 3, "data__layout": layout}
    names = case_names(3, 2, layout)
    assert names[0] == name
    (in_tmp / "own.csv").write_text("case,side\n" + f"{names[0]},train\n{names[1]},val\n")
    for split in ({}, {"data__split": "case"}, {"data__split": "case", "data__splits": "own.csv"}):
        run_data.check_phantom_split(build(settings(**source, **split)))
    run_data.check_phantom_split(build(settings(data__phantom_cases=0, data__splits="none.csv")))


def num_slices(root, name):
    image: Any = nib.load(root / name / "Images" / f"{name}.nii.gz")
    return image.shape[2]


def test_a_cohort_of_the_phantom(in_tmp):
    config = settings(data__phantom_cases=2, data__phantom_seed=3, grid__size=(64, 64))
    config["grid"]["spacing"] = 2.0
    cohort = run_data.load_cohort(build(config))
    root = in_tmp / "data" / "phantom-2-cases-seed-3"
    names = sorted(path.name for path in root.glob("Case_*"))
    assert cohort.case_names == tuple(names)
    assert set(names) == set(case_names(3, 2, "emidec"))
    depths = [num_slices(root, name) for name in names]
    assert np.bincount(cohort.case_index).tolist() == depths
    assert cohort.images.shape == cohort.labels.shape == (sum(depths), 64, 64)
    assert set(np.unique(cohort.labels)) >= {0, 1, 2, 3}
    written = {path: path.stat().st_mtime_ns for path in root.rglob("*.nii.gz")}
    assert run_data.load_cohort(build(config)).facts() == cohort.facts()
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*.nii.gz")} == written
    config["data"]["root"] = str(in_tmp / "elsewhere")
    config["data"]["phantom_cases"] = 1
    assert len(run_data.load_cohort(build(config)).case_names) == 1
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


def test_a_data_set_without_any_label_is_refused(in_tmp):
    """A single case without labels is allowed."""
    config = own_cases(in_tmp / "cases")
    for name in ("Case_P002", "Case_N001"):
        assert run_data.load_cohort(build(config)).case_names
        path = in_tmp / "cases" / name / "Contours" / f"{name}.nii.gz"
        volume: Any = nib.load(path)
        nib.save(nib.Nifti1Image(np.asarray(volume.dataobj) * 0, None, volume.header), path)
    with pytest.raises(DataError, match=f"^{in_tmp}/cases: "):
        run_data.load_cohort(build(config))


def test_a_cohort_of_own_cases(in_tmp):
    cohort = run_data.load_cohort(build(own_cases(in_tmp / "cases")))
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
    config["intensity"] = {"method": "none", "low": 1.0, "high": 99.0, "bias_field": False}
    raw = run_data.load_cohort(build(config)).images
    assert 50 <= raw.min() < raw.max() < 200
    config["intensity"]["bias_field"] = True
    assert not np.array_equal(run_data.load_cohort(build(config)).images, raw)
    config["intensity"]["bias_field"] = False
    config["intensity"]["method"] = "percentile"
    scaled = run_data.load_cohort(build(config)).images
    assert (scaled.min(), scaled.max()) == (0, 1)
    config["intensity"] |= {"low": 40.0, "high": 60.0}
    assert (run_data.load_cohort(build(config)).images == 1).mean() > 0.3


def test_a_label_beyond_the_anatomy_is_refused(in_tmp):
    config = own_cases(in_tmp / "cases")
    for field in ("inclusions", "case_regions", "slice_regions", "labels"):
        config["anatomy"][field] = {
            "labels": ["background", "cavity", "myocardium"], "inclusions": [],
        }.get(field, [["LV", ["cavity"]]])  # fmt: skip
    with pytest.raises(DataError, match=r"Case_P002.*3"):
        run_data.load_cohort(build(config))


def test_the_phantom_is_not_written_among_real_cases(in_tmp):
    """A likely mistake: the folder of real cases, and the phantom's variant."""
    config = own_cases(in_tmp / "cases")
    config["data"]["phantom_cases"] = 2
    with pytest.raises(DataError, match=r"data\.root: .*cases"):
        run_data.load_cohort(build(config))
    assert not (in_tmp / "cases" / "phantom.json").exists()


def test_folders_that_cannot_be_read_or_written_are_named(in_tmp):
    with pytest.raises(DataError, match="nowhere"):
        run_data.load_cohort(build(settings(data__root="nowhere", data__phantom_cases=0)))
    (in_tmp / "data").write_text("a file")
    with pytest.raises(DataError, match="data/phantom-1-cases-seed-0"):
        run_data.load_cohort(build(settings(data__phantom_cases=1)))


def test_real_cases_with_the_paper_s_settings(emidec_root, tmp_path):
    for name in ("Case_N012", "Case_P001"):
        (tmp_path / name).symlink_to(emidec_root / name)
    config = awce_penalty.get_config("emidec").to_dict()
    config["data"]["root"] = str(tmp_path)
    cohort = run_data.load_cohort(build(config))
    slices = sum(num_slices(emidec_root, name) for name in cohort.case_names)
    assert cohort.images.shape == (slices, 128, 128)


def test_patients_and_own_splits_reach_the_split(in_tmp):
    image = np.random.default_rng(0).integers(50, 200, (20, 20, 2)).astype(np.float64)
    label = np.zeros((20, 20, 2), np.uint8)
    label[5:9, 6:12] = 1
    for k in range(12):  # two scans of each of six patients
        write_case(in_tmp / "cases", f"Case_pat{k // 2}_{k % 2}", image + k, label)
    config = settings(
        data__root="cases", data__phantom_cases=0, grid__size=(16, 16), grid__spacing=0.0
    )
    cohort = run_data.load_cohort(build(config))
    config["data"]["patients"] = r"(pat\d)_"
    held = cohort.cases_of(run_data.split_cohort(build(config).split, cohort)[1])
    assert [name[:-1] for name in held[::2]] == [name[:-1] for name in held[1::2]]
    rows = [f"{name},{'val' if name.endswith('_1') else 'train'}" for name in cohort.case_names]
    (in_tmp / "s.csv").write_text("\n".join(["case,side", *rows]))
    config["data"] |= {"splits": "s.csv", "patients": None}
    config = run_data.resolved(config)
    assert config["data"]["splits"] == str(in_tmp / "s.csv")
    parts = run_data.split_cohort(build(config).split, cohort)
    train, held = (cohort.cases_of(part) for part in parts)
    assert all(name.endswith("_1") for name in held)
    assert len(train) == len(held) == 6
    config["data"]["patients"] = r"(pat\d)_"
    with pytest.raises(DataError, match=r"s\.csv: .*Case_pat0_0.*Case_pat0_1"):
        run_data.split_cohort(build(config).split, cohort)


def test_folders_are_resolved(in_tmp):
    found = run_data.resolved(settings(data__root="cases", data__patients=r"(\d+)"))["data"]
    assert (found["root"], found["patients"]) == (str(in_tmp / "cases"), r"(\d+)")
    phantom = run_data.resolved(settings(data__phantom_cases=2))["data"]["root"]
    assert phantom == str(in_tmp / "data" / "phantom-2-cases-seed-0")
    train = run_data.resolved(settings(train__init_from="runs/a"))["train"]
    assert train["init_from"] == str(in_tmp / "runs" / "a")


def test_a_phantom_is_recognized_by_its_folder(in_tmp):
    def source(**fields):
        return build(settings(**fields)).source

    phantom = source(data__phantom_cases=1)
    root = str(run_data.root(phantom))
    assert run_data.is_synthetic(phantom)
    assert run_data.is_synthetic(source(data__root=root, data__phantom_cases=0))
    assert not run_data.is_synthetic(source(data__root=str(in_tmp), data__phantom_cases=0))
