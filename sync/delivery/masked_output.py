"""Standard output and standard error with secrets masked, while the user's code may print."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

from syncblocks.callbacks.masked_output import MaskedOutput

from ..secrets import Redactor

_lock = threading.Lock()
#: Redactors of the running runs.
_active: list[Redactor] = []
#: `stdout` or `stderr` -> the original stream before the first run, and the masked stream that replaces it.
_exchanged: dict[str, tuple[TextIO, MaskedOutput]] = {}


@contextmanager
def masked_output(redactor: Redactor) -> Iterator[None]:
    """Mask the output of every thread of this process; runs may overlap, and end in any order."""
    with _lock:
        if not _active:
            for name in ("stdout", "stderr"):
                if (stream := getattr(sys, name)) is not None:
                    _exchanged[name] = stream, MaskedOutput(stream, masked)
                    setattr(sys, name, _exchanged[name][1])
        _active.append(redactor)
    try:
        yield
    finally:
        with _lock:
            for _, ours in _exchanged.values():
                with suppress(OSError, ValueError):  # its reader has closed it; the run continues
                    ours.flush()
            _active.remove(redactor)
            if not _active:
                for name, (former, ours) in _exchanged.items():
                    if getattr(sys, name) is ours:  # otherwise other code has replaced the stream meanwhile
                        setattr(sys, name, former)
                _exchanged.clear()


def masked(text: str) -> str:
    """Return a text with the secrets of all running runs masked."""
    for redactor in tuple(_active):
        text = redactor.redact(text)
    return text
