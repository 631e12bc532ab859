"""Reads tables in memory."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ..errors import ConnectorConfigError, FatalConnectorError, Interrupted
from ..incremental.bookmarks import at_or_past, has_bookmark
from ..incremental.checkpoints import incremental
from ..incremental.window import Window
from ..read_spec import ReplicationMethod
from ..settings import parse_settings
from ..stream import Block, Bookmark, Event, Place, Stream
from ..struct_helpers import replace
from .database import Knob, MemoryCalls, MemoryDatabase, database, to_block
from .settings import MemorySourceSettings, to_table


class MemorySource:
    """Reads tables of a `MemoryDatabase`."""

    settings = MemorySourceSettings

    def __init__(self, config: Mapping[str, Any], folder: Path) -> None:
        self._settings = parse_settings(MemorySourceSettings, config, "memory")
        if bool(self._settings.database) == bool(self._settings.tables):
            raise ConnectorConfigError("config of connector 'memory' needs one of: database, tables", key="tables")
        self._database = database(self._settings.database) if self._settings.database else MemoryDatabase()
        for name, table in self._settings.tables.items():
            self._database.tables[name] = to_table(name, table)
            self._database.keys[name] = table.key
            if table.is_view:
                self._database.views.add(name)
        self._calls = MemoryCalls()

    def identity(self) -> str:
        return f"memory://{self._settings.database}"

    def place(self) -> Place:
        """Tables in the config are in every process that has the config."""
        return "process" if self._settings.database else "anywhere"

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
                        yield name, to_block(event)
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
            raise FatalConnectorError(f"table {stream.name!r} does not exist in memory any more", stream=stream.name)
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
        if stream.read.method is ReplicationMethod.FULL_TABLE:
            yield from self._batches(stream, table, interrupted)
            return
        batches = self._batches(stream, _in_order(table, Window.of(stream, bookmark)), interrupted)
        yield from incremental(
            stream, batches, bookmark, is_ordered=True, checkpoint_records=self._settings.checkpoint_records
        )

    def _batches(self, stream: Stream, table: pa.Table, interrupted: threading.Event) -> Iterator[pa.RecordBatch]:
        size = self._settings.batch_size
        for number, start in enumerate(range(0, table.num_rows, size), 1):
            if interrupted.wait(self._settings.delay_s):
                raise Interrupted(f"reading {stream.name!r} was interrupted", stream=stream.name)
            knob = Knob("source", self._settings.fail_kind, self._settings.fail_times)
            knob.turn(self._database, stream.name, self._settings.fail_at.get(stream.name) == number)
            yield table.slice(start, size).combine_chunks().to_batches()[0]


def _in_order(table: pa.Table, window: Window) -> pa.Table:
    """Return the records with an incomplete bookmark, if there may be any, then those from the lower bound on."""
    names = [field.name for field in window.fields]
    known = has_bookmark(table, names)
    rest = table.filter(known)
    if window.lower is not None:
        rest = rest.filter(at_or_past(rest, names, window.lower))
    rest = rest.sort_by([(name, "ascending") for name in names])
    return rest if window.leaves_out_incomplete else pa.concat_tables([table.filter(pc.invert(known)), rest])
