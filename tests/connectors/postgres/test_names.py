"""Names that come out of other people's databases: as schema, table and column, on both wires."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pyarrow as pa
import pytest

from syncblocks.connectors.errors import FatalConnectorError
from syncblocks.connectors.postgres.destination import PostgresDestination
from syncblocks.connectors.postgres.source import PostgresSource
from syncblocks.connectors.sql.identifiers import TableName, quote
from syncblocks.connectors.stream import Checkpoint
from syncblocks.connectors.struct_helpers import replace
from syncblocks.connectors.write_spec import WriteDisposition
from tests.conftest import RunCLI
from tests.connectors.postgres.postgres_pair import PLAIN, batch_of, order, rows, script, write

HOSTILE = {
    "double quote": 'a"b',
    "only a quote": '"',
    "single quote": "a'b",
    "back quote": "a`b",
    "backslash": "a\\b",
    "injection": 'x"; drop table keep; --',
    "injection in a literal": "x'); drop table keep; --",
    "percent": "100%s %(a)s %%",
    "dollar": "a$1$$b",
    "braces": "{a} {0}",
    "colon": "a:b",
    "dot": "a.b",
    "slash": "../a/b",
    "space": " a b ",
    "newline": "a\nb\tc",
    "comment": "a--b/*c*/",
    "reserved": "select",
    "another reserved": "user",
    "capitals": "MixedCase",
    "unicode": "Größe",
    "composed": "\u00e9",
    "decomposed": "e\u0301",
    "emoji": "\U0001f600",
    "right to left": "\u202eabc",
    "zero width": "a\u200bb",
    "leading digit": "1st",
    "question mark": "a?b",
    "long": "x" * 63,
    "control": "a\x01\x7fb",
    "system": "ctid_",
}


@pytest.fixture
def connectors(postgres_url: str) -> Iterator[tuple[PostgresSource, PostgresDestination]]:
    source, destination = (
        PostgresSource({"url": postgres_url}, Path()),
        PostgresDestination({"url": postgres_url}, Path()),
    )
    yield source, destination
    source.close()
    destination.close()


@pytest.mark.full
def test_every_name_goes_through_and_nothing_else_happens(
    postgres_url: str, connectors: tuple[PostgresSource, PostgresDestination]
) -> None:
    source, destination = connectors
    script(postgres_url, "create table keep (a int)")
    for name in HOSTILE.values():
        made = f"{quote(name)}.{quote(name)}"
        script(
            postgres_url,
            f"create schema {quote(name)}; create table {made} ({quote(name)} int primary key, v numeric(4,1), w uuid)",
        )
        script(postgres_url, f"insert into {made} values (1, 2.5, gen_random_uuid()), (2, null, null)")
    before = set(rows(postgres_url, "select schemaname, tablename from pg_tables where schemaname !~ '^(pg_|info)'"))
    streams = {
        (str(stream.locator["schema"]), str(stream.locator["table"])): stream
        for stream in source.discover()
        if stream.locator["table"] != "keep"
    }
    assert set(streams) == {(name, name) for name in HOSTILE.values()}
    expected = set(before)
    for number, (name, _) in enumerate(streams):
        stream = streams[name, name]
        disposition = PLAIN[number % 3]
        for wire in ("arrow", "pgcopy"):
            target = TableName(f"to {name}"[:63], name)
            events = [event for _, event in source.read([stream], {}, wire)]
            load = order(destination, stream, str(target), disposition)
            list(destination.load(load, iter([*events, Checkpoint(is_final=True)]), wire))
            state = destination.describe([str(target)])[str(target)]
            assert state.schema is not None
            assert state.schema.names == [name, "v", "w"]
            assert len(state.ledger) == 1
            expected |= {(target.schema, target.name), (target.schema, "_syncblocks_ledger")}
        copied = rows(postgres_url, f"select count(*) from {quote(target.schema)}.{quote(target.name)}")
        assert copied == [(4 if disposition is WriteDisposition.APPEND else 2,)]
    after = set(rows(postgres_url, "select schemaname, tablename from pg_tables where schemaname !~ '^(pg_|info)'"))
    assert after == expected


@pytest.mark.parametrize("name", ["a\0b", "\ud800", ""])
@pytest.mark.parametrize("wire", ["arrow", "pgcopy"])
def test_names_that_no_database_holds_are_refused(
    postgres_url: str, connectors: tuple[PostgresSource, PostgresDestination], name: str, wire: str
) -> None:
    _, destination = connectors
    if name != "\ud800":  # Arrow itself refuses that one
        with pytest.raises(FatalConnectorError):
            write(destination, [pa.record_batch([pa.array([1])], names=[name])], "t")
    with pytest.raises(FatalConnectorError):
        write(destination, [batch_of({"a": [1]})], f'"{name}"' if name else '""')
    assert rows(postgres_url, "select tablename from pg_tables where tablename = 't'") == []


@pytest.mark.parametrize("disposition", PLAIN)
def test_long_column_names_stay_apart(
    postgres_url: str, connectors: tuple[PostgresSource, PostgresDestination], disposition: WriteDisposition
) -> None:
    """PostgreSQL itself cuts names at 63 bytes without a word."""
    _, destination = connectors
    long = "column_" + "é" * 28
    names = ["id", long, long + "1", long + "2", long[:-1] + "x" * 40]
    batch = pa.record_batch([pa.array([place]) for place in range(5)], names=names)
    for _ in range(2):
        write(destination, [batch], "t", disposition, key=["id"])
    found = rows(postgres_url, "select * from t")
    assert set(found) == {(0, 1, 2, 3, 4)}
    with psycopg.connect(postgres_url) as connection:
        columns = [column.name for column in connection.execute("select * from t").description or ()]
    assert columns[:2] == ["id", long]
    assert len(set(columns)) == 5


def test_system_columns_names_are_changed(
    postgres_url: str, connectors: tuple[PostgresSource, PostgresDestination]
) -> None:
    _, destination = connectors
    for _ in range(2):
        write(destination, [batch_of({"ctid": [1], "xmin": [2], "Id": [3], "ID": [4], "id": [5]})], "t")
    with psycopg.connect(postgres_url) as connection:
        columns = [column.name for column in connection.execute("select * from t").description or ()]
    assert columns[0].startswith("ctid_")
    assert columns[2:] == ["Id", "ID", "id"]
    assert rows(postgres_url, "select * from t") == [(1, 2, 3, 4, 5)] * 2


def test_long_table_names_are_shortened_and_found_again(
    postgres_url: str, connectors: tuple[PostgresSource, PostgresDestination]
) -> None:
    _, destination = connectors
    for table in ("t" * 70 + "1", "t" * 70 + "2"):
        for _ in range(2):
            write(destination, [batch_of({"id": [1]})], table, WriteDisposition.MERGE, key=["id"])
        state = destination.describe([table])[table]
        assert state.schema is not None
        assert [row.key.destination_table for row in state.ledger] == [table]
    found = rows(postgres_url, "select tablename from pg_tables where tablename like 'ttt%%' order by 1", *[])
    assert len(found) == 2


def test_a_column_renamed_on_the_way_is_a_new_column(
    postgres_url: str, connectors: tuple[PostgresSource, PostgresDestination]
) -> None:
    source, destination = connectors
    script(postgres_url, "create table a (id int primary key); insert into a values (1)")
    stream = next(stream for stream in source.discover() if stream.name == "public.a")
    renamed = replace(stream, schema=pa.schema([stream.schema.field("id").with_name("user_id")]), key_properties=())
    load = order(destination, renamed, "t")
    batch = pa.record_batch([pa.array([1], pa.int32())], schema=renamed.schema)
    list(destination.load(load, iter([batch, Checkpoint(is_final=True)])))
    assert rows(postgres_url, "select user_id from t") == [(1,)]


def test_a_schema_that_the_server_reserves_is_refused_before_a_run(
    postgres_url: str, tmp_path: Path, run_cli: RunCLI
) -> None:
    file, config = tmp_path / "reserved.yaml", {"url": postgres_url}
    (tmp_path / "t.csv").write_text("id\n1\n")
    source = {"connector": "csv", "config": {"path": str(tmp_path), "streams": {"t": "t.csv"}}}
    for own, entry in (({"schema": "pg_x"}, {}), ({}, {"destination_table": "pg_x.t"})):
        destination = {"connector": "postgres", "config": {**config, **own}}
        document = {
            "pipeline": "p",
            "source": source,
            "destination": destination,
            "streams": [{"stream": "t", **entry}],
        }
        file.write_text(json.dumps(document))
        for command in ("check", "run"):
            done = run_cli([command, file], tmp_path)
            assert (done.returncode, "'pg_x'" in done.stderr) == (2, True), (command, own, done.stdout, done.stderr)
