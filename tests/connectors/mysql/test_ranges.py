"""Ranges of a MySQL table: together they are the table at one moment."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from syncblocks.connectors.errors import ConnectorError
from syncblocks.connectors.mysql.source import MySQLSource
from syncblocks.connectors.ranges import OpenRanges, RangesRefused, SnapshotLost
from syncblocks.connectors.stream import Stream
from syncblocks.connectors.struct_helpers import replace
from tests.connectors.mysql.mysql_databases import connect, database, query, run

#: Keys, as SQL over a number `n` from 1 to 400; what they are declared as.
KEYS = {
    "negative": ("bigint", "n - 500"),
    "skewed": ("bigint unsigned", "if(n = 400, 18446744073709551615, n)"),
    "small": ("smallint", "n"),
}


@pytest.fixture
def source(mariadb_url: str) -> Iterator[MySQLSource]:
    made = MySQLSource({"url": mariadb_url, "range_bytes": 8192}, Path())
    yield made
    made.close()


def make(url: str, declared: str, key: str, more: str = "") -> None:
    run(
        url,
        f"create table t (id {declared} not null, b int not null, v text, primary key (id, b){more})",
        f"insert into t select {key}, 7, repeat('x', 200) from "
        "(with recursive s as (select 1 n union all select n + 1 from s where n < 400) select n from s) s",
        "analyze table t",
    )


def stream_of(source: MySQLSource, url: str) -> Stream:
    return next(stream for stream in source.discover() if stream.name == f"{database(url)}.t")


def read(opened: OpenRanges) -> list[dict[str, Any]]:
    return [row for part in opened.ranges for batch in opened.read(part) for row in batch.to_pylist()]  # type: ignore[union-attr]


@pytest.mark.parametrize("kind", KEYS)
def test_the_ranges_together_are_the_table(mariadb_url: str, source: MySQLSource, kind: str) -> None:
    make(mariadb_url, *KEYS[kind])
    stream = stream_of(source, mariadb_url)
    number, why = source.plan_ranges(stream, 3)
    assert number == 12 or kind == "small"
    assert "by the key id" in why
    with source.open_ranges(stream, 3, "arrow") as opened:
        assert len(opened.ranges) > 3
        found = read(opened)
    assert len(found) == 400
    _, expected = query(mariadb_url, "select id, b from t order by id")
    assert sorted((int(row["id"]), row["b"]) for row in found) == [(int(key), b) for key, b in expected]


def test_all_readers_see_the_moment_when_the_table_was_locked(mariadb_url: str, source: MySQLSource) -> None:
    make(mariadb_url, *KEYS["negative"])
    stream = stream_of(source, mariadb_url)
    with connect(mariadb_url) as writer, writer.cursor() as cursor:
        cursor.execute("begin")
        cursor.execute("update t set v = 'committed while the lock was waited for'")

        def commit() -> None:
            waiting = "select 1 from information_schema.processlist where info like 'lock tables%'"
            while not query(mariadb_url, waiting)[1]:
                pass
            writer.commit()

        thread = threading.Thread(target=commit)
        thread.start()
        with source.open_ranges(stream, 3, "arrow") as opened:
            thread.join()
            cursor.execute("update t set v = 'too late'")
            cursor.execute("delete from t where id % 3 = 0")
            cursor.execute("insert into t values (1000000, 1, 'too late')")
            writer.commit()
            found = read(opened)
    assert len(found) == 400
    assert {row["v"] for row in found} == {"committed while the lock was waited for"}


def test_a_table_that_may_not_be_locked_is_read_as_a_whole(mariadb_url: str, source: MySQLSource) -> None:
    make(mariadb_url, *KEYS["small"])
    stream = stream_of(source, mariadb_url)
    name = f"r_{database(mariadb_url)[-12:]}"
    run(mariadb_url, f"create user {name} identified by 'pass'", f"grant select on {database(mariadb_url)}.* to {name}")
    try:
        address = mariadb_url.rpartition("@")[2]
        poor = MySQLSource({"url": f"mysql://{name}:pass@{address}", "range_bytes": 8192}, Path())
        with pytest.raises(RangesRefused, match="cannot be locked"), poor.open_ranges(stream, 3, "arrow"):
            pass
        poor.close()
    finally:
        run(mariadb_url, f"drop user {name}")


@pytest.mark.parametrize("declared", ["char(36)", "decimal(10, 0)", "double"])
def test_a_table_without_an_integer_key_is_read_as_a_whole(
    mariadb_url: str, source: MySQLSource, declared: str
) -> None:
    make(mariadb_url, declared, "n")
    stream = stream_of(source, mariadb_url)
    assert source.plan_ranges(stream, 3) == (1, "no integer primary key for the split, or not InnoDB")
    with source.open_ranges(stream, 3, "arrow") as opened:
        assert opened.ranges == []


@pytest.mark.parametrize("records", [0, 1, 2])
def test_a_tiny_table_is_one_range_or_two(mariadb_url: str, source: MySQLSource, records: int) -> None:
    make(mariadb_url, "bigint", "n")
    stream = stream_of(source, mariadb_url)
    run(mariadb_url, f"delete from t where id > {records}")
    with source.open_ranges(stream, 3, "arrow") as opened:
        assert len(opened.ranges) == (2 if records == 2 else 0)
        assert len(read(opened)) == (2 if records == 2 else 0)


def test_a_reader_whose_connection_is_cut_takes_its_snapshot_with_it(mariadb_url: str, source: MySQLSource) -> None:
    make(mariadb_url, *KEYS["small"])
    stream = replace(stream_of(source, mariadb_url))
    with source.open_ranges(stream, 2, "arrow") as opened:
        list(opened.read(opened.ranges[0]))
        _, sessions = query(
            mariadb_url,
            "select id from information_schema.processlist where command = 'Sleep' "
            f"and db = '{database(mariadb_url)}' and id <> connection_id()",
        )
        for (number,) in sessions:
            run(mariadb_url, f"kill {number}")
        for _ in range(2):
            with pytest.raises(ConnectorError):
                list(opened.read(opened.ranges[1]))
        with pytest.raises(SnapshotLost, match="is left"):
            list(opened.read(opened.ranges[1]))
