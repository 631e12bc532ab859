"""What the SQLite tests share: a file, the connector on it, and the standard library to write and look beside it."""

from __future__ import annotations

import json
import secrets
import sqlite3
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from syncblocks.connectors.sqlite import SQLiteDestination, SQLiteSource
from syncblocks.connectors.stream import Checkpoint, Commit, Event, LedgerKey, Load, Stream
from syncblocks.connectors.write_spec import ConflictMethod, WriteDisposition, WriteSpec

APPEND, REPLACE, MERGE = WriteDisposition.APPEND, WriteDisposition.REPLACE, WriteDisposition.MERGE
FINAL = Checkpoint(is_final=True)
PEOPLE = pa.schema([pa.field("id", pa.int64(), nullable=False), ("name", pa.string())])


def query(path: Path, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
    """Return all rows, or none where there is no file."""
    if not path.exists():
        return []
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        return connection.execute(sql, parameters).fetchall()


def script(path: Path, sql: str) -> None:
    """Run statements."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.executescript(sql)


def quoted(name: str) -> str:
    """Quote by hand."""
    return '"' + name.replace('"', '""') + '"'


def declared(kind: pa.DataType) -> str:
    """Return the type that somebody who knows SQLite would declare."""
    types = pa.types
    if types.is_decimal(kind):
        return (
            f"DECIMAL({kind.precision},{kind.scale})"
            if kind.precision <= 15
            else f"DECIMAL_TEXT({kind.precision},{kind.scale})"
        )
    if types.is_timestamp(kind):
        return "DATETIME" if kind.tz is None else "TIMESTAMPTZ"
    if types.is_integer(kind):
        return "INTEGER"
    names = {pa.bool_(): "BOOLEAN", pa.float64(): "DOUBLE", pa.string(): "TEXT", pa.binary(): "BLOB"}
    return {**names, pa.date32(): "DATE", pa.time64("us"): "TIME"}[kind]


def as_stored(value: Any) -> Any:
    """Return what an application stores for a Python value."""
    if isinstance(value, datetime):
        return value.isoformat(" ")
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, float) and value != value:
        return "NaN"
    return value


def as_python(value: Any, kind: pa.DataType) -> Any:
    """Turn a stored value into what it stands for."""
    types = pa.types
    if value is None:
        return None
    if types.is_boolean(kind):
        return {0: False, 1: True}[value]
    if types.is_decimal(kind):
        return Decimal(str(value))
    if types.is_timestamp(kind):
        return datetime.fromisoformat(value)
    if types.is_date(kind):
        return date.fromisoformat(value)
    if types.is_time(kind):
        return time.fromisoformat(value)
    if types.is_floating(kind):
        return float(value)
    if kind == pa.uuid():
        return uuid.UUID(value)
    return json.loads(value) if types.is_nested(kind) else value


def load(
    destination: SQLiteDestination,
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
    return tmp_path / "shop?%.db"


@pytest.fixture
def destination(path: Path) -> Iterator[SQLiteDestination]:
    made = SQLiteDestination({"path": str(path), "lock_timeout_s": 0.3}, path.parent)
    yield made
    made.close()


def people(*records: tuple[int, str | None]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist([{"id": number, "name": name} for number, name in records], schema=PEOPLE)


def source_of(path: Path, **settings: Any) -> SQLiteSource:
    return SQLiteSource({"path": str(path), **settings}, path.parent)


def read_all(path: Path, table: str = "t") -> pa.Table:
    source = source_of(path)
    (stream,) = [stream for stream in source.discover() if stream.name == table]
    batches = [event for _, event in source.read([stream], {}) if isinstance(event, pa.RecordBatch)]
    source.close()
    return pa.Table.from_batches(batches, stream.schema)
