"""DuckDB as a source: each stream is one streamed SELECT."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

import pyarrow as pa

from ..arrow.flatten import flat_schema, marked, path_of
from ..arrow.times import has_leaf, is_last_nanosecond, is_past_day
from ..errors import ConnectorConfigError, FatalConnectorError
from ..field_facts import facts_of, with_facts
from ..sql.dialect.types import native_of
from ..sql.identifiers import OWN_PREFIX, TableName, literal
from ..sql.read.queries import QuerySource
from ..sql.session import Session, SessionLease
from ..sql.tables import Table
from ..stream import Bookmark, Place, RejectedRecord, Stream
from ..struct_helpers import replace
from . import types
from .catalog import read_catalog
from .database import open_database
from .dialect import DuckDBNaming, dialect
from .memory import read_bytes, widths
from .nested import any_interval
from .objects import FLAT, flat_columns, flat_relation
from .session import DuckDBSession
from .settings import DuckDBSettings, read_settings

if TYPE_CHECKING:
    from ..compared_values import Checksums, KeyRange, Side

#: Arrow stores an interval's nanoseconds, and DuckDB silently changes a longer one.
_TOO_LONG = (
    "abs(datepart('hour', {0})::hugeint * 3600000000 + datepart('minute', {0}) * 60000000 "
    "+ datepart('microsecond', {0})) > 9223372036854775"
)


class DuckDBSource(QuerySource):
    """Reads tables and views of one DuckDB file; read-only unless this process also writes it."""

    connector: ClassVar[str] = "duckdb"
    settings: ClassVar[type[DuckDBSettings]] = DuckDBSettings

    def __init__(self, config: Mapping[str, Any], folder: Path) -> None:
        self._config, self._path = read_settings(config, folder)
        self._database = open_database(self._path)
        self._naming = DuckDBNaming()
        #: Name of a stream -> number of levels of structs that become columns.
        self._levels: Callable[[str], int] = lambda _: 0
        super().__init__(
            dialect(self._naming),
            schema=self._config.schema_ or "",
            checkpoint_records=self._config.checkpoint_records,
        )

    def limit_memory(self, size_bytes: int, *, is_strict: bool) -> None:
        """Limit DuckDB's memory to this size; a strict limit also applies to merges."""
        self._database.limit_memory(size_bytes, is_strict=is_strict)

    def connect(self) -> DuckDBSession:
        """Open the file, or share it.

        Raises:
            ConnectorConfigError: there is no such file.
        """
        if not self._path.exists():
            raise ConnectorConfigError(f"the database {self._path} does not exist", connector="duckdb", key="path")
        cursor = self._database.cursor(self, self._config, is_writer=False)
        session = DuckDBSession(self._database, cursor)
        self._naming.catalog = session.catalog
        return session

    def identity(self) -> str:
        """Return `duckdb:///path`."""
        return f"duckdb://{self._path}"

    def place(self) -> Place:
        """Only one process at a time can open the file."""
        return "process"

    def close(self) -> None:
        """Close every session; the file is unlocked when this process no longer uses it."""
        super().close()
        self._database.let_go(self)

    def _batches(
        self,
        lease: SessionLease,
        stream: Stream,
        bookmark: Bookmark | None,
        bad: list[RejectedRecord],
        changed: list[Stream],
    ) -> Generator[pa.RecordBatch]:
        if not stream.is_view and not stream.query and FLAT not in stream.locator:
            texts = [field.name for field in stream.schema if not pa.types.is_primitive(field.type)]
            found = lease.session.query(widths(self.dialect.naming.table(self.table(stream)), texts)) if texts else []
            self._database.ensure_memory(read_bytes(found, self._database.threads()), is_bounded=True)
        yield from super()._batches(lease, stream, bookmark, bad, changed)

    def streams(self, session: Session) -> Sequence[Stream]:
        """Return the tables and views of the file, without our own tables."""
        schema = self._config.schema_
        return [
            self._flattened(session, _stream(table))
            for table in read_catalog(session)
            if not table.name.name.startswith(OWN_PREFIX) and schema in (None, table.name.schema)
        ]

    def flatten(self, levels: Callable[[str], int]) -> None:
        """See `FlattensObjects`."""
        self._levels = levels

    def _flattened(self, session: Session, stream: Stream) -> Stream:
        """Return a stream with the fields of its structs as columns, selected by DuckDB."""
        flat = flat_schema(stream.schema, self._levels(stream.name), f"stream {stream.name!r}")
        if all(len(path_of(field)) == 1 for field in flat):
            return stream
        stream = replace(stream, locator={**stream.locator, FLAT: flat_columns(flat, self.dialect.naming.quote)})
        kinds = {str(name): str(kind) for name, kind, *_ in session.query(f"describe {self.unfiltered(stream)}")}
        fields = [
            field
            if len(path_of(field)) == 1
            else marked(_field(field.name, kinds[field.name], is_nullable=field.nullable), path_of(field))
            for field in flat
        ]
        return replace(stream, schema=pa.schema(fields))

    def query_stream(
        self, name: str, query: str, values: Mapping[str, Any] | None = None, start: str | float | None = None
    ) -> Stream:
        """See `ReadsQueries`."""
        stream = super().query_stream(name, query, values, start)
        with self._sessions.lease(name) as lease:
            lease.begin()
            known = self.bounded(stream)  # an unknown bookmark is NULL
            flat = self._flattened(lease.session, known)
            return replace(stream, schema=flat.schema, locator=flat.locator)

    def unfiltered(self, stream: Stream) -> str:
        """Write the table or the query, with the fields of structs as columns."""
        whole, columns = super().unfiltered(stream), stream.locator.get(FLAT)
        return flat_relation(columns, whole, self.dialect.naming.quote) if columns else whole

    def columns_now(self, lease: SessionLease, stream: Stream) -> Mapping[str, str]:
        """Include selected fields of structs in the description."""
        if FLAT not in stream.locator:
            return super().columns_now(lease, stream)
        rows = lease.session.query(f"describe {self.unfiltered(stream)}")
        return {str(name): str(kind) for name, kind, *_ in rows}

    def described(self, session: Session, stream: Stream) -> Sequence[pa.Field]:
        """Describe the query itself; as a subquery it could get other column names."""
        cast("DuckDBSession", session).demand_select(stream.query)
        session.query(f"describe select * from (\n{stream.query}\n) as t")
        rows = session.query(f"describe {stream.query}")
        return [_field(str(name), str(kind), is_nullable=True) for name, kind, *_ in rows]

    def table_columns_now(self, lease: SessionLease, stream: Stream) -> Mapping[str, str]:
        """Read the columns that the transaction sees."""
        rows = lease.session.query(f"describe {self.dialect.naming.table(self.table(stream))}")
        return {str(name): str(kind) for name, kind, *_ in rows}

    def is_alike(self, field: pa.Field, native: str, wire: str) -> bool:
        """Rely on Arrow to refuse integers that do not fit."""
        return bool(pa.types.is_integer(field.type) and pa.types.is_integer(types.reading(native).arrow))

    def expression(self, field: pa.Field) -> str:
        """Convert types for Arrow: some to text, wide integers to decimals, a UUID to bytes."""
        column = super().expression(field)
        native = facts_of(field).native_type
        if not native:
            return column
        if native == "UUID":
            return f"unhex(replace({column}::varchar, '-', ''))"
        known = types.reading(native)
        read = column if known.sql == native else f"cast({column} as {known.sql})"
        if "INTERVAL" not in native:
            return read
        is_too_long = any_interval(column, known.arrow, _TOO_LONG)
        error = f"'the interval ' || {column}::varchar || ' is longer than the 292 years that nanoseconds can count'"
        return f"case when {is_too_long} then error({error}) else {read} end" if is_too_long else read

    def to_schema(self, batch: pa.RecordBatch, stream: Stream) -> pa.RecordBatch:
        """Refuse values without an Arrow form; only DuckDB's destination takes other infinite dates and timestamps."""
        for name, array in zip(batch.schema.names, batch.columns, strict=True):
            if has_leaf(array, _is_unheard_of):
                raise FatalConnectorError(
                    f"column {name!r} contains the time 24:00, or an infinite TIMESTAMP_NS, which Arrow cannot "
                    "hold; read it through a view that casts it to text, or exclude the column with `columns`",
                    connector="duckdb",
                    stream=stream.name,
                )
        return super().to_schema(batch, stream)

    def comparable(self, field: pa.Field) -> str:
        """Compare the members of a UNION as texts, since they arrive as texts.

        DuckDB would compare the member's tag first.
        """
        column = super().comparable(field)
        return f"{column}::varchar" if _is_union(field) else column

    def constant(self, value: pa.Scalar, field: pa.Field) -> str:
        """Return a bookmark's value as a constant of the column's type."""
        if pa.types.is_binary(field.type):
            return f"unhex({literal(value.as_py().hex())})"
        if _is_union(field):
            return literal(value.as_py())
        return super().constant(value, field)

    def checksum_system(self) -> str:
        """Return the system whose SQL computes them."""
        return "duckdb"

    def keeps_json(self) -> bool:
        """Return whether `json` keeps the text unchanged."""
        return False

    def array_item(self, field: pa.Field) -> pa.Field | None:
        """Return the items of an array that is read as text."""
        return None

    def checksums(self, side: Side) -> AbstractContextManager[Checksums]:
        """Compute checksums in the database."""
        from .checksums import DuckDBCanonical

        return self.opened_checksums(side, DuckDBCanonical())

    def narrowed(self, stream: Stream, side: Side, ranges: Sequence[KeyRange]) -> Stream:
        """Return a stream of the records of some ranges of keys."""
        from .checksums import DuckDBCanonical

        return self.within(stream, side, DuckDBCanonical(), ranges)

    def tie_breaker(self, field: pa.Field) -> str | None:
        """Distinguish texts by their bytes, whatever the collation."""
        if not pa.types.is_string(field.type):
            return None
        return f"encode(t.{self.dialect.naming.quote(field.name)}::varchar)"

    def bounds(self, value: pa.Scalar, field: pa.Field) -> list[str]:
        """Return the constants for the marks: a text's bytes as bytes."""
        first, *rest = super().bounds(value, field)
        return [first, *(f"encode({each})" for each in rest)]

    def filter_marks(self, field: pa.Field) -> list[str]:
        """Compare a text by its bytes, but first by a form that uses DuckDB's statistics."""
        exact = super().filter_marks(field)
        return [self.comparable(field), *exact] if _native(field) == "VARCHAR" else exact

    def filter_bounds(self, value: pa.Scalar, field: pa.Field) -> list[str]:
        """Return the constants for the marks; an ENUM only accepts its labels, so it is compared as text."""
        if not pa.types.is_string(field.type):
            return [self.constant(value, field)]
        text = literal(value.as_py())
        return [text, f"encode({text})"][-len(self.filter_marks(field)) :]

    def incomplete(self, field: pa.Field) -> str:
        """Treat NaN as no bookmark; DuckDB sorts NaN above all numbers."""
        missing = super().incomplete(field)
        if not pa.types.is_floating(field.type):
            return missing
        return f"{missing or 'false'} or isnan(t.{self.dialect.naming.quote(field.name)})"


def _is_unheard_of(array: pa.Array) -> bool:
    return is_past_day(array) or is_last_nanosecond(array)


def _native(field: pa.Field) -> str:
    return native_of(field, "duckdb")


def _is_union(field: pa.Field) -> bool:
    return _native(field).startswith("UNION(")


def _field(name: str, kind: str, *, is_nullable: bool) -> pa.Field:
    found = pa.field(name, types.reading(kind).arrow, is_nullable)
    return with_facts(found, native_type=kind, native_system="duckdb")


def _stream(table: Table) -> Stream:
    keys = set(table.key)
    fields = [
        _field(column.name, column.type, is_nullable=column.is_nullable and column.name not in keys)
        for column in table.columns
    ]
    schema = "" if table.name.schema == "main" else table.name.schema
    return Stream(
        name=str(TableName(schema, table.name.name)),
        schema=pa.schema(fields),
        key_properties=table.key,
        is_view=not table.is_table,
        locator={"schema": table.name.schema, "table": table.name.name},
    )
