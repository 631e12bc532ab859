"""What the DuckDB tests share: looking into a file without our own code."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from connectors.duckdb import DuckDBDestination
from connectors.duckdb.database import configuration
from connectors.duckdb.settings import DuckDBSettings
from connectors.stream import (
    Commit,
    ConflictMethod,
    Event,
    LedgerKey,
    Load,
    Stream,
    WriteDisposition,
)


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
        write_disposition=disposition,
        conflict_method=conflict,
        token=token,
        run="run:1",
    )
    return list(destination.load(order, iter(events)))
