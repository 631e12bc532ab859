"""Progress as lines: a log on stderr, or JSON on stdout."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from ..run.log_lines import Lines, LogLines
from ..run.tracker import Tracker
from .console import Console

if TYPE_CHECKING:
    from syncblocks.callbacks.protocols import Delivery, Outcome

    from ..plan.plan import Plan
    from ..store.model import PipelineRun


class PrintedLog(LogLines):
    """Log lines on stderr."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def _masked(self, text: str) -> str:
        return self._console.redactor.redact(text)

    def _write(self, text: str) -> None:
        self._console.echo(text, err=True)


class JsonLines(Lines):
    """JSON lines on stdout, for programs."""

    every_s = 1.0

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def run_started(self, run: PipelineRun, plan: Plan) -> None:
        """See `Progress`."""
        super().run_started(run, plan)
        self._line(
            "run_started",
            run_id=run.id,
            attempt=run.attempt,
            pipeline=run.pipeline,
            execution_date=run.execution_date,
            streams=[planned.name for planned in plan.streams],
        )

    def committed(self, stream: str, *, records: int, bookmark: dict[str, Any] | None) -> None:
        """See `Progress`."""
        super().committed(stream, records=records, bookmark=bookmark)
        self._line("stream_committed", stream=stream, records=records, bookmark=bookmark)

    def stream_ended(self, stream: str, status: str, *, records: int | None, error: str | None) -> None:
        """See `Progress`."""
        super().stream_ended(stream, status, records=records, error=error)
        self._line("stream_ended", stream=stream, status=status, records=records, error=error)

    def delivered(self, delivery: Delivery, outcome: Outcome, mark: str) -> None:
        """See `Progress`."""
        self._line(
            "callback",
            callback_block=delivery.callback_block,
            function=delivery.function,
            label=delivery.label,
            idempotency_key=delivery.key,
            attempt=delivery.attempt,
            mark=mark,
            kind=outcome.kind,
            error=outcome.error,
            output=outcome.output,
            duration_s=outcome.duration_s,
        )

    def message(self, text: str, *, level: str = "info") -> None:
        """See `Progress`."""
        self._line("message", level=level, text=text)

    def run_ended(self, run: PipelineRun) -> None:
        """See `Progress`."""
        self._line("run_ended", run_id=run.id, status=run.status)

    def _line(self, event: str, _level: str = "info", /, **facts: Any) -> None:
        with self.lock:
            self._console.emit({"type": event, "time": datetime.now(UTC), **facts})


def make_progress(console: Console, *, is_inline: bool = False) -> Tracker:
    """Return the progress display: JSON lines, a live display on a terminal, else log lines.

    With inline callbacks there is no live display, since a debugger needs the terminal.
    """
    console.is_output_wanted = False
    if console.is_json:
        return JsonLines(console)
    import os

    if sys.stderr.isatty() and os.environ.get("TERM") != "dumb" and not is_inline:
        from .progress_live import LiveDisplay

        return LiveDisplay(console)
    return PrintedLog(console)
