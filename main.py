"""Command line of jaxseg: flags only.

Train a stage, or go on where it stopped:
  python main.py --config=configs/awce_penalty.py
  python main.py --config=configs/awce_penalty.py:emidec --config.data.root=DIR --workdir=RUN
The same from the parameters of another run or of an exported bundle:
  python main.py --config=... --workdir=RUN --init_from=OTHER_RUN
The same over several processes, as SLURM, Open MPI or Kubernetes started them (docs/scaling.md):
  srun python main.py --config=... --distributed=auto
Score a run on its validation cases, or on other cases with labels:
  python main.py --mode=evaluate --workdir=RUN [--config.data.root=DIR]
Segment NIfTI stacks that need no labels:
  python main.py --mode=predict --workdir=RUN --input=FILE_OR_FOLDER --output=DIR
Hand a trained network on, as one folder that evaluate and predict take for a RUN:
  python main.py --mode=export --workdir=RUN --output=DIR
Train and compare all stages of the paper's Table 1, with a report at the end; resumes:
  python main.py --mode=ablate --config=configs/default.py[:emidec] --workdir=DIR [--folds=5]
Train every fold of one config and score all cases, each by the fold that holds it out; resumes:
  python main.py --mode=crossvalidate --config=configs/best.py[:emidec] --config.data.split=case
"""

import errno
import re
import sys
import traceback
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from configs import attention, awce, awce_penalty, baseline, default
from jaxseg.config.settings import SettingsError
from jaxseg.errors import UserError
from jaxseg.evaluation.evaluate import evaluate
from jaxseg.inference.export import export
from jaxseg.inference.predict import predict
from jaxseg.machine.devices import describe
from jaxseg.machine.stdout import StdoutError, say
from jaxseg.runs.hosts import connected
from jaxseg.runs.orbax_setup import quiet_orbax
from jaxseg.runs.signals import Interrupted
from jaxseg.runs.trained import load_run
from jaxseg.studies.ablation.ablate import ablate
from jaxseg.studies.ablation.stages import stage_changes
from jaxseg.studies.crossvalidate import crossvalidate
from jaxseg.training.train import train

_path = partial(flags.DEFINE_string, default=None)
_switch = partial(flags.DEFINE_bool, default=False)

# Rows of Table 1.
_STAGES = (baseline, attention, awce, awce_penalty)

_MODE = flags.DEFINE_enum(
    "mode",
    "train",
    ["train", "evaluate", "predict", "export", "ablate", "crossvalidate"],
    "What to do.",
)
_CONFIG = config_flags.DEFINE_config_file(
    "config",
    help_string="train: stage, FILE or FILE:VARIANT; any --config.FIELD=VALUE overrides. "
    "ablate: what all stages share; crossvalidate: as train.",
)
_WORKDIR = _path(
    "workdir",
    help="Folder of the run; train: default runs/STAGE-VARIANT, ablate: default "
    "runs/ablation-VARIANT, crossvalidate: default runs/folds-STAGE-VARIANT, all resume; evaluate, "
    "predict: or a bundle.",
)
_INIT_FROM = _path(
    "init_from",
    help="train, ablate, crossvalidate: another run's folder, or a bundle, whose parameters the "
    "training starts from; as --config.train.init_from.",
)
_CHECKPOINT = flags.DEFINE_enum(
    "checkpoint",
    None,
    ["best", "last"],
    "evaluate, predict, export: which checkpoint of the run; default last, or a bundle's own.",
)
_MIRROR = _switch(
    "mirror",
    help="evaluate, predict, crossvalidate: average over each slice's four mirror images.",
)
_CENTER = flags.DEFINE_list(
    "center",
    None,
    "predict: where the hearts lie, ROW,COLUMN as fractions of the field of view; default where "
    "they are found, or where the run's config says.",
)
_DROP_SMALL = _switch(
    "drop_small",
    help="evaluate, predict: pathology smaller than in any training case becomes what is around.",
)
_MIN_CONFIDENCE = flags.DEFINE_multi_float(
    "min_confidence",
    [],
    "evaluate, predict: pathology of which the network is less sure becomes what is around; once "
    "for all inclusion pairs, or once for each in their order (EMIDEC: no-reflow, then infarct).",
    lower_bound=0.0,
    upper_bound=1.0,
)
_CASE_DECISION = _switch(
    "case_decision",
    help="evaluate, predict: decide by the bounds that the cross-validation of these networks "
    "left in their folders whether a case holds a pathology at all.",
)
_DATA_ROOT = _path("data_root", help="evaluate: as --config.data.root; default the run's cases.")
_INPUT = _path("input", help="predict: a .nii or .nii.gz stack, or a folder of them at any depth.")
_OUTPUT = _path(
    "output", help="predict, export: folder to write. evaluate: default RUN/evaluation."
)
_ENSEMBLE = flags.DEFINE_list(
    "ensemble",
    [],
    "predict: workdirs of more runs (folds) to average with, comma-separated. crossvalidate: "
    "folders of other studies of the same folds, which are done.",
)
_PROBABILITIES = _switch("probabilities", help="predict: write probabilities too.")
_OVERWRITE = _switch("overwrite", help="predict, export: replace outputs that exist.")
_SEEDS = flags.DEFINE_integer(
    "seeds",
    None,
    "ablate: trainings of each stage, on seeds one apart; default 3. crossvalidate: networks of "
    "each fold, averaged; default 1.",
)
_FOLDS = flags.DEFINE_integer(
    "folds",
    None,
    "ablate: train on every fold of so many; default 0, one split. crossvalidate: default "
    "the config's data.folds, or 5.",
)
_DISTRIBUTED = flags.DEFINE_string(
    "distributed",
    None,
    "train: one run over several processes: auto, as SLURM, Open MPI or Kubernetes say, or the "
    "HOST:PORT where process 0 listens; default a single process.",
)
_NUM_PROCESSES = flags.DEFINE_integer(
    "num_processes", None, "With --distributed=HOST:PORT: how many.", lower_bound=1
)
_PROCESS_ID = flags.DEFINE_integer(
    "process_id", None, "With --distributed=HOST:PORT: which one this is, from 0.", lower_bound=0
)
_HEARTBEAT = flags.DEFINE_integer(
    "heartbeat_seconds",
    60,
    "With --distributed: after so long without a sign of life a process counts as dead, and the "
    "others end.",
    lower_bound=1,
)
_CONNECT = flags.DEFINE_integer(
    "connect_seconds", 300, "With --distributed: how long to wait for all to come.", lower_bound=1
)

_REQUIRED = {
    "train": "config",
    "evaluate": "workdir",
    "predict": "workdir input output",
    "export": "workdir output",
    "ablate": "config",
    "crossvalidate": "config",
}
_OPTIONAL = {
    "train": "workdir init_from distributed num_processes process_id heartbeat_seconds "
    "connect_seconds",
    "evaluate": "data_root output checkpoint mirror drop_small min_confidence case_decision",
    "predict": "checkpoint mirror center drop_small min_confidence case_decision ensemble "
    "probabilities "
    "overwrite",
    "export": "checkpoint overwrite",
    "ablate": "workdir init_from seeds folds",
    "crossvalidate": "workdir init_from seeds folds mirror ensemble",
}


def _train() -> None:
    config = _config()
    folder = _workdir(config, "name", "variant")
    if not _DISTRIBUTED.value:
        train(config, folder, say=say)
        return
    with connected(
        coordinator=None if _DISTRIBUTED.value == "auto" else _DISTRIBUTED.value,
        num_processes=_NUM_PROCESSES.value,
        process_id=_PROCESS_ID.value,
        connect_seconds=int(str(_CONNECT.value)),
        heartbeat_seconds=int(str(_HEARTBEAT.value)),
    ):
        train(config, folder, say=say)


def _evaluate() -> None:
    say(describe())
    evaluate(
        _folder(_WORKDIR.value),
        root=_folder(_DATA_ROOT.value) if _DATA_ROOT.value else None,
        checkpoint=_CHECKPOINT.value,
        mirror=bool(_MIRROR.value),
        drop_small=bool(_DROP_SMALL.value),
        min_confidence=_MIN_CONFIDENCE.value,
        case_decision=bool(_CASE_DECISION.value),
        output=_folder(_OUTPUT.value) if _OUTPUT.value else None,
        say=say,
    )


def _predict() -> None:
    say(describe())
    folders = [_WORKDIR.value, *(_ENSEMBLE.value or [])]
    predict(
        [load_run(_folder(folder), checkpoint=_CHECKPOINT.value) for folder in folders],
        _folder(_INPUT.value),
        _folder(_OUTPUT.value),
        mirror=bool(_MIRROR.value),
        center=_center(),
        drop_small=bool(_DROP_SMALL.value),
        min_confidence=_MIN_CONFIDENCE.value,
        case_decision=bool(_CASE_DECISION.value),
        probabilities=bool(_PROBABILITIES.value),
        overwrite=bool(_OVERWRITE.value),
        say=say,
    )


def _center() -> tuple[float, float] | None:
    if _CENTER.value is None:
        return None
    try:
        row, column = (float(text) for text in _CENTER.value)
    except ValueError:
        raise SettingsError(
            f"--center: expected ROW,COLUMN, two fractions, got {','.join(_CENTER.value)}"
        ) from None
    return row, column


def _export() -> None:
    say(describe())
    export(
        _folder(_WORKDIR.value),
        _folder(_OUTPUT.value),
        checkpoint=_CHECKPOINT.value or "last",
        overwrite=bool(_OVERWRITE.value),
        say=say,
    )


def _ablate() -> None:
    config = _config()
    stages = {own["name"]: own for own in (stage.get_config().to_dict() for stage in _STAGES)}
    ablate(
        config,
        stage_changes(default.get_config().to_dict(), stages),
        _workdir(config, "variant", start="ablation"),
        seeds=_or_default(_SEEDS.value, 3),
        folds=_or_default(_FOLDS.value, 0),
        say=say,
    )


def _crossvalidate() -> None:
    config = _config()
    crossvalidate(
        config,
        _workdir(config, "name", "variant", start="folds"),
        folds=_FOLDS.value,
        seeds=_or_default(_SEEDS.value, 1),
        mirror=bool(_MIRROR.value),
        ensemble=[_folder(folder) for folder in _ENSEMBLE.value or []],
        say=say,
    )


def _config() -> dict[str, Any]:
    """What the config file and the flags say; --init_from is short for its field."""
    config, source = _CONFIG.value.to_dict(), _INIT_FROM.value
    train = config.get("train")
    if source is None or not isinstance(train, dict):  # settings.check names it
        return config
    known = train.get("init_from")
    if known not in (None, source):
        raise SettingsError(f"--init_from: expected {known}, as train.init_from says, got {source}")
    return {**config, "train": {**train, "init_from": source}}


def _workdir(config: Mapping[str, Any], *fields: str, start: str = "") -> Path:
    """The user's, or one named after those of the fields that the config has."""
    parts = [start] * bool(start) + [str(config[field]) for field in fields if field in config]
    return _folder(_WORKDIR.value or "runs/" + "-".join(parts))


def _folder(text: Any) -> Path:
    """A path that was typed; after --flag= few shells know ~ as the user's home."""
    return Path(str(text)).expanduser()


def _or_default(value: int | None, default: int) -> int:
    return default if value is None else value


_RUN = {
    "train": _train,
    "evaluate": _evaluate,
    "predict": _predict,
    "export": _export,
    "ablate": _ablate,
    "crossvalidate": _crossvalidate,
}


def main(argv: list[str]) -> None:
    """Run one mode; what the user can mend ends in one clear message and status 1."""
    del argv  # _parse lets nothing but flags through
    logging.set_verbosity(logging.WARNING)  # such as JAX's of a GPU that it does not use
    quiet_orbax()
    try:
        _RUN[str(_MODE.value)]()
    except Interrupted as stop:
        print(f"\n{stop}", file=sys.stderr)
        sys.exit(128 + stop.signal)
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        sys.exit(130)
    except StdoutError as error:
        error.leave()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except RuntimeError as error:  # pathlib, of ~nobody, or of ~ where there is no home
        if "home directory" not in str(error):
            raise
        print(f"error: a path that begins with ~: {error}", file=sys.stderr)
        sys.exit(1)
    except MemoryError as error:  # in reading or reporting, which no setting makes smaller
        print(f"error: out of memory ({error})", file=sys.stderr)
        sys.exit(1)


def _parse(argv: list[str]) -> list[str]:
    """Parse flags; whatever is wrong with them is one line and status 2, not a traceback."""
    try:
        names = {argument.split("=")[0].lstrip("-") for argument in argv}
        if "config" not in names:
            # Only a config file makes fields of the config into flags.
            argv = [argument.replace("--config.data.root", "--data_root", 1) for argument in argv]
            for name in sorted(names - {"config.data.root"}):
                if name.startswith("config."):
                    raise flags.Error(f"--{name}: expected with --config=FILE")
        program, *rest = flags.FLAGS(_last_of_equal_fields(argv))
        _check_mode(names)
        if "config" in _REQUIRED[str(_MODE.value)]:
            _check_config()
    except Exception as error:  # a config file is the user's code
        if isinstance(error, OSError) and error.errno in (errno.EPIPE, errno.ENOSPC):  # --help
            StdoutError(error).leave()
        problem = _reason(error)
    else:
        if not rest:
            return [program]
        problem = f"unexpected argument {rest[0]!r}; every setting is a --flag=VALUE"
    print(f"error: {problem}", file=sys.stderr)
    sys.exit(2)


def _last_of_equal_fields(argv: list[str]) -> list[str]:
    """Of several --config.FIELD=VALUE the last: ml_collections joins those of a tuple."""
    last = {argument.split("=")[0]: place for place, argument in enumerate(argv)}
    return [
        argument
        for place, argument in enumerate(argv)
        if not re.match(r"--?config\..*=", argument) or last[argument.split("=")[0]] == place
    ]


def _check_mode(typed: set[str]) -> None:
    """Every mode takes flags of its own; one that it ignored would mislead."""
    mode = str(_MODE.value)
    for name in _REQUIRED[mode].split():
        if not flags.FLAGS[name].present:
            raise flags.Error(f"flag --{name}=None: Flag --{name} must have a value to {mode}")
    tables = " ".join([*_REQUIRED.values(), *_OPTIONAL.values()])
    for name in sorted({*tables.split()} - {*_REQUIRED[mode].split(), *_OPTIONAL[mode].split()}):
        if flags.FLAGS[name].present and name == "distributed":
            raise flags.Error(f"--distributed: only training runs in several processes, not {mode}")
        if flags.FLAGS[name].present:
            shown = "config.data.root" if name == "data_root" and name not in typed else name
            raise flags.Error(f"--{shown}: not a flag of --mode={mode}")
    if not all(_ENSEMBLE.value or []):
        raise flags.Error("--ensemble: expected folders, comma-separated, got an empty name")
    _check_processes()


def _check_config() -> None:
    config = _CONFIG.value
    getattr(config, "name", None)  # of a file that cannot be read: it says so only when it is used
    if not isinstance(config, ConfigDict):
        kind = type(config).__name__
        raise flags.Error(f"--config: get_config returned {kind}; expected a ConfigDict")


def _check_processes() -> None:
    """Several processes are told of by the environment or by three flags together."""
    place, number, own = _DISTRIBUTED.value, _NUM_PROCESSES.value, _PROCESS_ID.value
    if place is None or place == "auto":
        for name in ("num_processes", "process_id"):
            if flags.FLAGS[name].present:
                raise flags.Error(f"--{name}: expected with --distributed=HOST:PORT alone")
        return
    host, _, port = place.rpartition(":")
    if not (host and port.isascii() and port.isdigit() and 0 < int(port) < 2**16):
        raise flags.Error(f"--distributed: expected auto or HOST:PORT, got {place!r}")
    if number is None or own is None or own >= number:
        raise flags.Error(
            "--distributed=HOST:PORT: expected --num_processes and a --process_id below it, got "
            f"{number} and {own}"
        )


def _reason(error: Exception) -> str:
    """One line out of what absl, ml_collections and the config file have to say."""
    where = _line_of_config(error)
    inner = error
    while inner.args and isinstance(inner.args[0], Exception):
        inner = inner.args[0]
    text = str(inner.args[0] if isinstance(inner, KeyError) and inner.args else inner).strip()
    lines = [line.strip() for line in text.splitlines()] or [""]
    fixed = re.search(r"field (\S+) is not supported for overriding", text)
    if fixed:
        return f"--{fixed[1]}: expected in a config file (docs/how-to/own-data.md), not as a flag"
    if "Traceback" in text:  # of the config file; its last line is the reason
        return lines[-1].removeprefix("ValueError: ")
    if isinstance(error, SyntaxError):
        return f"--config: {error.filename}, line {error.lineno}: {error.msg}"
    if isinstance(error, OSError):
        return f"--config: {lines[-1]}"
    if where:
        return f"--config: {where}: {type(inner).__name__}: {' '.join(lines)}"
    if "has no attribute 'get_config'" in text:
        return "--config: expected a file that defines get_config"
    if isinstance(error, AttributeError | KeyError):
        return f"--config: no such field ({' '.join(lines)})"
    return " ".join(lines)


def _line_of_config(error: Exception) -> str | None:
    """File and line where an error left the config file, if that is where it comes from."""
    libraries = str(Path(flags.__file__).parents[2])
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if not frame.filename.startswith((__file__, libraries, "<")):
            return f"{frame.filename}, line {frame.lineno}"
    return None


if __name__ == "__main__":
    app.run(main, flags_parser=_parse)
