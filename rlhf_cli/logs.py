"""The log file of a run: all messages, and every traceback."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_FORMAT = "%(asctime)s %(levelname)s %(name)s[%(process)d] %(message)s"
_ATTRIBUTE = "_rlhf_log"


class _LogFile(logging.FileHandler):
    """A log that cannot be written, as on a full disk, is no reason to fill the screen with tracebacks."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Says nothing."""


@contextmanager
def log_to(path: Path, *, verbose: bool = False) -> Iterator[None]:
    """Log to `path` (and to stderr when verbose); an exception that passes is written there with its traceback."""
    root = logging.getLogger()
    handlers: list[logging.Handler] = [_LogFile(path, encoding="utf-8", delay=True)]
    if verbose:
        on_screen = logging.StreamHandler(sys.stderr)
        on_screen.addFilter(lambda record: record.name != "rlhf")  # The reporter has shown these.
        handlers.append(on_screen)
    for handler in handlers:
        handler.setFormatter(logging.Formatter(_FORMAT))
        root.addHandler(handler)
    level = root.level
    root.setLevel(logging.INFO)
    logging.captureWarnings(True)
    try:
        yield
    except BaseException as error:
        with suppress(Exception):
            file_only = logging.LogRecord(
                "rlhf", logging.ERROR, __file__, 0, "%s", (type(error).__name__,), sys.exc_info()
            )
            handlers[0].handle(file_only)
            setattr(error, _ATTRIBUTE, path)
        raise
    finally:
        logging.captureWarnings(False)
        root.setLevel(level)
        for handler in handlers:
            root.removeHandler(handler)
            handler.close()


def log_of(error: BaseException) -> Path | None:
    """The log file that holds the traceback of `error`."""
    path: Path | None = getattr(error, _ATTRIBUTE, None)
    return path
