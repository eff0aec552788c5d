"""These tests need a C++ compiler and are skipped without one."""

import shutil

import pytest


@pytest.fixture(scope="session", autouse=True)
def compiler() -> None:
    if shutil.which("c++") is None:
        pytest.skip("a C++ compiler, c++, is missing")
