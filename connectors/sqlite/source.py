"""SQLite as a source: each stream is one SELECT from one snapshot, exact or refused."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, cast

import pyarrow as pa

from ..bookmarks import bookmark_values, lower_bound
from ..errors import ConnectorConfigError, ConnectorError, FatalConnectorError
from ..incremental import incremental
from ..protocols import Block
from ..sql.batches import even_batches
from ..sql.dialect import Column, Table
from ..sql.identifiers import OWN_PREFIX, TableName
from ..sql.session import Lease, Session
from ..sql.source import SqlSource
from ..stream import Bookmark, Event, ReplicationMethod, Stream
from .decode import Misfit, Plan
from .dialect import SQLiteDialect, read_catalog
from .order import Order, incomplete, order_by
from .reader import SQLiteReader, open_reader
from .session import SQLiteSession
from .settings import SQLiteSettings, read_settings
from .types import UNTYPED, Form, kind_of

#: Records that are looked at to find out what a column without a declared type holds.
_SAMPLE_RECORDS = 1000


@dataclass(frozen=True, slots=True)
class Query:
    """A stream's SELECT, ready to run."""

    plan: Plan
    sql: str
    parameters: tuple[Any, ...]
    is_ordered: bool


class SQLiteSource(SqlSource):
    """Reads tables and views of one SQLite file; a value that is not of its column's declared type is an error."""

    connector: ClassVar[str] = "sqlite"
    settings: ClassVar[type[SQLiteSettings]] = SQLiteSettings

    def __init__(self, config: Mapping[str, Any], folder: Path) -> None:
        self._config, self._path = read_settings(config, folder)
        super().__init__(SQLiteDialect(), checkpoint_records=self._config.checkpoint_records)

    def connect(self) -> SQLiteReader | SQLiteSession:
        """Open the file for reading.

        Raises:
            ConnectorConfigError: there is no such file.
        """
        if not self._path.exists():
            raise ConnectorConfigError(f"there is no database {self._path}", connector="sqlite", key="path")
        return open_reader(self._path)

    def identity(self) -> str:
        """Return `sqlite:///path`."""
        return f"sqlite://{self._path}"

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

    def incomplete(self, field: pa.Field) -> str:
        """Return the condition under which a value is no bookmark."""
        return incomplete(field)

    def _stream(self, session: Session, table: Table) -> Stream:
        fields = []
        for column in table.columns:
            kind = kind_of(column.type)
            if kind is None or (not table.is_table and kind.form is Form.NUMBER):
                kind = UNTYPED[self._sampled(session, table, column)]
                column = replace(column, type="")
            metadata = {b"native_type": column.type.encode(), b"native_system": b"sqlite"} if column.type else None
            is_nullable = column.is_nullable and column.name not in table.key
            fields.append(pa.field(column.name, kind.arrow, is_nullable, metadata))
        return Stream(
            name=table.name.name,
            schema=pa.schema(fields),
            key_properties=table.key,
            is_view=not table.is_table,
            locator={"table": table.name.name},
        )

    def _sampled(self, session: Session, table: Table, column: Column) -> str:
        """Return what the first values of a column without a declared type are; text if there are several kinds."""
        name, source = self.dialect.quote(column.name), self.dialect.table(table.name)
        rows = session.query(
            f"select distinct typeof(c) from (select {name} as c from {source} limit {_SAMPLE_RECORDS}) "
            "where c is not null"
        )
        found = {str(kind) for (kind,) in rows}
        if found == {"integer", "real"}:
            return "real"
        return found.pop() if len(found) == 1 else "text"

    # -------------------------------------------------------------------- read
    def _events(self, stream: Stream, bookmark: Bookmark | None, wire: str) -> Iterator[Event | Block]:
        with self.sessions(wire).lease(stream.name) as lease:
            lease.begin()
            query = self._query(lease, stream, bookmark)
            batches = even_batches(self._decoded(lease, stream, query))
            if stream.replication_method is not ReplicationMethod.INCREMENTAL:
                yield from batches
                return
            self.refuse_missing(lease, stream)
            yield from incremental(
                stream,
                batches,
                bookmark,
                is_ordered=query.is_ordered,
                checkpoint_records=self._checkpoint_records,
                checkpoint_s=self._checkpoint_s,
            )

    def _query(self, lease: Lease, stream: Stream, bookmark: Bookmark | None) -> Query:
        plan = Plan.of(stream.schema, has_affinity=not stream.is_view)
        table = self.dialect.table(self.table(stream))
        order = Order()
        if stream.replication_method is ReplicationMethod.INCREMENTAL:
            start = bookmark_values(stream, bookmark)
            fields = [stream.schema.field(name) for name in stream.bookmark_properties]
            order = order_by(
                fields,
                lower_bound(stream, start),
                lambda condition: self._has(lease.session, table, condition),
                stream.null_bookmarks,
            )
        return Query(plan, plan.select(table, order.sql), order.parameters, order.is_ordered)

    def _has(self, session: Session, table: str, condition: str) -> bool:
        return bool(session.query(f"select 1 from {table} as t where {condition} limit 1"))

    def _decoded(self, lease: Lease, stream: Stream, query: Query) -> Iterator[pa.RecordBatch]:
        session = cast("SQLiteReader | SQLiteSession", lease.session)
        has_literals = True
        try:
            for batch in session.fetch(query.sql, query.parameters):
                lease.check()
                query.plan.check(batch)
                yield query.plan.decode(batch.slice(1) if has_literals else batch)
                has_literals = False
        except Misfit as misfit:
            raise self._explained(session, stream, query.plan, misfit) from misfit
        except FatalConnectorError as error:
            if "Type mismatch in column" not in str(error):
                raise
            raise self._explained(session, stream, query.plan, Misfit("")) from error

    def _explained(
        self, session: SQLiteReader | SQLiteSession, stream: Stream, plan: Plan, misfit: Misfit
    ) -> ConnectorError:
        """Find the record whose value does not fit."""
        table = self.dialect.table(self.table(stream))
        for each in plan.columns:
            if misfit.column not in ("", each.name):
                continue
            name = f"t.{self.dialect.quote(each.name)}"
            by_value = misfit.column and misfit.value is not None
            condition = f"cast({each.selected} as blob) = $1" if by_value else each.misfit
            parameters = (misfit.value,) if by_value else ()
            # As bytes: what is in the way may be text that is none.
            shown = f"typeof({name}), cast(substr(quote({name}), 1, 60) as blob)"
            where = f"from {table} as t where {condition} limit 1"
            try:
                rows = session.query(f"select rowid, {shown} {where}", parameters)
            except FatalConnectorError:  # a view, or a table without row ids
                rows = [(None, *row) for row in session.query(f"select {shown} {where}", parameters)]
            if rows:
                return _misfit_error(stream, plan.schema.field(each.name), rows[0], misfit.reason)
        name = misfit.column or "one column"
        return FatalConnectorError(
            f"table {stream.name!r}, column {name!r}: a value does not fit its declared type: {misfit.reason}",
            stream=stream.name,
        )


def _misfit_error(stream: Stream, field: pa.Field, row: Sequence[Any], reason: str) -> ConnectorError:
    rowid, stored, value = row[0], row[1], row[2].decode(errors="replace")
    declared = (field.metadata or {}).get(b"native_type", b"").decode()
    place = f", rowid {rowid}" if rowid is not None else ""
    promise = f"declared {declared}" if declared else f"taken for {field.type} after its first values"
    return FatalConnectorError(
        f"table {stream.name!r}, column {field.name!r}{place}: {value} is stored as {stored}, which does not fit a "
        f"column {promise}{f' ({reason})' if reason else ''}; correct the value, exclude the column with `columns`, or "
        "read it through a view with CAST",
        connector="sqlite",
        stream=stream.name,
    )
