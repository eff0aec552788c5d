"""Choice of the convolution by config and machine."""

import json
import shutil
from pathlib import Path

import pytest

from configs import awce_penalty
from jaxseg import native
from jaxseg.config.settings import SettingsError, replace
from jaxseg.config.setup import build
from jaxseg.models import convolve_xla
from jaxseg.native import NativeError, convolve_native, library
from jaxseg.runs.config_file import read_settings
from jaxseg.runs.trained import load_run
from jaxseg.training.build_run import log_slow_convolution
from tests.logged import logged


def settings(**changes: object) -> dict:
    return replace(
        awce_penalty.get_config().to_dict(),
        {name.replace("__", "."): value for name, value in changes.items()},
    )


def without_compiler(monkeypatch) -> None:
    def load() -> Path:
        raise NativeError("expected a C++ compiler, c++ is not there")

    monkeypatch.setattr(library, "load", load)


def test_auto_falls_back_to_xla(monkeypatch):
    assert build(settings()).convolve is convolve_native
    assert build(settings(run__convolution="native")).convolve is convolve_native
    assert build(settings(run__convolution="xla")).convolve is convolve_xla
    assert build(settings(model__precision="bfloat16")).convolve is convolve_xla
    assert build(settings()).networks.segmentation.convolve is convolve_native
    without_compiler(monkeypatch)
    assert build(settings()).convolve is convolve_xla
    assert native.why_not("float32") == "expected a C++ compiler, c++ is not there"


def test_xla_builds_nothing(monkeypatch):
    monkeypatch.setattr(library, "load", lambda: pytest.fail("asked for the library"))
    assert build(settings(run__convolution="xla")).convolve is convolve_xla


def test_a_run_is_loaded_without_its_native_convolution(monkeypatch, random_run, tmp_path):
    run = shutil.copytree(random_run, tmp_path / "run")
    config = read_settings(run)
    config["run"]["convolution"] = "native"
    (run / "config.json").write_text(json.dumps(config))
    without_compiler(monkeypatch)
    assert load_run(run).network.convolve is convolve_xla


def test_an_unavailable_native_convolution_is_refused(monkeypatch):
    wanted = settings(run__convolution="native", model__precision="bfloat16")
    with pytest.raises(SettingsError, match=r"run\.convolution: .*float32"):
        _ = build(wanted).convolve
    without_compiler(monkeypatch)
    with pytest.raises(SettingsError, match=r"run\.convolution: .*c\+\+ is not there"):
        _ = build(settings(run__convolution="native")).convolve


def test_training_reports_a_slow_convolution(monkeypatch):
    with logged(pytest.fail):
        log_slow_convolution(build(settings()))
        log_slow_convolution(build(settings(run__convolution="xla")))
    without_compiler(monkeypatch)
    with logged() as lines:
        log_slow_convolution(build(settings()))
    assert len(lines) == 1
    assert "c++ is not there" in lines[0]
