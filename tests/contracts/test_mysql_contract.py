"""MySQL and MariaDB under the contracts of sources and destinations, looked at through pymysql."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar
from urllib.parse import urlsplit, urlunsplit

import pyarrow as pa
import pytest

from syncblocks.connectors.protocols import Destination
from syncblocks.connectors.registry import connector_class
from syncblocks.connectors.testing import DestinationContract, Feature, Quirks, SourceContract
from syncblocks.connectors.testing.destination_base import APPEND, FINAL, MERGE, PEOPLE, REPLACE, people
from syncblocks.connectors.testing.values import COLUMN_NAMES, TABLE_NAMES
from syncblocks.connectors.write_spec import WriteDisposition
from tests.connectors.mysql import mysql_databases
from tests.connectors.mysql.mysql_databases import database, query

#: Identifiers end at U+FFFF here: names past that carry a hash, see test_mysql.py.
PLAIN_COLUMN_NAMES = [name for name in COLUMN_NAMES if max(name) <= "\uffff"]
PLAIN_TABLE_NAMES = [name for name in TABLE_NAMES if max(name) <= "\uffff"]


class InMariaDB:
    """A database of this test's own."""

    quirks: ClassVar[Quirks] = Quirks(
        lacks={
            Feature.SPECIAL_FLOATS: "the server has no NaN and no infinities",
            Feature.CASE_PAIRS: "names of columns are the same without regard to case",
        }
    )

    @pytest.fixture
    def place(self, mariadb_url: str) -> str:
        return mariadb_url

    def config(self, place: str) -> Mapping[str, Any]:
        return {"url": place}

    def bad_configs(self, place: str) -> Sequence[Mapping[str, Any]]:
        missing = urlunsplit(urlsplit(place)._replace(path="/no_such_database"))
        return [
            {"url": missing},
            {"url": "mysql://root@127.0.0.1:1/x", "password": "s3cret canary"},
            {"url": place, "user": "nobody_here", "password": "s3cret canary"},
        ]

    def secrets(self, place: str) -> Sequence[str]:
        return ("s3cret canary", "s3cret%20canary")


class TestMySQLSource(InMariaDB, SourceContract):
    @property
    def connector(self) -> type[Any]:  # type: ignore[override]  # imported late: its driver may be missing
        return connector_class("mysql", "source")

    def config(self, place: str) -> Mapping[str, Any]:
        # Transactions of other tests on this server keep bookmarks back: they are waited for.
        return {**super().config(place), "checkpoint_records": 1, "settle_s": 30}

    def range_config(self, place: str) -> Mapping[str, Any]:
        mysql_databases.run(place, "analyze table people")
        return {**self.config(place), "range_bytes": 8192}

    def stream_name(self, table: str) -> str:
        return f"{self._database}.{table}"

    @pytest.fixture(autouse=True)
    def _name_database(self, place: str) -> None:
        self._database = database(place)

    def put(self, place: str, table: str, records: pa.Table, key: Sequence[str] = ()) -> None:
        mysql_databases.put(place, table, records, key)

    def open_connections(self, place: str) -> int:
        """Servers notice a closed connection a moment later."""
        sql = (
            "select count(*) from information_schema.processlist "
            f"where db = '{database(place)}' and id <> connection_id()"
        )
        deadline = time.monotonic() + 5
        while (count := int(query(place, sql)[1][0][0])) and time.monotonic() < deadline:
            time.sleep(0.02)
        return count


class TestMySQLDestination(InMariaDB, DestinationContract):
    @property
    def connector(self) -> type[Any]:  # type: ignore[override]  # imported late: its driver may be missing
        return connector_class("mysql", "destination")

    def read_back(self, place: str, table: str, schema: pa.Schema) -> list[dict[str, Any]] | None:
        if table not in self.tables(place):
            return None
        names, rows = query(place, f"select * from {mysql_databases.quoted(table)}")
        kinds = [schema.field(name).type if name in schema.names else pa.string() for name in names]
        return [
            {name: mysql_databases.as_python(value, kind) for name, value, kind in zip(names, row, kinds, strict=True)}
            for row in rows
        ]

    def tables(self, place: str) -> set[str]:
        return mysql_databases.tables(place) - {"_syncblocks_ledger", "_syncblocks_swaps"}

    @pytest.mark.parametrize("disposition", [APPEND, MERGE], ids=str)
    def test_odd_column_names(self, place: Any, destination: Destination, disposition: WriteDisposition) -> None:
        key = PLAIN_COLUMN_NAMES[0]
        schema = pa.schema([pa.field(name, pa.string(), nullable=name != key) for name in PLAIN_COLUMN_NAMES])
        record = {name: f"value of {name}" for name in PLAIN_COLUMN_NAMES}
        batch = pa.RecordBatch.from_pylist([record], schema=schema)
        self.run(destination, self.load_of(schema, disposition, key=[key]), batch, FINAL)
        self.run(destination, self.load_of(schema, disposition, key=[key]), FINAL)
        assert self.read_back(place, "people", schema) == [record]
        described = self.state(destination).schema
        assert described is not None
        assert described.names == PLAIN_COLUMN_NAMES

    @pytest.mark.parametrize("table", PLAIN_TABLE_NAMES)
    def test_odd_table_names(self, place: Any, destination: Destination, table: str) -> None:
        for disposition in (APPEND, REPLACE, MERGE):
            self.run(destination, self.load_of(PEOPLE, disposition, table=table), people((1, "a")), FINAL)
        assert self.read_back(place, table, PEOPLE)
        assert self.tables(place) == {table}
