"""Planning grows with the number of streams: calls are counted, and not seconds."""

from __future__ import annotations

import sqlite3
import sys
from collections import Counter
from contextlib import closing
from pathlib import Path
from types import FrameType
from typing import Any

from syncblocks.connectors.sqlite.catalog import read_catalog
from syncblocks.connectors.sqlite.session import SQLiteSession
from syncblocks.sync.config import load_pipeline
from syncblocks.sync.session.session import make_plan, open_session


def tables(path: Path, number: int) -> Path:
    made = "; ".join(f"create table t{each} (id integer primary key, name text)" for each in range(number))
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(f"begin; {made}; commit")
    return path


def calls(folder: Path, streams: int) -> Counter[str]:
    """Return how often each function of `sync/plan` is called for a plan of so many streams."""
    document = {
        "pipeline": "many",
        "source": {"connector": "sqlite", "config": {"path": str(tables(folder / f"{streams}.db", streams))}},
        "destination": {"connector": "sqlite", "config": {"path": str(folder / "to.db")}},
        "streams": [{"stream": "*"}],
    }
    found: Counter[str] = Counter()

    def count(frame: FrameType, event: str, argument: Any) -> None:
        if event == "call" and "/sync/plan/" in frame.f_code.co_filename:
            found[f"{Path(frame.f_code.co_filename).name}: {frame.f_code.co_qualname}"] += 1

    session = open_session(load_pipeline(document, folder=folder))
    try:
        make_plan(session, None)  # some values are remembered
        former = sys.getprofile()
        sys.setprofile(count)
        try:
            plan = make_plan(session, None)
        finally:
            sys.setprofile(former)
    finally:
        session.close()
    assert len(plan.streams) == streams
    return found


def test_no_function_is_called_more_often_for_each_stream_if_there_are_more_streams(tmp_path: Path) -> None:
    few, many = calls(tmp_path, 15), calls(tmp_path, 45)
    assert {name: (few[name], count) for name, count in many.items() if count > 3 * few[name] + 15} == {}


def test_the_text_of_one_table_is_searched_whatever_the_number_of_tables(tmp_path: Path) -> None:
    searched: list[str] = []

    def lower(text: str) -> str:
        searched.append(text)
        return text.lower()

    for number in (5, 50):
        session = SQLiteSession(tables(tmp_path / f"{number}.db", number), is_writer=False)
        session._connection.create_function("lower", 1, lower)
        try:
            assert [table.name.name for table in read_catalog(session, "t3")] == ["t3"]
        finally:
            session.close()
        assert len(searched) == 1
        searched.clear()
