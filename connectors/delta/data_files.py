"""Data files of a Delta table: Parquet, with the statistics that readers skip files by."""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, unquote

import pyarrow as pa
import pyarrow.parquet
from msgspec import Struct, field

from ..arrow.conform import conformed
from ..arrow.parquet_encodings import encoded_leaves
from ..arrow.parquet_size import fitting_records
from ..arrow.type_names import type_text
from ..errors import ConnectorConfigError, FatalConnectorError
from ..failpoints import failpoint
from .storage import TableFolder

#: A row group is written at so many bytes in memory, fewer with a limit of memory, or records.
GROUP_BYTES = 32 << 20
GROUP_RECORDS = 1 << 20

#: A file ends after so many bytes.
FILE_BYTES = 256 << 20

#: Most files that are open at once, one for each partition.
MOST_OPEN = 16

#: Most records, and about as many bytes, of a batch that is read.
_BATCH_RECORDS = 65_536
_BATCH_BYTES = 4 << 20

#: Bytes of a column that one read takes from a disk, and from a store, where each request costs time.
_READ_BYTES = 1 << 16
_FETCH_BYTES = 4 << 20

#: Longest text in statistics: Delta cuts longer ones, and the highest one would be too low then.
_STATS_LETTERS = 32

#: So many columns have statistics, as everywhere in Delta.
_STATS_COLUMNS = 32

#: Letters of a path that the library writes into the log as they are.
_UNESCAPED = "!$&'()+,-./:;=@_~"

#: Values of a record's partition columns, as the log writes them; None: NULL.
Partition = Mapping[str, str | None]


class Written(Struct, frozen=True, kw_only=True):
    """A data file that no commit names yet."""

    name: str
    #: Columns of the table that it has, those of its partition included.
    schema: pa.Schema
    partition: Partition
    records: int
    size_bytes: int
    stats: str

    def add(self) -> Any:
        """Return the action that adds it to the table."""
        from deltalake.transaction import AddAction

        moment = int(datetime.now(UTC).timestamp() * 1000)
        return AddAction(self.name, self.size_bytes, dict(self.partition), moment, True, self.stats)


class DataFile(Struct, frozen=True, kw_only=True):
    """A data file of a version of the table."""

    #: As the log has it, which escapes some letters.
    path: str
    size_bytes: int
    #: Values of its partition columns.
    partition: Mapping[str, pa.Scalar] = field(default_factory=dict)
    #: Lowest and highest value of the column that was asked for; None: there are no statistics.
    least: Any = None
    most: Any = None

    @property
    def name(self) -> str:
        """Return its name below the table's folder."""
        return unquote(self.path)

    def remove(self) -> Any:
        """Return the action that removes it from the table; raise where the library cannot name it."""
        from deltalake.transaction import RemoveAction

        # The library escapes a path anew. Removed under another spelling, the records of the file would be there twice.
        if quote(self.name, safe=_UNESCAPED) != self.path:
            raise FatalConnectorError(f"file {self.path} has escapes in its path under which it cannot be removed")
        moment = int(datetime.now(UTC).timestamp() * 1000)
        values = {name: _log_text(value) for name, value in self.partition.items()}
        return RemoveAction(self.name, True, moment, self.size_bytes, values)


def data_files(table: Any, column: str = "") -> list[DataFile]:
    """Return the files of a version of a table, with the bounds of a column, if one is given."""
    actions = pa.table(table.get_add_actions(flatten=True))
    partitions = table.metadata().partition_columns
    ends = [_values(actions, f"{end}.{column}") for end in ("min", "max")]
    files = []
    for place, row in enumerate(actions.select(["path", "size_bytes"]).to_pylist()):
        if "://" in row["path"] or row["path"].startswith("/"):
            raise FatalConnectorError(
                f"file {row['path']} is outside of the table's folder (a shallow clone): such a table is not written"
            )
        files.append(
            DataFile(
                path=row["path"],
                size_bytes=row["size_bytes"],
                partition={name: actions.column(f"partition.{name}")[place] for name in partitions},
                least=ends[0][place],
                most=ends[1][place],
            )
        )
    return files


def _values(actions: pa.Table, name: str) -> list[Any]:
    """Return the values of a column that need not be there, and may be none of Python's."""
    try:
        return list(actions.column(name).to_pylist())
    except (KeyError, ValueError, OverflowError):
        return [None] * len(actions)


def batches(folder: TableFolder, file: DataFile, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Yield the records of a file in some columns of the table; a column that the file lacks is NULL."""
    with folder.open_input(file.name) as raw:

        def opened_with(**options: Any) -> pa.parquet.ParquetFile:
            # Without a buffer, whole columns of a row group would be in memory.
            size = _READ_BYTES if folder.local is not None else _FETCH_BYTES
            return pa.parquet.ParquetFile(
                raw, buffer_size=size, coerce_int96_timestamp_unit="us", arrow_extensions_enabled=False, **options
            )

        opened = opened_with()
        own = opened.schema_arrow.names
        wanted = [name for name in schema.names if name in own and name not in file.partition]
        size = fitting_records(
            opened, None, _BATCH_BYTES, _BATCH_RECORDS, lambda path: opened_with(read_dictionary=[path])
        )
        for group in range(opened.metadata.num_row_groups):  # over all of them at once, Arrow holds more and more
            for batch in opened.iter_batches(batch_size=size, columns=wanted, row_groups=[group]):
                for name, value in file.partition.items():
                    if name in schema.names:
                        batch = batch.append_column(name, pa.repeat(value, batch.num_rows))
                yield conformed(batch, schema)


def demand_partitions(columns: Sequence[str], schema: pa.Schema) -> None:
    """Raise `ConnectorConfigError` if a table of these columns cannot be partitioned so."""
    types = pa.types
    for name in columns:
        place = schema.get_field_index(name)
        if place < 0:
            text = f"partition_by: there is no column {name!r}, but {', '.join(schema.names[:20])}"
            raise ConnectorConfigError(text, connector="delta", key="partition_by")
        kind = schema.field(place).type
        if not (types.is_string(kind) or types.is_integer(kind) or types.is_boolean(kind) or types.is_date(kind)):
            text = f"partition_by: column {name!r} is {type_text(kind)}: only texts, integers, booleans and dates split"
            raise ConnectorConfigError(f"{text} a table", connector="delta", key="partition_by")
    if columns and len(columns) == len(schema.names):
        text = "partition_by: a table needs a column beside those that split it"
        raise ConnectorConfigError(text, connector="delta", key="partition_by")


class _Open:
    """One file being written."""

    def __init__(self, folder: TableFolder, name: str, schema: pa.Schema, first: Sequence[pa.RecordBatch]) -> None:
        """Make a file; `first`: batches that say how its columns are written."""
        dictionary, statistics = encoded_leaves(schema, first)
        self.name = name
        self._folder = folder
        self._raw = folder.open_output(name)
        self._found: list[Any] = []
        self._writer = pa.parquet.ParquetWriter(
            self._raw,
            schema,
            compression="snappy",
            use_dictionary=dictionary,
            write_statistics=statistics,
            metadata_collector=self._found,
            store_schema=False,
        )

    def write(self, table: pa.Table) -> None:
        self._writer.write_table(table, row_group_size=GROUP_RECORDS)

    def size_bytes(self) -> int:
        return int(self._raw.tell())

    def finish(self) -> Any:
        """Return the file's footer."""
        try:
            self._writer.close()
            self._folder.finish_output(self._raw, self.name)
        except BaseException:
            self.abandon()  # an open file keeps its space on a full disk, even after it is deleted
            raise
        return self._found[0]

    def abandon(self) -> None:
        with suppress(Exception):  # after a failed write, PyArrow raises a RuntimeError
            self._writer.close()
        with suppress(OSError, ValueError, pa.ArrowException):
            self._raw.close()


class _Part:
    """What is written into one partition."""

    def __init__(self, values: Partition) -> None:
        self.values = values
        self.pending: list[pa.RecordBatch] = []
        self.records = self.size_bytes = 0
        self.open: _Open | None = None

    def add(self, batch: pa.RecordBatch) -> None:
        self.pending.append(batch)
        self.records += batch.num_rows
        self.size_bytes += batch.nbytes


class DataWriter:
    """Writes batches of one schema as data files, split by partitions."""

    def __init__(
        self,
        folder: TableFolder,
        schema: pa.Schema,
        partition_by: Sequence[str],
        group_bytes: int,
        begun: Callable[[str], None],
    ) -> None:
        """Make a writer.

        Args:
            folder: the table's.
            schema: columns of the batches.
            partition_by: some of them, which the files do not have.
            group_bytes: bytes that are held in memory, of all partitions together.
            begun: told the name of each file before the file is there.
        """
        self.schema = schema
        self._folder = folder
        self._by = tuple(partition_by)
        self._own = pa.schema([each for each in schema if each.name not in self._by])
        self._group_bytes = group_bytes
        self._begun = begun
        self._parts: dict[tuple[str | None, ...], _Part] = {}
        self._held_bytes = 0
        self._written: list[Written] = []

    def write(self, batch: pa.RecordBatch) -> None:
        for values, records in self._split(batch):
            part = self._parts.get(values)
            if part is None:
                part = self._parts[values] = _Part(dict(zip(self._by, values, strict=True)))
            part.add(records)
            self._held_bytes += records.nbytes
            if part.records >= GROUP_RECORDS:
                self._flush(part)
        while self._held_bytes > self._group_bytes:
            self._flush(max(self._parts.values(), key=lambda part: part.size_bytes))

    def finish(self) -> list[Written]:
        """Write what is held, and return all files."""
        for part in list(self._parts.values()):
            self._flush(part)
            self._end(part)
        return self._written

    def abandon(self) -> None:
        """Close the files as they are; raise nothing that would hide the first error."""
        for part in self._parts.values():
            if part.open is not None:
                part.open.abandon()

    def _split(self, batch: pa.RecordBatch) -> Iterator[tuple[tuple[str | None, ...], pa.RecordBatch]]:
        if not batch.num_rows:
            return
        if not self._by:
            yield (), batch
            return
        import numpy as np

        codes, values = np.zeros(batch.num_rows, dtype=np.int64), list[pa.Array]()
        for name in self._by:
            column = batch.column(name).dictionary_encode(null_encoding="encode")
            values.append(column.dictionary)
            if math.prod(map(len, values)) >= 1 << 63:  # the codes would overflow, and name wrong partitions
                text = f"partition_by: {', '.join(self._by)} have so many values that each record would be a file"
                raise ConnectorConfigError(text, connector="delta", key="partition_by")
            codes = codes * len(column.dictionary) + column.indices.to_numpy()
        own = batch.select(self._own.names)
        order = np.argsort(codes, kind="stable")
        found, starts = np.unique(codes[order], return_index=True)
        for code, start, end in zip(found.tolist(), starts.tolist(), [*starts.tolist()[1:], len(order)], strict=True):
            texts = list[str | None]()
            for dictionary in reversed(values):
                code, place = divmod(code, len(dictionary))
                texts.append(_log_text(dictionary[place]))
            if "" in texts:
                name = self._by[len(texts) - 1 - texts.index("")]
                raise FatalConnectorError(
                    f"column {name!r}: '' cannot be a partition of a Delta table, where it would become NULL: leave "
                    "such records out by `where`, replace the value in a transformer, or take another `partition_by`",
                    has_no_values=True,
                )
            yield tuple(reversed(texts)), own.take(pa.array(order[start:end]))

    def _flush(self, part: _Part) -> None:
        if not part.records:
            return
        if part.open is None:
            if sum(other.open is not None for other in self._parts.values()) >= MOST_OPEN:
                self._end(next(other for other in self._parts.values() if other.open is not None))
            name = f"part-{uuid.uuid4()}.snappy.parquet"
            self._begun(name)
            part.open = _Open(self._folder, name, self._own, part.pending)
        part.open.write(pa.Table.from_batches(part.pending, self._own))
        self._held_bytes -= part.size_bytes
        part.pending, part.records, part.size_bytes = [], 0, 0
        if part.open.size_bytes() >= FILE_BYTES:
            self._end(part)

    def _end(self, part: _Part) -> None:
        if part.open is None:
            return
        file, part.open = part.open, None
        footer = file.finish()
        failpoint("delta.file.written")
        self._written.append(
            Written(
                name=file.name,
                schema=self.schema,
                partition=part.values,
                records=footer.num_rows,
                size_bytes=self._folder.size_bytes(file.name),
                stats=json.dumps(_stats(footer, self._own), ensure_ascii=False),
            )
        )


def _log_text(value: pa.Scalar) -> str | None:
    """Return a partition's value as the log writes it."""
    found = value.as_py()
    if found is None:
        return None
    return str(found).lower() if isinstance(found, bool) else str(found)


def _stats(footer: Any, schema: pa.Schema) -> dict[str, Any]:
    """Return the statistics of a file: NULLs of flat columns, and bounds where they are exact for all readers.

    None of floats (NaN is above all numbers for some readers, and in no statistics) and of decimals (JSON numbers).
    """
    flat = [each.name for each in list(schema)[:_STATS_COLUMNS] if not pa.types.is_nested(each.type)]
    flat = [name for name in flat if "." not in name]
    place_of = {footer.schema.column(place).path: place for place in range(footer.num_columns)}
    least, most, nulls = dict[str, Any](), dict[str, Any](), dict[str, int]()
    for name in flat:
        found = [footer.row_group(group).column(place_of[name]).statistics for group in range(footer.num_row_groups)]
        if not found or not all(each is not None and each.has_null_count for each in found):
            continue
        nulls[name] = sum(each.null_count for each in found)
        bounds = [each for each in found if each.has_min_max]
        kind = schema.field(name).type
        has_bounds = all(each.has_min_max or each.null_count == each.num_values + each.null_count for each in found)
        if bounds and has_bounds and _is_bounded(kind):
            with suppress(ValueError, OverflowError):  # a time past the years of Python
                low, high = min(each.min for each in bounds), max(each.max for each in bounds)
                if not isinstance(low, str) or max(len(low), len(high)) <= _STATS_LETTERS:
                    least[name], most[name] = _stats_value(low), _stats_value(high)
    return {"numRecords": footer.num_rows, "minValues": least, "maxValues": most, "nullCount": nulls}


def _is_bounded(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(types.is_integer(kind) or types.is_string(kind) or types.is_date(kind) or types.is_timestamp(kind))


def _stats_value(value: Any) -> Any:
    """Return a bound as the log has it; times are cut to milliseconds, which readers know."""
    if isinstance(value, datetime):
        text = value.replace(tzinfo=None).isoformat(timespec="milliseconds")
        return f"{text}Z" if value.tzinfo is not None else text
    return value if isinstance(value, int | str) else value.isoformat()


def written_in(files: Iterable[Written]) -> int:
    """Return the bytes of some files."""
    return sum(file.size_bytes for file in files)
