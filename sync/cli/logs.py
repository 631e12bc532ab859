"""Log records of the engine and of libraries, shown on stderr with secrets masked."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable

from .console import Console

#: The engine's own logger.
ENGINE = "syncblocks"

Show = Callable[[str, str], None]


class _Handler(logging.Handler):
    """Passes log records to the current display of messages."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console
        #: Replaced while a run's progress is shown.
        self.show: Show = self._write

    def emit(self, record: logging.LogRecord) -> None:
        """Show one record."""
        try:
            text = record.getMessage()
            if record.exc_info and self._console.is_debug:
                text += "\n" + logging.Formatter().formatException(record.exc_info)
            self.show(text, record.levelname.lower())
        except Exception:
            self.handleError(record)

    def _write(self, text: str, level: str) -> None:
        self._console.echo(f"{level}: {text}", err=True)


def show_logs(console: Console) -> None:
    """Show warnings and errors of every logger; with --debug, every record of the engine."""
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if isinstance(handler, _Handler)]:
        root.removeHandler(handler)
    root.addHandler(_Handler(console))
    root.setLevel(logging.WARNING)
    logging.getLogger(ENGINE).setLevel(logging.DEBUG if console.is_debug else logging.WARNING)
    if not sys.warnoptions:
        logging.captureWarnings(True)


class redirected:  # used like a function
    """Context in which log records go to `show(text, level)`."""

    def __init__(self, show: Show) -> None:
        self._show = show

    def __enter__(self) -> None:
        for handler in logging.getLogger().handlers:
            if isinstance(handler, _Handler):
                handler.show = self._show

    def __exit__(self, *error: object) -> None:
        for handler in logging.getLogger().handlers:
            if isinstance(handler, _Handler):
                handler.show = handler._write
