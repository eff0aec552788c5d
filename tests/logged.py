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
        self.lines.append(record.getMessage())
        self._react(record.getMessage())


@contextmanager
def logged(react: Callable[[str], object] = lambda line: None) -> Iterator[list[str]]:
    """Collect what is logged in the block; `react` receives each line at once, and may raise."""
    logger, collector = logging.getLogger("jaxseg"), _Collector(react)
    level = logger.level
    logger.addHandler(collector)
    logger.setLevel(logging.INFO)
    try:
        yield collector.lines
    finally:
        logger.removeHandler(collector)
        logger.setLevel(level)
