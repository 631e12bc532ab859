"""Runs of an Airbyte connector: what is committed, with which state, and how each stream ends."""

from __future__ import annotations

from pathlib import Path

from .airbyte_helpers import config, ends, offered, pipeline, run, table
from .airbyte_program import record, state, status

ROWS = [(n, f"2026-01-{n:02}", None) for n in range(1, 6)]


def said(stream: str, *numbers: int) -> list[dict]:
    return [record(stream, id=n, stamp=f"2026-01-{n:02}") for n in numbers]


def test_a_run_commits_records_with_the_state_behind_them(tmp_path: Path) -> None:
    lines = [
        status("orders", "STARTED"),
        *said("orders", 1, 2),
        status("users", "STARTED"),
        *said("users", 1),
        *said("orders", 3),
        status("orders", "COMPLETE"),
        *said("users", 2),
        state("orders", {"stamp": "2026-01-03"}, 3),
        status("users", "COMPLETE"),
        state("users", {"__ab_no_cursor_state_message": True}, 2),
    ]
    streams = [offered("orders"), offered("users", cursor=None)]
    path = pipeline(tmp_path, config(tmp_path, *lines, streams=streams))
    result = run(path)
    assert ends(result) == {"orders": None, "users": None}
    assert table(tmp_path, "orders") == ROWS[:3]
    assert table(tmp_path, "users") == ROWS[:2]
