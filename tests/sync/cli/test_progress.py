"""Figures of a run under way: how much of a stream is done, and what a narrow terminal shows of it."""

from __future__ import annotations

import time

import pytest
from rich.console import Console as Screen

from syncblocks.sync.cli.console import Console
from syncblocks.sync.cli.progress import RUNNING, StreamView
from syncblocks.sync.cli.progress_live import LiveDisplay


def test_a_stream_of_known_size_says_how_much_is_done_and_how_long_it_takes() -> None:
    view = StreamView(stream="orders", status=RUNNING, expected=1000, started=time.monotonic() - 10)
    assert (view.percent, view.left_s) == (0, None)
    view.records = 250
    assert view.percent == 25
    assert view.left_s == pytest.approx(30, rel=0.1)
    view.records = 1200
    assert (view.percent, view.left_s) == (99, None), "an estimate that was too small"
    view.status = "success"
    assert view.percent is None


@pytest.mark.parametrize("width", [80, 140])
def test_a_line_of_a_busy_stream_is_whole(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    display = LiveDisplay(Console())
    view = display.stream("public.order_lines")
    view.status, view.expected, view.started = RUNNING, 30_000_000, time.monotonic() - 95
    view.records, view.size_bytes, view.bookmark = 12_345_678, 1_234_567_890, {"updated_at": "2024-01-01T00:00:00"}
    screen = Screen(width=width, force_terminal=False, color_system=None)
    with screen.capture() as drawn:
        screen.print(display.table(height=20))
    head, line, *_ = drawn.get().splitlines()
    assert head.split() == [name for name in head.split() if "\u2026" not in name]
    for text in ("public.order_lines", "12,345,678", "41%", "running", "1 min 35 s"):
        assert text in line
    assert "\u2026" not in line
