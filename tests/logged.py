"""The lines that jaxseg logs for the user."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class _Collector(logging.Handler):
    def __init__(self, react: Callable[[str], object]) -> None:
        super().__init__()
        self.lines: list[str] = []
        self._react = react

    def emit(self, record: logging.LogRecord) -> None:
        line = "warning: " * (record.levelno >= logging.WARNING) + record.getMessage()
        self.lines.append(line)
        self._react(line)


@contextmanager
def logged(react: Callable[[str], object] = lambda line: None) -> Iterator[list[str]]:
    """Collect the lines as they are printed; `react` receives each line at once, and may raise."""
    logger, collector = logging.getLogger("jaxseg"), _Collector(react)
    level, propagate = logger.level, logger.propagate
    logger.addHandler(collector)
    logger.setLevel(logging.INFO)
    # A file name that is not UTF-8 in pytest's own record of the log ends pytest-xdist.
    logger.propagate = False
    try:
        yield collector.lines
    finally:
        logger.removeHandler(collector)
        logger.setLevel(level)
        logger.propagate = propagate
