"""Progress of a run below a notebook's cell: a table, drawn again at most once a second."""

from __future__ import annotations

import html
import sys
import time
from typing import TYPE_CHECKING, Any

from .progress import Progress
from .tracker import WAITING, StreamView, Tracker

if TYPE_CHECKING:
    from ..plan.plan import Plan
    from ..store.model import PipelineRun

#: Seconds between two drawings.
_EVERY_S = 1.0
#: Maximum of streams in the table: running streams, then the latest ended ones.
_MOST = 30
_COLUMNS = ("stream", "status", "records", "done", "left", "time", "error")


class NotebookProgress(Tracker):
    """Shows the streams of a run in the output of the cell that runs it."""

    def __init__(self, display: Any) -> None:
        super().__init__()
        self._display = display
        self._handle: Any = None
        self._drawn = 0.0

    def run_started(self, run: PipelineRun, plan: Plan) -> None:
        """See `Progress`."""
        super().run_started(run, plan)
        self._draw(is_due=True)

    def advanced(self, stream: str, *, records: int, size_bytes: int) -> None:
        """See `Progress`."""
        super().advanced(stream, records=records, size_bytes=size_bytes)
        self._draw()

    def stream_ended(self, stream: str, status: str, *, records: int | None, error: str | None) -> None:
        """See `Progress`."""
        super().stream_ended(stream, status, records=records, error=error)
        # This call may be the last one: a task for one stream does not end the run.
        self._draw(is_due=all(view.ended is not None for view in self.view.streams.values()))

    def run_ended(self, run: PipelineRun) -> None:
        """See `Progress`."""
        if self.has_started:  # not if separate tasks have run it
            self._draw(is_due=True)

    def _draw(self, *, is_due: bool = False) -> None:
        with self.lock:
            now = time.monotonic()
            if not is_due and now - self._drawn < _EVERY_S:
                return
            self._drawn = now
            shown = _Html(self._table())
            if self._handle is None:
                self._handle = self._display(shown, display_id=True)
            else:
                self._handle.update(shown)

    def _table(self) -> str:
        views = list(self.view.streams.values())
        ended = [view for view in views if view.ended is not None]
        active = [view for view in views if view.ended is None and view.status != WAITING]
        by_end = sorted(ended, key=lambda view: view.ended or 0.0, reverse=True)
        last = by_end[: max(0, _MOST - len(active))]
        rows = "".join(_row(view) for view in views if view in active or view in last)
        head = "".join(f"<th>{name}</th>" for name in _COLUMNS)
        took_s = time.monotonic() - self.view.started
        line = f"run {self.view.run_id}: {len(ended)} of {len(views)} streams, {took_s:.0f} s"
        return f"<p>{line}</p><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


class _Html:
    """The HTML for a notebook; elsewhere it shows nothing."""

    def __init__(self, text: str) -> None:
        self._text = text

    def _repr_html_(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return ""


def _row(view: StreamView) -> str:
    cells = (
        view.stream,
        view.status,
        f"{view.records:,}",
        "" if view.percent is None else f"{view.percent}%",
        "" if view.left_s is None else f"{view.left_s:.0f} s",
        "" if view.duration_s is None else f"{view.duration_s:.0f} s",
        view.error or "",
    )
    return f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in cells)}</tr>"


def default_progress() -> Progress:
    """Return the default progress of a run: a table in a notebook, else none."""
    shell = sys.modules.get("IPython")
    if shell is None or not hasattr(shell.get_ipython(), "kernel"):
        return Progress()
    from importlib import import_module

    return NotebookProgress(import_module("IPython.display").display)
