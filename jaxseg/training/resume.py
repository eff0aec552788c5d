"""Where a run goes on: its newest checkpoint that is whole."""

from collections.abc import Callable

from jaxseg.runs import hosts
from jaxseg.runs.checkpoint import Checkpoints
from jaxseg.runs.checkpoint_note import DamagedError
from jaxseg.runs.workdir import WorkdirError
from jaxseg.train_step import TrainState


def resume(
    checkpoints: Checkpoints, state: TrainState, say: Callable[[str], None]
) -> tuple[TrainState, bool]:
    """Read the newest checkpoint that is whole; a damaged one is set aside if an older one is.

    Where several processes train one run none is set aside: it stops, for a single one to do that.

    The steps between the two are trained again, to the same numbers. The best checkpoint cannot be
    done again without those before it, so that its damage stops the run, now and not at the end.

    Args:
      checkpoints: of the run.
      state: a fresh one.
      say: takes a line for each checkpoint that was set aside.

    Returns:
      The state, and whether it was read; the fresh one where there is no checkpoint.

    Raises:
      WorkdirError: all checkpoints are damaged, or the best is, or one of a run of several
        processes.
    """
    problems: dict[int, DamagedError | ValueError] = {}
    for step in checkpoints.steps:
        try:
            state = checkpoints.restore(state, step)
        except (DamagedError, ValueError) as error:
            if hosts.count() > 1:
                advice = "a single process sets it aside and goes on"
                raise WorkdirError(f"{error}; {advice}") from error
            problems[step] = error
            continue
        for damaged, problem in problems.items():
            place = checkpoints.set_aside(damaged)
            what = problem.what if isinstance(problem, DamagedError) else problem
            say(f"{what}; it is in {place} now, and the run goes on from step {step}")
        _check_best(checkpoints, state, step)
        return state, True
    if problems:
        first = next(iter(problems.values()))
        raise WorkdirError(f"no checkpoint to go on from: {first}")
    return state, False


def _check_best(checkpoints: Checkpoints, state: TrainState, restored: int) -> None:
    best = checkpoints.best_step
    if best is not None and best != restored:
        checkpoints.restore_network(state.params["network"], best)
