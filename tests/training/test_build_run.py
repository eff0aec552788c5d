"""What training sets up on this machine."""

import jax

from jaxseg.training.build_run import use_compilation_cache
from tests.logged import logged


def test_without_a_home_there_is_no_compilation_cache(monkeypatch, tmp_path):
    known = jax.config.jax_compilation_cache_dir
    try:
        use_compilation_cache(str(tmp_path))
        monkeypatch.setenv("HOME", "")
        with logged() as lines:
            use_compilation_cache("~/.cache/jaxseg/xla")
        assert jax.config.jax_compilation_cache_dir == str(tmp_path)
        assert len(lines) == 1
        assert "run.compilation_cache" in lines[0]
        assert "~/.cache/jaxseg/xla" in lines[0]
    finally:
        jax.config.update("jax_compilation_cache_dir", known)
