"""Reports with figures that cannot be drawn and files that do not fit together."""

import json
import shutil
from pathlib import Path

import pytest

from jaxseg.config import run_data
from jaxseg.config.settings import replace
from jaxseg.config.setup import build
from jaxseg.runs.config_file import read_settings
from jaxseg.runs.files import WorkdirError
from jaxseg.studies.ablation import report
from jaxseg.studies.schedule import Run

STAGES = ("baseline", "attention", "awce", "awce_penalty")


class Report:
    """The runs of the shared ablation, copied, and their report."""

    def __init__(self, study: Path, folder: Path) -> None:
        self.folder = shutil.copytree(study, folder, ignore=shutil.ignore_patterns("*.*1*", "*.h*"))
        self.runs = [self._run(folder / "runs" / f"{stage}-seed-0", stage) for stage in STAGES]
        self.cohort = run_data.load_cohort(self.runs[0].setup)

    @staticmethod
    def _run(folder: Path, stage: str) -> Run:
        settings = read_settings(folder)
        return Run(stage, 0, None, folder, replace(settings, {"data.phantom_cases": 0}))

    def change(self, fields) -> None:
        self.runs = [
            Run(r.stage, r.seed, r.fold, r.folder, replace(r.settings, fields)) for r in self.runs
        ]

    def write(self) -> str:
        report.write_report(self.runs, self.cohort, self.folder)
        return (self.folder / "report.html").read_text()


@pytest.fixture
def ablation(study, tmp_path) -> Report:
    return Report(study[0], tmp_path / "study")


def test_a_phantom_given_as_own_cases_is_called_a_phantom(ablation):
    assert ablation.runs[0].setup.source.phantom_cases == 0
    ablation.write()
    table = (ablation.folder / "table1.md").read_text()
    assert "phantom" in table


def test_without_mixup_there_is_no_figure_of_it(ablation):
    ablation.change({"mixup.probability": 0.0})
    (ablation.folder / "figure1.png").unlink(missing_ok=True)
    ablation.write()
    assert not (ablation.folder / "figure1.png").exists()


def test_the_margin_of_augmentation_does_not_change_figures(ablation):
    page = ablation.write()
    wide = replace(ablation.runs[0].settings, {"augment.probability": 0.5, "augment.shift": 9.0})
    ablation.cohort = run_data.load_cohort(build(wide))
    assert ablation.cohort.margin == 3
    assert ablation.write() == page


def test_without_mixup_partners_one_figure_is_missing(ablation):
    """A single training case has no partner in another one."""
    ablation.change({"mixup.tolerance": 0.0})
    ablation.cohort.heights[:] = range(len(ablation.cohort))
    (ablation.folder / "figure1.png").unlink(missing_ok=True)
    page = ablation.write()
    assert page.count("data:image/png;base64,") == 2
    assert not (ablation.folder / "figure1.png").exists()


def test_incomparable_runs_are_refused_in_one_line(ablation):
    path = ablation.runs[1].evaluation / "slices.csv"
    header, first, *rest = path.read_text().splitlines()
    first = first.replace(",0,", ",99,", 1)
    path.write_text("\n".join([header, first, *rest]) + "\n")
    pixels = path.with_name("pixels.csv")
    case = first.split(",")[0]
    pixels.write_text(pixels.read_text().replace(f"{case},0,", f"{case},99,"))
    with pytest.raises(WorkdirError, match="attention") as error:
        ablation.write()
    assert "\n" not in str(error.value)


def test_tables_are_written_despite_damaged_metrics(ablation):
    metrics = ablation.runs[2].folder / "metrics.jsonl"
    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    kept = [json.dumps(line) for line in lines if line["group"] == "train"]
    metrics.write_text("\n".join(kept) + "\n")
    (ablation.folder / "table1.md").unlink(missing_ok=True)
    with pytest.raises(WorkdirError, match=r"attention\+AWCE, run 1: .*validation/dsc/LV"):
        ablation.write()
    assert (ablation.folder / "table1.md").exists()
