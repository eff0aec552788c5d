"""Atomic files of a run folder, and JSON that is refused."""

import errno
import os
import re
from pathlib import Path

import pytest

from jaxseg.runs.files import (
    ExistsError,
    WorkdirError,
    atomic,
    check_writable,
    read_json,
    remove_leftovers,
    write_atomic,
    write_files,
)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(
    "content", [b'{"name": "base', b"", b"\xff\xfe", b"[1, 2]", b'{"a":' + b"[" * 100_000]
)
def test_unreadable_json_is_refused_and_kept(tmp_path, content):
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(WorkdirError, match=re.escape(f"{path}: ")):
        read_json(path)
    assert path.read_bytes() == content
    path.unlink()
    path.mkdir()
    with pytest.raises(WorkdirError, match=re.escape(f"{path}: ")):
        read_json(path)


def test_large_json_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "config.json"
    with path.open("wb") as file:
        file.truncate(2**40)  # sparse: takes no space, and would take a terabyte of memory
    with pytest.raises(WorkdirError, match="16777216"):
        read_json(path)


def test_write_atomic_replaces_and_leaves_nothing_behind(tmp_path):
    path = tmp_path / "table.md"
    for text in ("first, longer\n", "µ ± 1\n"):
        write_atomic(path, text)
        assert path.read_bytes() == text.encode()
    assert names(tmp_path) == ["table.md"]


def test_an_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "table.md"
    write_atomic(path, "old")

    def killed(source, target):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        write_atomic(path, "new")
    assert path.read_text() == "old"


def test_an_atomic_file_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "scores.csv"
    with atomic(path) as temporary:
        temporary.write_text("new")
        assert not path.exists()
        assert temporary.suffix == ".csv"
    assert path.read_text() == "new"

    def fail_halfway():
        with atomic(path) as temporary:
            temporary.write_text("half")
            raise KeyError

    with pytest.raises(KeyError):
        fail_halfway()
    assert path.read_text() == "new"
    assert names(tmp_path) == ["scores.csv"]


def test_two_writers_of_one_file_do_not_interfere(tmp_path):
    path = tmp_path / ("a" * 240 + ".nii.gz")
    with atomic(path) as first, atomic(path) as second:
        assert first != second
        assert first.name.startswith(".")
        assert first.name.endswith(".nii.gz")
        first.write_text("first")
        second.write_text("second")
    assert path.read_text() == "first"
    assert path.stat().st_nlink == 1
    umask = os.umask(0)
    os.umask(umask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask
    assert names(tmp_path) == [path.name]


@pytest.mark.parametrize("links", [True, False])
def test_a_file_that_appears_during_the_write_is_kept(tmp_path, monkeypatch, links):
    if not links:  # as on FAT
        error = OSError(errno.EPERM, "Operation not permitted")
        monkeypatch.setattr(Path, "hardlink_to", lambda *_: (_ for _ in ()).throw(error))
    path = tmp_path / "a.csv"
    with atomic(path, overwrite=False) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "new"

    def late():
        with atomic(path, overwrite=False) as temporary:
            temporary.write_text("late")

    with pytest.raises(ExistsError, match=r"a\.csv"):
        late()
    assert path.read_text() == "new"
    assert names(tmp_path) == ["a.csv"]


def test_text_that_is_not_utf_8_is_written_escaped(tmp_path):
    name = os.fsdecode(b"cas\xe9")
    write_atomic(tmp_path / "a.csv", f"{name}\r\n")
    write_files(tmp_path, {"b.csv": name})
    assert (tmp_path / "a.csv").read_bytes() == rb"cas\udce9" + b"\r\n"
    assert (tmp_path / "b.csv").read_bytes() == rb"cas\udce9"


def test_only_temporary_files_of_writers_are_leftovers(tmp_path):
    for name in (".tmp-0a.csv", "a.csv", ".lock"):
        (tmp_path / name).touch()
    (tmp_path / ".tmp-bundle-cafe0000").mkdir()
    remove_leftovers(tmp_path)
    assert names(tmp_path) == [".lock", ".tmp-bundle-cafe0000", "a.csv"]


def test_unwritable_folders_are_named_and_not_made(tmp_path, monkeypatch):
    check_writable(tmp_path / "a" / "b")
    (tmp_path / "file").touch()
    with pytest.raises(WorkdirError, match=r"file/b: .*file"):
        check_writable(tmp_path / "file" / "b")
    with pytest.raises(WorkdirError, match="file/b: "):
        write_files(tmp_path / "file" / "b", {"a.md": ""})
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(WorkdirError, match="b: "):
        check_writable(tmp_path / "b")
    assert names(tmp_path) == ["file"]


def test_write_files_writes_text_and_bytes(tmp_path):
    folder = tmp_path / "new" / "folder"
    write_files(folder, {"a.md": "±\n", "b.png": b"\x89"})
    assert (folder / "a.md").read_bytes() == "±\n".encode()
    assert (folder / "b.png").read_bytes() == b"\x89"
    assert len(list(folder.iterdir())) == 2
