"""What the DuckDB tests share: a file, the connector on it, and looking into it without our own code."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from syncblocks.connectors.duckdb import DuckDBDestination, DuckDBSource
from syncblocks.connectors.duckdb.database import configuration
from syncblocks.connectors.duckdb.settings import DuckDBSettings
from syncblocks.connectors.stream import Checkpoint, Commit, Event, LedgerKey, Load, Stream
from syncblocks.connectors.write_spec import ConflictMethod, WriteDisposition, WriteSpec

APPEND, REPLACE, MERGE = WriteDisposition.APPEND, WriteDisposition.REPLACE, WriteDisposition.MERGE
FINAL = Checkpoint(is_final=True)
PEOPLE = pa.schema([pa.field("id", pa.int64(), nullable=False), ("name", pa.string())])


def connect(path: Path) -> Any:
    """Open a file with DuckDB alone; within one process it must be configured alike by all."""
    connection = duckdb.connect(str(path), config=configuration(DuckDBSettings()))
    connection.execute("set TimeZone = 'UTC'")
    return connection


def query(path: Path, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
    """Return all rows."""
    with closing(connect(path)) as connection:
        return list(connection.execute(sql, list(parameters)).fetchall())


def quoted(name: str) -> str:
    """Quote by hand."""
    return '"' + name.replace('"', '""') + '"'


def load(
    destination: DuckDBDestination,
    table: str,
    disposition: WriteDisposition,
    events: Iterable[Event],
    schema: pa.Schema,
    key: Sequence[str] = (),
    *,
    stream: str = "",
    conflict: ConflictMethod = ConflictMethod.UPDATE,
) -> list[Commit]:
    """Take over and load."""
    token = secrets.token_hex(16)
    ledger = LedgerKey(pipeline="test", stream=stream or f"stream of {table}", destination_table=table)
    destination.take_over(ledger, token=token, owner="a test", source="test://")
    order = Load(
        key=ledger,
        stream=Stream(name=ledger.stream, schema=schema, key_properties=tuple(key)),
        write=WriteSpec(disposition=disposition, conflict_method=conflict),
        token=token,
        run="run:1",
    )
    return list(destination.load(order, iter(events)))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "house.duckdb"


@pytest.fixture
def destination(path: Path) -> Iterator[DuckDBDestination]:
    made = DuckDBDestination({"path": str(path)}, path.parent)
    yield made
    made.close()


def people(*records: tuple[int, str | None]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist([{"id": number, "name": name} for number, name in records], schema=PEOPLE)


def read(source: DuckDBSource, stream: Stream) -> pa.Table:
    batches = [event for _, event in source.read([stream], {}) if isinstance(event, pa.RecordBatch)]
    return pa.Table.from_batches(batches, stream.schema)
