"""The report of a finished ablation: tables, figures and an HTML page."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from jaxseg.anatomy import Anatomy
from jaxseg.config import run_data, settings
from jaxseg.data import Cohort
from jaxseg.models.segment import make_labels
from jaxseg.reports import curves, mixup_figure, pictures, stage_figure
from jaxseg.reports.document import Picture, Section, Table, markdown
from jaxseg.reports.page import html
from jaxseg.runs import provenance
from jaxseg.runs.files import WorkdirError, read_json, write_files
from jaxseg.runs.trained import load_run
from jaxseg.studies.ablation import stage_tests, table1
from jaxseg.studies.ablation.published import display_name
from jaxseg.studies.ablation.scores import read_run_scores
from jaxseg.studies.ablation.statistics import Comparison, compare
from jaxseg.studies.schedule import Run

_LOG = logging.getLogger(__name__)

_SHOWN_SLICES = 6
_BATCH_SIZE = 8


def write_report(runs: Sequence[Run], cohort: Cohort, folder: Path) -> None:
    """Write table1.md, table1.csv, cases.csv, tests.csv, the figures and report.html.

    Case-wise scores are omitted if the split is by slices, since it scores only parts of cases.

    Args:
      runs: all runs of the ablation, each finished.
      cohort: the cases that the runs were trained and validated on.
      folder: output folder.

    Raises:
      WorkdirError: if a run's files are missing or damaged, runs cannot be compared, or a file
        cannot be written.
    """
    cohort = cohort.cropped()  # the networks' input
    anatomy = runs[0].setup.anatomy
    comparison = _compare(runs, anatomy)
    protocol = table1.Protocol(
        setup=runs[0].setup,
        cases=len(cohort.case_names),
        slices=len(cohort),
        phantom=run_data.is_synthetic(runs[0].setup.source),
    )
    title = f"Ablation: {', '.join(display_name(stage) for stage in comparison.stages)}"
    tables = (
        *table1.table1_sections(comparison, protocol),
        Section("Versions", _versions(runs)),
    )
    files: dict[str, str | bytes] = {
        "table1.md": markdown(title, tables),
        "table1.csv": table1.table1_csv(comparison, anatomy),
        "tests.csv": stage_tests.tests_csv(comparison),
    }
    if comparison.whole_cases:
        files["cases.csv"] = table1.cases_csv(comparison)
    # The tables are written before any drawing, so that a failing figure does not lose them.
    write_files(folder, files)
    figures = _figures(runs, cohort, anatomy)
    drawn = [item for figure in figures for item in figure.content if isinstance(item, Picture)]
    page = html(title, [tables[0], *figures, *tables[1:], _settings(runs)])
    drawings = {picture.name: picture.png for picture in drawn}
    write_files(folder, {**drawings, "report.html": page})
    names = ", ".join([*files, *drawings, "report.html"])
    _LOG.info(f"\n{markdown(title, tables[:1])}\n{folder}: {names}")


def _versions(runs: Sequence[Run]) -> str:
    """Describe the versions and devices of the runs, by run name where they differ."""
    made = {run.folder.name: _made_with(run) for run in runs}
    return provenance.differing(made) or next(iter(made.values()))


def _made_with(run: Run) -> str:
    try:
        return str(read_json(run.evaluation / "summary.json")["made_with"])
    except (WorkdirError, KeyError):
        return "Unknown versions."


def _compare(runs: Sequence[Run], anatomy: Anatomy) -> Comparison:
    scores = [
        read_run_scores(
            run.evaluation, stage=run.stage, seed=run.seed, fold=run.fold, anatomy=anatomy
        )
        for run in runs
    ]
    try:
        return compare(scores)
    except ValueError as error:
        folder = runs[0].evaluation
        raise WorkdirError(
            f"the runs do not compare: {error}; remove the {folder.name} of what is named from "
            f"{folder.parents[1]} and repeat the command"
        ) from error


def _figures(runs: Sequence[Run], cohort: Cohort, anatomy: Anatomy) -> list[Section]:
    """Draw Figure 3 and the learning curves, and Figure 1 from the first run's training slices."""
    first = runs[0]
    training, validation = run_data.split_cohort(first.setup.split, cohort)
    beside = [run for run in runs if (run.seed, run.fold) == (first.seed, first.fold)]
    fold = "" if first.fold is None else f", fold {first.fold}"
    caption = (
        f"{stage_figure.CAPTION} Last epoch of seed {first.seed}{fold}, on the network grid, so "
        "that scores differ a little from those of the native grid in the tables."
    )
    return [
        _figure(
            "Stages side by side", "figure3", _stages(beside, cohort, validation, anatomy), caption
        ),
        _figure("Learning curves", "curves", _curves(runs, anatomy), curves.CAPTION),
        _mixup(first, cohort.take(training), anatomy),
    ]


def _figure(title: str, name: str, figure: Figure, caption: str) -> Section:
    return Section(title, "", (Picture(pictures.png(figure), f"{name}.png", caption),))


def _stages(
    runs: Sequence[Run], cohort: Cohort, validation: NDArray[np.integer], anatomy: Anatomy
) -> Figure:
    """Draw the label maps of the last checkpoints on representative validation slices."""
    held_out = cohort.take(validation)
    labels, case_index = held_out.labels, held_out.case_index
    shown = pictures.representative_slices(labels, case_index, _SHOWN_SLICES)
    slices = held_out.take(shown)
    maps = {}
    for run in runs:
        trained = load_run(run.folder, checkpoint="last")
        images = cohort.inputs(validation[shown], context=trained.network.context)
        segment = make_labels(trained.network, batch_size=_BATCH_SIZE)
        maps[display_name(run.stage)] = segment(trained.params, images)
    return stage_figure.stage_figure(slices.images, slices.labels, maps, slices.titles(), anatomy)


def _curves(runs: Sequence[Run], anatomy: Anatomy) -> Figure:
    histories = {}
    for run in runs:
        history = curves.read_history(run.folder / "metrics.jsonl")
        histories.setdefault(display_name(run.stage), []).append(history)
    try:
        return curves.curves(histories, [name for name, _ in anatomy.slice_regions])
    except ValueError as error:
        raise WorkdirError(f"{runs[0].folder.parent}: {error}") from error


def _mixup(run: Run, training: Cohort, anatomy: Anatomy) -> Section:
    title, tolerance = "Mixup", run.setup.mixup.tolerance
    if not run.setup.mixup.probability:
        return Section(title, "No example was mixed: mixup.probability is 0.")
    if not mixup_figure.choose_pairs(training, count=1, tolerance=tolerance):
        return Section(title, "No picture: no two training slices of different cases can be mixed.")
    figure = mixup_figure.mixup_figure(training, anatomy.labels, tolerance=tolerance)
    return _figure(title, "figure1", figure, mixup_figure.caption(tolerance=tolerance))


def _settings(runs: Sequence[Run]) -> Section:
    """Tabulate the config fields that all runs share; the others appear in the runs' names."""
    flat = [settings.flatten(settings.without_places(run.settings)) for run in runs]
    shared = {name: value for name, value in flat[0].items() if all(f[name] == value for f in flat)}
    rows = tuple((name, str(value)) for name, value in shared.items())
    text = "What all runs share; each run's own config.json has the rest."
    return Section("Settings", text, (Table(("setting", "value"), rows),))
