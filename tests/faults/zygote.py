"""A process that has imported everything, and forks a fresh command for each line it reads.

Importing takes longer than a tiny run. JAX has no backend yet when a child is forked, so that each
child is a process like any other; it can be killed, and reads the compilation cache of the others.

A request is a JSON line: {"argv", "hook", "output", "errors"} starts a child and answers its pid;
{"wait": pid} answers its exit status, negative for a signal.
"""

import json
import os
import sys
import traceback
import warnings
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
sys.path.insert(0, str(REPOSITORY))

from absl import app  # noqa: E402

import main  # noqa: E402
from jaxseg import __main__  # noqa: E402


def run(request: dict) -> None:
    """The child: `main.py` or, without a leading flag, `python -m jaxseg`; never returns."""
    os.setsid()
    for number, name in ((1, "output"), (2, "errors")):
        os.dup2(os.open(request[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.argv = [str(REPOSITORY / "main.py"), *request["argv"]]
    status = 1
    try:
        exec(request["hook"], {})  # the fault that the test prepares
        if sys.argv[1].startswith("--"):
            app.run(main.main, flags_parser=main.parse)
        else:
            __main__.main(sys.argv[1:])
            status = 0
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else int(bool(stop.code))
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def serve() -> None:
    while line := sys.stdin.readline():
        request = json.loads(line)
        if "wait" in request:
            answer = os.waitstatus_to_exitcode(os.waitpid(request["wait"], 0)[1])
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Python 3.12 warns of threads; these only wait
                answer = os.fork()
            if not answer:
                run(request)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    serve()
