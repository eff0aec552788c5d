"""The manifest of a bundle, and verification of its files."""

import hashlib
import json

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


def test_a_manifest_is_read_back(folder):
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


def damaged(folder, *names):
    """Verification fails with one line that holds the names."""
    with pytest.raises(WorkdirError) as caught:
        bundle.verify(folder, bundle.read_manifest(folder))
    message = str(caught.value)
    assert "\n" not in message
    for name in names:
        assert name in message, message


def test_damaged_files_are_named(folder):
    path = folder / "config.json"
    path.write_text("[]")
    damaged(folder, "config.json", "SHA-256")
    path.write_text("{} ")
    damaged(folder, "config.json", "3 bytes", "2")
    path.unlink()
    damaged(folder, "config.json")
    path.mkdir()
    damaged(folder, "config.json")


@pytest.mark.parametrize(
    "content",
    [
        '{"format": "jaxseg', "[]", '{"format": "other", "version": 1}', "\0",
        '{"format": "jaxseg bundle", "version": 2}', '{"format": "jaxseg bundle", "version": 1}',
        '{"format": "jaxseg bundle", "version": 1, "files": {"a": {"size": 1}}}',
    ],
)  # fmt: skip
def test_damaged_manifests_are_named(folder, content):
    (folder / "manifest.json").write_text(content)
    damaged(folder, "manifest.json: ")


def manifest_with(folder, **changes):
    content = json.loads((folder / "manifest.json").read_text()) | changes
    (folder / "manifest.json").write_text(json.dumps(content))


OUTSIDE = (
    "../secret", "params/../../secret", "/etc/hostname", "..", ".", "", "a//b", "./a", "params/",
    "..\\secret", "c:secret", "a\nb", "a\0b", "\ud800",
)  # fmt: skip


@pytest.mark.parametrize("name", OUTSIDE)
def test_paths_outside_the_bundle_are_refused(folder, name):
    (folder.parent / "secret").touch()
    digest = hashlib.sha256(b"").hexdigest()
    manifest_with(folder, files={name: {"size": 0, "sha256": digest}})
    damaged(folder, "manifest.json: ")


def test_links_out_of_the_bundle_are_refused(folder):
    (folder / "config.json").unlink()
    (folder / "config.json").symlink_to("/dev/zero")  # without end
    damaged(folder, "config.json: ")
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
    damaged(folder, "manifest.json: ", name)


def test_a_damaged_bundle_is_still_a_bundle(folder):
    assert bundle.is_bundle(folder)
    (folder / "manifest.json").unlink()
    assert bundle.is_bundle(folder)
    damaged(folder, "manifest.json")
    (folder / "params").rename(folder / "checkpoints")
    assert not bundle.is_bundle(folder)
