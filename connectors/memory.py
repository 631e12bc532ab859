"""Tables in this process's memory: an example for authors of connectors, and a fake under the same contract.

Source and destination of one `database` name see the same tables, so that tests seed and read back through
`database(name).tables`. The knobs (`delay_s`, `fail_at`, `fail_on` ...) make them slow or broken on purpose.
"""

from __future__ import annotations

import json
import re
import secrets
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from .bookmarks import CHECKPOINT_RECORDS, at_or_past, bookmark_values, has_bookmark, incremental
from .errors import ConnectorConfigError, FatalConnectorError, Interrupted, RetriableError, TakenOver
from .failpoints import failpoint
from .protocols import Block
from .settings import Settings, parse_settings
from .stream import (
    Bookmark,
    Checkpoint,
    Commit,
    ConflictMethod,
    Event,
    LedgerKey,
    LedgerRow,
    Load,
    ReplicationMethod,
    Stream,
    TableState,
    WriteDisposition,
)

FailKind = Literal["retriable", "fatal", "crash"]


@dataclass
class MemoryDatabase:
    """What a database server would keep; every access to it holds `lock`, which is its transaction."""

    tables: dict[str, pa.Table] = field(default_factory=dict)
    keys: dict[str, tuple[str, ...]] = field(default_factory=dict)
    views: set[str] = field(default_factory=set)
    ledger: dict[LedgerKey, LedgerRow] = field(default_factory=dict)
    #: (table, token) -> batches that no commit has made visible yet.
    staging: dict[tuple[str, str], list[pa.RecordBatch]] = field(default_factory=dict)
    #: How often each knob has failed, over all connectors of this database: `fail_times` counts down from it.
    failures: Counter[str] = field(default_factory=Counter)
    lock: threading.RLock = field(default_factory=threading.RLock)


databases: dict[str, MemoryDatabase] = {}


def database(name: str) -> MemoryDatabase:
    """Return the database of that name, made empty if there is none."""
    return databases.setdefault(name, MemoryDatabase())


class TableSettings(Settings):
    """One table written down in the pipeline file."""

    columns: dict[str, str] = Field(description="column -> Arrow type, e.g. `int64`, `timestamp[us, tz=UTC]`")
    records: list[dict[str, Any]] = Field(default=[], description="one mapping a record")
    key: tuple[str, ...] = Field(default=(), description="columns that identify a record")
    is_view: bool = Field(default=False, description="offered as a view")


class MemorySourceSettings(Settings):
    """Settings of a memory source; the failing ones are for tests."""

    database: str = Field(default="", description="name under which other connectors of this process find the tables")
    tables: dict[str, TableSettings] = Field(default={}, description="tables, by name")
    batch_size: int = Field(default=65_536, ge=1, description="records a batch")
    checkpoint_records: int = Field(default=CHECKPOINT_RECORDS, ge=1, description="records between two checkpoints")
    wires: tuple[Literal["ipc"], ...] = Field(default=(), description="wire formats besides `arrow`")
    groups: tuple[tuple[str, ...], ...] = Field(default=(), description="streams that one read yields together")
    delay_s: float = Field(default=0, ge=0, description="seconds to wait before each batch")
    fail_at: dict[str, int] = Field(default={}, description="stream -> batch, from 1, in whose place it fails")
    fail_kind: FailKind = Field(default="retriable", description="retriable, fatal or crash (no connector's error)")
    fail_times: int = Field(default=1, ge=0, description="failures of a stream before it works")


class MemoryDestinationSettings(Settings):
    """Settings of a memory destination; the failing ones are for tests."""

    database: str = Field(description="name under which other connectors of this process find the tables")
    max_loads: int | None = Field(default=None, ge=1, description="loads at once")
    wires: tuple[Literal["ipc"], ...] = Field(default=(), description="wire formats besides `arrow`")
    delay_commit_s: float = Field(default=0, ge=0, description="seconds that each commit takes")
    fail_on: dict[str, int] = Field(default={}, description="stream -> batch, from 1, that it fails on")
    fail_kind: FailKind = Field(default="retriable", description="retriable, fatal or crash (no connector's error)")
    fail_times: int = Field(default=1, ge=0, description="failures of a stream before it works")


class _Calls:
    """Calls under way by stream, each with the event that ends it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._under_way: dict[str, set[threading.Event]] = {}

    @contextmanager
    def under_way(self, streams: Iterable[str]) -> Iterator[threading.Event]:
        """Register one call for some streams until the block is left."""
        interrupted, names = threading.Event(), list(streams)
        with self._lock:
            for name in names:
                self._under_way.setdefault(name, set()).add(interrupted)
        try:
            yield interrupted
        finally:
            with self._lock:
                for name in names:
                    self._under_way[name].discard(interrupted)

    def interrupt(self, stream: str) -> None:
        with self._lock:
            for interrupted in self._under_way.get(stream, ()):
                interrupted.set()


class MemorySource:
    """Reads tables of a `MemoryDatabase`."""

    settings = MemorySourceSettings

    def __init__(self, config: Mapping[str, Any], folder: Path) -> None:
        self._settings = parse_settings(MemorySourceSettings, config, "memory")
        if bool(self._settings.database) == bool(self._settings.tables):
            raise ConnectorConfigError("config of connector 'memory' needs one of: database, tables", key="tables")
        self._database = database(self._settings.database) if self._settings.database else MemoryDatabase()
        for name, table in self._settings.tables.items():
            self._database.tables[name] = _table(name, table)
            self._database.keys[name] = table.key
            if table.is_view:
                self._database.views.add(name)
        self._calls = _Calls()

    def identity(self) -> str:
        return f"memory://{self._settings.database}"

    def check(self) -> None:
        """There is nothing to reach."""

    def discover(self) -> Sequence[Stream]:
        with self._database.lock:
            names = sorted(self._database.tables, key=lambda name: (name in self._database.views, name))
            return [self._stream(name) for name in names]

    def groups(self, streams: Sequence[Stream]) -> Sequence[Sequence[Stream]]:
        group_of = {name: number for number, group in enumerate(self._settings.groups) for name in group}
        together: dict[int | str, list[Stream]] = {}
        for stream in streams:
            together.setdefault(group_of.get(stream.name, stream.name), []).append(stream)
        return list(together.values())

    def offers(self, stream: Stream) -> Sequence[str]:
        return (*self._settings.wires, "arrow")

    def count(self, stream: Stream) -> int:
        return int(self._table(stream).num_rows)

    def read(
        self, group: Sequence[Stream], bookmarks: Mapping[str, Bookmark | None], wire: str = "arrow"
    ) -> Iterator[tuple[str, Event | Block]]:
        with self._calls.under_way(stream.name for stream in group) as interrupted:
            readers = [(s.name, self._events(s, bookmarks.get(s.name), interrupted)) for s in group]
            while readers:  # one event of each stream in turn
                for reader in list(readers):
                    name, events = reader
                    event = next(events, None)
                    if event is None:
                        readers.remove(reader)
                    elif wire == "ipc" and isinstance(event, pa.RecordBatch):
                        yield name, _to_block(event)
                    else:
                        yield name, event

    def interrupt(self, stream: str) -> None:
        self._calls.interrupt(stream)

    def close(self) -> None:
        """There is nothing to close."""

    def _stream(self, name: str) -> Stream:
        table, key = self._database.tables[name], self._database.keys.get(name, ())
        fields = [column.with_nullable(column.name not in key) for column in table.schema]
        return Stream(
            name=name,
            schema=pa.schema(fields),
            key_properties=key,
            is_view=name in self._database.views,
            estimated_records=table.num_rows,
        )

    def _table(self, stream: Stream) -> pa.Table:
        with self._database.lock:
            table = self._database.tables.get(stream.name)
        if table is None:
            raise FatalConnectorError(f"no table {stream.name!r} in memory any more", stream=stream.name)
        missing = [name for name in stream.schema.names if name not in table.schema.names]
        if missing:
            raise FatalConnectorError(
                f"table {stream.name!r} has no column {missing[0]!r} any more", stream=stream.name
            )
        return table

    def _events(self, stream: Stream, bookmark: Bookmark | None, interrupted: threading.Event) -> Iterator[Event]:
        table = self._table(stream)
        schema = pa.schema([field.with_type(table.schema.field(field.name).type) for field in stream.schema])
        if not schema.equals(stream.schema):
            stream = replace(stream, schema=schema)
            yield stream
        table = pa.table([table.column(name) for name in schema.names], schema=schema)
        if stream.replication_method is ReplicationMethod.FULL_TABLE:
            yield from self._batches(stream, table, interrupted)
            return
        batches = self._batches(stream, _in_order(stream, table, bookmark), interrupted)
        yield from incremental(
            stream, batches, bookmark, is_ordered=True, checkpoint_records=self._settings.checkpoint_records
        )

    def _batches(self, stream: Stream, table: pa.Table, interrupted: threading.Event) -> Iterator[pa.RecordBatch]:
        size = self._settings.batch_size
        for number, start in enumerate(range(0, table.num_rows, size), 1):
            if interrupted.wait(self._settings.delay_s):
                raise Interrupted(f"reading {stream.name!r} was interrupted", stream=stream.name)
            knob = _Knob("source", self._settings.fail_kind, self._settings.fail_times)
            knob.turn(self._database, stream.name, self._settings.fail_at.get(stream.name) == number)
            yield table.slice(start, size).combine_chunks().to_batches()[0]


class MemoryDestination:
    """Writes tables and the ledger of a `MemoryDatabase`."""

    settings = MemoryDestinationSettings
    has_ledger = True

    def __init__(self, config: Mapping[str, Any], folder: Path) -> None:
        self._settings = parse_settings(MemoryDestinationSettings, config, "memory")
        self._database = database(self._settings.database)
        self._calls = _Calls()
        self.max_loads = self._settings.max_loads

    def identity(self) -> str:
        return f"memory://{self._settings.database}"

    def check(self) -> None:
        """There is nothing to reach."""

    def describe(self, tables: Sequence[str]) -> Mapping[str, TableState]:
        with self._database.lock:
            return {name: self._state(name) for name in tables}

    def accepts(self, stream: Stream, disposition: WriteDisposition) -> Sequence[str]:
        return (*self._settings.wires, "arrow")

    def take_over(self, key: LedgerKey, *, token: str, owner: str, source: str | None = None) -> LedgerRow:
        with self._database.lock:
            row = self._database.ledger.get(key) or LedgerRow(key=key, source="", token=token)
            row = replace(row, token=token, owner=owner, source=row.source if source is None else source)
            self._database.ledger[key] = row
            return row

    def set_bookmark(self, key: LedgerKey, bookmark: Bookmark | None, *, forget: bool = False) -> None:
        with self._database.lock:
            if forget:
                self._database.ledger.pop(key, None)
                return
            token = secrets.token_hex(16)
            row = self._database.ledger.get(key) or LedgerRow(key=key, source="", token=token)
            self._database.ledger[key] = replace(row, token=token, bookmark=_as_json(bookmark))

    def load(self, load: Load, events: Iterator[Event | Block], wire: str = "arrow") -> Iterator[Commit]:
        place = (load.key.destination_table, load.token)
        with self._calls.under_way([load.key.stream]) as interrupted:
            try:
                yield from self._load(load, events, interrupted, self._database.staging.setdefault(place, []))
            finally:
                self._database.staging.pop(place, None)

    def drop_staging(self, tokens: Sequence[str]) -> None:
        with self._database.lock:
            for place in [place for place in self._database.staging if place[1] in tokens]:
                del self._database.staging[place]

    def interrupt(self, stream: str) -> None:
        self._calls.interrupt(stream)

    def close(self) -> None:
        """There is nothing to close."""

    def _state(self, name: str) -> TableState:
        table = self._database.tables.get(name)
        rows = tuple(row for key, row in self._database.ledger.items() if key.destination_table == name)
        is_table = name not in self._database.views
        return TableState(schema=None if table is None else table.schema, ledger=rows, is_table=is_table)

    def _load(
        self, load: Load, events: Iterator[Event | Block], interrupted: threading.Event, staged: list[pa.RecordBatch]
    ) -> Iterator[Commit]:
        schema, batches, written = load.stream.schema, 0, 0
        for event in events:
            if interrupted.is_set():
                raise Interrupted(f"loading {load.key.stream!r} was interrupted", stream=load.key.stream)
            if isinstance(event, Stream):
                schema = event.schema
            elif isinstance(event, Checkpoint):
                commit = self._commit(load, schema, staged, event, interrupted, written)
                staged.clear()
                written += commit.records
                yield commit
            else:
                batches += 1
                knob = _Knob("destination", self._settings.fail_kind, self._settings.fail_times)
                knob.turn(self._database, load.key.stream, self._settings.fail_on.get(load.key.stream) == batches)
                staged.append(event if isinstance(event, pa.RecordBatch) else _from_block(event))

    def _commit(
        self,
        load: Load,
        schema: pa.Schema,
        staged: Sequence[pa.RecordBatch],
        checkpoint: Checkpoint,
        interrupted: threading.Event,
        written: int,
    ) -> Commit:
        name, records = load.key.destination_table, sum(batch.num_rows for batch in staged)
        failpoint("memory.commit.before")
        with self._database.lock:
            if interrupted.wait(self._settings.delay_commit_s):
                raise Interrupted(f"loading {load.key.stream!r} was interrupted", stream=load.key.stream)
            row = self._database.ledger.get(load.key)
            if row is None or row.token != load.token:
                by = f"by {row.owner}" if row else "and forgotten"
                raise TakenOver(f"stream {load.key.stream!r} was taken over {by}", stream=load.key.stream)
            old = self._database.tables.get(name)
            table = _written(load, schema, staged, old)
            row = replace(row, bookmark=_as_json(checkpoint.bookmark), committed_at=datetime.now(UTC))
            if checkpoint.is_final:
                row = replace(row, completed_by=load.run, rows=written + records)
            failpoint("memory.commit.inside")
            self._database.tables[name], self._database.ledger[load.key] = table, row
            if load.write_disposition is WriteDisposition.MERGE:
                self._database.keys[name] = load.stream.key_properties
        failpoint("memory.commit.after")
        return Commit(
            checkpoint=checkpoint,
            records=records,
            size_bytes=sum(batch.nbytes for batch in staged),
            schema_changes=_changes(old, table),
        )


@dataclass(frozen=True, slots=True)
class _Knob:
    """Fails on purpose, `times` times a stream."""

    role: str
    kind: FailKind
    times: int

    def turn(self, database: MemoryDatabase, stream: str, is_due: bool) -> None:
        if not is_due:
            return
        with database.lock:
            if database.failures[f"{self.role}:{stream}"] >= self.times:
                return
            database.failures[f"{self.role}:{stream}"] += 1
        message = f"{self.role} of {stream!r} fails on purpose"
        if self.kind == "crash":
            raise RuntimeError(message)
        raise (RetriableError if self.kind == "retriable" else FatalConnectorError)(message, stream=stream)


def _in_order(stream: Stream, table: pa.Table, bookmark: Bookmark | None) -> pa.Table:
    """Return what is at or past the bookmark, ascending; from scratch records without a bookmark come first."""
    names, start = stream.bookmark_properties, bookmark_values(stream, bookmark)
    known = has_bookmark(table, names)
    first, rest = table.filter(pc.invert(known)), table.filter(known)
    if start is not None:
        first, rest = first.slice(0, 0), rest.filter(at_or_past(rest, names, start))
    rest = rest.sort_by([(name, "ascending") for name in names])
    return pa.concat_tables([first, rest])


def _written(load: Load, schema: pa.Schema, staged: Sequence[pa.RecordBatch], old: pa.Table | None) -> pa.Table:
    """Return the table as it is after these batches."""
    if old is None or load.write_disposition is WriteDisposition.REPLACE:
        old = schema.empty_table()
    try:
        schemas = [old.schema, schema, *(batch.schema for batch in staged)]
        wide = pa.unify_schemas([_nullable(each) for each in schemas], promote_options="permissive")
        old = _widened(old, wide)
        new = pa.concat_tables(
            [_widened(pa.Table.from_batches([batch]), wide) for batch in staged] or [old.slice(0, 0)]
        )
    except pa.ArrowException as error:
        raise FatalConnectorError(
            f"table {load.key.destination_table!r} does not take the stream's columns: {error}", stream=load.key.stream
        ) from error
    if load.write_disposition is not WriteDisposition.MERGE:
        return pa.concat_tables([old, new])
    return _merged(load, old, new)


def _merged(load: Load, old: pa.Table, new: pa.Table) -> pa.Table:
    keys = load.stream.key_properties
    if not keys or any(new.column(name).null_count for name in keys):
        raise FatalConnectorError(f"a record of {load.key.stream!r} has no key to merge by", stream=load.key.stream)
    old_keys, new_keys = (list(zip(*(t.column(k).to_pylist() for k in keys), strict=True)) for t in (old, new))
    last = {key: position for position, key in enumerate(new_keys)}
    if load.conflict_method is ConflictMethod.IGNORE:
        for key in old_keys:
            last.pop(key, None)
    else:
        old = old.filter(pa.array([key not in last for key in old_keys], pa.bool_()))
    return pa.concat_tables([old, new.take(pa.array(sorted(last.values()), pa.int64()))])


def _widened(table: pa.Table, schema: pa.Schema) -> pa.Table:
    columns = [
        table.column(field.name).cast(field.type)
        if field.name in table.schema.names
        else pa.nulls(len(table), field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)


def _nullable(schema: pa.Schema) -> pa.Schema:
    return pa.schema([field.with_nullable(True).remove_metadata() for field in schema])


def _changes(old: pa.Table | None, new: pa.Table) -> tuple[Mapping[str, Any], ...]:
    """Return the columns added or changed; none for a table that was not there."""
    if old is None:
        return ()
    before = {field.name: str(field.type) for field in old.schema}
    return tuple(
        {
            "column": field.name,
            "change": "changed" if field.name in before else "added",
            "before": before.get(field.name),
            "after": str(field.type),
        }
        for field in new.schema
        if before.get(field.name) != str(field.type)
    )


def _as_json(bookmark: Bookmark | None) -> Bookmark | None:
    """Copy a bookmark the way a real ledger does, which holds JSON and nothing else."""
    return json.loads(json.dumps(bookmark, allow_nan=False)) if bookmark is not None else None


def _to_block(batch: pa.RecordBatch) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return bytes(sink.getvalue())


def _from_block(block: Block) -> pa.RecordBatch:
    return pa.ipc.open_stream(block).read_next_batch()


def _table(name: str, settings: TableSettings) -> pa.Table:
    columns = {}
    for column, kind in settings.columns.items():
        values = [record.get(column) for record in settings.records]
        try:
            columns[column] = _column(values, _arrow_type(kind))
        except (pa.ArrowException, ValueError, TypeError, ArithmeticError) as error:
            raise ConnectorConfigError(
                f"table {name!r}, column {column!r} of type {kind!r}: {error}", connector="memory", key="tables"
            ) from error
    return pa.table(columns)


def _column(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    if pa.types.is_decimal(kind):
        return pa.array([None if value is None else Decimal(str(value)) for value in values], kind)
    if pa.types.is_temporal(kind):  # texts in ISO form, as JSON has them, or what YAML made of them
        return pa.array([None if value is None else str(value) for value in values], pa.string()).cast(kind)
    return pa.array(values, kind)


def _arrow_type(name: str) -> pa.DataType:
    if match := re.fullmatch(r"decimal(?:128)?\((\d+), ?(\d+)\)", name):
        return pa.decimal128(int(match[1]), int(match[2]))
    if match := re.fullmatch(r"timestamp\[(s|ms|us|ns), ?tz=([\w/+:-]+)\]", name):
        return pa.timestamp(match[1], match[2])
    return pa.type_for_alias(name)
