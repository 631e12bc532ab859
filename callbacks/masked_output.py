"""Output of functions in the engine's own process, with secrets masked."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any, BinaryIO, TextIO


class MaskedOutput:
    """Replaces stdout; masks secrets line by line, or up to a flush, in text and in the bytes written to `buffer`."""

    def __init__(self, stream: TextIO, redact: Callable[[str], str]) -> None:
        self._stream = stream
        self._redact = redact
        self._rest = ""
        #: Whether a part of the incomplete line came as bytes, which may not be text.
        self._has_bytes = False
        # Other threads of this process print too.
        self._lock = threading.RLock()

    @property
    def buffer(self) -> MaskedBytes:
        """The same stream for bytes, if the replaced stream has one."""
        return MaskedBytes(self._stream.buffer, self)

    def write(self, text: str) -> int:
        """Write whole lines only: a secret may come in several pieces."""
        with self._lock:
            lines, newline, self._rest = (self._rest + text).rpartition("\n")
            if newline:
                self._put(lines + newline)
        return len(text)

    def write_bytes(self, data: bytes) -> None:
        """Write bytes, in their order among the texts."""
        with self._lock:
            self._has_bytes = True
            self.write(data.decode("utf-8", "surrogateescape"))
            self._has_bytes = bool(self._rest)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write several pieces."""
        for text in lines:
            self.write(text)

    def flush(self) -> None:
        """Write the incomplete line, such as a debugger's prompt."""
        with self._lock:
            rest, self._rest = self._rest, ""
            if rest:
                self._put(rest)
            self._has_bytes = False
            self._stream.flush()

    def close(self) -> None:
        """Flush instead of closing: the engine still uses the stream."""
        self.flush()

    def _put(self, text: str) -> None:
        if not self._has_bytes:
            self._stream.write(self._redact(text))
            return
        # Masked again: a character may have come in two pieces.
        text = text.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")
        self._stream.flush()
        self._stream.buffer.write(self._redact(text).encode("utf-8", "surrogateescape"))

    def __getattr__(self, name: str) -> Any:
        # File descriptor, encoding and isatty are those of the terminal.
        return getattr(self._stream, name)


class MaskedBytes:
    """Replaces `sys.stdout.buffer`."""

    def __init__(self, stream: BinaryIO, output: MaskedOutput) -> None:
        self._stream = stream
        self._output = output

    def write(self, data: Any) -> int:
        """Write whole lines only."""
        content = bytes(memoryview(data))
        self._output.write_bytes(content)
        return len(content)

    def writelines(self, lines: Iterable[Any]) -> None:
        """Write several pieces."""
        for data in lines:
            self.write(data)

    def flush(self) -> None:
        """Write the incomplete line."""
        self._output.flush()

    def close(self) -> None:
        """Flush instead of closing: the engine still uses the stream."""
        self._output.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
