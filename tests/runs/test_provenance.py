"""Versions that produced a result."""

import json
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import jax
import pytest

import jaxseg
from jaxseg.runs import provenance
from jaxseg.runs.files import WorkdirError


def test_the_version_has_one_source():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    assert "version" in project["project"]["dynamic"]
    assert provenance.versions()["jaxseg"].startswith(jaxseg.__version__)


def test_versions_of_what_computes():
    found = provenance.versions()
    for name in ("jax", "jaxlib", "flax", "numpy"):
        assert found[name] == metadata.version(name)
    assert found["Python"] == ".".join(map(str, sys.version_info[:3]))


def git(folder, *arguments):
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", "-C", folder, *identity, *arguments], check=True, capture_output=True)


def test_the_version_has_the_commit_of_a_checkout(tmp_path, monkeypatch):
    def commit() -> str:
        provenance.versions.cache_clear()
        return provenance.versions()["jaxseg"].removeprefix(jaxseg.__version__).strip(" ()")

    code = tmp_path / "jaxseg" / "runs" / "provenance.py"
    code.parent.mkdir(parents=True)
    code.write_text("a")
    with monkeypatch.context() as patch:
        patch.setattr(provenance, "__file__", str(code))
        assert commit() == ""
        git(tmp_path, "init")
        git(tmp_path, "add", ".")
        git(tmp_path, "commit", "-m", "a")
        first = commit()
        assert re.fullmatch("[0-9a-f]{12}", first)
        (tmp_path / "untracked").touch()
        assert commit() == first
        code.write_text("b")
        assert commit() == f"{first}+changes"
        patch.setenv("PATH", "")
        assert commit() == ""
    provenance.versions.cache_clear()


def test_each_version_is_recorded_once(tmp_path, monkeypatch):
    assert provenance.read(tmp_path) == []
    provenance.note(tmp_path)
    provenance.note(tmp_path)
    (first,) = provenance.read(tmp_path)
    assert first["versions"] == provenance.versions()
    assert first["devices"] == [jax.devices()[0].device_kind]
    assert first["command"] == sys.argv
    assert first["started"].endswith("+00:00")
    monkeypatch.setattr(provenance, "versions", lambda: {"jaxseg": "9"})
    provenance.note(tmp_path)
    assert [entry["versions"] for entry in provenance.read(tmp_path)] == [
        first["versions"], {"jaxseg": "9"},
    ]  # fmt: skip
    text = provenance.described(provenance.read(tmp_path))
    assert text.startswith(f"jaxseg {first['versions']['jaxseg']}, jax ")
    assert "; then jaxseg 9 on " in text
    assert "command" not in json.dumps(provenance.public(provenance.read(tmp_path)))


@pytest.mark.parametrize("content", ["{", "{}", "[3]", '[{"versions": 3}]', "[" * 10**5])
def test_a_damaged_file_is_refused(tmp_path, content):
    (tmp_path / provenance.FILE).write_text(content)
    with pytest.raises(WorkdirError, match=r"provenance\.json: ") as error:
        provenance.read(tmp_path)
    assert "\n" not in str(error.value)


def test_results_of_different_versions_are_named():
    assert provenance.differing({"a": "jax 1", "b": "jax 1"}) is None
    sentence = provenance.differing({"a": "jax 1", "b": "jax 2", "c": "jax 1"})
    assert sentence is not None
    assert "a, c: jax 1; b: jax 2" in sentence
