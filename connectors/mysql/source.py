"""Records out of MySQL and MariaDB."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pyarrow as pa

from ..field_facts import facts_of, with_facts
from ..incremental.bookmarks import is_number_in_text
from ..incremental.checkpoints import Horizon
from ..settings import parse_settings
from ..sql.address import OnServer
from ..sql.dialect.types import native_of
from ..sql.identifiers import literal
from ..sql.read.horizon import can_settle
from ..sql.read.queries import LATE, WHOLE, QuerySource
from ..sql.session import Session, SessionLease
from ..stream import Bookmark, Stream
from ..struct_helpers import replace
from . import catalog, decode, ranges
from .dialect import dialect
from .horizon import may_look, settle
from .kinds import MySQLKind, declared
from .server import Server
from .session import MySQLSession
from .settings import MySQLAddress, MySQLSettings
from .types import arrow_of, selected, zero_as_null

if TYPE_CHECKING:
    from ..compared_values import Checksums, KeyRange, Side

#: One snapshot, and nothing is changed.
_BEGIN = "start transaction with consistent snapshot, read only"


class MySQLSource(OnServer, QuerySource):
    """Tables and views of one database, each read by one SELECT in one snapshot."""

    settings: ClassVar[type[MySQLSettings]] = MySQLSettings
    connector = "mysql"

    def __init__(self, config: Mapping[str, Any], folder: Path | None = None) -> None:
        self._settings = parse_settings(MySQLSettings, config, self.connector)
        database = self._settings.address.database
        self._server = Server()
        super().__init__(
            dialect(self._server, database, self._settings.lock_timeout_s),
            schema=database,
            checkpoint_records=self._settings.checkpoint_records,
            checkpoint_s=self._settings.checkpoint_s,
        )
        #: Whether this user sees the transactions of others; known from the catalog on.
        self._may_look = True

    def connect(self) -> MySQLSession:
        """Open a connection."""
        session = MySQLSession(self._settings.address, _BEGIN, "repeatable read", self._settings.lock_timeout_s)
        self._server.adapt(session)
        return session

    @property
    def address(self) -> MySQLAddress:
        """See `OnServer`."""
        return self._settings.address

    def streams(self, session: Session) -> Sequence[Stream]:
        """Read the catalog."""
        assert isinstance(session, MySQLSession)
        self._may_look = may_look(session)
        found = catalog.streams(session, self._schema, session.is_mariadb, self._settings.tinyint1_as_bool)
        return [_with_nulls(stream) for stream in found] if self._settings.zero_dates_as_null else found

    def described(self, session: Session, stream: Stream) -> Sequence[pa.Field]:
        """Prepare the query."""
        assert isinstance(session, MySQLSession)
        found = []
        columns = session.describe(stream.query)
        if len({each.name.casefold() for each in columns}) == len(columns):  # else the server would say it first
            columns = session.describe(f"select * from (\n{stream.query}\n) as t")
        for each in columns:
            native = declared(each.type_code, each.flags, each.length, each.scale, each.charsetnr)
            kind = arrow_of(native, tinyint1_as_bool=self._settings.tinyint1_as_bool)
            found.append(with_facts(pa.field(each.name, kind), native_type=native, native_system="mysql"))
        return found

    def table_columns_now(self, lease: SessionLease, stream: Stream) -> Mapping[str, str]:
        """Ask the catalog, once the transaction has the lock that keeps the table from being altered."""
        session, table = lease.session, self.table(stream)
        assert isinstance(session, MySQLSession)
        session.query(f"select 1 from {self.dialect.naming.table(table)} where 1 = 0")
        return catalog.columns_now(session, table, session.is_mariadb)

    def is_alike(self, field: pa.Field, native: str, wire: str) -> bool:
        """Let Arrow refuse the integers that do not fit."""
        return bool(pa.types.is_integer(field.type) and pa.types.is_integer(arrow_of(native)))

    def expression(self, field: pa.Field) -> str:
        """Return the column, or a cast."""
        column = selected(super().expression(field), native_of(field, "mysql"))
        return self._without_zero(column, field)

    def asked(self, field: pa.Field) -> str:
        """Return the column, with NULL for what is read as NULL."""
        return self._without_zero(super().asked(field), field)

    def _without_zero(self, column: str, field: pa.Field) -> str:
        is_asked_for = self._settings.zero_dates_as_null and field.nullable
        return zero_as_null(column, native_of(field, "mysql")) if is_asked_for else column

    def skips_late(self, stream: Stream) -> str:
        """Say what is not known; a replica, or a cluster, is found out when it is read."""
        if stream.query:
            return LATE
        if not can_settle(stream):
            return "only times and numbers are known to be set by the writing statement"
        return "" if self._may_look else "without the privilege PROCESS, the running transactions are unknown"

    def horizon(self, lease: SessionLease, stream: Stream, bookmark: Bookmark | None) -> Horizon | None:
        """Find out what running transactions may still commit, and take the snapshot after that."""
        if stream.query:
            return None
        return settle(self, lease, stream, bookmark, self._settings.settle_s)

    def plan_ranges(self, stream: Stream, readers: int) -> tuple[int | None, str]:
        """Split by an integer primary key."""
        return (1, WHOLE) if stream.query else ranges.plan(stream, readers, self._settings.range_bytes)

    def open_ranges(self, stream: Stream, readers: int, wire: str) -> AbstractContextManager[ranges.KeyRanges]:
        """Begin a snapshot a reader while the table is locked against writers."""
        return ranges.opened(self, stream, readers, self._settings.range_bytes)

    def constant(self, value: pa.Scalar, field: pa.Field) -> str:
        """Return a bookmark's value as a constant."""
        plain = value.as_py()
        if isinstance(plain, bool):
            return str(int(plain))
        if isinstance(plain, bytes):
            return f"x'{plain.hex()}'"
        if isinstance(plain, Decimal):
            return format(plain, "f")
        if isinstance(plain, int | float):
            return repr(plain)
        if isinstance(plain, datetime):
            moment = plain.astimezone(UTC).replace(tzinfo=None) if plain.tzinfo else plain
            return f"timestamp {literal(moment.isoformat(sep=' ', timespec='microseconds'))}"
        if isinstance(plain, date | time):
            return f"{'date' if isinstance(plain, date) else 'time'} {literal(plain.isoformat())}"
        return f"cast({literal(str(plain))} as binary)" if _is_text(field) else literal(str(plain))

    def bound(self, value: pa.Scalar, field: pa.Field) -> str:
        """Write a number as one; quoted it would be compared as a double."""
        return str(value.as_py()) if is_number_in_text(field) else self.constant(value, field)

    def written(self, value: Any) -> str:
        """Write a moment in UTC, and without its zone, which few servers read."""
        return (
            self.constant(pa.scalar(value), pa.field("", pa.null()))
            if isinstance(value, datetime)
            else super().written(value)
        )

    def checksum_system(self) -> str:
        """Return whose SQL they are computed in."""
        return "mysql"

    def keeps_json(self) -> bool:
        """Tell whether `json` is the text as it was written."""
        return self._server.is_mariadb

    def array_item(self, field: pa.Field) -> pa.Field | None:
        """Return the items of an array that is read as text."""
        return None

    def checksums(self, side: Side) -> AbstractContextManager[Checksums]:
        """Compute checksums in the database."""
        from .checksums import MySQLCanonical

        return self.opened_checksums(side, MySQLCanonical(are_zeros_null=self._settings.zero_dates_as_null))

    def narrowed(self, stream: Stream, side: Side, ranges: Sequence[KeyRange]) -> Stream:
        """Return a stream of the records of some ranges of keys."""
        from .checksums import MySQLCanonical

        return self.within(stream, side, MySQLCanonical(), ranges)

    def is_indexed(self, lease: SessionLease, stream: Stream) -> bool:
        """Ask the catalog."""
        name = self.table(stream)
        sql = (
            "select 1 from information_schema.statistics where table_schema = $1 and table_name = $2 "
            "and column_name = $3 and seq_in_index = 1 and index_type = 'BTREE' and sub_part is null limit 1"
        )
        return bool(lease.session.query(sql, (name.schema, name.name, stream.read.bookmark_properties[0])))

    def to_schema(self, batch: pa.RecordBatch, stream: Stream) -> pa.RecordBatch:
        """Bring a batch to the stream's schema."""
        return decode.to_schema(batch, stream)

    def filter_marks(self, field: pa.Field) -> list[str]:
        """Compare a text by its bytes, but first as an index may have it; any number but 0 is true."""
        mark = self.comparable(field)
        if pa.types.is_boolean(field.type):
            return [f"({mark} <> 0)"]
        name = f"t.{self.dialect.naming.quote(field.name)}"
        mark = self._without_zero(mark, field)
        return [name, mark] if MySQLKind.parse(native_of(field, "mysql")).name in ("char", "varchar") else [mark]

    def filter_bounds(self, value: pa.Scalar, field: pa.Field) -> list[str]:
        """Return what the marks are compared with; a quoted number would be compared as a double."""
        if is_number_in_text(field):
            return [str(value.as_py())]
        bounds = [literal(str(value.as_py())), self.constant(value, field)]
        return bounds[-len(self.filter_marks(field)) :]

    def comparable(self, field: pa.Field) -> str:
        """Return the column as Arrow compares it: texts by their bytes, whatever the collation says."""
        name = f"t.{self.dialect.naming.quote(field.name)}"
        return f"cast(convert({name} using utf8mb4) as binary)" if _is_text(field) else name


def _with_nulls(stream: Stream) -> Stream:
    """Return a stream whose dates and times may be NULL, but for those of its key."""
    fields = [
        field.with_nullable(True)
        if pa.types.is_temporal(field.type) and field.name not in stream.key_properties
        else field
        for field in stream.schema
    ]
    return replace(stream, schema=pa.schema(fields))


def _is_text(field: pa.Field) -> bool:
    native = facts_of(field).native_type
    is_number = bool(native) and MySQLKind.parse(native).name == "decimal"
    return bool(pa.types.is_string(field.type) and not is_number)


__all__ = ["MySQLSource"]
