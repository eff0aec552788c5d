"""These tests need a C++ compiler; without one they are skipped by name."""

import shutil

import pytest


@pytest.fixture(scope="session", autouse=True)
def compiler() -> None:
    if shutil.which("c++") is None:
        pytest.skip("a C++ compiler, c++, is missing")
