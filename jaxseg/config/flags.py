"""Parse the flags of main.py; an invalid flag gives an error of one line and status 2."""

import errno
import re
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from jaxseg.home import HomeError, expanded
from jaxseg.machine.stdout import StdoutError, flushed, open_missing_streams

_STDOUT_ERRORS = (errno.EPIPE, errno.ENOSPC, errno.EBADF)


def parse(argv: Sequence[str]) -> list[str]:
    """Parse the flags, for `absl.app.run`.

    Fields may come before --config=FILE. If a field is given twice, the last value counts.

    Raises:
      SystemExit: if a flag or the config file cannot be used.
    """
    open_missing_streams()
    argv = sys.argv = _config_first(argv)  # ml_collections looks for fields in sys.argv
    try:
        with flushed():  # of --help
            program, *rest = flags.FLAGS(_with_home(_without_repeats(argv)))
        if rest:
            raise flags.Error(f"expected --FLAG=VALUE only, got the argument {rest[0]!r}")
        config = flags.FLAGS["config"].value
        if config is None:
            raise flags.Error(
                "--config: expected FILE or FILE:VARIANT, for example configs/best.py"
            )
        getattr(config, "name", None)  # a file that cannot be read fails only when it is used
        if not hasattr(config, "to_dict"):
            raise flags.Error(
                f"--config: get_config returned {type(config).__name__}; expected a ConfigDict"
            )
    except StdoutError as error:
        error.leave()
    except HomeError as error:
        problem = str(error)
    except OSError as error:
        if error.errno in _STDOUT_ERRORS:  # of --help, if stdout has no buffer
            StdoutError(error).leave()
        problem = f"--config: {str(error).strip().splitlines()[-1].strip()}"
    except Exception as error:  # a config file is the user's code
        problem = _reason(error)
    else:
        return [program]
    print(f"error: {problem}", file=sys.stderr)
    sys.exit(2)


def _without_repeats(argv: Sequence[str]) -> list[str]:
    """Keep the last of several --config.FIELD=VALUE; ml_collections would join two tuples."""
    names = [found and found[1] for found in map(re.compile(r"--?(config\..*?)=").match, argv)]
    last = {name: place for place, name in enumerate(names)}
    return [argv[k] for k, name in enumerate(names) if name is None or last[name] == k]


def _config_first(argv: Sequence[str]) -> list[str]:
    """Put --config=FILE before its fields, which ml_collections refuses elsewhere."""
    program, *rest = argv
    return [program, *sorted(rest, key=lambda flag: not re.match("--?config=", flag))]


def _with_home(argv: Sequence[str]) -> list[str]:
    """Expand ~ in --config=~/FILE, which few shells do."""

    def expand(found: re.Match[str]) -> str:
        return f"--config={expanded(found[1], '--config')}"

    return [re.sub(r"\A--?config=(~.*)", expand, argument, flags=re.S) for argument in argv]


def _reason(error: Exception) -> str:
    """Describe an error of absl, ml_collections or the config file in one line."""
    place = _line_of_config(error)
    while error.args and isinstance(error.args[0], Exception):
        error = error.args[0]
    text = str(error.args[0] if isinstance(error, KeyError) and error.args else error)
    lines = [line.strip() for line in text.strip().splitlines()] or [""]
    if isinstance(error, SyntaxError):
        return f"--config: {error.filename}, line {error.lineno}: {error.msg}"
    if place:
        return f"--config: {place}: {type(error).__name__}: {' '.join(lines)}"
    if fixed := re.search(r"field (\S+) is not supported for overriding", text):
        return f"--{fixed[1]}: expected in a config file (docs/how-to/own-data.md), not as a flag"
    if "Traceback" in text:  # of the config file; the last line gives the reason
        return lines[-1].removeprefix("ValueError: ")
    if "'get_config'" in text:
        return "--config: expected a file that defines get_config"
    if isinstance(error, AttributeError | KeyError):
        return f"--config: no such field ({' '.join(lines)})"
    return " ".join(lines)


def _line_of_config(error: Exception) -> str | None:
    """Return file and line of the config file if the error was raised there."""
    libraries = str(Path(flags.__file__).parents[2])
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if not frame.filename.startswith((__file__, libraries, "<")):
            return f"{frame.filename}, line {frame.lineno}"
    return None
