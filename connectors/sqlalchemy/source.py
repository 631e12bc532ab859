"""Records from any database that has a SQLAlchemy dialect."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import sqlalchemy as sa

from ..arrow.batches import even_batches
from ..errors import ConnectorConfigError, FatalConnectorError
from ..field_facts import facts_of
from ..incremental.bookmarks import missing_error, query_start
from ..incremental.window import Window
from ..read_spec import ASKING, Condition, NullBookmarks, ReplicationMethod
from ..settings import parse_settings
from ..sql.read.queries import BOOKMARK, LATE, QuerySource, first_bookmark
from ..sql.read.sqlite import lowest, lowest_constant
from ..sql.session import Session, SessionLease
from ..stream import Bookmark, Place, RejectedRecord, Stream
from ..struct_helpers import replace
from . import catalog, queries
from .dialect import SQLAlchemyTypes, dialect
from .naming import SQLAlchemyNaming
from .session import AlchemySession
from .settings import SQLAlchemySettings
from .types import SQLAlchemyKind, kind_for, reading_type

#: Key of a stream's locator: all columns of a query that is no subquery.
_WHOLE = "whole"


class SQLAlchemySource(QuerySource):
    """Tables and views of one schema, and queries, each read by one SELECT."""

    settings: ClassVar[type[SQLAlchemySettings]] = SQLAlchemySettings
    connector = "sqlalchemy"
    #: A value that does not fit its column's type fails the stream: the driver's error names no record.
    sifts = False

    def __init__(self, config: Mapping[str, Any], folder: Path | None = None) -> None:
        self._settings = parse_settings(SQLAlchemySettings, config, self.connector).placed(folder)
        self._own = SQLAlchemyNaming(self._settings.engine())
        super().__init__(
            dialect(self._own, SQLAlchemyTypes(self._own.engine.dialect)),
            schema=self._settings.schema_ or "",
            checkpoint_records=self._settings.checkpoint_records,
            checkpoint_s=self._settings.checkpoint_s,
        )
        #: Names of queries that the system does not take as subqueries.
        self._alone: set[str] = set()
        self.has_backslashes = queries.knows_backslashes(self._own.engine.dialect)
        self.dialect.facts = replace(self.dialect.facts, has_hash_comments=self.has_backslashes)

    def connect(self) -> AlchemySession:
        """Open a connection.

        Raises:
            ConnectorConfigError: the database is a file, and there is none; the driver would make it.
        """
        if file := self._settings.missing_file():
            raise ConnectorConfigError(f"the file {file} does not exist", connector=self.connector, key="url")
        return AlchemySession(self._own.engine, self._settings.shown(), is_writer=False)

    @cached_property
    def _identity(self) -> str:
        return self._settings.identity()

    def identity(self) -> str:
        """Return dialect, host and database."""
        return self._identity

    def shown_address(self) -> str:
        """Return the same with the host as the URL writes it."""
        return self._settings.shown()

    def place(self) -> Place:
        """Tell a server of another machine from what is on this one."""
        return self._settings.reach()

    def check(self) -> None:
        """Prove that it can be reached."""
        with self._sessions.lease() as lease:
            lease.begin()
            _session(lease.session).rows(sa.select(sa.literal_column("1")))

    def streams(self, session: Session) -> Sequence[Stream]:
        """Read the catalog."""
        names, schema = self._own.spelling, self._schema
        return _session(session).inspect(lambda connection: catalog.streams(connection, names, schema))

    def close(self) -> None:
        """Close every connection."""
        super().close()
        self._own.engine.dispose()

    def count(self, stream: Stream) -> int:
        """Count the records."""
        stream = self.bounded(stream)
        with self._sessions.lease(stream.name) as lease:
            self.begin(lease, stream)
            if stream.is_query_alone:
                return sum(batch.num_rows for batch in self._rows(lease, stream, None))
            query = self._filtered(sa.select(sa.func.count()).select_from(self._table(stream)), stream)
            return int(_session(lease.session).rows(query)[0][0])

    def filters(self, stream: Stream, condition: Condition) -> bool:
        """Filter by what every system compares as Arrow does: no texts, as for bookmarks, and no rounded numbers."""
        kind, types = condition.field.type, pa.types
        if condition.operator in ASKING or types.is_integer(kind) or types.is_boolean(kind):
            return True
        is_exact = types.is_decimal(kind) or types.is_date(kind) or (types.is_timestamp(kind) and kind.unit != "ns")
        return bool(is_exact and self._own.engine.dialect.name != "sqlite")

    def _filtered(self, query: Any, stream: Stream) -> Any:
        for condition in stream.read.where:
            column, values = self._column(condition.field), [value.as_py() for value in condition.values]
            query = query.where(_met(column, condition.operator, values))
        return query

    def skips_late(self, stream: Stream) -> str:
        """Say that no dialect tells which transactions run."""
        if stream.query:
            return LATE
        return "SQLAlchemy cannot list running transactions"

    # ------------------------------------------------------------------ queries
    def described(self, session: Session, stream: Stream) -> Sequence[pa.Field]:
        """Have the system describe an empty result; of a query that it does not take as a subquery, the query's."""
        spelling, bounds, dialect = self._own.spelling, self._bounds(stream), self._own.engine.dialect
        queries.demand_select(stream.query, dialect)

        def ask(*, is_alone: bool) -> Sequence[pa.Field]:
            return _session(session).inspect(
                lambda connection: queries.described(connection, spelling, stream.query, bounds, is_alone=is_alone)
            )

        if stream.is_query_alone:
            return ask(is_alone=True)
        try:
            return ask(is_alone=False)
        except FatalConnectorError:
            if stream.is_query_bounded or not queries.may_run(stream.query, dialect):
                raise
            _session(session).rollback()
            _session(session).begin()
            with suppress(FatalConnectorError):
                fields = ask(is_alone=True)
                self._alone.add(stream.name)
                return fields
            raise

    def query_stream(
        self, name: str, query: str, values: Mapping[str, Any] | None = None, start: str | float | None = None
    ) -> Stream:
        """See `ReadsQueries`."""
        self._alone.discard(name)
        stream = super().query_stream(name, query, values, start)
        if name not in self._alone:
            return stream
        return replace(stream, is_query_alone=True, locator={**stream.locator, _WHOLE: stream.schema})

    def may_write(self) -> str:
        """See `ReadsQueries`."""
        name = self._own.engine.dialect.name
        if name in queries.READ_ONLY:
            return ""
        return f"a function in the query may change data, since transactions of {name} cannot be made read-only"

    def filled(self, stream: Stream) -> Stream:
        """Leave values to be bound; SQLite has none in a view, and no constant that a value could end."""
        return super().filled(stream) if self._own.engine.dialect.name == "sqlite" else stream

    def written(self, value: Any) -> str:
        """Write a moment of SQLite as it would be stored."""
        return lowest_constant(pa.scalar(value)) if isinstance(value, datetime) else super().written(value)

    def bounded(self, stream: Stream, bookmark: Bookmark | None = None) -> Stream:
        """Keep what `:bookmark` stands for, which is bound as a parameter."""
        if not stream.is_query_bounded or BOOKMARK in stream.locator:
            return self.filled(stream)
        return replace(self.filled(stream), locator={**stream.locator, BOOKMARK: query_start(stream, bookmark)})

    def begin(self, lease: SessionLease, stream: Stream) -> None:
        """Let a query, which is the user's own, change nothing."""
        lease.begin()
        if stream.query:
            _session(lease.session).inspect(queries.begin_reading)

    def _bounds(self, stream: Stream) -> list[Any]:
        dialect = self._own.engine.dialect
        bounds = [queries.bound(name, value, dialect) for name, value in stream.query_values.items()]
        if BOOKMARK not in self.parameters(stream.query):
            return bounds
        value, column = stream.locator.get(BOOKMARK), self._column(first_bookmark(stream))
        plain = None if value is None else lowest(value) if dialect.name == "sqlite" else value.as_py()
        return [*bounds, sa.bindparam(BOOKMARK, plain, type_=column.type)]

    # ------------------------------------------------------------------ reading
    def table_columns_now(self, lease: SessionLease, stream: Stream) -> Mapping[str, str]:
        """Ask the inspector; not every system keeps the table unchanged until the end of the transaction."""
        names, name, is_exact = self._own.spelling, self.table(stream), bool(stream.locator.get("is_quoted"))
        return _session(lease.session).inspect(
            lambda connection: catalog.columns_now(connection, names, name, is_exact=is_exact)
        )

    def is_alike(self, field: pa.Field, native: str, wire: str) -> bool:
        """Let Arrow refuse the integers that do not fit."""
        return bool(pa.types.is_integer(field.type) and pa.types.is_integer(SQLAlchemyKind.parse(native).arrow))

    def clause(self, stream: Stream, bookmark: Bookmark | None = None) -> Any:
        """Return the SELECT of a stream's columns, at or past the bookmark and in its order if INCREMENTAL.

        Texts are neither compared nor ordered by the database, whose collation has its own mind: they are here.
        """
        if stream.is_query_alone:
            columns = [self._column(field) for field in _whole(stream)]
            return queries.alone(stream.query, columns, self._bounds(stream), self._own.engine.dialect)
        table = self._table(stream)
        columns = table.columns.values()
        query = self._filtered(sa.select(*columns).select_from(table), stream)
        if stream.read.method is not ReplicationMethod.INCREMENTAL or not self.is_ordered(stream):
            return query
        window = Window.of(stream, bookmark)
        marks = [columns[stream.schema.get_field_index(field.name)] for field in window.fields]
        missing = [mark.is_(None) for mark, field in zip(marks, window.fields, strict=True) if field.nullable]
        where: Any = None if window.lower is None else _at_or_past(marks, [value.as_py() for value in window.lower])
        order = list(marks)
        if missing and window.adds_incomplete():
            where = None if where is None else sa.or_(where, *missing)
            order = [sa.case((sa.or_(*missing), sa.literal_column("0")), else_=sa.literal_column("1")), *order]
        elif missing and window.leaves_out_incomplete and where is None:
            where = sa.not_(sa.or_(*missing))
        query = query if where is None else query.where(where)
        return query.order_by(*order)

    def refuse_missing(self, lease: SessionLease, stream: Stream) -> None:
        """Raise if records have NULL in the bookmark and the stream does not allow it."""
        fields = [field for field in self._marked(stream) if field.nullable]
        if stream.read.null_bookmarks is not NullBookmarks.FAIL or not fields:
            return
        columns = self._table(stream).columns.values()
        marks = [columns[stream.schema.get_field_index(field.name)] for field in self._marked(stream)]
        one: Any = sa.literal_column("1")
        counts = [sa.func.count(sa.case((mark.is_(None), one))) for mark in marks]
        query = self._filtered(sa.select(*counts), stream).where(sa.or_(*(mark.is_(None) for mark in marks)))
        (found,) = _session(lease.session).rows(query)
        if any(map(int, found)):
            raise missing_error(stream, [int(count) for count in found], is_all=True)

    def is_ordered(self, stream: Stream) -> bool:
        """Tell whether the database compares the bookmarks as Arrow does: not texts, whose collation is its own.

        SQLite has texts for dates and times, which may be written in several ways.
        """
        is_sqlite, types = self._own.engine.dialect.name == "sqlite", pa.types
        return not any(
            types.is_string(field.type) or types.is_binary(field.type) or (is_sqlite and types.is_temporal(field.type))
            for field in self._marked(stream)
        )

    def _marked(self, stream: Stream) -> list[pa.Field]:
        return [stream.schema.field(name) for name in stream.read.bookmark_properties]

    def _table(self, stream: Stream) -> Any:
        columns = [self._column(field) for field in stream.schema]
        if stream.query:
            return queries.relation(stream.query, columns, self._bounds(stream), self._own.engine.dialect)
        name = self.table(stream)
        return self._own.spelling.table(name, columns, is_exact=bool(stream.locator.get("is_quoted")))

    def _column(self, field: pa.Field) -> Any:
        facts = facts_of(field)
        is_own = facts.native_system == "sqlalchemy"
        kind = SQLAlchemyKind.parse(facts.native_type) if is_own else kind_for(field.type, field.name)
        name = self._own.spelling.spell(field.name, is_exact=facts.quoted)
        return sa.column(name, reading_type(kind, self._own.engine.dialect))

    def _batches(
        self,
        lease: SessionLease,
        stream: Stream,
        bookmark: Bookmark | None,
        bad: list[RejectedRecord],
        changed: list[Stream],
    ) -> Generator[pa.RecordBatch, None, None]:
        for batch in even_batches(self._rows(lease, stream, bookmark)):
            lease.check()
            yield batch

    def _rows(self, lease: SessionLease, stream: Stream, bookmark: Bookmark | None) -> Generator[pa.RecordBatch]:
        schema, names = _whole(stream), stream.schema.names
        for batch in _session(lease.session).stream(self.clause(stream, bookmark), schema, stream.name):
            yield batch.select(names) if stream.is_query_alone else batch


def _whole(stream: Stream) -> pa.Schema:
    """Return all columns of what is read: of a query that is no subquery those too that the stream leaves out."""
    if not stream.is_query_alone:
        return stream.schema
    names = set(stream.schema.names)
    found = stream.locator[_WHOLE]
    return pa.schema([stream.schema.field(field.name) if field.name in names else field for field in found])


def _met(column: Any, operator: str, values: Sequence[Any]) -> Any:
    if operator in ASKING:
        return column.is_(None) if operator == "is_null" else column.is_not(None)
    if operator == "in":
        return column.in_(values)
    return column.op(operator, is_comparison=True)(values[0]) if operator != "!=" else column != values[0]


def _at_or_past(marks: Sequence[Any], values: Sequence[Any]) -> Any:
    """Compare several columns one after the other: not every system compares them together."""
    first, value = marks[0], values[0]
    if len(values) == 1:
        return first >= value
    return sa.or_(first > value, sa.and_(first == value, _at_or_past(marks[1:], values[1:])))


def _session(session: Session) -> AlchemySession:
    assert isinstance(session, AlchemySession)
    return session


__all__ = ["SQLAlchemySource"]
