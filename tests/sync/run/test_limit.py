"""`limit`: how many records of a stream a run reads at most, of every kind of source."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import psycopg
import pytest

from syncblocks import RunResult, load_pipeline, run_pipeline
from syncblocks.sync.errors import ConfigError
from tests.connectors.singer.singer_helpers import full_table, record, schema, small
from tests.services import connect_mariadb

LIMITED: list[dict[str, Any]] = [{"stream": "*", "verify": True}, {"stream": "a", "limit": 3}]


def run(folder: Path, source: dict[str, Any], streams: list[dict[str, Any]]) -> RunResult:
    to = {"connector": "duckdb", "config": {"path": "out.db"}}
    document = {"pipeline": "p", "source": source, "destination": to, "streams": streams}
    return run_pipeline(load_pipeline(document, folder=folder))


def ids(folder: Path, table: str) -> list[int]:
    with closing(duckdb.connect(folder / "out.db")) as database:
        return [number for (number,) in database.execute(f"select id from {table} order by 1").fetchall()]


@pytest.mark.full
def test_no_more_records_are_read_and_the_rest_of_another_stream_is(tmp_path: Path) -> None:
    said = [schema("a"), schema("b"), *(record(name, id=n) for n in range(50) for name in "ab")]
    taps = small(tmp_path, *said, streams=[full_table("a"), full_table("b")])
    result = run(tmp_path, {"connector": "singer", "config": taps}, LIMITED)
    assert [(each.status, each.records, each.verdict) for each in result.streams] == [
        ("success", 3, "counted"),
        ("success", 50, "equal"),
    ]
    assert (len(ids(tmp_path, "a")), ids(tmp_path, "b")) == (3, list(range(50)))
    assert run(tmp_path, {"connector": "singer", "config": taps}, LIMITED[1:]).status == "success"


@pytest.mark.full
def test_the_limit_is_one_of_the_records_that_the_filter_lets_in(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id\n" + "".join(f"{n}\n" for n in range(5000)))
    source = {"connector": "csv", "config": {"path": "a.csv", "batch_size": 2}}
    where = {"stream": "a", "limit": 3, "where": {"id": {">=": 100}}, "parallel_reads": 4}
    assert run(tmp_path, source, [where]).status == "success"
    assert ids(tmp_path, "a") == [100, 101, 102]
    assert run(tmp_path, source, [{"stream": "a"}]).status == "success"
    assert len(ids(tmp_path, "a")) == 5000


# INCREMENTAL: the next records

NEXT: dict[str, Any] = {"replication_method": "INCREMENTAL", "bookmark_properties": ["n"]}


def ties(request: pytest.FixtureRequest, system: str, tmp_path: Path) -> dict[str, Any]:
    """Return a source with a table `a`, whose bookmark `n` several records share."""
    rows = ", ".join(f"({id_}, {id_ // 3})" for id_ in range(5))
    made = ["create table a (id int primary key, n int not null)", f"insert into a values {rows}"]
    if system == "postgres":
        url = request.getfixturevalue("postgres_url")
        with psycopg.connect(url) as connection:
            for statement in made:
                connection.execute(statement.encode())
        return {"connector": "postgres", "config": {"url": url}}
    if system == "mysql":
        url = request.getfixturevalue("mariadb_url")
        with closing(connect_mariadb(url)) as connection, connection.cursor() as cursor:
            for statement in made:
                cursor.execute(statement)
            connection.commit()
        return {"connector": "mysql", "config": {"url": url}}
    connect: Any = sqlite3.connect if system == "sqlite" else duckdb.connect
    with closing(connect(tmp_path / "in.db")) as database:
        for statement in made:
            database.execute(statement)
        database.commit()
    return {"connector": system, "config": {"path": "in.db"}}


@pytest.mark.one_of
@pytest.mark.parametrize(
    ("system", "disposition"),
    [("sqlite", "append"), ("sqlite", "merge"), ("duckdb", "append"), ("postgres", "merge"), ("mysql", "append")],
)
def test_each_incremental_run_reads_the_next_records(
    request: pytest.FixtureRequest, system: str, disposition: str, tmp_path: Path
) -> None:
    source = ties(request, system, tmp_path)
    stream = {"stream": "*a", "destination_table": "a", "limit": 2, "write_disposition": disposition, **NEXT}
    counts = [run(tmp_path, source, [stream]).streams[0].records for _ in range(3)]
    assert (counts, ids(tmp_path, "a")) == ([2, 2, 1], list(range(5)))


def test_records_without_a_bookmark_do_not_count(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "in.db")) as database:
        database.execute("create table a (id int primary key, n int)")
        database.execute("insert into a values (1, null), (2, null), (3, null), (4, 1), (5, 2), (6, 3)")
        database.commit()
    source = {"connector": "sqlite", "config": {"path": "in.db"}}
    stream = {"stream": "a", "limit": 2, "write_disposition": "append", "null_bookmarks": "once", **NEXT}
    assert [run(tmp_path, source, [stream]).streams[0].records for _ in range(3)] == [5, 1, 0]
    assert ids(tmp_path, "a") == [1, 2, 3, 4, 5, 6]


def test_so_many_records_at_a_bookmark_that_no_bookmark_keeps_them_are_read_together(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "in.db")) as database:
        database.execute("create table a (id integer primary key, n int not null)")
        database.execute(
            "with recursive n(x) as (select 1 union all select x + 1 from n where x < 15000) "
            "insert into a select x, case when x > 14000 then x else 1 end from n"
        )
        database.commit()
    source = {"connector": "sqlite", "config": {"path": "in.db"}}
    stream = {"stream": "a", "limit": 12_000, "write_disposition": "merge", **NEXT}
    counts = [run(tmp_path, source, [stream]).streams[0].records for _ in range(2)]
    assert counts[0] > 14_000
    assert ids(tmp_path, "a") == list(range(1, 15001))


def test_new_files_are_read_until_the_limit_is_reached(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for number in range(3):
        (tmp_path / "a" / f"{number}.csv").write_text(f"id\n{number}\n{number + 10}\n")
        os.utime(tmp_path / "a" / f"{number}.csv", (10**9 + number,) * 2)
    source = {"connector": "csv", "config": {"path": "."}}
    stream = {"stream": "a", "limit": 3, **NEXT, "bookmark_properties": ["_file_modified"]}
    assert [run(tmp_path, source, [stream]).streams[0].records for _ in range(3)] == [4, 2, 0]
    assert ids(tmp_path, "a") == [0, 1, 2, 10, 11, 12]


@pytest.mark.parametrize(
    ("stream", "why"),
    [
        ({"replication_method": "INCREMENTAL", "bookmark_properties": ["id"]}, "files have no order by a column"),
        (
            {"write_disposition": "merge", "key_properties": ["id"], "deletes": "hard"},
            ": `limit` and `deletes` exclude each other",
        ),
        ({"write_disposition": "history", "key_properties": ["id"]}, "history` exclude each other"),
    ],
)
def test_where_a_record_that_is_not_read_would_be_lost_a_limit_is_refused(
    stream: dict[str, Any], why: str, tmp_path: Path
) -> None:
    (tmp_path / "a.csv").write_text("id\n1\n")
    with pytest.raises(ConfigError, match=why):
        run(tmp_path, {"connector": "csv", "config": {"path": "a.csv"}}, [{"stream": "a", "limit": 1, **stream}])
