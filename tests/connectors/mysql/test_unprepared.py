"""Where statements cannot be prepared, records are read as texts: the same ones."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from syncblocks.connectors.struct_helpers import replace

pytest.importorskip("pymysql")

from syncblocks.connectors.errors import FatalConnectorError
from syncblocks.connectors.mysql.source import MySQLSource
from syncblocks.connectors.read_spec import ReplicationMethod
from syncblocks.connectors.stream import Event, Rejected
from tests import services
from tests.connectors.mysql.mysql_databases import database, run
from tests.connectors.mysql.mysql_proxy import EXECUTE, PREPARE, proxy

TABLE = """
create table t (id int unsigned zerofill primary key, flag tinyint(1), bits bit(9), one bit(1), born year, r float,
d double, n decimal(20,4), wide decimal(65,30), day date, at datetime(3), seen timestamp(6) null, span time(2),
name varchar(20), note longtext character set latin1, raw varbinary(300), e enum('a','b'), j json, g point)
"""
RECORDS = """
insert into t values
(1, 1, b'101010101', b'1', 2024, 16777215, 1e-300, -0.5, 1.5, '2024-02-29', '2024-02-29 23:59:59.5',
 '2024-02-29 23:59:59.000001', '10:00:00.25', 'it''s', 'é', x'00fffb', 'b', '{"a": [1]}', point(1, 2)),
(2, 0, 0, 0, 1901, 0.1, 1.7976931348623157e308, 9999999999999999.9999, -1e-30, '0001-01-01', '1000-01-01 00:00:00',
 '1970-01-02 00:00:00', '00:00:00', '', repeat('x', 70000), '', 'a', '[]', null),
(3, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null, null)
"""


def read(url: str, **changes: Any) -> list[Event]:
    source = MySQLSource({"url": url}, Path())
    with closing(source):
        found = next(each for each in source.discover() if each.name == f"{database(url)}.t")
        return [event for _, event in source.read([replace(found, read=replace(found.read, **changes))], {})]  # type: ignore[misc]  # no blocks


def table(events: Sequence[Event]) -> pa.Table:
    return pa.Table.from_batches([event for event in events if isinstance(event, pa.RecordBatch)])


@pytest.mark.parametrize(
    ("command", "error"),
    [(PREPARE, number) for number in (1047, 1235, 1295, 1461)]
    + [(EXECUTE, number) for number in (1047, 1243, 1461, 1615)],
)
def test_records_are_the_same_where_statements_cannot_be_prepared(mariadb_url: str, command: int, error: int) -> None:
    run(mariadb_url, TABLE, RECORDS)
    expected = table(read(mariadb_url))
    assert expected.num_rows == 3
    with proxy(mariadb_url, command, error) as between:
        assert table(read(between.url)).equals(expected)
        assert between.refused == 1
        marks = {"method": ReplicationMethod.INCREMENTAL, "bookmark_properties": ("id",)}
        assert table(read(between.url, **marks)).equals(expected)


def test_another_error_is_the_streams(mariadb_url: str) -> None:
    run(mariadb_url, TABLE)
    with proxy(mariadb_url, PREPARE, 1142) as between, pytest.raises(FatalConnectorError, match="refused"):
        read(between.url)


def test_what_does_not_fit_is_set_aside_in_texts_too(mariadb_url: str) -> None:
    run(
        mariadb_url,
        "create table t (id int primary key, day date, at datetime, span time(2), flag tinyint(1))",
        "set sql_mode = ''",
        "insert into t values (1, '2024-01-02', now(), '01:02:03.25', 1), "
        "(2, '0000-00-00', now(), '01:00:00', 1), (3, null, '0000-00-00 00:00:00', null, null), "
        "(4, null, null, '30:00:00', 0), (5, null, null, '-00:00:01', 0), (6, null, null, null, 7)",
    )
    expected = read(mariadb_url, max_rejected=9)
    with proxy(mariadb_url, PREPARE, 1461) as between:
        found = read(between.url, max_rejected=9)
    assert table(found).equals(table(expected))
    assert table(found).column("id").to_pylist() == [1]
    bad = [
        [record for event in events if isinstance(event, Rejected) for record in event.records]
        for events in (found, expected)
    ]
    assert [json.loads(record.record)["id"] for record in bad[0]] == [2, 3, 4, 5, 6]
    # As text a time has all the digits that are declared.
    assert [record.reason.replace(".00", "") for record in bad[0]] == [record.reason for record in bad[1]]


@pytest.mark.full
def test_a_server_that_prepares_nothing_is_read(tmp_path: Path) -> None:
    """One of our own: the setting is the whole server's. Its packets are large enough for a text of 16 MB."""
    with services.own_mariadb(tmp_path, "--max-prepared-stmt-count=0", "--max-allowed-packet=64M") as url:
        run(url, TABLE, RECORDS)
        assert table(read(url)).drop_columns("g").num_rows == 3
        size = 2**24 + 1
        run(url, "create or replace table t (v longtext, id int)", f"insert into t values (repeat('x', {size}), 1)")
        run(url, "insert into t select null, seq from seq_2_to_100000")
        found = table(read(url))
        assert found.column("id").to_pylist() == list(range(1, 100_001))
        assert found.column("v")[0].as_py() == "x" * size
        with pytest.raises(Exception, match="1461"):
            run(url, "prepare s from 'select 1'")
