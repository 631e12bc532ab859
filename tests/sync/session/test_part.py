"""A part of a plan, as a worker plans it again: the same as in the whole plan."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psycopg
import pytest

from syncblocks import run_pipeline
from syncblocks.sync.config import load_pipeline
from syncblocks.sync.session.session import make_plan, open_session


def document(url: str) -> dict[str, Any]:
    return {
        "pipeline": "part",
        "allow_blocks_to_fail": True,
        "store": url,
        "source": {"connector": "postgres", "config": {"url": url, "schema": "crm", "text_columns": ["crm.t1.w"]}},
        "destination": {"connector": "postgres", "config": {"url": url}},
        "streams": [
            {"stream": "crm.t*", "write_disposition": "append", "columns": {"exclude": ["only_in_t1"]}},
            {"stream": "crm.t2", "write_disposition": "merge", "destination_table": "t0"},
            {"stream": "crm.t0", "on_schema_change": "widen", "tags": ["first"]},
            {"stream": "crm.v", "destination_table": "views"},
            {"stream": "crm.day 1", "destination_table": "days", "add_columns": {"day": "{{ ds }}"}},
            {"stream": "q", "query": "select id from crm.t1", "destination_table": "q"},
        ],
    }


@pytest.fixture
def url(postgres_url: str) -> str:
    with psycopg.connect(postgres_url) as connection:
        connection.execute("create schema crm")
        for number in range(3):
            connection.execute(f"create table crm.t{number} (id int primary key, w int)")
        connection.execute("alter table crm.t1 add column only_in_t1 text")
        connection.execute('create table crm."day 1" (id int)')
        connection.execute("create view crm.v as select * from crm.t0")
    assert run_pipeline(document(postgres_url)).exit_code == 0
    with psycopg.connect(postgres_url) as connection:  # `widen` does nothing while another stream writes the table
        connection.execute("drop view crm.v")
        connection.execute("alter table crm.t0 alter column w type text")
        connection.execute("create view crm.v as select * from crm.t0")
    return postgres_url


@pytest.mark.parametrize("asks_by_name", [True, False])
def test_each_part_is_planned_as_in_the_whole(url: str, tmp_path: Path, asks_by_name: bool) -> None:
    session = open_session(load_pipeline(document(url), folder=tmp_path))
    if not asks_by_name:
        session.source_can = type(session.source_can)(reads_queries=session.source_can.reads_queries)
    try:
        whole = {planned.name: planned for planned in make_plan(session, None).streams}
        assert "writes the table, too" in whole["crm.t0"].verdict.refusal
        tables = {name: planned.key.destination_table for name, planned in whole.items()}
        assert whole.keys() == {"crm.t0", "crm.t1", "crm.t2", "crm.v", "crm.day 1", "q"}
        part = session.parts(tables)
        for names in (*([name] for name in whole), ["crm.t1", "q", "crm.v"]):
            again = {planned.name: planned for planned in make_plan(session, None, only=names, part=part).streams}
            assert again == {name: whole[name] for name in names}
    finally:
        session.close()


def test_a_stream_that_is_gone_is_left_out_of_its_part(url: str, tmp_path: Path) -> None:
    session = open_session(load_pipeline(document(url), folder=tmp_path))
    try:
        part = session.parts({planned.name: "x" for planned in make_plan(session, None).streams})
        with psycopg.connect(url) as connection:
            connection.execute("drop table crm.t1")
        found = make_plan(session, None, only=["crm.t0", "crm.t1"], part=part).streams
        assert [planned.name for planned in found] == ["crm.t0"]
    finally:
        session.close()
