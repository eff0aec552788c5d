"""Walking through folders: links once, what the caller takes out not at all, hidden files told."""

from jaxseg.data.folders import is_volume, walk


def test_every_folder_once_in_order_and_none_that_the_caller_takes_out(tmp_path):
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
