"""Building and caching the library, and errors in one line."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from jaxseg import native
from jaxseg.native import NativeError, library


@pytest.fixture
def empty_cache(monkeypatch, tmp_path):
    """A cache folder with nothing in it, as for a user's first run."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "jaxseg" / "native"


def build() -> Path:
    """As `load` does it, but not loaded: XLA's registry takes each name once a process."""
    path = library._file()
    library._build(path)
    return path


def test_the_library_is_built_once_and_then_loaded(empty_cache):
    def use() -> tuple[str, int]:
        done = subprocess.run(
            [sys.executable, "-c", "from jaxseg import native; print(native.load())"],
            cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, "")
        (path,) = empty_cache.iterdir()
        assert done.stdout.strip() == str(path)
        return path.name, path.stat().st_mtime_ns

    assert use() == use()
    assert empty_cache.stat().st_mode & 0o077 == 0  # other users cannot write to it


def test_processes_may_build_at_the_same_time(empty_cache):
    with ThreadPoolExecutor(2) as pool:
        paths = {pool.submit(build) for _ in range(2)}
    assert {path.result() for path in paths} == set(empty_cache.iterdir())


def test_the_file_name_depends_on_sources_flags_and_processor(monkeypatch):
    name = library._digest()
    assert name == library._digest()
    for part, other in {"_flags": ["-O1"], "_processor": "z80", "_compiler": "cfront"}.items():
        with monkeypatch.context() as changed:
            changed.setattr(library, part, lambda other=other: other)
            assert library._digest() != name
    assert set(library._SOURCES) == {
        path.name
        for path in Path(library.__file__).parent.iterdir()
        if path.suffix in (".cc", ".h")
    }


def compile_with(monkeypatch, folder: Path, script: str) -> None:
    """Use a Python script in place of the compiler."""
    (folder / "compiler.py").write_text(script)
    monkeypatch.setenv("CXX", f"{sys.executable} {folder / 'compiler.py'}")


def test_a_missing_compiler_is_named(empty_cache, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(NativeError, match="no-such-compiler"):
        build()
    assert list(empty_cache.iterdir()) == []


@pytest.mark.parametrize(
    ("script", "found"),
    [
        ("raise SystemExit(1)", "status 1"),
        ("raise SystemExit('In a file:\\na.h:3: error: no such type\\nmore')", "a.h:3: error: no"),
        ("import time; time.sleep(30)", "0.5 s"),
    ],
)
def test_compiler_errors_are_one_line(empty_cache, monkeypatch, tmp_path, script, found):
    monkeypatch.setattr(library, "_SECONDS", 0.5 if "sleep" in script else 300)
    compile_with(monkeypatch, tmp_path, script)
    with pytest.raises(NativeError, match=found) as caught:
        build()
    assert "\n" not in str(caught.value)
    assert list(empty_cache.iterdir()) == []


def test_an_unwritable_cache_is_named(monkeypatch, tmp_path):
    (tmp_path / "jaxseg").write_text("a file, not a folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(NativeError, match=str(tmp_path)):
        build()


def test_a_file_that_is_not_a_library_is_named(empty_cache):
    empty_cache.mkdir(parents=True)
    library._file().write_text("not a library")
    found = library._once.__wrapped__()
    assert isinstance(found, NativeError)
    assert str(library._file()) in str(found)


@pytest.mark.skipif(sys.platform == "win32", reason="no such modes")
def test_libraries_writable_by_others_are_refused(empty_cache):
    path = build()
    assert library._is_kept(path)
    for place in (path, empty_cache):
        mode = place.stat().st_mode
        place.chmod(0o777)
        with pytest.raises(NativeError, match=f"{place}: "):
            library._is_kept(path)
        place.chmod(mode)


def test_a_missing_home_is_named(monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", "")
    found = library._once.__wrapped__()
    assert isinstance(found, NativeError)
    assert "$XDG_CACHE_HOME" in str(found)
    assert "~/.cache" in str(found)


def test_a_failure_is_cached(monkeypatch):
    failure = NativeError("why")
    monkeypatch.setattr(library, "_once", lambda: failure)
    for _ in range(2):
        with pytest.raises(NativeError, match="why"):
            native.load()
