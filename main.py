"""Command line of jaxseg: flags only.

python main.py --config=configs/awce_penalty.py
python main.py --config=configs/awce_penalty.py:emidec --config.data.root=DIR --workdir=RUN
"""

import sys
from pathlib import Path

from absl import app, flags, logging
from ml_collections import config_flags

from jaxseg.data import DataError
from jaxseg.interrupt import Interrupted
from jaxseg.settings import SettingsError
from jaxseg.train import DivergedError, train
from jaxseg.workdir import WorkdirError

_CONFIG = config_flags.DEFINE_config_file(
    "config", help_string="Stage to run, FILE or FILE:VARIANT; any --config.FIELD=VALUE overrides."
)
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Folder of the run; default runs/STAGE-VARIANT. Run again, it resumes."
)


def main(argv: list[str]) -> None:
    """Run one mode; what the user can mend ends in one clear message and status 1."""
    del argv  # _parse lets nothing but flags through
    # Below warnings, JAX and Orbax tell every step of their work.
    logging.set_verbosity(logging.WARNING)
    config = _CONFIG.value.to_dict()
    workdir = Path(_WORKDIR.value or f"runs/{config['name']}-{config['variant']}")
    try:
        train(config, workdir)
    except Interrupted as stop:
        print(f"\n{stop}", file=sys.stderr)
        sys.exit(128 + stop.signal)
    except (SettingsError, WorkdirError, DataError, DivergedError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)


def _parse(argv: list[str]) -> list[str]:
    """Parse flags; whatever is wrong with them is one line and status 2, not a traceback."""
    try:
        program, *rest = flags.FLAGS(argv)
        _ = _CONFIG.value.name  # a config file that cannot be read says so only when it is used
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        problem = _reason(error)
    else:
        if not rest:
            return [program]
        problem = f"unexpected argument {rest[0]!r}; every setting is a --flag=VALUE"
    print(f"error: {problem}", file=sys.stderr)
    sys.exit(2)


def _reason(error: Exception) -> str:
    """One line out of what absl and ml_collections have to say."""
    text = str(error).strip()
    lines = [line.strip() for line in text.splitlines()]
    if isinstance(error, OSError):
        return f"--config: {lines[-1]}"
    if "Traceback" in text:  # of the config file; its last line is the reason
        return lines[-1].removeprefix("ValueError: ")
    if isinstance(error, AttributeError | KeyError):
        return "--config: no such field ({})".format(" ".join(lines).strip("\"'"))
    return " ".join(lines)


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    app.run(main, flags_parser=_parse)
