"""Hostile names of tables and columns, out of systems that have them into all others: each gets a name of its own."""

from __future__ import annotations

import contextlib
import csv
import json
import re
import secrets
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from psycopg import sql

from syncblocks import run_pipeline
from syncblocks.connectors.errors import ConnectorError
from syncblocks.connectors.registry import make_destination
from syncblocks.connectors.stream import Checkpoint, LedgerKey, Load, Stream, TableState
from syncblocks.connectors.write_spec import WriteDisposition, WriteSpec
from tests import services
from tests.contracts.hostile import HOSTILE_NAMES, IMPOSSIBLE_NAMES, TWINS
from tests.golden.systems import FILES, mysql_connection

NAMES = [*HOSTILE_NAMES.values(), *TWINS]
DESTINATIONS = ("postgres", "mysql", "sqlite", "duckdb", "csv", "jsonl", "parquet")

#: What a name ends in that had to be changed.
HASHED = re.compile(r".*_[0-9a-f]{16}", re.DOTALL)


def seed_sqlite(place: str, names: list[str]) -> None:
    connection = sqlite3.connect(place)
    for name in names:
        quoted = '"' + name.replace('"', '""') + '"'
        connection.execute(f"create table {quoted} (_n integer primary key, {quoted} text)")
        connection.execute(f"insert into {quoted} values (1, ?)", [name])
    connection.commit()
    connection.close()


def seed_postgres(place: str, names: list[str]) -> None:
    with psycopg.connect(place) as connection:
        for name in names:
            table = sql.Identifier("public", name)
            column = sql.Identifier(f"{name[:9]}_" if name == "ctid" else name)
            connection.execute(sql.SQL("create table {} (_n int primary key, {} text)").format(table, column))
            connection.execute(sql.SQL("insert into {} values (1, {})").format(table, sql.Literal(name)))


def seed_mysql(place: str, names: list[str]) -> None:
    with mysql_connection(place) as connection, connection.cursor() as cursor:
        for name in names:
            quoted = "`" + name.replace("`", "``") + "`"
            cursor.execute(f"create table {quoted} (_n int primary key, {quoted} text)")
            cursor.execute(f"insert into {quoted.replace('%', '%%')} values (1, %s)", [name])


Found = tuple[str, str, list[Any]]


def found_in(system: str, place: str) -> Iterator[Found]:
    """Every table that is there: its name, its second column and that one's values; by the system's own client."""
    if system == "postgres":
        with psycopg.connect(place) as connection:
            for (table,) in connection.execute(
                "select tablename from pg_tables where schemaname = 'public'"
            ).fetchall():
                yield (
                    table,
                    *_only(connection.execute(sql.SQL("select * from {}").format(sql.Identifier("public", table)))),
                )
    elif system == "mysql":
        with mysql_connection(place) as mysql, mysql.cursor() as cursor:
            cursor.execute("select table_name from information_schema.tables where table_schema = database()")
            for (table,) in list(cursor.fetchall()):
                cursor.execute("select * from `" + table.replace("`", "``") + "`")
                yield table, *_only(cursor)
    elif system in ("sqlite", "duckdb"):
        is_duckdb = system == "duckdb"
        opened: Any = duckdb.connect(place, read_only=True) if is_duckdb else sqlite3.connect(place)
        listed = "duckdb_tables() where table_name" if is_duckdb else "sqlite_master where type = 'table' and name"
        for (table,) in opened.execute(
            f"select {'table_name' if is_duckdb else 'name'} from {listed} <> ''"
        ).fetchall():
            quoted = table.replace('"', '""')
            yield table, *_only(opened.execute(f'select * from "{quoted}"'))
        opened.close()
    else:
        for file in Path(place).iterdir():
            if file.suffix == f".{system}":
                yield file.name.removesuffix(file.suffix), *_of_file(system, file)


def _only(cursor: Any) -> tuple[str, list[Any]]:
    names = [column[0] for column in cursor.description]
    return names[1], [row[1] for row in cursor.fetchall()]


def _of_file(system: str, file: Path) -> tuple[str, list[Any]]:
    if system == "csv":
        with file.open(newline="", encoding="utf-8") as opened:
            header, *rows = csv.reader(opened)
        return header[1], [row[1] for row in rows]
    if system == "jsonl":
        records = [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n") if line]
    else:
        records = pq.read_table(file).to_pylist()
    return list(records[0])[1], [list(record.values())[1] for record in records]


def _place(system: str, folder: Path, stack: Any) -> str:
    if system in ("postgres", "mysql"):
        fresh = {"postgres": services.fresh_postgres_database, "mysql": services.fresh_mariadb_database}
        return str(stack.enter_context(fresh[system]()))
    return str(folder / f"destination.{system}") if system not in FILES else str(folder / "destination")


def check(
    folder: Path, source: dict[str, Any], glob: str, system: str, place: str, names: list[str], *, runs: int = 1
) -> None:
    config = {"url": place} if system in ("postgres", "mysql") else {"path": place}
    document = {
        "pipeline": "hostile",
        "source": source,
        "destination": {"connector": system, "config": config},
        "streams": [{"stream": glob}],
    }
    file = folder / "hostile.yaml"
    file.write_text(json.dumps(document), encoding="utf-8")
    for _ in range(runs):  # over what is there now, the second time
        result = run_pipeline(file)
        errors = {
            stream.stream[:80]: str(stream.error)[:300] for stream in result.streams if stream.status != "success"
        }
        assert not errors, result.error
    found = [each for each in found_in(system, place) if not each[0].startswith("_syncblocks")]
    assert sorted(value for _, _, values in found for value in values) == sorted(names), "each once, and no other"
    for table, column, (name,) in found:
        if system not in FILES:
            assert table == name or HASHED.fullmatch(table)
        assert column == name or HASHED.fullmatch(column) or column == "ctid_"
    tables = [table for table, _, _ in found]
    assert len(set(tables)) == len(names)


@pytest.mark.full
@pytest.mark.parametrize("system", DESTINATIONS)
def test_hostile_tables_and_columns_of_sqlite(tmp_path: Path, system: str) -> None:
    # The ledger of MySQL has no room for the name of a stream past 255 characters, and the stream fails by that.
    names = NAMES if system != "mysql" else [name for name in NAMES if len(name) < 256]
    seed_sqlite(str(tmp_path / "source.db"), names)
    source = {"connector": "sqlite", "config": {"path": str(tmp_path / "source.db")}}
    with contextlib.ExitStack() as stack:
        check(tmp_path, source, "?*", system, _place(system, tmp_path, stack), names, runs=1 if system in FILES else 2)


@pytest.mark.full
@pytest.mark.parametrize("system", ["postgres", "duckdb"])
def test_hostile_tables_and_columns_of_postgres(tmp_path: Path, system: str, postgres_url: str) -> None:
    names = [name for name in NAMES if len(name.encode()) <= 63]
    seed_postgres(postgres_url, names)
    source = {"connector": "postgres", "config": {"url": postgres_url}}
    with contextlib.ExitStack() as stack:
        check(tmp_path, source, "public.?*", system, _place(system, tmp_path, stack), names)


@pytest.mark.full
@pytest.mark.parametrize("system", ["mysql", "sqlite"])
def test_hostile_tables_and_columns_of_mysql(tmp_path: Path, system: str, mariadb_url: str) -> None:
    # Its own limits: characters, none past U+FFFF, no white space at the end.
    names = [name for name in NAMES if len(name) <= 64 and max(name) <= "\uffff" and name == name.rstrip()]
    seed_mysql(mariadb_url, names)
    source = {"connector": "mysql", "config": {"url": mariadb_url}}
    with contextlib.ExitStack() as stack:
        check(tmp_path, source, "*.?*", system, _place(system, tmp_path, stack), names)


@pytest.mark.parametrize("system", DESTINATIONS)
def test_names_that_nothing_can_hold_are_refused_by_name(tmp_path: Path, system: str) -> None:
    """An empty one, a NUL, half a surrogate; a file may have some of them, and then gives them back."""
    with contextlib.ExitStack() as stack:
        place = _place(system, tmp_path, stack)
        config = {"url": place} if system in ("postgres", "mysql") else {"path": place}
        tables = [(name, "v") for name in IMPOSSIBLE_NAMES.values()]
        columns = [("things", name) for name in IMPOSSIBLE_NAMES.values() if "\ud800" not in name]  # no schema has it
        for table, column in [*tables, *columns]:
            refusal = ""
            try:
                load(system, config, table, pa.record_batch([pa.array(["x"])], names=[column]))
            except ConnectorError as error:
                refusal = str(error)
            assert refusal or system in FILES, (table, column)
            assert not refusal or "name" in refusal, refusal


def load(system: str, config: dict[str, Any], table: str, batch: pa.RecordBatch) -> None:
    destination = make_destination(system, config, Path("/nowhere"))
    key, token = LedgerKey(pipeline="p", stream="s", destination_table=table), secrets.token_hex(8)
    try:
        destination.take_over(key, token=token, owner="o", source="s")
        stream = Stream(name="s", schema=batch.schema)
        order = Load(
            key=key, stream=stream, write=WriteSpec(disposition=WriteDisposition.REPLACE), token=token, run="1:1"
        )
        list(destination.load(order, iter([batch, Checkpoint(is_final=True)])))
    finally:
        destination.close()


@pytest.mark.parametrize("system", DESTINATIONS)
def test_columns_that_are_one_name_to_some_system_are_told_apart(tmp_path: Path, system: str) -> None:
    names = ["Id", "ID", "id", "é", "e\u0301", *TWINS, *(f"{twin}x" for twin in TWINS)]
    values = [f"value of {name}" for name in names]
    with contextlib.ExitStack() as stack:
        place = _place(system, tmp_path, stack)
        config = {"url": place} if system in ("postgres", "mysql") else {"path": place}
        batch = pa.record_batch([pa.array([1]), *(pa.array([value]) for value in values)], names=["n", *names])
        for _ in range(2):
            load(system, config, "things", batch)
        destination: Any = make_destination(system, config, Path("/nowhere"))
        schema = destination.describe(["things"])["things"].schema
        kept = destination.keeps(Stream(name="s", schema=batch.schema), TableState(), WriteDisposition.REPLACE)
        destination.close()
        assert [each.column for each in kept] == schema.names, "the plan names them as they are"
        assert len({name.casefold() for name in schema.names}) == len(names) + 1 or system in ("postgres", *FILES)
        assert len(set(schema.names)) == len(names) + 1
