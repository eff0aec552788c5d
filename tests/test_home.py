"""Paths that begin with ~: expanded, or refused by the name of their flag or field."""

from pathlib import Path

import pytest

from jaxseg.home import HomeError, expanded


def test_a_home_is_expanded(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert expanded("~/x", "--run") == Path("/home/me/x")
    for path in ("/x/~", "x", ""):
        assert expanded(path, "--run") == Path(path)


@pytest.mark.parametrize("path", ["~no-such-user/x", "~/x", "~"])
def test_a_missing_home_is_refused(monkeypatch, path):
    """With an empty HOME, ~/x would be /x."""
    monkeypatch.setenv("HOME", "")
    with pytest.raises(HomeError, match=rf"^--run: .*{path}$"):
        expanded(path, "--run")
    assert expanded("/x", "--run") == Path("/x")
