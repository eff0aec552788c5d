"""The pretrained network: complete, small, licensed and useful."""

import hashlib
import json
import re

import nibabel
import numpy as np
import pytest

from jaxseg.__main__ import main
from jaxseg.metrics import dice
from jaxseg.pretrained import EMIDEC, folder_of
from jaxseg.runs.trained import check_data, load_run
from tests.logged import logged

CARD = (EMIDEC / "MODEL_CARD.md").read_text()


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scans") / "example"
    main(["example", str(folder)])
    return folder


def test_size_and_license():
    files = [path for path in EMIDEC.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 20e6
    for name in ("LICENSE", "MODEL_CARD.md"):
        text = (EMIDEC / name).read_text()
        assert "CC BY-NC-SA 4.0" in text
        assert "Lalande" in text


def test_the_model_card_lists_the_files_as_they_are():
    rows = re.findall(r"^\| (\S+) +\| ([\d,]+) +\| ([0-9a-f]{64}) \|$", CARD, re.MULTILINE)
    assert len(rows) > 20
    for name, size, digest in rows:
        content = (EMIDEC / name).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (
            int(size.replace(",", "")),
            digest,
        )


def test_it_was_trained_on_all_cases():
    run = load_run(folder_of("pretrained"))
    check_data(run.folder, run.data)
    assert len(run.data["training"]["cases"]) == len(run.data["cases"]) == 80
    assert not run.data["synthetic"]


def test_a_scan_is_segmented_without_a_run(scans, tmp_path):
    """The phantom is another scanner to it."""
    with logged() as lines:
        main(["predict", str(scans), f"--output={tmp_path / 'out'}"])
    assert any("CC BY-NC-SA 4.0" in line for line in lines)
    references = sorted(scans.glob("*/Contours/*.nii.gz"))
    assert len(references) == 2
    for path in references:
        expected, found = (
            np.asarray(nibabel.load(file).dataobj) for file in (path, tmp_path / "out" / path.name)
        )
        assert dice(found, expected, (2, 3, 4)) > 0.75
        assert dice(found, expected, 1) > 0.85
        if path.name.startswith("Case_P"):
            assert dice(found, expected, (3, 4)) > 0.5


def test_without_a_run_the_volumes_are_unbiased_and_small_pathology_is_dropped(scans, tmp_path):
    image = next(scans.glob("Case_P*/Images/*.nii.gz"))
    odds = json.loads((EMIDEC / "case_decision.json").read_text())["odds"]
    assert 0.3 < odds < 0.9
    flags = {
        "default": [],
        "same": ["--run=pretrained", "--mirror", "--drop_small", f"--pathology_odds={odds}"],
        "more": ["--run=pretrained", "--mirror", "--drop_small"],
    }
    maps = {}
    for name, own in flags.items():
        main(["predict", str(image), f"--output={tmp_path / name}", *own])
        (file,) = (tmp_path / name).glob("*.nii.gz")
        maps[name] = np.asarray(nibabel.load(file).dataobj)
    assert np.array_equal(maps["default"], maps["same"])
    assert (maps["default"] >= 3).sum() < (maps["more"] >= 3).sum()


def test_it_has_a_case_decision(scans, tmp_path):
    image = next(scans.glob("Case_P*/Images/*.nii.gz"))
    with logged() as lines:
        main(["predict", str(image), f"--output={tmp_path / 'out'}", "--case_decision"])
    assert any("54" in line for line in lines)


def test_an_example_overwrites_nothing(tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(SystemExit):
        main(["example", str(tmp_path)])
    assert str(tmp_path) in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
