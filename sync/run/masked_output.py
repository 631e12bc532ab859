"""Standard output and standard error with secrets masked, while the functions of transformers may print."""

from __future__ import annotations

import io
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from ..secrets import Redactor


class _Masked(io.TextIOBase):
    """Passes text on to a stream, masked by the redactors of all runs of this process that are under way."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        shown = text
        for redactor in tuple(_active):
            shown = redactor.redact(shown)
        self._stream.write(shown)
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
            _active.remove(redactor)
            if not _active:
                for name, current in (("stdout", sys.stdout), ("stderr", sys.stderr)):
                    if isinstance(current, _Masked):  # else somebody has put another stream there meanwhile
                        setattr(sys, name, _former[name])
                _former.clear()
