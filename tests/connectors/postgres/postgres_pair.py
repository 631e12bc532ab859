"""Short ways to drive the postgres connector in tests, and to look at the server with psycopg."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pytest

from syncblocks.connectors.postgres.destination import PostgresDestination
from syncblocks.connectors.postgres.source import PostgresSource
from syncblocks.connectors.stream import Bookmark, Checkpoint, Commit, Event, LedgerKey, Load, Stream
from syncblocks.connectors.struct_helpers import replace
from syncblocks.connectors.write_spec import ConflictMethod, WriteDisposition, WriteSpec

#: Dispositions of which a load needs to know nothing but the stream.
PLAIN = (WriteDisposition.APPEND, WriteDisposition.REPLACE, WriteDisposition.MERGE)


def rows(url: str, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
    """Run SQL over a connection of its own."""
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(sql, parameters or None)
        return cursor.fetchall() if cursor.description else []


def script(url: str, sql: str) -> None:
    """Run several statements."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(sql)


def can(url: str, sql: str) -> bool:
    """Tell whether a server was built with what a query needs."""
    try:
        rows(url, sql)
    except psycopg.errors.FeatureNotSupported:
        return False
    return True


def batch_of(columns: Mapping[str, Sequence[Any]], schema: pa.Schema | None = None) -> pa.RecordBatch:
    return pa.RecordBatch.from_pydict(dict(columns), schema=schema)


def key_of(table: str, stream: str = "s", pipeline: str = "p") -> LedgerKey:
    return LedgerKey(pipeline=pipeline, stream=stream, destination_table=table)


def order(
    destination: PostgresDestination,
    stream: Stream,
    table: str,
    disposition: WriteDisposition = WriteDisposition.APPEND,
    method: ConflictMethod = ConflictMethod.UPDATE,
    run: str = "run:1",
) -> Load:
    """Take the ledger row over, and return the order that goes with the token."""
    token = secrets.token_hex(16)
    key = key_of(table, stream.name)
    destination.take_over(key, token=token, owner=f"owner of {token}", source="test://")
    return Load(
        key=key, stream=stream, write=WriteSpec(disposition=disposition, conflict_method=method), token=token, run=run
    )


def write(
    destination: PostgresDestination,
    events: Iterable[Event],
    table: str,
    disposition: WriteDisposition = WriteDisposition.APPEND,
    *,
    key: Sequence[str] = (),
    schema: pa.Schema | None = None,
    method: ConflictMethod = ConflictMethod.UPDATE,
    bookmark: Bookmark | None = None,
) -> list[Commit]:
    """Write events and a final checkpoint."""
    listed = list(events)
    if schema is None:
        schema = next(event.schema for event in listed if isinstance(event, pa.RecordBatch | Stream))
    stream = Stream(name="s", schema=schema, key_properties=tuple(key))
    load = order(destination, stream, table, disposition, method)
    return list(destination.load(load, iter([*listed, Checkpoint(bookmark=bookmark, is_final=True)])))


def read(source: PostgresSource, name: str, bookmark: Bookmark | None = None, **changes: Any) -> list[Event]:
    """Read one stream's events."""
    stream = find(source, name, **changes)
    return [event for _, event in source.read([stream], {name: bookmark})]  # type: ignore[misc]  # Arrow was asked for


def find(source: PostgresSource, name: str, **changes: Any) -> Stream:
    stream = next(stream for stream in source.discover() if stream.name == name)
    return replace(stream, read=replace(stream.read, **changes))


def copy(
    url: str,
    source_table: str,
    table: str,
    disposition: WriteDisposition = WriteDisposition.REPLACE,
    wire: str = "arrow",
    key: Sequence[str] | None = None,
    into: str = "",
) -> list[Commit]:
    """Sync one table of the server into another one, of the same server unless told."""
    source, destination = PostgresSource({"url": url}, Path()), PostgresDestination({"url": into or url}, Path())
    try:
        stream = find(source, source_table)
        if key is not None:
            stream = replace(stream, key_properties=tuple(key))
        assert wire in source.offers(stream)
        assert wire in destination.accepts(stream, disposition)

        def events() -> Iterator[Any]:
            yield from (event for _, event in source.read([stream], {source_table: None}, wire))
            yield Checkpoint(is_final=True)

        return list(destination.load(order(destination, stream, table, disposition), events(), wire))
    finally:
        source.close()
        destination.close()


@pytest.fixture
def source(postgres_url: str) -> Iterator[PostgresSource]:
    made = PostgresSource({"url": postgres_url}, Path())
    yield made
    made.close()


@pytest.fixture
def destination(postgres_url: str) -> Iterator[PostgresDestination]:
    made = PostgresDestination({"url": postgres_url}, Path())
    yield made
    made.close()
