"""Checksums for a source that cannot compute them: its records go through DuckDB."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any

import pyarrow as pa

from ..arrow import compute as pc
from ..arrow.casts import json_text
from ..arrow.fidelity import as_text
from ..arrow.text import interval_text
from ..checksums.json_values import jsonb_text, value_text
from ..checksums.nested import is_carried
from ..checksums.sql import SqlChecksums
from ..compared_values import ComparedColumn, Digest, Key, KeyRange, Row, Side, TextForm
from ..errors import ConnectorConfigError, ConnectorError, FatalConnectorError
from ..incremental.bookmarks import past
from ..protocols import Source
from ..stream import Checkpoint, Event, Rejected, Stream, Warned
from ..struct_helpers import replace
from .checksums import DuckDBCanonical

#: Memory limit of DuckDB for keys and hashes before they spill to disk, in bytes: default, and minimum.
MEMORY_BYTES, _LEAST_BYTES = 512_000_000, 16_000_000
#: Added for each of DuckDB's threads: their batches and buffers are not counted by the limit.
_THREAD_BYTES = 64_000_000

#: Columns of the records in DuckDB: the original names may differ only by case.
_PAST, _HASH, _SIZE = "past", "h", "size"

#: Bytes of records given to DuckDB at once: it makes several copies while hashing.
_SLICE_BYTES = 4_000_000


@contextmanager
def checksums_of_records(source: Source, side: Side, memory_bytes: int = MEMORY_BYTES) -> Iterator[RecordChecksums]:
    """Open checksums over a source's records; the context closes them.

    Args:
        source: reads the records.
        side: the side to compute.
        memory_bytes: memory limit for keys and hashes before they spill to disk.
    """
    with scratch_database(memory_bytes) as connection:
        yield RecordChecksums(connection, source, side)


@contextmanager
def scratch_database(memory_bytes: int = MEMORY_BYTES) -> Iterator[Any]:
    """Open an in-memory DuckDB database for keys and hashes of records; the context closes it.

    Args:
        memory_bytes: memory limit before it spills to disk.
    """
    try:
        import duckdb
    except ModuleNotFoundError as error:
        raise ConnectorConfigError(
            "checksums of files, SQLite and others are computed by duckdb: pip install 'syncblocks[duckdb]'"
        ) from error
    folder = tempfile.mkdtemp(prefix="syncblocks-verify-")
    connection = duckdb.connect(
        config={
            "threads": min(os.cpu_count() or 1, max(1, memory_bytes // _THREAD_BYTES)),
            "memory_limit": f"{max(memory_bytes, _LEAST_BYTES)}B",
            "temp_directory": folder,
            "preserve_insertion_order": False,
            "autoinstall_known_extensions": False,
        }
    )
    try:
        connection.execute("set global TimeZone = 'UTC'")
        # In a notebook without ipywidgets, DuckDB refuses to set it, even to false.
        if connection.execute("select current_setting('enable_progress_bar')").fetchone() != (False,):
            connection.execute("set enable_progress_bar = false")
        connection.execute("set global python_enable_replacements = false")
        yield connection
    finally:
        connection.close()
        shutil.rmtree(folder, ignore_errors=True)


class RecordChecksums:
    """Reads the records once for all digests, and keeps a key and a hash of each. Rows are read a second time."""

    def __init__(self, connection: Any, source: Source, side: Side) -> None:
        self._connection = connection
        self._source = source
        self._side = side
        self._canonical = DuckDBCanonical()
        self._key = numbered(side.key, 0)
        self._columns = numbered(side.columns, len(side.key))
        self._kept: SqlChecksums | None = None
        #: Rejected records of the stream: they are in no digest.
        self.rejected = 0
        #: Reason why the source failed while DuckDB read its records.
        self._failure: ConnectorError | None = None

    def digests(self, ranges: Sequence[KeyRange]) -> list[Digest]:
        """Return one digest for each range."""
        return self._records().digests(ranges)

    def sample(self, records: int) -> list[Key]:
        """Do nothing: all records are read before the first key is known, and each is hashed once."""
        return []

    def boundaries(self, ranges: Sequence[tuple[KeyRange, int]]) -> list[list[Key]]:
        """Return the keys that split each range."""
        return self._records().boundaries(ranges)

    def sizes(self, ranges: Sequence[KeyRange]) -> list[int]:
        """Return the number of characters in the records of each range."""
        return self._records().sizes(ranges)

    def rows(self, ranges: Sequence[KeyRange]) -> list[Row]:
        """Return the records of some ranges."""
        schema, condition = self._schema(), self._over("incoming as t").within(ranges)
        names = [column.name for column in self._key]
        with closing(self._batches(schema)) as batches:
            # A query over all batches would keep every batch in memory.
            found = [
                batch.take(self._places([batch.column(name) for name in names], batch.num_rows, condition))
                for batch in batches
            ]
        with self._incoming(pa.Table.from_batches(found, schema)):
            return self._over("incoming as t").rows(ranges)

    def mask(self, batch: pa.RecordBatch, ranges: Sequence[KeyRange]) -> pa.Array:
        """Return for each record whether its key is in one of the ranges."""
        keys = [carry(batch.column(own.name), column) for own, column in zip(self._side.key, self._key, strict=True)]
        condition = self._over("incoming as t").within(ranges)
        flags = bytearray(batch.num_rows)
        for number in self._places(keys, batch.num_rows, condition).to_pylist():
            flags[number] = 1
        return pc.equal(pa.Array.from_buffers(pa.uint8(), batch.num_rows, [None, pa.py_buffer(flags)]), 1)

    def _places(self, keys: Sequence[pa.Array], records: int, condition: str) -> pa.Array:
        """Return the positions of the records that meet a condition over their keys, in any order; empty: all."""
        import numpy as np  # installed with DuckDB's results

        places = pa.array(np.arange(records))
        if not condition or not records:
            return places
        table = pa.table([*keys, places], names=[*(column.name for column in self._key), "place"])
        with self._incoming(table), self._sorted_errors():
            found = self._connection.execute(f"select place from incoming as t where {condition}").fetchnumpy()
        return pa.array(found["place"])

    def keys(self, batch: pa.RecordBatch) -> list[Key]:
        """Return the canonical texts of the records' keys, in order."""
        if not batch.num_rows:
            return []
        arrays = [carry(batch.column(own.name), column) for own, column in zip(self._side.key, self._key, strict=True)]
        place = pa.array(range(batch.num_rows), pa.int64())
        table = pa.table([*arrays, place], names=[*(column.name for column in self._key), "place"])
        texts = ", ".join(self._canonical.text(f"t.{column.name}", column) for column in self._key)
        with self._incoming(table):
            return [tuple(row) for row in self._run(f"select {texts} from incoming as t order by t.place")]

    def _records(self) -> SqlChecksums:
        if self._kept is None:
            record = self._canonical.record([(f"t.{column.name}", column) for column in self._columns])
            names = "".join(f"t.{column.name}, " for column in self._key)
            schema = self._schema()
            with (
                closing(self._batches(schema)) as batches,
                self._incoming(pa.RecordBatchReader.from_batches(schema, batches)),
            ):
                self._run(
                    f"create table records as select {names}t.{_PAST}, {self._canonical.hashed(record, own=False)} "
                    f"as {_HASH}, length({record})::uinteger as {_SIZE} from incoming as t"
                )
            self._kept = self._over("records as t", record_hash=f"t.{_HASH}", record_size=f"t.{_SIZE}")
        return self._kept

    def _over(self, table: str, *, record_hash: str = "", record_size: str = "") -> SqlChecksums:
        side = replace(self._side, key=self._key, columns=self._columns)
        return SqlChecksums(
            self._run,
            self._canonical,
            side,
            table=table,
            quote=str,
            past=f"t.{_PAST}",
            record_hash=record_hash,
            record_size=record_size,
        )

    def _run(self, sql: str) -> list[tuple[Any, ...]]:
        with self._sorted_errors():
            return list(self._connection.execute(sql).fetchall())

    @contextmanager
    def _sorted_errors(self) -> Iterator[None]:
        import duckdb

        try:
            yield
        except duckdb.Error as error:
            if self._failure is not None:
                raise self._failure from error
            raise FatalConnectorError(
                f"checksums cannot be computed: {error}", stream=self._side.stream.name
            ) from error

    @contextmanager
    def _incoming(self, data: pa.Table | pa.RecordBatchReader) -> Iterator[None]:
        """Make data visible to DuckDB as the table `incoming`."""
        with self._sorted_errors():
            self._connection.register("incoming", data)
            try:
                yield
            finally:
                # After a fatal error the database accepts no statement: sorted as well.
                self._connection.unregister("incoming")

    def _schema(self) -> pa.Schema:
        fields = [pa.field(column.name, column.field.type) for column in (*self._key, *self._columns)]
        return pa.schema([*fields, pa.field(_PAST, pa.bool_())])

    def _batches(self, schema: pa.Schema) -> Generator[pa.RecordBatch, None, None]:
        self.rejected = 0
        try:
            yield from self._converted(schema)
        except ConnectorError as error:
            self._failure = error
            raise

    def _converted(self, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        side = self._side
        owns, columns = (*side.key, *side.columns), (*self._key, *self._columns)
        for _, event in self._source.read([side.stream], {side.stream.name: None}):
            if isinstance(event, Rejected):
                self.rejected += len(event.records)
            if isinstance(event, Stream) or not isinstance(event, pa.RecordBatch):
                continue
            arrays = [carry(event.column(own.name), column) for own, column in zip(owns, columns, strict=True)]
            flags = past(event, side.stream, side.until)
            batch = pa.RecordBatch.from_arrays([*arrays, flags], schema=schema)
            records = max(1, batch.num_rows * _SLICE_BYTES // max(1, batch.nbytes))
            yield from (batch.slice(first, records) for first in range(0, batch.num_rows, records))


def events_within(
    source: Source, stream: Stream, side: Side, ranges: Sequence[KeyRange], memory_bytes: int = MEMORY_BYTES
) -> Iterator[Event]:
    """Read a whole table's stream, limited to the records of some key ranges.

    Args:
        source: the source of this side.
        stream: with the columns to read, including the key.
        side: gives the key.
        ranges: ascending and disjoint.
        memory_bytes: as for `checksums_of_records`.
    """
    with checksums_of_records(source, side, memory_bytes) as checksums:
        for event in _events(source, stream):
            if isinstance(event, pa.RecordBatch):
                event = event.filter(checksums.mask(event, ranges))
            yield event


def canonical_keys(source: Source, side: Side, batches: Iterable[pa.RecordBatch]) -> Iterator[list[Key]]:
    """Yield the keys of each batch of a side's records, as texts that both sides write equally."""
    with checksums_of_records(source, side) as checksums:
        for batch in batches:
            yield checksums.keys(batch)


def _events(source: Source, stream: Stream) -> Iterator[Event]:
    for _, event in source.read([stream], {stream.name: None}):
        assert isinstance(
            event, pa.RecordBatch | Checkpoint | Stream | Rejected | Warned
        )  # the transfer format is "arrow"
        yield event


def numbered(columns: Sequence[ComparedColumn], first: int) -> tuple[ComparedColumn, ...]:
    """Return columns with the names and types that DuckDB accepts."""
    return tuple(
        replace(column, name=f"c{number}", field=column.field.with_type(_carried(column.field.type, column.form)))
        for number, column in enumerate(columns, start=first)
    )


#: Forms of JSON that only Python writes.
_WRITTEN: dict[TextForm, Callable[[str], str]] = {TextForm.JSONB: jsonb_text, TextForm.JSON_VALUE: value_text}


def _carried(kind: pa.DataType, form: TextForm) -> pa.DataType:
    """Return the type that DuckDB accepts for it."""
    types = pa.types
    if types.is_dictionary(kind):
        return _carried(kind.value_type, form)
    if (
        form is TextForm.TEXT
        or form in _WRITTEN
        or kind == pa.json_()
        or types.is_null(kind)
        or types.is_decimal256(kind)
    ):
        return pa.string()
    if types.is_interval(kind) or types.is_duration(kind) or (types.is_nested(kind) and not is_carried(kind)):
        return pa.string()
    return pa.float32() if types.is_float16(kind) else kind


def carry(array: pa.Array, column: ComparedColumn) -> pa.Array:
    """Return values in the column's type, or as full text if DuckDB has no such type."""
    kind = column.field.type
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if pa.types.is_duration(array.type) and column.form is TextForm.INTERVAL:
        return _interval_text(array)
    if pa.types.is_nested(array.type) and kind != array.type:
        if column.form is TextForm.LIST and pa.types.is_duration(array.type.value_type):
            array = _interval_lists(array)
        array = json_text(array)
        rewrite = jsonb_text if column.form is TextForm.NESTED_JSONB else _WRITTEN.get(column.form)
    else:
        rewrite = _WRITTEN.get(column.form)
    if array.type == pa.json_():
        array = array.storage
    if rewrite is not None:
        return pa.array([None if value is None else rewrite(value) for value in array.to_pylist()], kind)
    if array.type == kind:
        return array
    # DuckDB's own interval has no nanoseconds.
    if column.form is TextForm.TEXT or pa.types.is_interval(array.type) or pa.types.is_decimal256(array.type):
        return as_text(array, "")
    return pc.cast(array, kind)


_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


def _interval_text(array: pa.Array) -> pa.Array:
    """Write durations as intervals of seconds."""
    unit = _PER_SECOND[array.type.unit]
    counts = pc.cast(array, pa.int64()).to_pylist()
    return pa.array([None if count is None else _seconds(count, unit) for count in counts], pa.string())


def _interval_lists(array: pa.Array) -> pa.Array:
    unit = _PER_SECOND[array.type.value_type.unit]
    lists = pc.cast(array, pa.list_(pa.int64())).to_pylist()
    texts = [items and [None if count is None else _seconds(count, unit) for count in items] for items in lists]
    return pa.array(texts, pa.list_(pa.string()))


def _seconds(count: int, unit: int) -> str:
    return interval_text(0, 0, count * (10**9 // unit))


__all__ = [
    "RecordChecksums",
    "canonical_keys",
    "carry",
    "checksums_of_records",
    "events_within",
    "numbered",
    "scratch_database",
]
