"""Train stages of the method; `python -m jaxseg --help` uses the trained networks.

Train a stage, or resume it:
  python main.py --config=configs/awce_penalty.py
  python main.py --config=configs/awce_penalty.py:emidec --config.data.root=DIR --workdir=RUN
Start from the parameters of another run, or of an exported bundle:
  python main.py --config=... --workdir=RUN --init_from=OTHER_RUN
Train in several processes, started by SLURM, Open MPI or Kubernetes (docs/scaling.md):
  srun python main.py --config=... --distributed=auto
Train and compare all stages of the paper's Table 1, or resume this:
  python main.py --mode=ablate --config=configs/default.py[:emidec] --workdir=DIR [--folds=5]
Train every fold of one config and score each case by the fold that holds it out, or resume this:
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
from jaxseg.config.settings import SettingsError
from jaxseg.runs.hosts import connected
from jaxseg.studies.ablation.ablate import ablate
from jaxseg.studies.ablation.stages import stage_changes
from jaxseg.studies.crossvalidate import crossvalidate
from jaxseg.training.train import train

CONFIG = config_flags.DEFINE_config_file(
    "config", help_string="FILE or FILE:VARIANT; see configs/."
)
MODE = flags.DEFINE_enum("mode", "train", ["train", "ablate", "crossvalidate"], "What to do.")
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run or study; default runs/NAME.")
INIT_FROM = flags.DEFINE_string("init_from", None, "Short for --config.train.init_from.")
# Passed on to the function of the mode, if it has a parameter of that name.
_integer = partial(flags.DEFINE_integer, default=None)
OPTIONS = (
    _integer("seeds", help="ablate: seeds of each stage (3). crossvalidate: of each fold (1)."),
    _integer("folds", help="ablate (0: one split), crossvalidate (data.folds or 5): their number."),
    flags.DEFINE_bool("mirror", None, "crossvalidate: average over mirror images."),
    flags.DEFINE_list("ensemble", None, "crossvalidate: finished studies to average with."),
    flags.DEFINE_string("distributed", None, "train: auto, or HOST:PORT of process 0."),
    _integer("num_processes", help="--distributed=HOST:PORT: number of processes."),
    _integer("process_id", help="--distributed=HOST:PORT: index of this process, from 0."),
    _integer("connect_seconds", help="--distributed: time to wait for the others (300)."),
    _integer("heartbeat_seconds", help="--distributed: silence that counts as death (60)."),
)


def main(argv: list[str]) -> None:
    """Run one mode."""
    del argv  # nothing but flags, as checked by `parse`
    logging.set_verbosity(logging.WARNING)  # includes JAX's warning of an unused GPU
    with command():
        config, mode = CONFIG.value.to_dict(), str(MODE.value)
        folder = Path(WORKDIR.value or _default_folder(config, mode)).expanduser()
        if INIT_FROM.value is not None:
            config["train"]["init_from"] = INIT_FROM.value
        options: dict[str, Any] = {
            option.name: option.value for option in OPTIONS if option.present
        }
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
            others = [Path(other).expanduser() for other in options.pop("ensemble", [])]
            crossvalidate(config, folder, ensemble=others, **options)


def _default_folder(config: Mapping[str, Any], mode: str) -> Path:
    prefix = {"train": None, "ablate": "ablation", "crossvalidate": "folds"}[mode]
    name = None if mode == "ablate" else config.get("name")
    return Path("runs") / "-".join(filter(None, [prefix, name, config.get("variant")]))


if __name__ == "__main__":
    app.run(main, flags_parser=parse)
