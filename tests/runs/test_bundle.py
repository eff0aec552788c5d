"""The manifest: what was exported is what is read, or one line says what is not."""

import hashlib
import json
import re

import pytest

from jaxseg.runs import bundle
from jaxseg.runs.bundle import File, Manifest
from jaxseg.runs.files import WorkdirError


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "params" / "d").mkdir(parents=True)
    (tmp_path / "params" / "d" / "0").write_bytes(bytes(range(256)))
    (tmp_path / "config.json").write_text("{}")
    files = bundle.list_files(tmp_path)
    made_with = {"jax": "1.2.3"}
    manifest = Manifest(name="awce", checkpoint="last", step=7, made_with=made_with, files=files)
    bundle.write_manifest(tmp_path, manifest)
    return tmp_path


def test_a_manifest_comes_back(folder):
    manifest = bundle.read_manifest(folder)
    assert (manifest.name, manifest.checkpoint, manifest.step) == ("awce", "last", 7)
    assert manifest.made_with == {"jax": "1.2.3"}
    assert manifest.files == {
        "config.json": File(2, hashlib.sha256(b"{}").hexdigest()),
        "params/d/0": File(256, hashlib.sha256(bytes(range(256))).hexdigest()),
    }
    bundle.verify(folder, manifest)
    (folder / "evaluation").mkdir()
    (folder / "evaluation" / "summary.md").touch()
    (folder / "MODEL_CARD.md").write_text("mine")
    bundle.verify(folder, manifest)


def damaged(folder, *words):
    with pytest.raises(WorkdirError) as caught:
        bundle.verify(folder, bundle.read_manifest(folder))
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert re.search(word, message), message


def test_damaged_files_are_named(folder):
    (folder / "config.json").write_text("[]")
    damaged(folder, r"config\.json: damaged \(its SHA-256", "copy or export")
    (folder / "config.json").write_text("{} ")
    damaged(folder, r"config\.json: damaged \(3 bytes, exported with 2\)")
    (folder / "config.json").unlink()
    damaged(folder, r"a damaged bundle \(it has no config\.json\)")
    (folder / "config.json").mkdir()
    damaged(folder, r"config\.json: cannot be read \(Is a directory\)")


MANIFESTS = {
    "torn": ('{"format": "jaxseg', "cannot be read as JSON"),
    "list": ("[]", "expected a JSON object, got list"),
    "other": ('{"format": "other", "version": 1}', "not the manifest of a jaxseg bundle"),
    "later": ('{"format": "jaxseg bundle", "version": 2}', "a bundle of version 2; expected 1"),
    "empty": ('{"format": "jaxseg bundle", "version": 1}', r"a damaged manifest \('files'\)"),
    "files": (
        '{"format": "jaxseg bundle", "version": 1, "files": {"a": {"size": 1}}}',
        "a damaged manifest .*sha256",
    ),
    "binary": (b"\xff\xfe\x00", "cannot be read as JSON"),
}


@pytest.mark.parametrize("case", MANIFESTS)
def test_damaged_manifests_are_named(folder, case):
    content, message = MANIFESTS[case]
    content = content.encode() if isinstance(content, str) else content
    (folder / "manifest.json").write_bytes(content)
    damaged(folder, rf"manifest\.json: {message}")


def manifest_with(folder, **changes):
    content = json.loads((folder / "manifest.json").read_text()) | changes
    (folder / "manifest.json").write_text(json.dumps(content))


OUTSIDE = (
    "../secret", "params/../../secret", "/etc/hostname", "..", ".", "", "a//b", "./a", "params/",
    "..\\secret", "c:secret", "a\nb", "a\0b", "\ud800",
)  # fmt: skip


@pytest.mark.parametrize("name", OUTSIDE)
def test_names_that_lead_out_of_the_bundle_are_refused(folder, name):
    (folder.parent / "secret").touch()
    digest = hashlib.sha256(b"").hexdigest()
    manifest_with(folder, files={name: {"size": 0, "sha256": digest}})
    damaged(folder, r"manifest\.json: names .*, which is no file in the bundle")


def test_links_that_lead_out_of_the_bundle_are_refused(folder):
    (folder / "config.json").unlink()
    (folder / "config.json").symlink_to("/dev/zero")  # without end
    damaged(folder, r"config\.json: a link that leads out of the bundle")
    (folder / "same.json").write_text("{}")
    (folder / "config.json").unlink()
    (folder / "config.json").symlink_to("same.json")
    bundle.verify(folder, bundle.read_manifest(folder))


@pytest.mark.parametrize(
    "changes", [{"name": 3}, {"checkpoint": ["best"]}, {"step": "7"}, {"made_with": []}]
)
def test_fields_of_other_types_are_refused(folder, changes):
    manifest_with(folder, **changes)
    (name,) = changes
    damaged(folder, rf"manifest\.json: a damaged manifest \({name} is ")


def test_a_bundle_is_told_from_a_workdir_even_when_damaged(folder):
    assert bundle.is_bundle(folder)
    (folder / "manifest.json").unlink()
    assert bundle.is_bundle(folder)
    damaged(folder, r"a damaged bundle \(it has no manifest\.json\)")
    (folder / "params").rename(folder / "checkpoints")
    assert not bundle.is_bundle(folder)
