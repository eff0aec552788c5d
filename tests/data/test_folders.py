"""Walking through folders: links, pruned folders and names of volumes."""

import pytest

from jaxseg.data.folders import is_volume, volumes, walk
from jaxseg.data.nifti import DataError


def test_every_folder_is_visited_once_unless_pruned(tmp_path):
    for name in ("b/deep", "a", "out"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "a" / "file").touch()
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "b" / "again").symlink_to(tmp_path / "a")
    visited = []
    for parent, names, files in walk(tmp_path):
        visited.append((parent.relative_to(tmp_path).as_posix(), list(names), files))
        names[:] = [name for name in names if name != "out"]
    assert visited == [
        (".", ["a", "b", "out"], []),
        ("a", ["up"], ["file"]),
        ("b", ["again", "deep"], []),
        ("b/deep", [], []),
    ]


def test_names_of_volumes():
    assert is_volume("a.nii")
    assert is_volume("a.b.nii.gz")
    for name in ("a.gz", "a.nii.txt", "nii", "._a.nii.gz", ".nii"):
        assert not is_volume(name)


def test_volumes_of_a_folder(tmp_path):
    for name in ("b.NII", "a.nii.gz", "notes.txt"):
        (tmp_path / name).touch()
    assert [path.name for path in volumes(tmp_path)] == ["a.nii.gz", "b.NII"]
    with pytest.raises(DataError, match="none"):
        volumes(tmp_path / "none")
    with pytest.raises(DataError, match=r"a\.nii\.gz"):
        volumes(tmp_path / "a.nii.gz")
