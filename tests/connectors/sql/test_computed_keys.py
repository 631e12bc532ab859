"""A merge by a key of which the destination's table computes a column: records are told apart by all of it."""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import psycopg
import pyarrow as pa
import pytest

from syncblocks.connectors.registry import make_destination
from syncblocks.connectors.stream import Checkpoint, LedgerKey, Load, Stream
from syncblocks.connectors.write_spec import ConflictMethod, WriteDisposition, WriteSpec
from tests.connectors.mysql import mysql_databases

SCHEMA = pa.schema([pa.field("id", pa.int64(), nullable=False), pa.field("kind", pa.string()), ("name", pa.string())])
LOADS = [[(1, "A", "Ax"), (1, "B", "Bx")], [(1, "A", "Ay"), (2, "C", "Cz"), (1, "A", "Az")]]
TABLE = "create table people (id bigint not null, kind {} as (substr(name, 1, 1)) {}, name text)"
READ = "select id, kind, name from people order by id, kind"

#: Runs statements, or one that returns records.
Run = Callable[[str], Sequence[Sequence[Any]]]


def merge(connector: str, config: dict[str, Any], key: Sequence[str], method: ConflictMethod) -> None:
    destination = make_destination(connector, config, Path.cwd())
    for records in LOADS:
        values = [dict(zip(SCHEMA.names, each, strict=True)) for each in records]
        token = secrets.token_hex(16)
        load = Load(
            key=LedgerKey(pipeline="p", stream="s", destination_table="people"),
            stream=Stream(name="s", schema=SCHEMA, key_properties=tuple(key)),
            write=WriteSpec(disposition=WriteDisposition.MERGE, conflict_method=method),
            token=token,
            run=token,
        )
        destination.take_over(load.key, token=token, owner="test", source="test://")
        events = [pa.RecordBatch.from_pylist(values, schema=SCHEMA), Checkpoint(is_final=True)]
        list(destination.load(load, iter(events)))
    destination.close()


def check(connector: str, config: dict[str, Any], table: str, run: Run) -> None:
    """Merge by keys that the table computes in part or all, with and without an index, in both ways."""
    for method in (ConflictMethod.UPDATE, ConflictMethod.IGNORE):
        for key in (("id", "kind"), ("kind",)):
            for index in (False, True):
                run("drop table if exists people")
                run(table)
                if index:
                    run(f"create unique index people_key on people ({', '.join(key)})")
                merge(connector, config, key, method)
                kept = "Az" if method is ConflictMethod.UPDATE else "Ax"
                found = [tuple(row) for row in run(READ)]
                assert found == [(1, "A", kept), (1, "B", "Bx"), (2, "C", "Cz")], (method, key, index)


@pytest.mark.full
def test_mysql(mariadb_url: str) -> None:
    pytest.importorskip("pymysql")
    for collation in ("utf8mb4_bin", "utf8mb4_general_ci"):
        table = TABLE.format(f"varchar(10) character set utf8mb4 collate {collation}", "stored")
        check("mysql", {"url": mariadb_url}, table, lambda sql: mysql_databases.query(mariadb_url, sql)[1])


def test_postgres(postgres_url: str) -> None:
    def run(sql: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(postgres_url, autocommit=True) as connection:
            cursor = connection.execute(sql)  # type: ignore[call-overload]  # no literal
            return list(cursor.fetchall()) if cursor.description else []

    check("postgres", {"url": postgres_url}, TABLE.format("text generated always", "stored"), run)


@pytest.mark.parametrize("connector", ["sqlite", "sqlalchemy"])
def test_sqlite(connector: str, tmp_path: Path) -> None:
    path = tmp_path / "people.db"

    def run(sql: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(path)) as connection, connection:
            return connection.execute(sql).fetchall()

    config = {"path": str(path)} if connector == "sqlite" else {"url": f"sqlite:///{path}"}
    check(connector, config, TABLE.format("text generated always", "stored"), run)


@pytest.mark.full
def test_duckdb(tmp_path: Path) -> None:
    path = str(tmp_path / "people.duckdb")

    def run(sql: str) -> list[tuple[Any, ...]]:
        with duckdb.connect(path) as connection:
            return connection.execute(sql).fetchall()

    check("duckdb", {"path": path}, TABLE.format("varchar generated always", ""), run)


@pytest.mark.parametrize("connector", ["sqlite", "duckdb"])
def test_a_column_is_filled_by_the_part_of_the_key_that_the_table_computes(connector: str, tmp_path: Path) -> None:
    path = str(tmp_path / "people.db")

    def run(sql: str) -> list[tuple[Any, ...]]:
        if connector == "duckdb":
            with duckdb.connect(path) as connection:
                return connection.execute(sql).fetchall()
        with closing(sqlite3.connect(path)) as opened, opened:
            return opened.execute(sql).fetchall()

    run(TABLE.format("text generated always", "stored" if connector == "sqlite" else ""))
    run("insert into people (id, name) values (1, 'Ax'), (1, 'Bx')")
    schema = pa.schema([*(SCHEMA.field(name) for name in ("id", "kind")), ("age", pa.int64())])
    load = Load(
        key=LedgerKey(pipeline="p", stream="s", destination_table="people"),
        stream=Stream(name="s", schema=schema, key_properties=("id", "kind")),
        write=WriteSpec(disposition=WriteDisposition.MERGE),
        token="ab",
        run="ab",
        fills=True,
        filling=("age",),
    )
    with closing(make_destination(connector, {"path": path}, Path.cwd())) as destination:
        destination.take_over(load.key, token="ab", owner="test", source="test://")
        ages = pa.RecordBatch.from_pylist([{"id": 1, "kind": "B", "age": 7}], schema=schema)
        list(destination.load(load, iter([Checkpoint(), ages, Checkpoint(is_final=True)])))
    assert run("select name, age from people order by name") == [("Ax", None), ("Bx", 7)]
