"""Standard output and standard error with secrets masked, while the functions of transformers may print."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from ..secrets import Redactor


class _Masked(io.TextIOBase):
    """Passes text on to a stream, masked."""

    def __init__(self, stream: TextIO, redactor: Redactor) -> None:
        self._stream = stream
        self._redactor = redactor

    def write(self, text: str) -> int:
        self._stream.write(self._redactor.redact(text))
        return len(text)

    def flush(self) -> None:
        self._stream.flush()

    def fileno(self) -> int:
        return self._stream.fileno()

    def isatty(self) -> bool:
        return self._stream.isatty()

    def writable(self) -> bool:
        return True

    @property
    def encoding(self) -> str:  # type: ignore[override]  # of the stream, as libraries ask for it
        return self._stream.encoding

    @property
    def buffer(self) -> object:
        """The stream's bytes, which are not masked."""
        return self._stream.buffer


@contextmanager
def masked_output(redactor: Redactor) -> Iterator[None]:
    """Mask what is printed by any thread of this process."""
    former = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (_Masked(stream, redactor) for stream in former)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = former
