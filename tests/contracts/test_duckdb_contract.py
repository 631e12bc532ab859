"""DuckDB under the contracts of sources and destinations, looked at through plain DuckDB."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from syncblocks.connectors.duckdb import DuckDBDestination, DuckDBSource
from syncblocks.connectors.duckdb.database import open_database
from syncblocks.connectors.testing import DestinationContract, SourceContract
from tests.connectors.duckdb.duckdb_files import connect, query, quoted


class TestDuckDBSource(SourceContract):
    connector = DuckDBSource

    @pytest.fixture
    def place(self, tmp_path: Path) -> Path:
        self.database = open_database(tmp_path / "shop.duckdb")
        self.database.add_writer(self)  # the tests write between two reads
        with closing(connect(tmp_path / "shop.duckdb")):
            pass
        return tmp_path

    def config(self, place: Path) -> Mapping[str, Any]:
        return {"path": "shop.duckdb", "checkpoint_records": 1}

    def bad_configs(self, place: Path) -> Sequence[Mapping[str, Any]]:
        (place / "text.duckdb").write_text("no database " * 1000)
        return [{"path": str(place / "missing.duckdb")}, {"path": str(place / "text.duckdb")}]

    def put(self, place: Path, table: str, records: pa.Table, key: Sequence[str] = ()) -> None:
        with closing(connect(place / "shop.duckdb")) as connection:
            connection.register("incoming", records)
            empty = "select * from incoming limit 0"
            connection.execute(f"create table if not exists {quoted(table)} as {empty}")
            is_new = not connection.execute(f"select count(*) from {quoted(table)}").fetchone()[0]
            if key and is_new:
                names = ", ".join(map(quoted, key))
                with suppress(duckdb.CatalogException):  # an empty table that has one
                    connection.execute(f"alter table {quoted(table)} add primary key ({names})")
            connection.execute(f"insert into {quoted(table)} select * from incoming")


class TestDuckDBDestination(DestinationContract):
    connector = DuckDBDestination

    @pytest.fixture
    def place(self, tmp_path: Path) -> Path:
        return tmp_path

    def config(self, place: Path) -> Mapping[str, Any]:
        return {"path": "warehouse.duckdb"}

    def bad_configs(self, place: Path) -> Sequence[Mapping[str, Any]]:
        (place / "text.duckdb").write_text("no database " * 1000)
        return [{"path": str(place / "text.duckdb")}]

    def read_back(self, place: Path, table: str, schema: pa.Schema) -> list[dict[str, Any]] | None:
        if table not in self.tables(place):
            return None
        with closing(connect(place / "warehouse.duckdb")) as connection:
            result = connection.execute(f"select * from {quoted(table)}")
            # Of two names that differ in case only, the second carries a hash.
            names = [name if name in schema.names else name.rpartition("_")[0] for name, *_ in result.description]
            return [dict(zip(names, row, strict=True)) for row in result.fetchall()]

    def tables(self, place: Path) -> set[str]:
        if not (place / "warehouse.duckdb").exists():
            return set()
        rows = query(place / "warehouse.duckdb", "select table_name from duckdb_tables()")
        return {name for (name,) in rows} - {"_syncblocks_ledger"}
