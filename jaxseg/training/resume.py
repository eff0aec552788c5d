"""Resume a run from its newest intact checkpoint."""

import logging

from jaxseg.runs import hosts
from jaxseg.runs.checkpoint import Checkpoints
from jaxseg.runs.checkpoint_note import DamagedError
from jaxseg.runs.files import WorkdirError
from jaxseg.train_step import TrainState

_LOG = logging.getLogger(__name__)


def resume(checkpoints: Checkpoints, state: TrainState) -> tuple[TrainState, bool]:
    """Restore the newest intact checkpoint, and set damaged ones aside if an older one is intact.

    The steps after an older checkpoint are trained again, with the same results. A damaged best
    checkpoint stops the run at once instead of at its end, because it cannot be reproduced without
    the checkpoints before it. A run of several processes sets nothing aside: it stops, so that a
    single process can do that.

    Args:
      checkpoints: checkpoints of the run.
      state: a fresh state.

    Returns:
      The state and whether it was restored; the fresh state if there is no checkpoint.

    Raises:
      WorkdirError: all checkpoints are damaged, or the best one is, or any tried one in a run of
        several processes.
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
            _LOG.info(f"{what}; it is in {place} now, and the run goes on from step {step}")
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
