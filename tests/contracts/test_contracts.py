"""Shipped connectors under their contracts: nothing but subclasses that look through plain drivers.

DuckDB, SQLite and files have modules of their own beside this one (`test_*_contract.py`); the last test here finds a
connector that has none.
"""

from __future__ import annotations

import importlib
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import pyarrow as pa
import pytest

from syncblocks.connectors.memory import MemoryDestination, MemorySource, database, databases
from syncblocks.connectors.registry import CONNECTORS, connector_class
from syncblocks.connectors.testing import DestinationContract, SourceContract


class InMemory:
    """A database of this test's own."""

    @pytest.fixture
    def place(self) -> Iterator[str]:
        name = uuid.uuid4().hex
        yield name
        databases.pop(name, None)

    def config(self, place: str) -> Mapping[str, Any]:
        return {"database": place}


class TestMemorySource(InMemory, SourceContract):
    connector = MemorySource

    def config(self, place: str) -> Mapping[str, Any]:
        return {"database": place, "batch_size": 3, "checkpoint_records": 1}

    def put(self, place: str, table: str, records: pa.Table, key: Sequence[str] = ()) -> None:
        tables = database(place).tables
        tables[table] = pa.concat_tables([tables[table], records]) if table in tables else records
        database(place).keys[table] = tuple(key)


class TestMemoryDestination(InMemory, DestinationContract):
    connector = MemoryDestination

    def read_back(self, place: str, table: str, schema: pa.Schema) -> list[dict[str, Any]] | None:
        found = database(place).tables.get(table)
        return None if found is None else found.to_pylist()

    def read_rejected(self, place: str) -> list[tuple[str, str, str]]:
        return [(run, each.record, each.reason) for _, run, each in database(place).rejected]

    def tables(self, place: str) -> set[str]:
        return {*database(place).tables, *(f"{table} (staging)" for table, _ in database(place).staging)}


class InPostgres:
    """A database of this test's own, looked at through psycopg."""

    @pytest.fixture
    def place(self, postgres_url: str) -> str:
        return postgres_url

    def config(self, place: str) -> Mapping[str, Any]:
        return {"url": place, "password": "s3cret canary"}

    def secrets(self, place: str) -> Sequence[str]:
        return ("s3cret canary", "s3cret%20canary", "s3cret+canary")

    def bad_configs(self, place: str) -> Sequence[Mapping[str, Any]]:
        missing = urlunsplit(urlsplit(place)._replace(path="/no_such_database"))
        return [
            {"url": missing, "password": "s3cret canary"},
            {"url": "postgresql://postgres@127.0.0.1:1/postgres", "password": "s3cret canary"},
        ]

    def query(self, place: str, sql: str) -> tuple[list[str], list[tuple[Any, ...]]]:
        import psycopg

        with psycopg.connect(place, options="-c TimeZone=UTC") as connection:
            cursor = connection.execute(sql.encode())
            return [column.name for column in cursor.description or ()], cursor.fetchall()


class TestPostgresSource(InPostgres, SourceContract):
    @property
    def connector(self) -> type[Any]:  # type: ignore[override]  # imported late: its driver may be missing
        return connector_class("postgres", "source")

    def config(self, place: str) -> Mapping[str, Any]:
        return {**super().config(place), "checkpoint_records": 1}

    def range_config(self, place: str) -> Mapping[str, Any]:
        import psycopg

        with psycopg.connect(place) as connection:
            connection.execute("analyze people")
        return {**self.config(place), "range_bytes": 8192}

    def stream_name(self, table: str) -> str:
        return f"public.{table}"

    def put(self, place: str, table: str, records: pa.Table, key: Sequence[str] = ()) -> None:
        import psycopg

        columns = ", ".join(f"{quoted(field.name)} {POSTGRES_TYPES[str(field.type)]}" for field in records.schema)
        keys = f", primary key ({', '.join(map(quoted, key))})" if key else ""
        holes = ", ".join(["%s"] * records.num_columns)
        with psycopg.connect(place, options="-c TimeZone=UTC") as connection:
            connection.execute(f"create table if not exists {quoted(table)} ({columns}{keys})".encode())
            rows = [tuple(record.values()) for record in records.to_pylist()]
            connection.cursor().executemany(f"insert into {quoted(table)} values ({holes})".encode(), rows)

    def open_connections(self, place: str) -> int:
        """Servers notice a closed connection a moment later."""
        others = "select count(*) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
        deadline = time.monotonic() + 5
        while (count := int(self.query(place, others)[1][0][0])) and time.monotonic() < deadline:
            time.sleep(0.02)
        return count


class TestPostgresDestination(InPostgres, DestinationContract):
    @property
    def connector(self) -> type[Any]:  # type: ignore[override]  # imported late: its driver may be missing
        return connector_class("postgres", "destination")

    def read_back(self, place: str, table: str, schema: pa.Schema) -> list[dict[str, Any]] | None:
        if table not in self.tables(place):
            return None
        names, rows = self.query(place, f"select * from {quoted(table)}")
        return [dict(zip(names, row, strict=True)) for row in rows]

    def tables(self, place: str) -> set[str]:
        sql = (
            "select case when table_schema = 'public' then table_name else table_schema || '.' || table_name end "
            "from information_schema.tables where table_schema not in ('pg_catalog', 'information_schema')"
        )
        return {name for (name,) in self.query(place, sql)[1]} - {"_syncblocks_ledger"}


@pytest.mark.full
class TestPostgresDestinationOverLibpq(TestPostgresDestination):
    """An address that only libpq understands is written to by the ADBC driver, as it is where there is no pgpq."""

    def config(self, place: str) -> Mapping[str, Any]:
        return {**super().config(place), "url": f"{place}{'&' if '?' in place else '?'}gssencmode=disable"}


POSTGRES_TYPES = {
    "int64": "bigint",
    "int16": "smallint",
    "decimal128(38, 10)": "numeric(38, 10)",
    "decimal128(20, 4)": "numeric(20, 4)",
    "bool": "boolean",
    "double": "double precision",
    "timestamp[us, tz=UTC]": "timestamptz",
    "timestamp[us]": "timestamp",
    "date32[day]": "date",
    "time64[us]": "time",
    "binary": "bytea",
    "string": "text",
}


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def test_every_shipped_connector_is_under_its_contract() -> None:
    tested: dict[str, Any] = {}
    for path in Path(__file__).parent.glob("test_*contract*.py"):
        module = importlib.import_module(f"tests.contracts.{path.stem}")
        tested |= {name: value for name, value in vars(module).items() if name.startswith("Test")}
    for role, contract in (("source", SourceContract), ("destination", DestinationContract)):
        classes = {value().connector for value in tested.values() if issubclass(value, contract)}
        position = 0 if role == "source" else 1
        shipped = {
            connector_class(name, role)
            for name, paths in CONNECTORS.items()
            # What a plugin of somebody else reads or keeps, no contract of ours can say.
            if paths[position] and name not in ("airbyte", "singer")
        }
        assert shipped <= classes, f"{role}s without a contract: {shipped - classes}"
