"""Standard output and standard error with secrets masked, while the functions of transformers may print."""

from __future__ import annotations

import io
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

from ..secrets import Redactor


class _Masked(io.TextIOBase):
    """Passes whole lines on to a stream, masked by the redactors of all runs of this process that are under way."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()
        #: The begin of a line: a secret may come in several pieces.
        self._pending = ""

    def write(self, text: str) -> int:
        with self._lock:
            lines, newline, self._pending = (self._pending + text).rpartition("\n")
            self._pass_on(lines + newline)
        return len(text)

    def flush(self) -> None:
        with self._lock:
            text, self._pending = self._pending, ""
            self._pass_on(text)
        self._stream.flush()

    def _pass_on(self, text: str) -> None:
        if not text:
            return
        for redactor in tuple(_active):
            text = redactor.redact(text)
        self._stream.write(text)

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


_lock = threading.Lock()
#: Of the runs under way.
_active: list[Redactor] = []
#: What stood in place of each masked stream before the first of them.
_former: dict[str, TextIO] = {}


@contextmanager
def masked_output(redactor: Redactor) -> Iterator[None]:
    """Mask what is printed by any thread of this process; runs may overlap, and end in any order."""
    with _lock:
        if not _active:
            _former.update(
                {
                    name: stream
                    for name, stream in (("stdout", sys.stdout), ("stderr", sys.stderr))
                    if stream is not None
                }
            )
            for name, stream in _former.items():
                setattr(sys, name, _Masked(stream))
        _active.append(redactor)
    try:
        yield
    finally:
        with _lock:
            for current in (sys.stdout, sys.stderr):
                if isinstance(current, _Masked):
                    with suppress(OSError, ValueError):  # its reader is gone, which ends no run
                        current.flush()
            _active.remove(redactor)
            if not _active:
                for name, current in (("stdout", sys.stdout), ("stderr", sys.stderr)):
                    if isinstance(current, _Masked):  # else somebody has put another stream there meanwhile
                        setattr(sys, name, _former[name])
                _former.clear()
