"""The keyword argument `logger`: writes to the output of the call, which is shown and kept with it."""

from __future__ import annotations

import logging
import sys
from typing import Any


class UserLogger(logging.Logger):
    """A logger outside of the program's tree, whose messages the user's file can give tags, as in Mage."""

    def __init__(self) -> None:
        super().__init__("syncblocks.user", logging.INFO)
        self.addHandler(_OUTPUT)

    def _log(
        self,
        level: int,
        msg: object,
        args: Any,
        exc_info: Any = None,
        extra: Any = None,
        stack_info: bool = False,
        stacklevel: int = 1,
        **tags: Any,
    ) -> None:
        shown = "".join(f" {name}={value!r}" for name, value in tags.items())
        text = str(msg) if not args else str(msg) % (args[0] if isinstance(args[0], dict) else args)
        super()._log(level, text + shown, (), exc_info, extra, stack_info, stacklevel + 1)


class _Output(logging.Handler):
    """Prints to what is stdout now: it is replaced where output is masked or captured."""

    def emit(self, record: logging.LogRecord) -> None:
        sys.stdout.write(self.format(record) + "\n")


_OUTPUT = _Output()
_OUTPUT.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
