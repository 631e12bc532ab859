"""What functions print in the engine's own process, with secrets masked."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any, TextIO


class MaskedOutput:
    """Replaces stdout; masks secrets line by line, or up to a flush."""

    def __init__(self, stream: TextIO, redact: Callable[[str], str]) -> None:
        self._stream = stream
        self._redact = redact
        self._rest = ""
        # Other threads of this process print too.
        self._lock = threading.RLock()

    def write(self, text: str) -> int:
        """Write whole lines only: a secret may come in several pieces."""
        with self._lock:
            lines, newline, self._rest = (self._rest + text).rpartition("\n")
            if newline:
                self._stream.write(self._redact(lines + newline))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write several pieces."""
        for text in lines:
            self.write(text)

    def flush(self) -> None:
        """Write the incomplete line, such as a debugger's prompt."""
        with self._lock:
            rest, self._rest = self._rest, ""
            if rest:
                self._stream.write(self._redact(rest))
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        # File descriptor, encoding and isatty are those of the terminal.
        return getattr(self._stream, name)
