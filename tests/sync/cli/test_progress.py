"""Figures of a run under way: how much of a stream is done, and what a narrow terminal shows of it."""

from __future__ import annotations

import inspect
import io
import os
import re
import time
from pathlib import Path

import pytest
from rich.console import Console as Screen

from syncblocks.sync.cli.console import Console
from syncblocks.sync.cli.progress_live import LiveDisplay
from syncblocks.sync.run.tracker import RUNNING, StreamView


def test_a_stream_of_known_size_says_how_much_is_done_and_how_long_it_takes() -> None:
    view = StreamView(stream="orders", status=RUNNING, expected=1000, started=time.monotonic() - 10)
    assert (view.percent, view.left_s) == (0, None)
    view.records = 250
    assert view.percent == 25
    assert view.left_s == pytest.approx(30, rel=0.1)
    view.records = 1200
    assert (view.percent, view.left_s) == (99, None), "an estimate that was too small"
    view.status = "loading"
    assert (view.percent, view.left_s) == (None, None), "all was read"
    view.status = "success"
    assert view.percent is None


def test_a_run_says_how_long_it_takes_if_the_size_of_all_its_streams_is_known() -> None:
    display = many(4, active=2)
    display.view.started = time.monotonic() - 10
    assert display.view.left_s is None
    for view in display.view.streams.values():
        view.expected = 40_000
    assert display.view.left_s == pytest.approx(70, rel=0.01), "20,000 of 160,000 in ten seconds"


def test_a_stream_is_loading_once_all_was_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    display = LiveDisplay(Console())
    display.stream_started("orders", "orders", None)
    display.stream("orders").expected = 10
    display.advanced("orders", records=10, size_bytes=100)
    display.read_ended("orders")
    display.advanced("orders", records=0, size_bytes=0)
    screen = Screen(width=80, force_terminal=False, color_system=None)
    with screen.capture() as drawn:
        screen.print(display.table(height=24))
    assert "loading" in drawn.get()
    assert "99%" not in drawn.get()
    assert drawn.get().splitlines()[-1].startswith("0 of 1 stream, 10 records, ")


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


def many(count: int, active: int) -> LiveDisplay:
    """Return the display of a run in which some streams are at work, in the middle of many."""
    display = LiveDisplay(Console())
    now = time.monotonic()
    display.view.started = now - 75
    for number in range(count):
        view = display.stream(f"public.table_{number:03}")
        if number < count // 2 - active:
            view.status, view.records, view.started, view.ended = "success", 1000 * number, now - 60, now - 50
        elif number < count // 2:
            view.status, view.expected, view.started = RUNNING, 40_000, now - 10
            view.records, view.size_bytes = 10_000, 2_500_000
    return display


@pytest.mark.parametrize("width", [80, 140])
def test_of_many_streams_those_at_work_are_shown_and_the_rest_is_counted(
    monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    display = many(120, active=8)
    screen = Screen(width=width, force_terminal=False, color_system=None)
    with screen.capture() as drawn:
        screen.print(display.table(height=24))
    lines = drawn.get().splitlines()
    assert len(lines) <= 24 - 4
    assert [f"table_{number:03}" in drawn.get() for number in range(52, 60)] == [True] * 8
    assert "25%" in next(line for line in lines if "table_052" in line)
    assert lines[-2].split() == ["...", "and", "44", "success,", "60", "waiting"]
    assert lines[-1].strip() == "52 of 120 streams, 1,406,000 records, 1 min 15 s"


def test_raw_blocks_show_their_size_until_their_records_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    display = many(1, active=0)
    view = display.stream("public.table_000")
    view.status, view.expected, view.records, view.size_bytes = RUNNING, 5_000_000, 0, 1_500_000_000
    screen = Screen(width=80, force_terminal=False, color_system=None)
    with screen.capture() as drawn:
        screen.print(display.table(height=24))
    assert "1.5 GB" in drawn.get()
    assert "0%" not in drawn.get()


#: Says that the screenshots of the docs are to be written anew, not compared.
WRITE = "SYNCBLOCKS_SCREENSHOTS"


@pytest.mark.parametrize("width", [80, 140])
def test_the_screenshots_of_the_docs_show_what_the_live_view_shows(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setattr(time, "monotonic", lambda: 1000.0)
    display = many(24, active=3)
    last = display.stream("public.table_011")
    last.bookmark, last.expected = {"updated_at": "2024-05-01T06:00:00Z"}, None
    screen = Screen(width=width, record=True, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    screen.print(display.table(height=18))
    made = screen.export_svg(title="syncblocks run", code_format=PLAIN_SVG, unique_id=f"live-{width}")
    path = Path(__file__).parents[3] / "docs" / f"live-{width}.svg"
    if WRITE in os.environ:
        path.write_text(made)
    assert texts(path.read_text()) == texts(made), f"{WRITE}=1 pytest {Path(__file__).name} writes it anew"


#: The form of rich without its fonts from another server.
PLAIN_SVG = re.sub(
    r"@font-face \{\{.*?\}\}\n",
    "",
    inspect.signature(Screen.export_svg).parameters["code_format"].default,
    flags=re.DOTALL,
)


def texts(svg: str) -> list[str]:
    """Return the texts of an SVG; colours and sizes may differ from one version of rich to the next."""
    return re.findall(r"<text[^>]*>([^<]*)</text>", svg)
