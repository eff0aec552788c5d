"""Train stages of the method; `python -m jaxseg --help` uses the trained networks.

Train a stage, or resume it:
  python main.py --config=configs/awce_penalty.py
  python main.py --config=configs/awce_penalty.py:emidec --config.data.root=DIR --workdir=RUN
Start from the parameters of another run or of an exported bundle:
  python main.py --config=... --workdir=RUN --init_from=OTHER_RUN
Train in several processes, started by SLURM, Open MPI or Kubernetes (docs/how-to/several-gpus.md):
  srun python main.py --config=... --distributed=auto
Train and compare all stages of the paper's Table 1, or resume this study:
  python main.py --mode=ablate --config=configs/default.py[:emidec] --workdir=DIR [--folds=5]
Train every fold of one config and score each case by the fold that holds it out, or resume:
  python main.py --mode=crossvalidate --config=configs/best.py[:emidec] --config.data.split=case
"""

import inspect
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from absl import app, flags, logging
from ml_collections import config_flags

from configs import attention, awce, awce_penalty, baseline, default
from jaxseg.command_line import command
from jaxseg.config.flags import parse
from jaxseg.config.settings import SettingsError, starting_from
from jaxseg.home import expanded
from jaxseg.runs.hosts import connected
from jaxseg.studies.ablation.ablate import ablate
from jaxseg.studies.ablation.stages import stage_changes
from jaxseg.studies.crossvalidate import crossvalidate
from jaxseg.training.train import train

CONFIG = config_flags.DEFINE_config_file("config", help_string="FILE or FILE:VARIANT (configs/).")
MODE = flags.DEFINE_enum("mode", "train", ["train", "ablate", "crossvalidate"], "What to do.")
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run or study (runs/NAME).")
INIT_FROM = flags.DEFINE_string("init_from", None, "Short for --config.train.init_from.")
# Each flag is passed to the function of the mode, which must have a parameter of that name.
_integer = partial(flags.DEFINE_integer, default=None)
OPTIONS = (
    _integer("seeds", help="ablate: seeds per stage (3). crossvalidate: seeds per fold (1)."),
    _integer("folds", help="ablate: folds (0 is one split). crossvalidate: data.folds, or 5."),
    flags.DEFINE_bool("mirror", None, "crossvalidate: average over mirror images."),
    flags.DEFINE_list("ensemble", None, "crossvalidate: finished studies to average with."),
    flags.DEFINE_string("distributed", None, "train: auto, or HOST:PORT of process 0."),
    _integer("num_processes", lower_bound=1, help="--distributed=HOST:PORT: number of processes."),
    _integer("process_id", lower_bound=0, help="--distributed=HOST:PORT: index of this process."),
    _integer("connect_seconds", lower_bound=1, help="--distributed: wait in s (300)."),
    _integer("heartbeat_seconds", lower_bound=1, help="--distributed: longest silence in s (60)."),
)


def main(_: list[str]) -> None:
    """Run one mode; `parse` rejects positional arguments."""
    logging.set_verbosity(logging.WARNING)  # includes JAX's warning of an unused GPU
    with command():
        config, mode = starting_from(CONFIG.value.to_dict(), INIT_FROM.value), str(MODE.value)
        folder = expanded(WORKDIR.value or _default_folder(config, mode), "--workdir")
        options: dict[str, Any] = {flag.name: flag.value for flag in OPTIONS if flag.present}
        run = {"train": connected, "ablate": ablate, "crossvalidate": crossvalidate}[mode]
        for name in options.keys() - inspect.signature(run).parameters.keys():
            raise SettingsError(f"--{name}: not a flag of --mode={mode}")
        if mode == "train":
            with connected(**options):
                train(config, folder)
        elif mode == "ablate":
            rows = (stage.get_config() for stage in (baseline, attention, awce, awce_penalty))
            stages = {stage.name: stage.to_dict() for stage in rows}
            changes = stage_changes(default.get_config().to_dict(), stages)
            ablate(config, changes, folder, **options)
        else:
            others = options.pop("ensemble", [])
            if not all(others):
                raise SettingsError("--ensemble: expected folders, got an empty name")
            studies = [expanded(other, "--ensemble") for other in others]
            crossvalidate(config, folder, ensemble=studies, **options)


def _default_folder(config: Mapping[str, Any], mode: str) -> Path:
    prefix = {"train": None, "ablate": "ablation", "crossvalidate": "folds"}[mode]
    name = None if mode == "ablate" else config.get("name")
    return Path("runs") / "-".join(filter(None, [prefix, name, config.get("variant")]))


if __name__ == "__main__":
    app.run(main, flags_parser=parse)
