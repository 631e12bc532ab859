"""SQLite as a source: each stream is one SELECT from one snapshot, exact or refused."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar, cast

import pyarrow as pa
from msgspec import Struct

from ..arrow.batches import FETCH_RECORDS, even_batches
from ..arrow.shared_fields import shared_field
from ..arrow.type_names import type_text
from ..errors import ConnectorConfigError, ConnectorError, FatalConnectorError
from ..field_facts import FieldFacts, facts_of
from ..incremental.checkpoints import incremental
from ..incremental.window import Window
from ..read_spec import Condition, ReplicationMethod
from ..rejected.halving import convert_by_halves
from ..rejected.records import rejection, rejections
from ..sql.identifiers import OWN_PREFIX, TableName, literal
from ..sql.read.queries import QuerySource
from ..sql.read.source import with_rejected
from ..sql.read.sqlite import VIEW, as_written, lowest_constant, sampled
from ..sql.session import Session, SessionLease
from ..sql.tables import Column, Table
from ..stream import Block, Bookmark, Event, Place, RejectedRecord, Stream
from ..struct_helpers import replace
from .bookmark_order import BookmarkOrder, incomplete, is_filterable, order_by
from .catalog import read_catalog
from .decode import SelectPlan, TypeMismatch
from .dialect import dialect
from .reader import SQLiteReader, open_reader
from .session import SQLiteSession
from .settings import SQLiteSettings, read_settings
from .types import UNTYPED, StorageForm, kind_of

#: In a larger file a fetch is limited to as many records as have this size; the driver counts records only.
_WIDE_BYTES = 64 << 20


class Query(Struct, frozen=True):
    """A stream's SELECT, ready to run."""

    plan: SelectPlan
    sql: str
    parameters: tuple[Any, ...]
    is_ordered: bool
    #: SELECT of the records that it leaves out, because a value is not of its column's kind; empty: it leaves out none.
    mismatched: str = ""
    #: SELECT of the longest value of each column of any length; empty: there is none, or it is a view's.
    widths: str = ""


class SQLiteSource(QuerySource):
    """Reads tables and views of one SQLite file; a value that is not of its column's declared type is an error."""

    connector: ClassVar[str] = "sqlite"
    settings: ClassVar[type[SQLiteSettings]] = SQLiteSettings

    def __init__(self, config: Mapping[str, Any], folder: Path) -> None:
        self._config, self._path = read_settings(config, folder)
        super().__init__(dialect(), checkpoint_records=self._config.checkpoint_records)

    def connect(self) -> SQLiteReader | SQLiteSession:
        """Open the file for reading.

        Raises:
            ConnectorConfigError: there is no such file.
        """
        if not self._path.exists():
            raise ConnectorConfigError(f"the database {self._path} does not exist", connector="sqlite", key="path")
        return open_reader(self._path)

    def identity(self) -> str:
        """Return `sqlite:///path`."""
        return f"sqlite://{self._path}"

    def place(self) -> Place:
        """Name a file of this machine; its processes take turns."""
        return "host"

    def table(self, stream: Stream) -> TableName:
        """Return the table of a stream; its name is the stream's, dots and all."""
        return TableName("", str(stream.locator.get("table", stream.name)))

    def streams(self, session: Session) -> Sequence[Stream]:
        """Return what the file holds, without our own tables."""
        return [
            self._stream(session, table)
            for table in read_catalog(session)
            if table.columns and not table.name.name.startswith(OWN_PREFIX)
        ]

    def described(self, session: Session, stream: Stream) -> Sequence[pa.Field]:
        """Make a view of the query, which only this connection sees, and look at it."""
        view = f"temp.{self.dialect.naming.quote(VIEW)}"
        session.query(f"explain select * from (\n{stream.query}\n)")  # what follows a `;` would not be looked at
        session.query(f"create temp view {self.dialect.naming.quote(VIEW)} as {stream.query}")
        try:
            rows = session.query("select name, type from pragma_table_xinfo($1, 'temp')", (VIEW,))
            names = as_written([str(name) for name, _ in rows])
            columns = [Column(name=name, type=str(declared)) for name, (_, declared) in zip(names, rows, strict=True)]
            return [self._field(session, view, column, is_table=False) for column in columns]
        finally:
            session.query(f"drop view {view}")

    def table_columns_now(self, lease: SessionLease, stream: Stream) -> Mapping[str, str]:
        """Ask what the transaction sees."""
        sql = "select name, type from pragma_table_xinfo($1, 'main')"
        return {str(name): str(declared) for name, declared in lease.session.query(sql, (self.table(stream).name,))}

    def is_alike(self, field: pa.Field, native: str, wire: str) -> bool:
        """Tell whether both are declared in words that mean the same: a length is none of them."""
        return kind_of(native) == kind_of(facts_of(field).native_type)

    def incomplete(self, field: pa.Field) -> str:
        """Return the condition under which a value is no bookmark."""
        return incomplete(field)

    def bound(self, value: pa.Scalar, field: pa.Field) -> str:
        """Write it as it would be stored."""
        return lowest_constant(value)

    def written(self, value: Any) -> str:
        """Write a moment as it would be stored."""
        return lowest_constant(pa.scalar(value)) if isinstance(value, datetime) else super().written(value)

    def filters(self, stream: Stream, condition: Condition) -> bool:
        """Filter by columns of a table whose stored values SQLite compares as Arrow compares what is read of them."""
        return not (stream.is_view or stream.query) and is_filterable(condition)

    def filter_marks(self, field: pa.Field) -> list[str]:
        """Return the stored value."""
        name = super().comparable(field)
        return [f"{name} collate binary" if pa.types.is_string(field.type) else name]

    def filter_bounds(self, value: pa.Scalar, field: pa.Field) -> list[str]:
        """Return the form in which the value would be stored."""
        plain = value.as_py()
        if isinstance(plain, bool | int | float):
            return [repr(plain if isinstance(plain, float) else int(plain))]
        return [literal(plain if isinstance(plain, str) else plain.isoformat())]

    def _stream(self, session: Session, table: Table) -> Stream:
        source = self.dialect.naming.table(table.name)
        fields = [self._field(session, source, column, is_table=table.is_table) for column in table.columns]
        return Stream(
            name=table.name.name,
            schema=pa.schema(fields),
            key_properties=table.key,
            is_view=not table.is_table,
            locator={"table": table.name.name},
        )

    def _field(self, session: Session, source: str, column: Column, *, is_table: bool) -> pa.Field:
        kind = kind_of(column.type)
        if kind is None or (not is_table and kind.form is StorageForm.NUMBER):
            kind = UNTYPED[sampled(session.query, source, column.name)]
            column = replace(column, type="")
        facts = FieldFacts(native_type=column.type, native_system="sqlite") if column.type else FieldFacts()
        return shared_field(column.name, kind.arrow, column.is_nullable, facts)

    # -------------------------------------------------------------------- read
    def _events(self, stream: Stream, bookmark: Bookmark | None, wire: str) -> Iterator[Event | Block]:
        with self.sessions(wire).lease(stream.name) as lease:
            lease.begin()
            self.agree(lease, stream, wire)
            query = self._query(lease, stream, bookmark)
            bad: list[RejectedRecord] = []
            batches = even_batches(self._decoded(lease, stream, query, bad))
            if stream.read.method is not ReplicationMethod.INCREMENTAL:
                yield from with_rejected(batches, bad)
                return
            self.refuse_missing(lease, stream)
            events = incremental(
                stream,
                batches,
                bookmark,
                is_ordered=query.is_ordered,
                checkpoint_records=self._checkpoint_records,
                checkpoint_s=self._checkpoint_s,
            )
            yield from with_rejected(events, bad)

    def _query(self, lease: SessionLease, stream: Stream, bookmark: Bookmark | None) -> Query:
        plan = SelectPlan.of(stream.schema, has_affinity=not stream.is_view and not stream.query)
        table = self.relation(stream)
        order = BookmarkOrder()
        if stream.read.method is ReplicationMethod.INCREMENTAL:
            window = Window.of(stream, bookmark)
            order = order_by(window, lambda condition: self._has(lease.session, table, condition))
        sql = plan.select(table, order.sql)
        widths = "" if stream.is_view or stream.query else plan.select_widths(table, order.sql.partition("order by")[0])
        if stream.read.max_rejected is None:
            return Query(plan, sql, order.parameters, order.is_ordered, widths=widths)
        sql = plan.select(f"(select * from {table} as t where ({plan.mismatch()}) is not true)", order.sql)
        where = order.sql.partition("order by")[0]
        mismatched = plan.select_mismatched(table, where, stream.read.max_rejected + 1)
        return Query(plan, sql, order.parameters, order.is_ordered, mismatched, widths)

    def _has(self, session: Session, table: str, condition: str) -> bool:
        return bool(session.query(f"select 1 from {table} as t where {condition} limit 1"))

    def _decoded(
        self, lease: SessionLease, stream: Stream, query: Query, bad: list[RejectedRecord]
    ) -> Iterator[pa.RecordBatch]:
        """Yield the records; rejected ones go into `bad`, if the stream allows them."""
        found = lease.session.query(query.mismatched, query.parameters) if query.mismatched else []
        encoding = _encoding(lease.session) if found else ""
        bad += [_mismatched_record(stream, row, encoding) for row in found]
        session = cast("SQLiteReader | SQLiteSession", lease.session)
        has_literals = True
        try:
            for batch in session.fetch(query.sql, query.parameters, self._fetch_records(session, query)):
                lease.check()
                query.plan.check(batch)
                batch, has_literals = batch.slice(1) if has_literals else batch, False
                if stream.read.max_rejected is None:
                    yield query.plan.decode(batch)
                    continue
                good, found = convert_by_halves(batch, lambda part: _decode(query.plan, part), stream.read.max_rejected)
                bad += _rejections(batch, stream, found)
                yield from good
        except TypeMismatch as mismatch:
            raise self._explained(session, stream, query.plan, mismatch) from mismatch
        except FatalConnectorError as error:
            if "Type mismatch in column" not in str(error):
                raise
            raise self._explained(session, stream, query.plan, TypeMismatch("")) from error

    def _fetch_records(self, session: SQLiteReader | SQLiteSession, query: Query) -> int:
        """Return how many records to ask the driver for at once."""
        if not query.widths or self._path.stat().st_size <= _WIDE_BYTES:
            return FETCH_RECORDS
        try:
            (found,) = session.query(query.widths, query.parameters)
        except FatalConnectorError:  # an SQLite before 3.43, which would read all values for it
            return FETCH_RECORDS
        width_bytes = sum(length or 0 for length in found)
        return max(1, min(FETCH_RECORDS, _WIDE_BYTES // max(1, width_bytes)))

    def _explained(
        self, session: SQLiteReader | SQLiteSession, stream: Stream, plan: SelectPlan, mismatch: TypeMismatch
    ) -> ConnectorError:
        """Find the record whose value does not fit."""
        table, encoding = self.relation(stream), _encoding(session)
        for each in plan.columns:
            if mismatch.column not in ("", each.name):
                continue
            name = f"t.{self.dialect.naming.quote(each.name)}"
            by_value = bool(mismatch.column) and mismatch.value is not None
            condition = f"cast({each.selected} as blob) = $1" if by_value else each.mismatch
            parameters = (_recoded(mismatch.value or b"", encoding),) if by_value else ()
            # As bytes: the value may be no valid text.
            shown = f"typeof({name}), cast(substr(quote({name}), 1, 60) as blob)"
            where = f"from {table} as t where {condition} limit 1"
            try:
                rows = session.query(f"select rowid, {shown} {where}", parameters)
            except FatalConnectorError:  # a view, or a table without row ids
                rows = [(None, *row) for row in session.query(f"select {shown} {where}", parameters)]
            if rows:
                return _mismatch_error(stream, plan.schema.field(each.name), rows[0], mismatch.reason, encoding)
        name = mismatch.column or "one column"
        return FatalConnectorError(
            f"table {stream.name!r}, column {name!r}: a value does not fit its declared type: {mismatch.reason}",
            stream=stream.name,
        )


def _decode(plan: SelectPlan, batch: pa.RecordBatch) -> pa.RecordBatch:
    try:
        return plan.decode(batch)
    except TypeMismatch as mismatch:
        raise ValueError(f"column {mismatch.column!r}: {mismatch.reason}") from mismatch


def _rejections(batch: pa.RecordBatch, stream: Stream, found: Sequence[tuple[int, str]]) -> list[RejectedRecord]:
    """Make rejected records of those that could not be decoded, without the plan's own columns."""
    if not found:
        return []
    names = stream.schema.names
    raw = pa.RecordBatch.from_arrays(batch.columns[: len(names)], names=names)
    return rejections(raw.take(pa.array([place for place, _ in found])), lambda place: found[place][1])


def _encoding(session: Session | SQLiteReader) -> str:
    """Return the encoding of the file's texts, in which they become blobs."""
    ((encoding,),) = session.query("pragma encoding")
    return str(encoding)


def _recoded(text: bytes, encoding: str) -> bytes:
    """Return what was read as a text (UTF-8, as far as it is one) as the bytes that are in the file."""
    return text if encoding == "UTF-8" else text.decode(errors="replace").encode(encoding)


def _mismatched_record(stream: Stream, row: Sequence[Any], encoding: str) -> RejectedRecord:
    """Make a rejected record of a row of `SelectPlan.select_mismatched`."""
    names = stream.schema.names
    values = {name: value.decode(encoding, "backslashreplace") for name, value in zip(names, row, strict=False)}
    wrong = [name for name, is_wrong in zip(names, row[len(names) :], strict=True) if is_wrong]
    shown = ", ".join(
        f"column {name!r}: {values[name][:60]} does not fit {type_text(stream.schema.field(name).type)}"
        for name in wrong
    )
    return rejection(values, shown)


def _mismatch_error(stream: Stream, field: pa.Field, row: Sequence[Any], reason: str, encoding: str) -> ConnectorError:
    rowid, stored, value = row[0], row[1], row[2].decode(encoding, "replace")
    declared = facts_of(field).native_type
    place = f", rowid {rowid}" if rowid is not None else ""
    promise = f"declared {declared}" if declared else f"read as {type_text(field.type)} because of its first values"
    return FatalConnectorError(
        f"table {stream.name!r}, column {field.name!r}{place}: {value} is stored as {stored}, which does not fit a "
        f"column {promise}{f' ({reason})' if reason else ''}; correct the value, exclude the column with "
        "`columns`, or read it through a view with CAST",
        connector="sqlite",
        stream=stream.name,
    )
