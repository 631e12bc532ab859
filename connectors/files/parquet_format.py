"""The Parquet format: types come from the file, and batches are sized by bytes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from types import MappingProxyType
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet
from msgspec import Struct

from ..arrow.batch_validation import DAMAGE
from ..arrow.conform import reason, shown
from ..arrow.flatten import Paths, flat_schema, leaf_of, path_of
from ..arrow.parquet_encodings import encoded_leaves
from ..arrow.parquet_size import fitting_records, joined
from ..arrow.text import to_text
from ..arrow.times import is_fine
from ..errors import FatalConnectorError
from ..field_facts import FieldFacts, with_facts
from .foreign_types import own_columns, parquet_columns, with_texts
from .formats import Writer
from .int96 import fine_columns, has_int96, unit_of
from .paths import DataFile
from .ranges import FilePart, part_of
from .read_rejections import ReadRejections
from .settings import BLOCK_BYTES, ParquetSourceSettings
from .split_files import Unit
from .typed_format import TypedFormat

#: A row group is written at so many bytes (fewer with a memory limit) or records.
GROUP_BYTES = 32 << 20
GROUP_RECORDS = 1 << 20

#: Bytes of a column that one read takes from a disk, and from a store, where each request costs time; a larger page
#: is read whole.
_READ_BYTES = 1 << 16
_FETCH_BYTES = 4 << 20

#: Bytes that are fetched from a store ahead.
AHEAD_BYTES = 64 << 20


class Footer(Struct, frozen=True):
    """The footer of one file."""

    schema: pa.Schema
    records: int
    groups: int
    #: Before compression.
    size_bytes: int


class ParquetFormat(TypedFormat):
    """Parquet, compressed by zstd unless the config names another codec."""

    suffix = "parquet"
    suffixes: Sequence[str] = (".parquet", ".pq")
    written: Mapping[str, Any] = MappingProxyType({})
    needs_equal_columns = False

    def __init__(self, settings: ParquetSourceSettings | None = None, compression: str = "zstd") -> None:
        super().__init__(settings or ParquetSourceSettings(path="."))
        self._compression = compression
        #: Bytes at which a row group is written.
        self.group_bytes = GROUP_BYTES
        #: Bytes fetched ahead if the file is not local.
        self.ahead_bytes = AHEAD_BYTES

    def own_schema(self, file: DataFile) -> pa.Schema:
        """Return a file's columns, as its footer has them."""
        return flat_schema(self.footer(file).schema, file.levels, file.label)

    def footer(self, file: DataFile) -> Footer:
        """Read a file's footer."""
        with _Opened(file) as opened:
            metadata, schema = opened.metadata, parquet_columns(opened)
        twice = sorted(name for name, count in Counter(schema.names).items() if count > 1)
        if twice:
            raise FatalConnectorError(
                f"{file.label}: column {shown(twice[0])} exists twice: correct the program that writes the file"
            )
        groups = metadata.num_row_groups
        size_bytes = sum(metadata.row_group(place).total_byte_size for place in range(groups))
        return Footer(schema, metadata.num_rows, groups, size_bytes)

    def read(
        self, file: DataFile, wanted: pa.Schema, known: frozenset[str], rejected: ReadRejections | None = None
    ) -> Iterator[pa.RecordBatch]:
        source = _Opened(file)
        with source as opened:
            metadata = opened.metadata
            own = flat_schema(parquet_columns(opened), file.levels, file.label)
            stored = flat_schema(own_columns(opened.schema_arrow), file.levels, file.label)
            enums = {field.name for field, other in zip(own, stored, strict=True) if field.type != other.type}
            paths = Paths(list(own))
            present = [".".join(paths.of[name]) for name in wanted.names if name in paths.of]
            self.refuse_other_types(file, own, wanted)
            try:
                chosen = _chosen(file, metadata.num_row_groups)
                most = self._settings.batch_size
                reopen = source.with_dictionary if file.is_local else None
                size = fitting_records(opened, chosen, BLOCK_BYTES, most, reopen)
                opened = source.exact(opened, wanted, chosen)
                for groups, is_ahead in [(chosen, False)] if file.is_local else self._fetches(metadata, chosen):
                    reader = source.ahead(opened) if is_ahead else opened
                    batches = reader.iter_batches(batch_size=size, columns=present, row_groups=groups)
                    whole = _whole(batches, metadata, groups)
                    fitted = (self.fitted(file, with_texts(_flat(batch, own), own, enums), wanted) for batch in whole)
                    yield from joined(fitted, BLOCK_BYTES, most)
            except DAMAGE as error:
                raise FatalConnectorError(f"{file.label}: {_unreadable('cannot be read', error)}") from error

    def _fetches(
        self, metadata: pyarrow.parquet.FileMetaData, groups: Sequence[int] | None
    ) -> Iterator[tuple[list[int], bool]]:
        """Yield the row groups that one fetch takes, and whether they can be fetched ahead as a whole."""
        run: list[int] = []
        gathered = 0
        for place in range(metadata.num_row_groups) if groups is None else groups:
            group = metadata.row_group(place)
            size = sum(group.column(column).total_compressed_size for column in range(group.num_columns))
            if run and gathered + size > self.ahead_bytes:
                yield run, gathered <= self.ahead_bytes
                run, gathered = [], 0
            run.append(place)
            gathered += size
        if run:
            yield run, gathered <= self.ahead_bytes

    def nanoseconds(self, file: DataFile, names: Sequence[str]) -> frozenset[str]:
        """Return those of some columns of nanoseconds that have a digit below the microsecond; reads all values."""
        source = _Opened(file)
        with source as opened:
            schema = opened.schema_arrow
            present = [name for name in names if name in schema.names and is_fine(schema.field(name).type)]
            try:
                return fine_columns(opened, source.in_micros(opened), present) if present else frozenset()
            except DAMAGE as error:
                raise FatalConnectorError(f"{file.label}: {_unreadable('cannot be read', error)}") from error

    def unit(self, file: DataFile) -> Unit:
        return "groups"

    def split(self, file: DataFile, count: int, range_bytes: int) -> list[tuple[DataFile, str]]:
        """Split by row groups."""
        with _Opened(file) as opened:
            sizes = [
                opened.metadata.row_group(place).total_byte_size for place in range(opened.metadata.num_row_groups)
            ]
        parts: list[tuple[DataFile, str]] = []
        wanted, first, gathered = max(range_bytes, sum(sizes) // max(count, 1)), 0, 0
        for place, size in enumerate(sizes):
            gathered += size
            if gathered >= wanted or place == len(sizes) - 1:
                label = f"{file.label}, row groups {first} to {place}"
                parts.append((part_of(file, groups=range(first, place + 1)), label))
                first, gathered = place + 1, 0
        return parts or [(file, file.label)]

    def count(self, file: DataFile) -> int:
        with _Opened(file) as opened:
            return int(opened.metadata.num_rows)

    def written_type(self, kind: pa.DataType) -> pa.DataType:
        if pa.types.is_timestamp(kind) and kind.unit == "s":
            return pa.timestamp("ms", kind.tz)  # Parquet counts no seconds
        return _kept(pa.field("", kind)).type

    def has_type(self, kind: pa.DataType) -> bool:
        return not (pa.types.is_decimal(kind) and kind.scale < 0)

    def keeps_as_text(self, kind: pa.DataType) -> bool:
        return _holds_intervals(kind)

    def writer(self, sink: BinaryIO, schema: pa.Schema) -> Writer:
        return ParquetWriter(sink, schema, self._compression, self.group_bytes)


def _chosen(file: DataFile, groups: int) -> Sequence[int] | None:
    """Return the row groups of a part of a file that has so many; None: all."""
    if not isinstance(file, FilePart) or file.groups is None:
        return None
    if file.groups[-1] >= groups:
        raise FatalConnectorError(f"{file.label}: has only {groups} row groups")
    return list(file.groups)


def _whole(
    batches: Iterable[pa.RecordBatch], metadata: pyarrow.parquet.FileMetaData, groups: Sequence[int] | None
) -> Iterator[pa.RecordBatch]:
    """Yield batches of row groups, all by default; Arrow ends without an error where a column has fewer values.

    Raises:
        pa.ArrowInvalid: there are fewer or more records than the footer says.
    """
    places = range(metadata.num_row_groups) if groups is None else groups
    there, found = sum(metadata.row_group(place).num_rows for place in places), 0
    for batch in batches:
        found += batch.num_rows
        yield batch
    if found != there:
        raise pa.ArrowInvalid(f"the footer counts {there} records, but {found} were found")


def _unreadable(what: str, error: Exception) -> str:
    """Return what a message says of a file that the library cannot read."""
    if "crypt" in str(error):
        return "is encrypted, and no keys are configured: decrypt it, or exclude it from the source's `path`"
    return f"{what}: {reason(error)}"


def _flat(batch: pa.RecordBatch, own: pa.Schema) -> pa.RecordBatch:
    """Return a batch with a column for each of the file's that it has."""
    if all(len(path_of(field)) == 1 for field in own):
        return batch
    found = [(field.name, leaf_of(batch, path_of(field))) for field in own]
    columns = {name: column for name, column in found if column is not None}
    return pa.record_batch(columns) if columns else batch


class ParquetWriter:
    """Collects batches into row groups; writes intervals, which Parquet lacks, and types that hold them as text."""

    def __init__(self, sink: BinaryIO, schema: pa.Schema, compression: str, group_bytes: int = GROUP_BYTES) -> None:
        self._schema = pa.schema([_kept(field) for field in schema])
        self._sink, self._compression = sink, compression
        self._opened: pyarrow.parquet.ParquetWriter | None = None
        self._group_bytes = group_bytes
        self._held: list[pa.RecordBatch] = []
        self._held_bytes = 0
        self._held_records = 0

    def write(self, batch: pa.RecordBatch) -> None:
        columns = [
            column if column.type.equals(field.type) else to_text(column, field.name)
            for field, column in zip(self._schema, batch.columns, strict=True)
        ]
        self._held.append(pa.record_batch(columns, schema=self._schema) if columns else batch)
        self._held_bytes += batch.nbytes
        self._held_records += batch.num_rows
        if self._held_bytes >= self._group_bytes or self._held_records >= GROUP_RECORDS:
            self._flush()

    def close(self) -> None:
        self._flush()
        self._writer().close()

    def abandon(self) -> None:
        self._held = []
        if self._opened is not None:
            with suppress(OSError, ValueError, pa.ArrowException):
                self._opened.close()
            # Otherwise it would try again when it is collected.
            self._opened.is_open = False

    def _writer(self) -> pyarrow.parquet.ParquetWriter:
        """Open the file."""
        if self._opened is None:
            dictionary, statistics = encoded_leaves(self._schema, self._held)
            self._opened = pyarrow.parquet.ParquetWriter(
                self._sink,
                self._schema,
                compression=self._compression,
                use_dictionary=dictionary,
                write_statistics=statistics,
            )
        return self._opened

    def _flush(self) -> None:
        if self._held:
            self._writer().write_table(pa.Table.from_batches(self._held), row_group_size=GROUP_RECORDS)
        self._held, self._held_bytes, self._held_records = [], 0, 0


class _Opened:
    """A Parquet file and the open file below it."""

    def __init__(self, file: DataFile) -> None:
        self._file = file
        self._raw = file.open_raw()
        #: Unit in which INT96 is read.
        self._unit: str | None = None

    def __enter__(self) -> pyarrow.parquet.ParquetFile:
        try:
            return self._reader()
        except DAMAGE as error:
            self._raw.close()
            raise FatalConnectorError(f"{self._file.label}: {_unreadable('no Parquet file', error)}") from error

    def exact(
        self, opened: pyarrow.parquet.ParquetFile, wanted: pa.Schema, groups: Sequence[int] | None
    ) -> pyarrow.parquet.ParquetFile:
        """Return a reader that changes no INT96 value on the way to the wanted types."""
        if not has_int96(opened.metadata):
            return opened
        micros = self.in_micros(opened)
        self._unit = unit_of(self._file.label, opened, micros, wanted, groups)
        return micros if self._unit == "us" else opened

    def in_micros(self, opened: pyarrow.parquet.ParquetFile) -> pyarrow.parquet.ParquetFile:
        """Return a reader that gives INT96 in microseconds."""
        return self._reader(metadata=opened.metadata, coerce_int96_timestamp_unit="us")

    def with_dictionary(self, path: str) -> pyarrow.parquet.ParquetFile:
        """Return a reader that gives a column as it is encoded, with each value once; JSON as the texts it is."""
        return self._reader(read_dictionary=[path], arrow_extensions_enabled=False)

    def ahead(self, opened: pyarrow.parquet.ParquetFile) -> pyarrow.parquet.ParquetFile:
        """Return a reader that fetches and keeps all requested bytes at once."""
        return pyarrow.parquet.ParquetFile(
            pa.PythonFile(self._raw, mode="r"),
            metadata=opened.metadata,
            pre_buffer=True,
            coerce_int96_timestamp_unit=self._unit,
            page_checksum_verification=True,
        )

    def _reader(self, **options: Any) -> pyarrow.parquet.ParquetFile:
        # Without a buffer, whole columns of a row group would be in memory.
        size = _READ_BYTES if self._file.is_local else _FETCH_BYTES
        raw = pa.PythonFile(self._raw, mode="r")
        return pyarrow.parquet.ParquetFile(
            raw, pre_buffer=False, buffer_size=size, page_checksum_verification=True, **options
        )

    def __exit__(self, *_: object) -> None:
        self._raw.close()


def _kept(field: pa.Field) -> pa.Field:
    if pa.types.is_interval(field.type):
        return with_facts(field.with_type(pa.string()), FieldFacts(native_type="interval"))
    return field.with_type(pa.string()) if _holds_intervals(field.type) else field


def _holds_intervals(kind: pa.DataType) -> bool:
    types = pa.types
    if types.is_map(kind):
        return _holds_intervals(kind.key_type) or _holds_intervals(kind.item_type)
    if types.is_struct(kind):
        return any(_holds_intervals(field.type) for field in kind)
    if types.is_nested(kind) and not types.is_union(kind):
        return _holds_intervals(kind.value_type)
    return bool(types.is_interval(kind))
