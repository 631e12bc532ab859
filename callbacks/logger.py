"""The keyword argument `logger`: writes to the output of the call, which is shown and kept with it."""

from __future__ import annotations

import sys
import traceback
from typing import Any

_LEVELS = {10: "DEBUG", 20: "INFO", 30: "WARNING", 40: "ERROR", 50: "CRITICAL"}


class UserLogger:
    """A logger for functions, with the methods of Python's and the tags of Mage's.

    It does not use the module `logging`, whose import would slow the start of each child process.
    """

    def debug(self, message: object, *args: Any, **tags: Any) -> None:
        """Write a message of level DEBUG."""
        self.log(10, message, *args, **tags)

    def info(self, message: object, *args: Any, **tags: Any) -> None:
        """Write a message of level INFO."""
        self.log(20, message, *args, **tags)

    def warning(self, message: object, *args: Any, **tags: Any) -> None:
        """Write a message of level WARNING."""
        self.log(30, message, *args, **tags)

    warn = warning

    def error(self, message: object, *args: Any, **tags: Any) -> None:
        """Write a message of level ERROR."""
        self.log(40, message, *args, **tags)

    def exception(self, message: object, *args: Any, **tags: Any) -> None:
        """Write a message of level ERROR, and the traceback of the exception that is handled."""
        self.log(40, message, *args, exc_info=True, **tags)

    def critical(self, message: object, *args: Any, **tags: Any) -> None:
        """Write a message of level CRITICAL."""
        self.log(50, message, *args, **tags)

    def log(self, log_level: int, message: object, *args: Any, exc_info: Any = None, **tags: Any) -> None:
        """Write a message: `args` fill its `%s`, and tags follow it."""
        text = str(message) % (args[0] if isinstance(args[0], dict) else args) if args else str(message)
        shown = "".join(f" {name}={value!r}" for name, value in tags.items())
        lines = ""
        if isinstance(exc_info, BaseException):
            lines = "\n" + "".join(traceback.format_exception(exc_info)).rstrip()
        elif exc_info:
            lines = "\n" + traceback.format_exc().rstrip()
        # The present stdout: it is replaced while output is masked or captured.
        sys.stdout.write(f"{_LEVELS.get(log_level, log_level)} {text}{shown}{lines}\n")
