"""Strictness that every test runs under, and the folder of real cases where there is one."""

import os
from pathlib import Path

import jax
import pytest

# Silent broadcasting of (B,) against (B, 1) is the commonest way to a wrong loss.
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(scope="session")
def emidec_root() -> Path:
    """Folder of the real cases, from JAXSEG_EMIDEC; tests that ask for it are skipped without."""
    root = os.environ.get("JAXSEG_EMIDEC")
    if not root:
        pytest.skip("JAXSEG_EMIDEC does not name a folder of EMIDEC cases")
    return Path(root)
