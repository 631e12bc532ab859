"""The Source protocol for all SQL systems. A subclass adds a dialect, a catalog query and a way to connect."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Protocol, cast

import pyarrow as pa

from ...arrow.casts import cast_batch
from ...arrow.unbounded_numerics import Numbers, decided, explained, undecided, widens, with_wider
from ...errors import ConnectorError
from ...field_facts import facts_of
from ...incremental.bookmarks import (
    CHECKPOINT_RECORDS,
    CHECKPOINT_S,
    bookmark_values,
    missing_error,
    python_value,
)
from ...incremental.checkpoints import Horizon, incremental
from ...incremental.window import Window
from ...read_spec import ASKING, Condition, NullBookmarks, ReplicationMethod
from ...rejected.halving import convert_or_reject
from ...stream import Block, Bookmark, Event, Rejected, RejectedRecord, Stream
from ...struct_helpers import replace
from ..dialect.dialect import Dialect
from ..identifiers import TableName, literal
from ..session import Session, SessionLease, Sessions
from .planned_columns import refuse_altered

if TYPE_CHECKING:
    from ...checksums.sql import Canonical
    from ...compared_values import Checksums, KeyRange, Side

#: Key of a stream's locator: condition that limits the records of a whole table.
WITHIN = "within"


class ReadSession(Session, Protocol):
    """A session that also streams results."""

    def fetch(self, sql: str) -> Iterator[pa.RecordBatch]:
        """Yield the result in batches, from one snapshot; closing the iterator ends the statement."""
        ...


class SqlSource(ABC):
    """Source over sessions of a database; each stream is one SELECT."""

    #: Name of the connector, for errors.
    connector: ClassVar[str]
    #: A batch of `rows` has one row for each record, so that single records can be rejected.
    sifts: ClassVar[bool] = True

    def __init__(
        self,
        dialect: Dialect,
        *,
        schema: str = "",
        checkpoint_records: int = CHECKPOINT_RECORDS,
        checkpoint_s: float = CHECKPOINT_S,
    ) -> None:
        self.dialect = dialect
        self._schema = schema
        self._checkpoint_records = checkpoint_records
        self._checkpoint_s = checkpoint_s
        self._sessions = Sessions(self.connect)

    # ------------------------------------------------------------ a subclass's
    @abstractmethod
    def connect(self) -> Session:
        """Open a connection for reading: a `ReadSession`, unless the source overrides `_batches`."""

    @abstractmethod
    def identity(self) -> str:
        """Connector and place without credentials."""

    @abstractmethod
    def streams(self, session: Session) -> Sequence[Stream]:
        """Read the catalog; `locator` holds `schema` and `table`."""

    def columns_now(self, lease: SessionLease, stream: Stream) -> Mapping[str, str]:
        """Return the present columns and types, locked until the transaction ends.

        In the form of `native_type`; default: unknown.
        """
        return {}

    def is_alike(self, field: pa.Field, native: str, wire: str) -> bool:
        """Return whether a column that has another type now would be read equally; default: it would not."""
        return False

    def expression(self, field: pa.Field) -> str:
        """Return the select expression of a column: the column, or a cast if the driver cannot read its type."""
        return f"t.{self.dialect.naming.quote(field.name)}"

    def projection(self, stream: Stream) -> str:
        """Return the select expressions."""
        return ", ".join(
            f"{self.expression(field)} as {self.dialect.naming.quote(field.name)}" for field in stream.schema
        )

    def comparable(self, field: pa.Field) -> str:
        """Return the expression by which a bookmark property is compared and ordered."""
        # With prefix `t.`: an output column of the same name (a cast) must not be compared.
        return f"t.{self.dialect.naming.quote(field.name)}"

    def tie_breaker(self, field: pa.Field) -> str | None:
        """Return a text that distinguishes equal values with different spellings (case, trailing zeros).

        Without it, the hash would not recognise a record that ties with the bookmark.
        """
        return None

    def marks(self, field: pa.Field) -> list[str]:
        """Return the expressions by which a bookmark property is compared and ordered."""
        second = self.tie_breaker(field)
        return [self.comparable(field)] if second is None else [self.comparable(field), second]

    def bounds(self, value: pa.Scalar, field: pa.Field) -> list[str]:
        """Return the constants that are compared with `marks`."""
        first = self.constant(value, field)
        return [first] if self.tie_breaker(field) is None else [first, literal(str(python_value(value)))]

    def constant(self, value: pa.Scalar, field: pa.Field) -> str:
        """Return a bookmark's value as an SQL constant of the column's type."""
        native = facts_of(field).native_type
        plain = python_value(value)
        if isinstance(plain, bytes):
            plain = f"\\x{plain.hex()}"
        shown = literal(plain.isoformat() if hasattr(plain, "isoformat") else str(plain))
        return f"cast({shown} as {native})" if native else shown

    def incomplete(self, field: pa.Field) -> str:
        """Return the condition that a value cannot be a bookmark (NULL, NaN); empty if all values can."""
        return f"{self.asked(field)} is null" if field.nullable else ""

    def asked(self, field: pa.Field) -> str:
        """Return an expression that is NULL if the column is read as NULL."""
        return f"t.{self.dialect.naming.quote(field.name)}"

    def to_schema(self, batch: pa.RecordBatch, stream: Stream) -> pa.RecordBatch:
        """Convert a batch to the stream's schema."""
        return cast_batch(batch, stream.schema, stream.name)

    # ---------------------------------------------------------------- protocol
    def check(self) -> None:
        """Prove that it can be reached and read."""
        with self._sessions.lease() as lease:
            lease.begin()
            lease.session.query("select 1")

    def discover(self) -> Sequence[Stream]:
        """Return tables, then views, by name."""
        with self._sessions.lease() as lease:
            lease.begin()
            return sorted(self.streams(lease.session), key=lambda stream: (stream.is_view, stream.name))

    def groups(self, streams: Sequence[Stream]) -> Sequence[Sequence[Stream]]:
        """Each stream is read alone."""
        return [[stream] for stream in streams]

    def offers(self, stream: Stream) -> Sequence[str]:
        """Transfer formats of a stream."""
        return ("arrow",)

    def count(self, stream: Stream) -> int:
        """Count the records."""
        with self._sessions.lease(stream.name) as lease:
            self.begin(lease, stream)
            rows = lease.session.query(f"select count(*) from {self.relation(stream)} as t")
            return int(rows[0][0])

    def read(
        self, group: Sequence[Stream], bookmarks: Mapping[str, Bookmark | None], wire: str = "arrow"
    ) -> Iterator[tuple[str, Event | Block]]:
        """Yield the streams one after the other."""
        for stream in group:
            try:
                yield from ((stream.name, event) for event in self._events(stream, bookmarks.get(stream.name), wire))
            except ConnectorError as error:
                error.connector = error.connector or self.connector
                error.stream = error.stream or stream.name
                raise

    def interrupt(self, stream: str) -> None:
        """Cancel the running calls of one stream."""
        for sessions in self.all_sessions():
            sessions.interrupt(stream)

    def close(self) -> None:
        """Close every connection."""
        for sessions in self.all_sessions():
            sessions.close()

    # ----------------------------------------------------------------- helpers
    def table(self, stream: Stream) -> TableName:
        """Return the table of a stream; a stream created by hand is found by its name."""
        if "table" in stream.locator:
            return TableName(str(stream.locator.get("schema", "")), str(stream.locator["table"]))
        return TableName.parse(stream.name, self._schema or self.dialect.naming.default_schema)

    def relation(self, stream: Stream) -> str:
        """Write the FROM of a stream: its table, its query, or either with its filter applied.

        A query gets its own lines, since it may end in a comment.
        """
        whole = self.unfiltered(stream)
        condition = self.filter(stream)
        if not condition:
            return whole
        columns = self.dialect.naming.names(stream.schema.names) or "*"
        return f"(select {columns} from {whole} as t where {condition})"

    def unfiltered(self, stream: Stream) -> str:
        """Write the table or the query of a stream."""
        return f"(\n{stream.query}\n)" if stream.query else self.dialect.naming.table(self.table(stream))

    def filters(self, stream: Stream, condition: Condition) -> bool:
        """Filter by each column that SQL compares like Arrow."""
        return True

    def filter(self, stream: Stream) -> str:
        """Write the condition of the stream's filter (on `t`); empty: all records pass."""
        return " and ".join(map(self._condition, stream.read.where))

    def _condition(self, condition: Condition) -> str:
        field, operator = condition.field, condition.operator
        if operator in ASKING:
            return f"{self.asked(field)} {operator.replace('_', ' ')}"
        marks, values = self.filter_marks(field), [self.filter_bounds(value, field) for value in condition.values]
        if operator in ("=", "in"):  # a coarse comparison first, which an index can answer
            pairs = zip(marks, zip(*values, strict=True), strict=True)
            return " and ".join(f"{mark} in ({', '.join(bounds)})" for mark, bounds in pairs)
        return f"{marks[-1]} {'<>' if operator == '!=' else operator} {values[0][-1]}"

    def filter_marks(self, field: pa.Field) -> list[str]:
        """Return the expressions that a filter compares; the last one compares like Arrow: a text by its bytes.

        Earlier expressions are coarser: they are equal whenever the last is.
        """
        return [self.tie_breaker(field) or self.comparable(field)]

    def filter_bounds(self, value: pa.Scalar, field: pa.Field) -> list[str]:
        """Return the constants that are compared with `filter_marks`."""
        return self.bounds(value, field)[-1:]

    def selects(
        self, stream: Stream, bookmark: Bookmark | None = None, *, is_indexed: Callable[[], bool] = lambda: False
    ) -> Sequence[str]:
        """Write the SELECTs of a stream, which run in order; for INCREMENTAL in the bookmark's order.

        Args:
            stream: its columns are selected.
            bookmark: select records at or past it. Records without a bookmark come first if the stream wants them,
                since a resumed run would not see them again.
            is_indexed: returns whether an index begins with the first bookmark property.
        """
        if stream.read.method is not ReplicationMethod.INCREMENTAL:
            return [f"select {self.projection(stream)} from {self.whole(stream)}"]
        sql = f"select {self.projection(stream)} from {self.relation(stream)} as t"
        window = Window.of(stream, bookmark)
        marks = [mark for field in window.fields for mark in self.marks(field)]
        incomplete = [self.incomplete(field) for field in window.fields]
        missing, where, order = " or ".join(filter(None, incomplete)), "", ", ".join(marks)
        if window.lower is not None:
            bounded = zip(window.lower, window.fields, strict=False)
            values = [each for value, field in bounded for each in self.bounds(value, field)]
            where = f"({order}) >= ({', '.join(values)})" if len(values) > 1 else f"{marks[0]} >= {values[0]}"
        if missing and window.adds_incomplete():
            if missing == incomplete[0] and is_indexed():
                known = where or f"not ({missing})"
                return [f"{sql} where {missing}", f"{sql} where {known} order by {order}"]
            # One scan for all: without an index each query would read the whole table.
            where = f"({where}) or {missing}" if where else ""
            order = f"case when {missing} then 0 else 1 end, {order}"
        elif missing and window.leaves_out_incomplete and not where:
            where = f"not ({missing})"
        return [f"{sql}{f' where {where}' if where else ''} order by {order}"]

    def whole(self, stream: Stream) -> str:
        """Write the FROM of a stream that is read whole, or of one range, which a table handles better."""
        table = f"{self.relation(replace(stream, read=replace(stream.read, where=())))} as t"
        conditions = [each for each in (self.filter(stream), stream.locator.get(WITHIN)) if each]
        return f"{table} where {' and '.join(f'({each})' for each in conditions)}" if conditions else table

    def is_indexed(self, lease: SessionLease, stream: Stream) -> bool:
        """Return whether an index begins with the first bookmark property, in its order; default: unknown."""
        return False

    def past(self, stream: Stream, bookmark: Bookmark | None) -> str:
        """Write the condition of records past a bookmark, as `bookmarks.past` decides; empty: there are none."""
        window = Window.of(stream, bookmark)
        missing = " or ".join(filter(None, map(self.incomplete, window.fields)))
        is_left_out = missing and window.leaves_out_incomplete
        if window.start is None:
            return missing if is_left_out else ""
        marks = ", ".join(map(self.comparable, window.fields))
        pairs = zip(window.start, window.fields, strict=True)
        constants = ", ".join(self.constant(value, field) for value, field in pairs)
        condition = f"({marks}) > ({constants})"
        if is_left_out:
            return f"{condition} or {missing}"
        return f"{condition} and not ({missing})" if missing else condition

    @contextmanager
    def opened_checksums(self, side: Side, canonical: Canonical, first: str = "") -> Iterator[Checksums]:
        """Compute checksums in the database, all in one snapshot; `first`: statements for its transaction."""
        from ...checksums.sql import SqlChecksums

        stream = side.stream
        with self.sessions("arrow").lease(stream.name) as lease:
            self.begin(lease, stream)
            session = lease.session
            if first:
                session.execute(first)
            yield SqlChecksums(
                session.query,
                canonical,
                side,
                table=f"{self.relation(stream)} as t",
                quote=self.dialect.naming.quote,
                past=self.past(stream, side.until),
            )

    def within(self, stream: Stream, side: Side, canonical: Canonical, ranges: Sequence[KeyRange]) -> Stream:
        """Return a whole table's stream, limited to the records of some key ranges."""
        from ...checksums.sql import SqlChecksums

        checksums = SqlChecksums(lambda _: (), canonical, side, table="", quote=self.dialect.naming.quote)
        condition = checksums.within(ranges)
        return replace(stream, locator={**stream.locator, WITHIN: condition}) if condition else stream

    def ranged(self, stream: Stream, condition: str) -> Stream:
        """Return a stream that is read whole, limited to one range (`t` is its table)."""
        before = stream.locator.get(WITHIN)
        within = f"({before}) and ({condition})" if before else condition
        return replace(stream, locator={**stream.locator, WITHIN: within})

    def begin(self, lease: SessionLease, stream: Stream) -> None:
        """Start a transaction with one snapshot of a stream."""
        lease.begin()

    def begin_read(self, lease: SessionLease, stream: Stream) -> None:
        """Start the transaction in which a stream is read; default: one with a single snapshot."""
        self.begin(lease, stream)

    def agree(self, lease: SessionLease, stream: Stream, wire: str) -> None:
        """Refuse to read a table whose columns have changed since the plan."""
        now = self.columns_now(lease, stream)
        refuse_altered(stream, now, lambda field, native: self.is_alike(field, native, wire), self.dialect.name)

    def read_leased(self, lease: SessionLease, stream: Stream, wire: str) -> Iterator[Event | Block]:
        """Yield the records of a stream that is read whole, in the lease's transaction."""
        blocks = self.blocks(lease, stream, wire)
        if blocks is not None:
            yield from blocks
            return
        bad: list[RejectedRecord] = []
        changed: list[Stream] = []
        yield from with_rejected(self._batches(lease, stream, None, bad, changed), bad, changed)

    def numbers(self, lease: SessionLease, stream: Stream, fields: Sequence[pa.Field]) -> Mapping[str, Numbers]:
        """Scan all numbers of some columns, in the lease's transaction; default: not possible, they stay texts."""
        return {}

    def is_ordered(self, stream: Stream) -> bool:
        """Return whether the database compares bookmarks like Arrow; if so, it orders and filters by them."""
        return True

    def blocks(self, lease: SessionLease, stream: Stream, wire: str) -> Iterator[Block] | None:
        """Return a stream in a transfer format of the source; None (default): it is read as Arrow batches."""
        return None

    def refuse_missing(self, lease: SessionLease, stream: Stream) -> None:
        """Raise if records lack a required bookmark; uses the snapshot that is then read from scratch."""
        conditions = [self.incomplete(stream.schema.field(name)) for name in stream.read.bookmark_properties]
        if stream.read.null_bookmarks is not NullBookmarks.FAIL or not any(conditions):
            return
        counts = ", ".join(f"count(case when {condition or '1 = 0'} then 1 end)" for condition in conditions)
        where = " or ".join(filter(None, conditions))
        (found,) = lease.session.query(f"select {counts} from {self.relation(stream)} as t where {where}")
        if any(map(int, found)):
            raise missing_error(stream, [int(count) for count in found], is_all=True)

    def sessions(self, wire: str) -> Sessions:
        """Return the connections for a transfer format; default: one pool for all."""
        return self._sessions

    def all_sessions(self) -> Sequence[Sessions]:
        """Return all pools of `sessions`."""
        return (self._sessions,)

    def _events(self, stream: Stream, bookmark: Bookmark | None, wire: str) -> Iterator[Event | Block]:
        with self.sessions(wire).lease(stream.name) as lease:
            self.begin_read(lease, stream)
            if wire != "arrow":
                self.agree(lease, stream, wire)
                yield from self.read_leased(lease, stream, wire)
                return
            bad: list[RejectedRecord] = []
            changed: list[Stream] = []
            if stream.read.method is not ReplicationMethod.INCREMENTAL:
                self.agree(lease, stream, wire)
                stream = self._decided(lease, stream, changed)
                yield from with_rejected(self._batches(lease, stream, bookmark, bad, changed), bad, changed)
                return
            horizon = self.horizon(lease, stream, bookmark)
            self.agree(lease, stream, wire)
            stream = self._decided(lease, stream, changed)
            if bookmark_values(stream, bookmark) is None:
                self.refuse_missing(lease, stream)
            # Close at once, also after an error: an open iterator would keep the statement open.
            with closing(self._batches(lease, stream, bookmark, bad, changed)) as batches:
                events = incremental(
                    stream,
                    batches,
                    bookmark,
                    is_ordered=self.is_ordered(stream),
                    horizon=horizon,
                    checkpoint_records=self._checkpoint_records,
                    checkpoint_s=self._checkpoint_s,
                )
                yield from with_rejected(events, bad, changed)

    def _decided(self, lease: SessionLease, stream: Stream, changed: list[Stream]) -> Stream:
        """Decide column types that the plan left open; add the stream to `changed` if there are any."""
        if not (fields := undecided(stream)):
            return stream
        stream = decided(stream, self.numbers(lease, stream, fields))
        changed.append(stream)
        return stream

    def skips_late(self, stream: Stream) -> str:
        """Return why records of a transaction that commits late may be skipped; default: none are."""
        return ""

    def horizon(self, lease: SessionLease, stream: Stream, bookmark: Bookmark | None) -> Horizon | None:
        """Return the limit below which no transaction can commit any more; default: unknown, or not needed."""
        return None

    def rows(self, lease: SessionLease, sql: str) -> Iterator[pa.RecordBatch]:
        """Stream a result."""
        yield from cast("ReadSession", lease.session).fetch(sql)

    def _batches(
        self,
        lease: SessionLease,
        stream: Stream,
        bookmark: Bookmark | None,
        bad: list[RejectedRecord],
        changed: list[Stream],
    ) -> Generator[pa.RecordBatch]:
        """Yield the records; unfit records go into `bad`, if the stream rejects records.

        The changed stream goes into `changed` before a batch whose numbers widen a column.
        """
        may_widen, now = widens(stream), stream
        for sql in self.selects(stream, bookmark, is_indexed=lambda: self.is_indexed(lease, stream)):
            for batch in self.rows(lease, sql):
                lease.check()
                if may_widen and (wider := with_wider(now, batch)) is not now:
                    now = wider
                    changed.append(wider)
                if not self.sifts:
                    yield self.to_schema(batch, now)
                    continue
                good, found = convert_or_reject(batch, partial(self.converted, stream=now), now.read.max_rejected)
                bad += found
                yield from good

    def converted(self, batch: pa.RecordBatch, stream: Stream) -> pa.RecordBatch:
        """Return records in a stream's types; if a number exceeds its column's decimal, explain the remedy."""
        return explained(lambda part: self.to_schema(part, stream), batch, stream)


def with_rejected(
    events: Iterator[Event], bad: list[RejectedRecord], changed: list[Stream] | None = None
) -> Iterator[Event]:
    """Insert rejected records into the events, before the checkpoint that covers them.

    A changed stream comes before the first event with its columns.
    """
    for event in events:
        if changed:
            yield changed[-1]
            changed.clear()
        if bad:
            yield Rejected(records=tuple(bad))
            bad.clear()
        yield event
    if changed:  # no records
        yield changed[-1]
    if bad:
        yield Rejected(records=tuple(bad))


__all__ = ["ReadSession", "SqlSource", "with_rejected"]
