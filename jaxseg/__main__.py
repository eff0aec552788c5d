"""Command line for finished runs: segment and measure stacks, score a run, export its network."""

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from jaxseg import __version__, arguments, pretrained
from jaxseg.command_line import command
from jaxseg.data.phantom.write import write_phantom
from jaxseg.evaluation.evaluate import evaluate
from jaxseg.evaluation.methods import NAMES, WITHIN
from jaxseg.evaluation.methods_files import methods_markdown
from jaxseg.evaluation.score_files import summary_markdown
from jaxseg.inference import case_decision
from jaxseg.inference.export import export
from jaxseg.inference.measure import measure
from jaxseg.inference.predict import predict
from jaxseg.machine.devices import describe
from jaxseg.machine.stdout import StdoutError
from jaxseg.runs.bundle import CARD
from jaxseg.runs.files import WorkdirError, writing
from jaxseg.runs.trained import load_run

_LOG = logging.getLogger(__package__)
_PRETRAINED = (
    "no --run given: using the bundled network, trained on EMIDEC. For research, not for "
    f"diagnosis; no commercial use (CC BY-NC-SA 4.0): {pretrained.EMIDEC / CARD}"
)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command of the given arguments, by default those of the process."""
    with command():
        options = vars(parser().parse_args(argv))
        run = options.pop("command")
        _LOG.info(describe())
        run(**options)


def _predict(
    run: Sequence[Path], checkpoint: str | None, pathology_odds: float | None, **options: Any
) -> None:
    runs = [load_run(folder, checkpoint=checkpoint) for folder in run or [pretrained.EMIDEC]]
    if not run:
        options["mirror"] = True
        if not options["case_decision"]:
            options["drop_small"] = True
            pathology_odds = pathology_odds or case_decision.read(runs[0]).odds
        _LOG.info(_PRETRAINED)
    predict(runs, pathology_odds=pathology_odds or 1.0, **options)


def _evaluate(run: Sequence[Path], pathology_odds: float | None, **options: Any) -> None:
    found = evaluate(run, pathology_odds=pathology_odds or 1.0, **options)
    many = len(found) > 1
    text = methods_markdown(found) if many else summary_markdown(next(iter(found.values())))
    _LOG.info(f"\n{text}")


def _example(output: Path) -> None:
    try:
        with writing(output):
            write_phantom(output, seed=0, num_cases=2)
    except ValueError as error:
        raise WorkdirError(str(error)) from error
    _LOG.info(f"{output}: wrote two synthetic stacks (Images) with label maps (Contours)")


class _Parser(argparse.ArgumentParser):
    """Reports an invalid argument in one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        """Exit with status 2."""
        self.exit(2, f"error: {message}; see {self.prog} --help\n")

    def _print_message(self, message: str, file: Any = None) -> None:
        """Print a message; argparse would ignore a stdout that is full and has no buffer."""
        if file is not sys.stdout:
            return super()._print_message(message, file)
        try:
            print(message, end="")
        except OSError as error:
            raise StdoutError(error) from error


def parser() -> argparse.ArgumentParser:
    """Build the parser of all commands."""
    root = _Parser(
        prog="jaxseg",
        description="Use trained networks: run folders of main.py, or bundles exported from them.",
    )
    root.add_argument("--version", action="version", version=f"jaxseg {__version__}")
    commands = root.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_predict(commands)
    _add_measure(commands)
    _add_evaluate(commands)
    _add_export(commands)
    _add_example(commands)
    return root


def _add_predict(commands: Any) -> None:
    parser = _subparser(
        commands,
        "predict",
        _predict,
        "segment and measure NIfTI stacks or a DICOM series",
        "jaxseg predict scans --output=segmented",
    )
    add = parser.add_argument
    text = "a .nii or .nii.gz file, a folder of them, or a folder of one DICOM series"
    add("source", type=arguments.path, metavar="STACK", help=text)
    text = (
        "run folder or bundle; with several --run, their probabilities are averaged. "
        "Default: the bundled network, trained on EMIDEC, with --mirror, --drop_small and the "
        "--pathology_odds of its cross-validation"
    )
    add("--run", type=arguments.run, default=[], action="append", metavar="RUN", help=text)
    add(
        "--output",
        type=arguments.path,
        metavar="DIR",
        required=True,
        help="folder for label maps, pictures, volumes and measures",
    )
    text = (
        "position of the heart in all stacks, as fractions of the field of view; default: the "
        "network locates it, or the center of its config"
    )
    add("--center", type=arguments.center, metavar="ROW,COLUMN", help=text)
    text = (
        "anatomical directions of rows and columns (the file's first and second axis), such as LP "
        "for left and posterior; default: from the header"
    )
    add("--orientation", type=arguments.orientation, metavar="CODE", help=text)
    text = "DICOM series to read if there are several: its description, or the end of its UID"
    add("--series", metavar="SERIES", help=text)
    add("--probabilities", action="store_true", help="write the probabilities as well")
    _add_septum(parser)
    add("--overwrite", action="store_true", help="replace existing files")
    _add_inference(parser)


def _add_measure(commands: Any) -> None:
    parser = _subparser(
        commands,
        "measure",
        measure,
        "measure label maps: masses, transmurality, polar maps, and a report of all cases",
        "jaxseg measure segmented/*.nii.gz --output=measured --septum=125",
    )
    add = parser.add_argument
    text = ".nii or .nii.gz label maps, or folders of them"
    add("sources", type=arguments.path, nargs="+", metavar="LABEL_MAP", help=text)
    add("--output", type=arguments.path, metavar="DIR", required=True, help="folder for all files")
    text = (
        f"run folder or bundle, or {pretrained.NAME}, that defines the labels; default: EMIDEC's, "
        "0 to 4"
    )
    add("--run", type=arguments.run, metavar="RUN", help=text)
    _add_septum(parser)
    text = "slice 0 is the base; default: the apex, as in EMIDEC, or as in the config of RUN"
    add("--base_first", action="store_true", help=text)
    add("--overwrite", action="store_true", help="replace existing files")


def _add_septum(parser: argparse.ArgumentParser) -> None:
    text = (
        "directions, from the cavity's center, of the anterior and, if known, the inferior "
        "insertion of the right ventricle, in degrees in the picture (0 right, 90 up); applied to "
        "all cases, to name the AHA segments"
    )
    parser.add_argument("--septum", type=arguments.septum, metavar="ANTERIOR[,INFERIOR]", help=text)


def _add_evaluate(commands: Any) -> None:
    parser = _subparser(
        commands,
        "evaluate",
        _evaluate,
        "score a run on labeled cases that it was not trained on",
        "jaxseg evaluate --run=runs/best-emidec --mirror",
    )
    add = parser.add_argument
    text = "data set folder; default: the held-out cases of the run"
    add("root", type=arguments.path, nargs="?", metavar="CASES", help=text)
    text = (
        f"run folder or bundle, or {pretrained.NAME}; with several --run, each case is scored by "
        "the run that held it out"
    )
    add("--run", type=arguments.run, required=True, action="append", metavar="RUN", help=text)
    text = f"methods to compare, separated by commas: {', '.join(NAMES)}; default: network"
    add("--method", type=arguments.names, action="extend", dest="methods", default=[], help=text)
    text = (
        f"myocardium that thresholds apply to: {' or '.join(WITHIN)}, or both; default: reference"
    )
    add("--within", type=arguments.names, action="extend", default=[], help=text)
    text = "folder for the scores; default: RUN/evaluation"
    add("--output", type=arguments.path, metavar="DIR", help=text)
    _add_inference(parser)


def _add_export(commands: Any) -> None:
    parser = _subparser(
        commands,
        "export",
        export,
        "export the network of a run as a bundle, a self-contained folder",
        "jaxseg export --run=runs/best-emidec --output=bundle",
    )
    add = parser.add_argument
    text = f"run folder, or a bundle or {pretrained.NAME} to export in another form"
    add("--run", type=arguments.run, required=True, dest="folder", metavar="RUN", help=text)
    add("--output", type=arguments.path, metavar="DIR", required=True, help="folder of the bundle")
    add("--checkpoint", choices=["best", "last"], help="default: last, or a bundle's own")
    add("--onnx", action="store_true", help="write the network as ONNX as well; needs onnx")
    text = "parameters in half precision, no StableHLO: a quarter of the size"
    add("--compact", action="store_true", help=text)
    add("--overwrite", action="store_true", help="replace an existing bundle")


def _add_example(commands: Any) -> None:
    parser = _subparser(
        commands,
        "example",
        _example,
        "write two synthetic stacks with label maps, for trying the other commands",
        "jaxseg example scans",
    )
    parser.add_argument("output", type=arguments.path, metavar="DIR", help="folder to create")


def _subparser(
    commands: Any, name: str, run: Callable[..., None], text: str, example: str
) -> argparse.ArgumentParser:
    """Add a command, which calls `run` with its arguments by name."""
    parser = commands.add_parser(name, help=text, description=text, epilog=f"example: {example}")
    parser.set_defaults(command=run)
    return parser


def _add_inference(parser: argparse.ArgumentParser) -> None:
    """Add the flags that prediction and evaluation share."""
    add = parser.add_argument
    add("--checkpoint", choices=["best", "last"], help="default: last, or a bundle's own")
    text = (
        "average over the mirror images of each slice, and over its quarter turns if the network "
        "was trained with them"
    )
    add("--mirror", action="store_true", help=text)
    text = (
        "multiply the odds of pathology by this factor, to predict more or less of it (EMIDEC: of "
        "infarct other than no-reflow)"
    )
    add("--pathology_odds", type=arguments.factor, metavar="FACTOR", help=text)
    text = "relabel pathology smaller than in any training case as the region around it"
    add("--drop_small", action="store_true", help=text)
    text = (
        "relabel pathology of lower expected DSC as the region around it; given once for all "
        "inclusion pairs, or once for each (EMIDEC: no-reflow, then infarct)"
    )
    add(
        "--min_dice",
        type=arguments.share,
        action="append",
        default=[],
        metavar="DSC",
        help=text,
    )
    text = (
        "apply the rule from the cross-validation of these networks: its factor of the odds, "
        "--drop_small and bounds of the expected DSC"
    )
    add("--case_decision", action="store_true", help=text)


if __name__ == "__main__":
    main()
