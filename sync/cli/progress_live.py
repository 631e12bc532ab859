"""Live progress on a terminal: one line for each stream, messages above."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

from rich.console import Console as Screen
from rich.console import ConsoleOptions, JustifyMethod, RenderResult
from rich.live import Live as Drawing
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from ..run.callback_output import outcome_text, output_lines
from ..run.tracker import ACTIVE, LOADING, RETRYING, RUNNING, WAITING, StreamView, Tracker
from . import formatting
from .console import STATUS_COLORS, Console, clean, fitted, indented

if TYPE_CHECKING:
    from syncblocks.callbacks.protocols import Delivery, Outcome

    from ..plan.plan import Plan
    from ..store.model import PipelineRun

#: Lines of the terminal that the display leaves free.
SPARE_LINES = 7
_COLUMNS = ("", "stream", "records", "records/s", "size", "time", "done", "left", "bookmark", "status")
_RIGHT = {"records", "records/s", "size", "time", "done", "left"}
#: Characters of a terminal from which on all columns have room, and those that a narrower one goes without.
_WIDE, _SPARED = 110, ("records/s", "size", "bookmark")
_LEVELS = {"warning": "yellow", "error": "red", "critical": "red"}


class LiveDisplay(Tracker):
    """Redraws the active streams; messages and output of callbacks scroll above them."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console
        self._screen = Screen(file=sys.stderr, highlight=False, markup=False, emoji=False)
        self._drawing: Drawing | None = None
        self._spinner = Spinner("dots")
        self._connecting = ""

    def close(self) -> None:
        """Remove the display: the summary replaces it."""
        with self.lock:
            drawing, self._drawing = self._drawing, None
        if drawing is not None:  # outside of the lock, which its thread needs to draw
            drawing.stop()

    def run_started(self, run: PipelineRun, plan: Plan) -> None:
        """See `Progress`."""
        super().run_started(run, plan)
        self._draw()

    def connecting(self, text: str) -> None:
        """Show the text until the run is planned."""
        self._connecting = text
        self._draw()

    def _draw(self) -> None:
        with self.lock:
            if self._drawing is None:
                self._drawing = Drawing(_Picture(self), console=self._screen, refresh_per_second=8, transient=True)
                self._drawing.start()

    def retrying(self, stream: str, *, attempt: int, delay_s: float, error: str) -> None:
        """See `Progress`."""
        super().retrying(stream, attempt=attempt, delay_s=delay_s, error=error)
        self.message(f"{stream}: attempt {attempt} failed, next in {delay_s:g} s: {error}", level="warning")

    def delivered(self, delivery: Delivery, outcome: Outcome, mark: str) -> None:
        """Show the callback's output, and its error."""
        for line in output_lines(delivery, outcome):
            self._print_fitted(line, "dim")
        text = outcome_text(delivery, outcome, mark)
        if text:
            self.message(text, level="error" if mark == "dead" else "warning")

    def message(self, text: str, *, level: str = "info") -> None:
        """See `Progress`."""
        self._print_fitted(indented(f"{level}: {text}" if level in _LEVELS else text), _LEVELS.get(level, ""))

    def _print_fitted(self, text: str, style: str) -> None:
        # Masked first: a secret that is broken in two would not be found.
        shown = fitted(clean(self._console.redactor.redact(text), keep="\n\t"), sys.stderr)
        self._screen.print(Text(shown, style=style), soft_wrap=True)

    # -- the display ---------------------------------------------------------------------------------------------

    def table(self, height: int) -> Table:
        """Return the streams as lines, active ones first; the rest is counted."""
        table = Table(box=None, padding=(0, 1), expand=False)
        columns = _COLUMNS if self._screen.width >= _WIDE else [name for name in _COLUMNS if name not in _SPARED]
        for name in columns:
            side: JustifyMethod = "right" if name in _RIGHT else "left"
            table.add_column(name, justify=side, no_wrap=True, overflow="ellipsis", header_style="bold")
        with self.lock:
            views = list(self.view.streams.values())
            shown, rest = _choose(views, max(1, height - SPARE_LINES))
            for view in shown:
                cells = self._cells(view)
                table.add_row(*(cells[name] for name in columns))
        counted = [(sum(view.status == status for view in rest), status) for status in _ORDER]
        others = "... and " + ", ".join(f"{number} {status}" for number, status in counted if number) + "\n"
        table.caption = Text((others if rest else "") + self._total(views), style="table.caption")
        table.caption_justify = "left"
        return table

    def picture(self, height: int) -> Table | Spinner:
        """Return what is shown now."""
        if self.has_started:
            return self.table(height)
        self._spinner.update(text=Text(clean(self._connecting)))
        return self._spinner

    def _total(self, views: list[StreamView]) -> str:
        """Return how much of the run is done, and how long it takes."""
        ended = sum(view.ended is not None for view in views)
        left = "" if self.view.left_s is None else f", {formatting.duration(self.view.left_s)} left"
        streams = f"{ended} of {formatting.plural(len(views), 'stream')}"
        passed_s = time.monotonic() - self.view.started
        return f"{streams}, {formatting.plural(self.view.records, 'record')}, {formatting.duration(passed_s)}{left}"

    def _cells(self, view: StreamView) -> dict[str, Any]:
        is_active = view.status in ACTIVE
        rate = view.records_per_s
        redact = self._console.redactor.redact
        return {
            "": self._spinner.render(time.monotonic()) if is_active else Text(_MARKS.get(view.status, " ")),
            "stream": Text(clean(view.stream)),
            "records": Text(_records(view)),
            "records/s": Text("" if rate is None else formatting.count(round(rate))),
            "size": Text(formatting.size(view.size_bytes) if view.size_bytes else ""),
            "time": Text(formatting.duration(view.duration_s)),
            "done": Text("" if view.percent is None else f"{view.percent}%"),
            "left": Text(formatting.duration(view.left_s)),
            "bookmark": Text(clean(redact(formatting.cut(formatting.bookmark(view.bookmark), 40)))),
            "status": Text(view.status, style=STATUS_COLORS.get(view.status, "")),
        }


def _records(view: StreamView) -> str:
    """Return the records read; of raw blocks, whose records nobody has counted yet, their size."""
    if view.status in ACTIVE and view.size_bytes and not view.records:
        return formatting.size(view.size_bytes)
    return "" if view.status == WAITING else formatting.count(view.records)


class _Picture:
    """The renderable of rich; builds the table for each refresh."""

    def __init__(self, live: LiveDisplay) -> None:
        self._live = live

    def __rich_console__(self, console: Screen, options: ConsoleOptions) -> RenderResult:
        yield self._live.picture(console.size.height)


_ORDER = (RUNNING, LOADING, RETRYING, "failure", "cancelled", "success", WAITING)
_MARKS = {"success": "✓", "failure": "✗", "cancelled": "-"}


def _choose(views: list[StreamView], room: int) -> tuple[list[StreamView], list[StreamView]]:
    """Return the streams that fit, by status and then by time, and the rest; both in the order of the run."""
    if len(views) <= room:
        return views, []
    ranked = sorted(
        views, key=lambda view: (_ORDER.index(view.status) if view.status in _ORDER else 99, -_recency(view))
    )
    kept = {id(view) for view in ranked[: max(1, room - 1)]}
    return [view for view in views if id(view) in kept], [view for view in views if id(view) not in kept]


def _recency(view: StreamView) -> float:
    return view.ended or view.started or 0.0
