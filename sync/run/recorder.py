"""A run's reports for watchers, in the run store: the figures of its streams, and the end of its log."""

from __future__ import annotations

import logging
import os
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self

from syncblocks.callbacks.plain_text import plain_text

from ..delivery.masked_output import masked
from .log_lines import LogLines
from .tracker import ACTIVE, LOADING, RETRYING, RUNNING, StreamView

if TYPE_CHECKING:
    from ..plan.plan import Plan
    from ..store.model import PipelineRun

#: Maximum length of the stored end of a log, and of one entry.
LOG_BYTES, ENTRY_BYTES = 1_000_000, 100_000
#: Log messages of the engine itself.
_LOGGERS = ("syncblocks", "syncblocks.callbacks")
#: Facts known only to the process that runs a stream.
_OF_READING = ("records", "committed", "rejected", "records_per_s", "percent", "size_bytes")
_STATES = {RUNNING: "reading", LOADING: "loading", RETRYING: "retrying"}


class Recorder(LogLines):
    """Keeps figures and log in memory, the log masked; a context manager. The lease and the run's end write them.

    Warnings of the engine's loggers are part of the log. If several runs share a process, each gets the warnings of
    all.
    """

    def __init__(self) -> None:
        super().__init__()
        #: Other processes run the streams: they report nothing until each has ended.
        self.is_remote = False
        self._attempt = 0
        self._pid = os.getpid()
        self._entries: deque[bytes] = deque()
        self._size = 0
        self._is_cut = False

    def __enter__(self) -> Self:
        # Filters: a handler would stop the default output on stderr.
        for name in _LOGGERS:
            logging.getLogger(name).addFilter(self._heard)
        return self

    def close(self) -> None:
        """See `Progress`."""
        for name in _LOGGERS:
            logging.getLogger(name).removeFilter(self._heard)

    def _heard(self, record: logging.LogRecord) -> bool:
        # A process forked by user code inherits a lock that may never be released there.
        if record.levelno >= logging.WARNING and os.getpid() == self._pid:
            with suppress(Exception):  # a record whose arguments do not fit: its handler reports this
                self.message(record.getMessage(), level=record.levelname.lower())
        return True

    def run_started(self, run: PipelineRun, plan: Plan) -> None:
        """See `Progress`."""
        super().run_started(run, plan)
        self._attempt = run.attempt

    def figures(self) -> dict[str, Any]:
        """Return the figures of running and retried streams, as JSON."""
        with self.lock:
            views = [view for view in self.view.streams.values() if view.status in ACTIVE or view.retries]
            known = dict.fromkeys(_OF_READING) if self.is_remote else {}
            streams = [_figures(view) | known for view in views]
            return {"attempt": self._attempt, "is_remote": self.is_remote, "streams": streams}

    def log(self) -> str:
        """Return the end of the log; empty: no log."""
        with self.lock:
            cut = [b"... what came before is not kept\n"] if self._is_cut else []
            return b"".join([*cut, *self._entries]).decode()

    def _masked(self, text: str) -> str:
        return masked(text)

    def _write(self, text: str) -> None:
        entry = masked(plain_text(text)).replace("\n", "\n  ").encode()
        if len(entry) > ENTRY_BYTES:
            entry = entry[:ENTRY_BYTES].decode(errors="ignore").encode() + b"..."
        with self.lock:
            self._entries.append(entry + b"\n")
            self._size += len(entry) + 1
            while self._size > LOG_BYTES:
                self._size -= len(self._entries.popleft())
                self._is_cut = True


def _figures(view: StreamView) -> dict[str, Any]:
    rate = view.records_per_s
    return {
        "stream": view.stream,
        "state": _STATES.get(view.status, "ended"),
        "records": view.records,
        "committed": view.committed,
        "rejected": view.rejected,
        "records_per_s": None if rate is None else round(rate),
        "percent": view.percent,
        "size_bytes": view.size_bytes,
        "bookmark_before": view.first_bookmark,
        "bookmark_after": view.bookmark,
        "retries": view.retries,
        "still_s": view.still_s,
        "error": None if view.error is None else masked(plain_text(view.error)).partition("\n")[0],
    }
