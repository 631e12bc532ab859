"""SQLite under the contracts of sources and destinations, looked at through the standard library."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from syncblocks.connectors.sqlite import SQLiteDestination, SQLiteSource
from syncblocks.connectors.testing import DestinationContract, SourceContract
from tests.connectors.sqlite.sqlite_files import as_python, as_stored, declared, query, quoted


class TestSQLiteSource(SourceContract):
    connector = SQLiteSource

    @pytest.fixture
    def place(self, tmp_path: Path) -> Path:
        with closing(sqlite3.connect(tmp_path / "shop.db")) as connection:
            connection.execute("pragma user_version = 1")
        return tmp_path

    def config(self, place: Path) -> Mapping[str, Any]:
        return {"path": "shop.db", "checkpoint_records": 1}

    def bad_configs(self, place: Path) -> Sequence[Mapping[str, Any]]:
        (place / "text.db").write_text("no database " * 1000)
        return [{"path": str(place / "missing.db")}, {"path": str(place / "text.db")}]

    def put(self, place: Path, table: str, records: pa.Table, key: Sequence[str] = ()) -> None:
        with closing(sqlite3.connect(place / "shop.db")) as connection:
            columns = [f"{quoted(field.name)} {declared(field.type)}" for field in records.schema]
            if key:
                columns.append(f"primary key ({', '.join(map(quoted, key))})")
            connection.execute(f"create table if not exists {quoted(table)} ({', '.join(columns)})")
            marks = ", ".join("?" for _ in records.schema)
            rows = [[as_stored(value) for value in record.values()] for record in records.to_pylist()]
            connection.executemany(f"insert into {quoted(table)} values ({marks})", rows)
            connection.commit()


class TestSQLiteDestination(DestinationContract):
    connector = SQLiteDestination

    @pytest.fixture
    def place(self, tmp_path: Path) -> Path:
        return tmp_path

    def config(self, place: Path) -> Mapping[str, Any]:
        return {"url": "sqlite:///warehouse.db"}

    def bad_configs(self, place: Path) -> Sequence[Mapping[str, Any]]:
        (place / "text.db").write_text("no database " * 1000)
        return [{"path": str(place / "text.db")}]

    def read_back(self, place: Path, table: str, schema: pa.Schema) -> list[dict[str, Any]] | None:
        if table not in self.tables(place):
            return None
        with closing(sqlite3.connect(place / "warehouse.db")) as connection:
            result = connection.execute(f"select * from {quoted(table)}")
            # Of two names that differ in case only, the second carries a hash.
            known = {name if name in schema.names else name.rpartition("_")[0]: name for name, *_ in result.description}
            kinds = [schema.field(name).type for name in known]
            return [
                {name: as_python(value, kind) for name, value, kind in zip(known, row, kinds, strict=True)}
                for row in result.fetchall()
            ]

    def tables(self, place: Path) -> set[str]:
        rows = query(place / "warehouse.db", "select name from sqlite_master where type in ('table', 'view')")
        return {name for (name,) in rows} - {"_syncblocks_ledger"}
