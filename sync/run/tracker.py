"""Figures of an active run, stream by stream; the base of all progress displays."""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any

from msgspec import Struct, field

from .progress import Progress

if TYPE_CHECKING:
    from ..plan.plan import Plan
    from ..store.model import PipelineRun

WAITING, RUNNING, LOADING, RETRYING = "waiting", "running", "loading", "retrying"
#: Statuses of a running stream; while one is loading, all of it was read.
ACTIVE = (RUNNING, LOADING, RETRYING)


class StreamView(Struct, kw_only=True):
    """Current figures of one stream."""

    stream: str
    destination_table: str = ""
    status: str = WAITING
    #: The source's estimate of the stream's records; None: unknown, or only new records are read.
    expected: int | None = None
    #: Records read; 0 while raw blocks are read, whose records the destination counts.
    records: int = 0
    size_bytes: int = 0
    committed: int = 0
    #: Its start position, and its committed position.
    first_bookmark: dict[str, Any] | None = None
    bookmark: dict[str, Any] | None = None
    retries: int = 0
    rejected: int = 0
    error: str | None = None
    started: float | None = None
    ended: float | None = None
    #: When records were last read or committed.
    moved: float | None = None

    @property
    def duration_s(self) -> float | None:
        """Seconds since the stream was claimed."""
        if self.started is None:
            return None
        return (time.monotonic() if self.ended is None else self.ended) - self.started

    @property
    def records_per_s(self) -> float | None:
        """Records per second, over the whole stream."""
        duration_s = self.duration_s
        return self.records / duration_s if duration_s and duration_s > 0.05 else None

    @property
    def still_s(self) -> int:
        """Whole seconds since records were last read or committed."""
        began = self.moved or self.started
        return 0 if began is None else int(time.monotonic() - began)

    @property
    def percent(self) -> int | None:
        """Percentage of the expected amount that was read: 100 only at the end, since an estimate may be too small."""
        is_raw = self.size_bytes > 0 and not self.records
        if not self.expected or is_raw or self.status not in (RUNNING, RETRYING):
            return None
        return min(99, 100 * self.records // self.expected)

    @property
    def left_s(self) -> float | None:
        """Seconds until the expected amount is read, at the present speed."""
        rate = self.records_per_s
        if not self.expected or not rate or self.status != RUNNING or self.records >= self.expected:
            return None
        return (self.expected - self.records) / rate


class RunView(Struct):
    """Current figures of a run."""

    run_id: int | None = None
    streams: dict[str, StreamView] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)

    @property
    def records(self) -> int:
        """Records of all streams."""
        return sum(view.records for view in self.streams.values())

    @property
    def left_s(self) -> float | None:
        """Seconds until the expected amount is read, at the present speed; None: a stream's amount is unknown."""
        open_views = [view for view in self.streams.values() if view.ended is None]
        rate = self.records / max(time.monotonic() - self.started, 0.05)
        if not rate or any(view.expected is None for view in open_views):
            return None
        return sum(max(0, (view.expected or 0) - view.records) for view in open_views) / rate or None


class Tracker(Progress):
    """Keeps the figures of a run; subclasses show them. Calls come from any thread and take the lock."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.view = RunView()
        #: Whether the run is in the store: from then on, an error does not mean that nothing ran.
        self.has_started = False

    def __enter__(self) -> Tracker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """See `Progress`."""

    def connecting(self, text: str) -> None:
        """Show that the run connects and plans: nothing was read yet, and the store has no record."""
        self.message(text)

    def stream(self, name: str) -> StreamView:
        """Return the figures of one stream."""
        return self.view.streams.setdefault(name, StreamView(stream=name))

    # -- calls of the engine -------------------------------------------------------------------------------------

    def run_started(self, run: PipelineRun, plan: Plan) -> None:
        """See `Progress`. Every stream waits."""
        with self.lock:
            self.has_started = True
            self.view = RunView(run_id=run.id)
            for planned in plan.streams:
                view, stream = self.stream(planned.name), planned.stream
                view.destination_table = planned.key.destination_table
                if stream.read.method == "FULL_TABLE":
                    view.expected = stream.estimated_records

    def stream_started(self, stream: str, destination_table: str, bookmark: dict[str, Any] | None) -> None:
        """See `Progress`."""
        with self.lock:
            view = self.stream(stream)
            view.status, view.started = RUNNING, time.monotonic()
            view.destination_table, view.bookmark, view.first_bookmark = destination_table, bookmark, bookmark

    def expected(self, stream: str, *, records: int) -> None:
        """See `Progress`."""
        with self.lock:
            self.stream(stream).expected = records

    def advanced(self, stream: str, *, records: int, size_bytes: int) -> None:
        """See `Progress`."""
        with self.lock:
            view = self.stream(stream)
            if view.status != LOADING:  # the destination counts the records of raw blocks
                view.status = RUNNING
            view.records += records
            view.size_bytes += size_bytes
            view.moved = time.monotonic()

    def read_ended(self, stream: str) -> None:
        """See `Progress`."""
        with self.lock:
            self.stream(stream).status = LOADING

    def committed(self, stream: str, *, records: int, bookmark: dict[str, Any] | None) -> None:
        """See `Progress`."""
        with self.lock:
            view = self.stream(stream)
            view.committed += records
            view.bookmark = bookmark or view.bookmark
            view.moved = time.monotonic()

    def rejected(self, stream: str, *, records: int) -> None:
        """See `Progress`."""
        with self.lock:
            self.stream(stream).rejected += records

    def retrying(self, stream: str, *, attempt: int, delay_s: float, error: str) -> None:
        """See `Progress`. Records that were read and not committed no longer count."""
        with self.lock:
            view = self.stream(stream)
            view.status, view.error = RETRYING, error
            view.retries += 1
            view.records, view.size_bytes = view.committed, 0

    def stream_ended(self, stream: str, status: str, *, records: int | None, error: str | None) -> None:
        """See `Progress`."""
        with self.lock:
            view = self.stream(stream)
            view.status, view.error, view.ended = status, error, time.monotonic()
            if records is not None:
                view.records = records
