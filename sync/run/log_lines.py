"""Progress as lines: the output of a run, and its log in the run store."""

from __future__ import annotations

import json
import re
import time
from abc import ABC, abstractmethod
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from .callback_output import outcome_text, output_lines
from .tracker import StreamView, Tracker

if TYPE_CHECKING:
    from syncblocks.callbacks.protocols import Delivery, Outcome

    from ..plan.plan import Plan
    from ..store.model import PipelineRun

_PLAIN = re.compile(r"[^\s\"=\\]+")


class Lines(Tracker, ABC):
    """Base: one line for each event, written by `_line`."""

    #: Minimum of seconds between two lines of a stream's figures.
    every_s: float

    def __init__(self) -> None:
        super().__init__()
        self._shown: dict[str, float] = {}

    @abstractmethod
    def _line(self, event: str, level: str = "info", /, **facts: Any) -> None:
        """Write the line of an event."""

    def stream_started(self, stream: str, destination_table: str, bookmark: dict[str, Any] | None) -> None:
        """See `Progress`."""
        super().stream_started(stream, destination_table, bookmark)
        self._line("stream_started", stream=stream, destination_table=destination_table, bookmark=bookmark)

    def advanced(self, stream: str, *, records: int, size_bytes: int) -> None:
        """Show the stream's present figures, unless they were shown recently."""
        super().advanced(stream, records=records, size_bytes=size_bytes)
        now = time.monotonic()
        if now - self._shown.get(stream, 0.0) < self.every_s:
            return
        self._shown[stream] = now
        with self.lock:
            figures = self._figures(self.stream(stream))
        self._line("stream_progress", stream=stream, **figures)

    def _figures(self, view: StreamView) -> dict[str, Any]:
        return {"records": view.records, "size_bytes": view.size_bytes, "committed": view.committed}

    def retrying(self, stream: str, *, attempt: int, delay_s: float, error: str) -> None:
        """See `Progress`."""
        super().retrying(stream, attempt=attempt, delay_s=delay_s, error=error)
        self._line("stream_retrying", "warning", stream=stream, attempt=attempt, delay_s=delay_s, error=error)


class LogLines(Lines):
    """Writes a log: `2024-01-01T00:00:00Z level=info event=stream_ended stream=users ...`."""

    every_s = 10.0

    @abstractmethod
    def _masked(self, text: str) -> str:
        """Return a text without secrets."""

    @abstractmethod
    def _write(self, text: str) -> None:
        """Write a line; the traceback of a debug message takes several."""

    def run_started(self, run: PipelineRun, plan: Plan) -> None:
        """See `Progress`."""
        super().run_started(run, plan)
        self._line("run_started", run=run.id, attempt=run.attempt, pipeline=run.pipeline, streams=len(plan.streams))

    def stream_started(self, stream: str, destination_table: str, bookmark: dict[str, Any] | None) -> None:
        """See `Progress`. The first figures follow after `every_s`."""
        self._shown[stream] = time.monotonic()
        super().stream_started(stream, destination_table, bookmark)

    def _figures(self, view: StreamView) -> dict[str, Any]:
        rate = view.records_per_s
        return {
            "records": view.records,
            "committed": view.committed,
            "size_bytes": view.size_bytes,
            "records_per_s": None if rate is None else round(rate),
            "percent": view.percent,
            "left_s": None if view.left_s is None else round(view.left_s),
        }

    def stream_ended(self, stream: str, status: str, *, records: int | None, error: str | None) -> None:
        """See `Progress`."""
        super().stream_ended(stream, status, records=records, error=error)
        with self.lock:
            view = self.stream(stream)
            duration_s, bookmark = view.duration_s, view.bookmark
        self._line(
            "stream_ended",
            "info" if status == "success" else "error" if status == "failure" else "warning",
            stream=stream,
            status=status,
            records=records,
            duration_s=None if duration_s is None else round(duration_s, 3),
            bookmark=bookmark,
            error=error,
        )

    def delivered(self, delivery: Delivery, outcome: Outcome, mark: str) -> None:
        """Show the callback's output, then its outcome."""
        for line in output_lines(delivery, outcome):
            self._write(line)
        self._line(
            "callback",
            {"done": "info", "retry": "warning"}.get(mark, "error"),
            callback=delivery.callback_block,
            parent=delivery.label,
            function=delivery.function,
            mark=mark,
            attempt=delivery.attempt,
            duration_s=round(outcome.duration_s, 3),
            error=outcome_text(delivery, outcome, mark) or None,
        )

    def message(self, text: str, *, level: str = "info") -> None:
        """Show one line; the traceback of a debug message follows it."""
        text, _, traceback = text.partition("\n") if level == "debug" else (text, "", "")
        self._line("message", level, text=text)
        if traceback:
            self._write(traceback)

    def run_ended(self, run: PipelineRun) -> None:
        """See `Progress`."""
        self._line("run_ended", "info" if run.status == "success" else "error", run=run.id, status=run.status)

    def _line(self, event: str, level: str = "info", /, **facts: Any) -> None:
        # Masked before it is quoted, because a cut at the end of a text would no longer be at its end.
        pairs = [f"{key}={_value(self._clear(value))}" for key, value in facts.items() if value not in (None, {})]
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        with self.lock:
            self._write(" ".join([now, f"level={level}", f"event={event}", *pairs]))

    def _clear(self, value: Any) -> Any:
        """Return a value with all its texts masked."""
        if isinstance(value, str):
            return self._masked(value)
        if isinstance(value, dict):
            return {key: self._clear(item) for key, item in value.items()}
        return value


def _value(value: Any) -> str:
    """Write a value of a log line: a plain word unquoted, anything else as JSON."""
    if isinstance(value, str) and _PLAIN.fullmatch(value):
        return value
    return json.dumps(value, ensure_ascii=False, default=str)
