"""The order of work of a study, here an ablation, with mocked training."""

from pathlib import Path

import numpy as np
import pytest

from configs import default
from jaxseg.config import run_data
from jaxseg.config.settings import replace
from jaxseg.data import Cohort
from jaxseg.data.identity import Digests
from jaxseg.data.phantom.write import case_names
from jaxseg.runs.data_file import claim
from jaxseg.runs.files import WorkdirError
from jaxseg.runs.lock import InUseError
from jaxseg.studies import work
from jaxseg.studies.ablation import ablate as ablation
from jaxseg.studies.ablation.ablate import ablate
from jaxseg.studies.work import StudyError
from jaxseg.training.loop import DivergedError
from tests.logged import logged

STAGES = {
    "plain": {"name": "plain", "loss.weighted": False},
    "weighted": {"name": "weighted", "loss.weighted": True},
}


class Bench:
    """Replaces training, evaluation and the report, and records their calls."""

    def __init__(self, monkeypatch, folder: Path) -> None:
        self.folder = folder
        self.config = default.get_config("phantom").to_dict()
        self.cohort = self.make_cohort(1.0)
        self.trained: list[str] = []
        self.reports: list[list[str]] = []
        self.lines: list[str] = []
        self.broken: dict[str, Exception] = {}
        monkeypatch.setattr(work.run_data, "load_cohort", lambda config: self.cohort)
        monkeypatch.setattr(work, "train", self._train)
        monkeypatch.setattr(work, "evaluate", self._evaluate)
        monkeypatch.setattr(ablation, "write_report", self._report)

    @staticmethod
    def make_cohort(value: float) -> Cohort:
        pixels = np.full((1, 2, 2), value, np.float32)
        one = np.zeros(1, np.int32)
        digests = (Digests(str(value), None),)
        labels, heights = pixels.astype(np.uint8), one.astype(np.float32)
        return Cohort(pixels, labels, heights, one, one, ("P1",), digests=digests)

    def _train(self, config, folder, *, cohort):
        assert cohort is self.cohort
        if folder.name in self.broken:
            raise self.broken[folder.name]
        self.trained.append(folder.name)
        claim(folder, run_data.resolved(config), cohort.facts())  # as `train` does

    def _evaluate(self, folder, *, checkpoint, output):
        assert checkpoint == "last"
        output.mkdir()
        (output / "summary.md").touch()

    def _report(self, runs, cohort, folder):
        assert folder == self.folder
        self.reports.append([run.folder.name for run in runs])

    def ablate(self, **numbers):
        with logged(self.lines.append):
            ablate(self.config, STAGES, self.folder, **numbers)


@pytest.fixture
def bench(monkeypatch, tmp_path):
    return Bench(monkeypatch, tmp_path / "study")


ONE = ["plain-seed-0", "weighted-seed-0"]
TWO = [*ONE, "plain-seed-1", "weighted-seed-1"]


def test_all_runs_are_trained_before_the_report(bench):
    bench.ablate(seeds=2)
    assert bench.trained == TWO
    assert bench.reports == [TWO]
    assert bench.lines[0].startswith("jax ")
    assert bench.lines[1] == "\n[1/4] plain-seed-0"


def test_finished_runs_are_not_repeated(bench):
    bench.ablate(seeds=1)
    bench.ablate(seeds=2)  # two more
    assert bench.trained == TWO
    assert bench.reports == [ONE, TWO]


def test_relative_paths_are_resolved(bench, tmp_path, monkeypatch):
    """Training records the absolute path, which must equal the relative one."""
    monkeypatch.chdir(tmp_path)
    data = bench.config["data"]
    names = case_names(data["phantom_seed"], data["phantom_cases"], data["layout"])
    rows = "".join(f"{name},{name}\n" for name in names)
    (tmp_path / "patients.csv").write_text(f"case,patient\n{rows}")
    bench.config = replace(bench.config, {"data.patients": "patients.csv"})
    for _ in range(2):
        bench.ablate(seeds=1)
    assert bench.trained == ONE


def test_an_interrupted_study_is_continued(bench):
    bench.broken["weighted-seed-0"] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        bench.ablate(seeds=2)
    assert bench.trained == ["plain-seed-0"]
    bench.broken.clear()
    bench.ablate(seeds=2)
    assert bench.trained == TWO
    assert bench.reports == [TWO]


def test_a_run_locked_by_another_process_is_skipped(bench):
    bench.broken["plain-seed-0"] = InUseError("held")
    bench.ablate(seeds=2)
    assert bench.trained == TWO[1:]
    assert bench.reports == []
    assert "plain-seed-0" in bench.lines[-1]


def test_a_diverged_run_stops_only_the_table(bench):
    """A table without it would be one of the seeds that went well."""
    bench.broken["weighted-seed-0"] = DivergedError("loss not finite between steps 1 and 2")
    with pytest.raises(StudyError) as error:
        bench.ablate(seeds=2)
    assert "\n  weighted-seed-0: loss not finite" in str(error.value)
    assert bench.trained == ["plain-seed-0", "plain-seed-1", "weighted-seed-1"]
    assert bench.reports == []


def test_runs_of_other_settings_are_refused_before_any_work(bench):
    bench.ablate(seeds=1)
    bench.config = replace(bench.config, {"model.width": 16})
    with pytest.raises(WorkdirError, match=r"model\.width: "):
        bench.ablate(seeds=2)
    assert bench.trained == ONE


def test_runs_of_other_cases_are_refused_before_any_work(bench):
    bench.ablate(seeds=1)
    bench.cohort = bench.make_cohort(2.0)
    with pytest.raises(WorkdirError, match=r"plain-seed-0: .*P1"):
        bench.ablate(seeds=2)
    assert bench.trained == ONE
    assert bench.reports == [ONE]


def test_an_unwritable_folder_is_refused(bench):
    bench.folder.parent.joinpath("file").touch()
    bench.folder = bench.folder.parent / "file" / "study"
    with pytest.raises(WorkdirError, match="file"):
        bench.ablate(seeds=1)
    assert bench.trained == []
