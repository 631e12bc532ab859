"""Records out of PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

import pyarrow as pa

from ..arrow import compute as pc
from ..arrow.casts import cast_batch
from ..arrow.type_names import type_text
from ..arrow.unbounded_numerics import Numbers
from ..errors import FatalConnectorError
from ..field_facts import FieldFacts, Precision, facts_of, with_facts
from ..incremental.bookmarks import is_number_in_text
from ..incremental.checkpoints import Horizon
from ..log_based import LOG_POSITION, SNAPSHOT, LogMoment, is_logged, value_remedies
from ..read_spec import ReplicationMethod
from ..settings import parse_settings
from ..sql.address import OnServer
from ..sql.identifiers import TableName, literal
from ..sql.read.horizon import can_settle
from ..sql.read.planned_columns import altered
from ..sql.read.queries import LATE, WHOLE, QuerySource
from ..sql.session import Session, SessionLease, Sessions
from ..stream import Block, Bookmark, LedgerRow, Stream
from ..struct_helpers import replace
from . import catalog, ranges
from .adbc_driver import ADBCDatabase
from .adbc_session import AdbcSession
from .asyncpg_session import AsyncpgSession
from .describe import describe
from .dialect import dialect
from .horizon import BEGIN, BEGIN_LOCKED, STANDBY, settle, unaltered
from .limits import limit_warnings
from .numbers import look
from .settings import PostgresAddress, PostgresSettings
from .type_names import Name
from .types import TRIMMED, array_item, arrow_of
from .widening import INTEGERS, widen

if TYPE_CHECKING:
    from ..compared_values import Checksums, KeyRange, Side
    from ..log_based import GivenUp, LogLook, OpenLog
    from .log.reading import PostgresLog

#: Lower values are only the driver's wrapped infinities and years past 294,000.
_FIRST_MICROSECOND = -210866803200000000
_FIRST_DAY = -2440588
_LAST_TIME = 86_400_000_000

#: `relkind` of relations whose records come from other transactions than the observed ones -> explanation.
_LATE = {
    "f": "a foreign table's records are committed on another server",
    "m": "a materialized view shows records when it is refreshed, not when they are committed",
}

_ADOPT = "set transaction snapshot"

_MEND = (
    "read the column as text with the source's `text_columns`, exclude it with `columns`, or sync it to "
    "PostgreSQL without transformers, where values are copied unchanged"
)


class PostgresSource(OnServer, QuerySource):
    """Tables and views of one database, each read by one COPY."""

    settings: ClassVar[type[PostgresSettings]] = PostgresSettings
    connector = "postgres"

    def __init__(self, config: Mapping[str, Any], folder: Path | None = None) -> None:
        self._settings = parse_settings(PostgresSettings, config, self.connector)
        super().__init__(
            dialect(),
            schema=self._settings.schema_ or "",
            checkpoint_records=self._settings.checkpoint_records,
            checkpoint_s=self._settings.checkpoint_s,
        )
        self._is_standby = False
        #: Running reads of the log.
        self._logs: list[PostgresLog] = []
        self._database = ADBCDatabase(self._settings.address)
        self._arrow = self._sessions
        self._raw = Sessions(lambda: AsyncpgSession(self._settings.address, BEGIN))

    def connect(self) -> AdbcSession:
        """Open a connection."""
        return self._database.connect(BEGIN, self._settings.batch_size_bytes)

    @property
    def address(self) -> PostgresAddress:
        """See `OnServer`."""
        return self._settings.address

    def limit_warnings(self, connections: int) -> Sequence[str]:
        """See `KnowsLimits`."""
        return limit_warnings(self._sessions, self.dialect.naming, connections)

    def streams(self, session: Session) -> Sequence[Stream]:
        """Read the catalog."""
        return self._found(session, None)

    def find_streams(self, names: Collection[str]) -> Sequence[Stream]:
        """Read a part of the catalog; see `FindsStreams`."""
        with self._sessions.lease() as lease:
            lease.begin()
            return self._found(lease.session, names)

    def read_grants(self, tables: Sequence[str]) -> Sequence[str]:
        """Return one GRANT for each table, after those for schemas that the role may not use."""
        with self._sessions.lease() as lease:
            lease.begin()
            ((role,),) = lease.session.query("select current_user::text")
            closed = lease.session.query(
                "select nspname::text from pg_catalog.pg_namespace "
                "where not pg_catalog.has_schema_privilege(oid, 'usage') order by 1"
            )
        names, naming = [TableName(*table.split(".", 1)) for table in tables], self.dialect.naming
        schemas = {name.schema for name in names}
        places = [f"usage on schema {naming.quote(schema)}" for (schema,) in closed if schema in schemas]
        places += [f"select on {naming.table(name)}" for name in names]
        return [f"grant {place} to {naming.quote(role)}" for place in places]

    def unreadable_tables(self) -> Sequence[str]:
        """Ask the catalog."""
        with self._sessions.lease() as lease:
            lease.begin()
            return catalog.unreadable(lease.session, self._schema)

    def _found(self, session: Session, names: Collection[str] | None) -> list[Stream]:
        # The name of a type depends on the search path: the destination sets the same one.
        session.execute("set local search_path to default")
        self._is_standby = bool(session.query("select pg_catalog.pg_is_in_recovery()")[0][0])
        found = catalog.streams(session, self._schema, self._settings.text_columns, self.dialect.name, names)
        return [replace(each, schema=pa.schema(self._with_json(each.schema))) for each in found]

    def _with_json(self, fields: Iterable[pa.Field]) -> list[pa.Field]:
        return [catalog.as_json(field) if self._settings.arrays_as_json else field for field in fields]

    def offers(self, stream: Stream) -> Sequence[str]:
        """Offer raw COPY for whole tables of built-in types without conversions."""
        is_whole = stream.read.method is ReplicationMethod.FULL_TABLE
        if stream.query:
            return ("arrow",)
        if is_whole and self._settings.address.is_plain and len(stream.schema) and is_raw(stream):
            return ("pgcopy", "arrow")
        return ("arrow",)

    def groups(self, streams: Sequence[Stream]) -> Sequence[Sequence[Stream]]:
        """All streams of the log share one read."""
        logged = [stream for stream in streams if stream.read.method is ReplicationMethod.LOG_BASED]
        return [*([logged] if logged else []), *([stream] for stream in streams if stream not in logged)]

    def why_not_logged(self, stream: Stream) -> str:
        """See `ReadsLog`."""
        kind = str(stream.locator.get("kind", ""))
        if stream.query or kind != "r":
            what = {"p": "a partitioned table", "v": "a view", "m": "a materialized view", "f": "a foreign table"}
            return f"{what.get(kind, 'a query')} cannot be read from the log: use FULL_TABLE or INCREMENTAL"
        if as_json := [field.name for field in stream.schema if facts_of(field).read_as == "json"]:
            return f"`arrays_as_json` is not supported there (column {as_json[0]!r}): remove it"
        return ""

    def look_at_log(self, name: str, streams: Sequence[Stream], rows: Sequence[LedgerRow]) -> LogLook:
        """See `ReadsLog`."""
        from .log import slot  # most pipelines read no log

        with closing(slot.Admin(self.address)) as admin:
            return slot.look(admin, slot.names_of(name, rows, self._settings), streams, rows, self._settings.log)

    def overdue_log(
        self,
        name: str,
        streams: Sequence[Stream],
        rows: Callable[[], Sequence[LedgerRow]],
        is_stuck: Callable[[str], bool],
    ) -> GivenUp:
        """See `ReadsLog`."""
        from ..log_based import GivenUp

        limit = self._settings.log
        if limit is None or limit.max_retained_bytes is None or limit.on_retained == "warn":
            return GivenUp()
        from .log import retained, slot

        with closing(slot.Admin(self.address)) as admin:
            found = rows()
            return retained.overdue(admin, slot.names_of(name, found, self._settings), limit, streams, found, is_stuck)

    @contextmanager
    def open_log(
        self,
        name: str,
        streams: Sequence[Stream],
        rows: Sequence[LedgerRow],
        note: Callable[[str, Mapping[str, Any]], None],
        held: Callable[[], Sequence[Bookmark]],
        ended: Sequence[Bookmark] = (),
        reader: str = "",
    ) -> Iterator[OpenLog]:
        """See `ReadsLog`."""
        from .log.reading import PostgresLog

        with PostgresLog(self, self._settings, name, streams, rows, note, held, ended, reader) as opened:
            self._logs.append(opened)
            try:
                yield opened
            finally:
                self._logs.remove(opened)

    @contextmanager
    def open_moment(self, name: str, streams: Sequence[Stream], rows: Sequence[LedgerRow]) -> Iterator[LogMoment]:
        """See `ReadsLog`."""
        from .log import slot

        names = slot.names_of(name, rows, self._settings)
        with (
            closing(slot.Admin(self.address)) as admin,
            slot.moment(admin, self.address, names, streams) as (lsn, snapshot),
        ):
            yield LogMoment(bookmark={LOG_POSITION: slot.lsn_text(lsn)}, snapshot=snapshot)

    def drop_log(self, rows: Sequence[LedgerRow], *, keeps_publication: bool = False) -> Sequence[str]:
        """See `ReadsLog`."""
        from .log import slot

        with closing(slot.Admin(self.address)) as admin:
            return slot.drop(admin, rows, keeps_publication=keeps_publication)

    def interrupt(self, stream: str) -> None:
        """Cancel the running calls of one stream."""
        super().interrupt(stream)
        for opened in list(self._logs):
            opened.interrupt(stream)

    def sessions(self, wire: str) -> Sessions:
        """Raw blocks use their own connections."""
        return self._raw if wire == "pgcopy" else self._arrow

    def shortcut(self) -> str:
        """Prefer raw COPY."""
        return "pgcopy"

    def prepare(self, wire: str, *, is_whole: bool) -> None:
        """Connect in the background, and query the catalog over the same connection that later reads the records."""
        if wire == "pgcopy" and self._settings.address.is_plain:
            self._sessions = self._raw
        self._sessions.prepare()

    def all_sessions(self) -> Sequence[Sessions]:
        """Return both pools."""
        return (self._arrow, self._raw)

    def close(self) -> None:
        """Close every connection."""
        super().close()
        self._database.close()

    def begin(self, lease: SessionLease, stream: Stream) -> None:
        """Run a user's query with the search path and the settings of the user's other sessions."""
        lease.begin()
        if snapshot := stream.locator.get(SNAPSHOT):
            # A change that was rolled back is named here as well: each statement sees its own moment.
            lease.session.execute("rollback; begin isolation level read committed read only")
            undone = catalog.changes_since_snapshot(lease.session, self.table(stream))
            # Begun anew: a snapshot can be set only before the transaction takes its own.
            adopted = f"rollback; begin isolation level repeatable read read only; {_ADOPT} {literal(snapshot)}"
            # The log has all records. The server refuses to read only those that a policy shows.
            lease.session.execute(f"{adopted}; set local row_security = off")
            if catalog.changes_since_snapshot(lease.session, self.table(stream)) not in ("", undone):
                raise altered(stream, ["columns may be others, and records gone"])
        if stream.query:
            lease.session.execute("set local search_path to default; set local jit to default")

    def begin_read(self, lease: SessionLease, stream: Stream) -> None:
        """Lock a table that is read as a whole, then take the snapshot; other reads take it at once."""
        if stream.query or stream.locator.get(SNAPSHOT) or stream.read.method is ReplicationMethod.INCREMENTAL:
            self.begin(lease, stream)
        else:
            lease.first(lambda session: session.execute(BEGIN_LOCKED))

    def described(self, session: Session, stream: Stream) -> Sequence[pa.Field]:
        """Describe it with libpq: the other drivers do not report how many digits a number has."""
        columns = describe(self._settings.address, stream.query)
        session.execute("set local search_path to default")  # type names depend on it, see `streams`
        return self._with_json(catalog.described(session, columns, self.dialect.name))

    def table_columns_now(self, lease: SessionLease, stream: Stream) -> Mapping[str, str]:
        """Read the catalog after the table is locked.

        Raises:
            FatalConnectorError: it is still the planned table, but a name now means another column.
        """
        types, places = catalog.columns_now(lease.session, self.table(stream))
        planned: Mapping[str, int] = stream.locator.get("places", {})
        if planned.get("") == places.get(""):
            renamed = [name for name in stream.schema.names if places.get(name, 0) != planned.get(name)]
            found = [f"the name {name!r} now belongs to another column" for name in renamed if name in places]
            if found:
                raise altered(stream, found)
        return types

    def is_alike(self, field: pa.Field, native: str, wire: str) -> bool:
        """Return whether both are selected equally, and the planned type holds the values.

        Raw bytes need the same type.

        Arrow refuses integers that do not fit.
        """
        if wire != "arrow":
            return False
        facts = facts_of(field)
        if facts.read_as == "text":
            return True
        if facts.read_as == "json":
            return native.endswith("[]")
        planned = facts.native_type
        # The plan names types with the user's search path; a read has no search path.
        if native == _type_name(field) or {planned, native} <= INTEGERS.keys():
            return True
        return arrow_of(planned) == arrow_of(native) and widen(planned, native) == planned

    def expression(self, field: pa.Field) -> str:
        """Cast types that the driver cannot read."""
        column = super().expression(field)
        facts = facts_of(field)
        if not facts.native_type:
            return column
        if facts.read_as == "text":
            return f"{column}::text"
        if facts.read_as == "json":
            return f"array_to_json({column})::text"
        if facts.read_as == "base":
            column = f"{column}::{_type_name(field)}"  # the driver knows no domains
        if facts.precision is Precision.WIDENS:
            return TRIMMED.format(column)
        return arrow_of(facts.native_type)[1].format(column)

    def numbers(self, lease: SessionLease, stream: Stream, fields: Sequence[pa.Field]) -> Mapping[str, Numbers]:
        """Scan them in one pass."""
        names = [field.name for field in fields]
        found = look(lease.session, self.relation(stream), [self.dialect.naming.quote(name) for name in names])
        return dict(zip(names, found, strict=True))

    def checksum_system(self) -> str:
        """Return the system whose SQL computes them."""
        return "postgres"

    def keeps_json(self) -> bool:
        """Return whether `json` keeps the text unchanged."""
        return False

    def array_item(self, field: pa.Field) -> pa.Field | None:
        """Return the items of an array that is read as text."""
        return array_item(field)

    def constant(self, value: pa.Scalar, field: pa.Field) -> str:
        """Add the schema of the type."""
        name = _type_name(field)
        return super().constant(value, with_facts(field, FieldFacts(native_type=name)) if name else field)

    def checksums(self, side: Side) -> AbstractContextManager[Checksums]:
        """Compute checksums in the database."""
        from .checksums import PostgresCanonical

        # The planner expects as many groups as records for ranges: it would sort all columns on disk.
        return self.opened_checksums(side, PostgresCanonical(), "set local jit = off; set local enable_sort = off")

    def narrowed(self, stream: Stream, side: Side, ranges: Sequence[KeyRange]) -> Stream:
        """Return a stream of the records of some ranges of keys."""
        from .checksums import PostgresCanonical

        return self.within(stream, side, PostgresCanonical(), ranges)

    def tie_breaker(self, field: pa.Field) -> str | None:
        """Distinguish texts by bytes, and numbers by digits, whatever a collation or `numeric` compares."""
        if not pa.types.is_string(field.type):
            return None
        return f't.{self.dialect.naming.quote(field.name)}::text collate "C"'

    def bounds(self, value: pa.Scalar, field: pa.Field) -> list[str]:
        """Convert a bookmark to the same text as the records: `char(n)` has lost its blanks."""
        first = self.constant(value, field)
        return [first] if self.tie_breaker(field) is None else [first, f"{first}::text"]

    def filter_marks(self, field: pa.Field) -> list[str]:
        """Compare numbers that are read as text as numbers.

        Compare other texts as text, since an enum only knows its labels.
        """
        if is_number_in_text(field) or not pa.types.is_string(field.type):
            return [self.comparable(field)]
        if facts_of(field).native_type == "inet":  # as the record has it: another text would add `/32`
            column = f"t.{self.dialect.naming.quote(field.name)}"
            return [f'{arrow_of("inet")[1].format(column)} collate "C"']
        return [*([self.comparable(field)] if _is_plain_text(field) else []), str(self.tie_breaker(field))]

    def filter_bounds(self, value: pa.Scalar, field: pa.Field) -> list[str]:
        """Return the constants that are compared with the marks."""
        if is_number_in_text(field) or not pa.types.is_string(field.type):
            return [self.constant(value, field)]
        return [f"{literal(value.as_py())}::text"] * len(self.filter_marks(field))

    def incomplete(self, field: pa.Field) -> str:
        """Treat NaN as no bookmark; PostgreSQL sorts NaN above all numbers."""
        missing = super().incomplete(field)
        if not pa.types.is_floating(field.type) and not is_number_in_text(field):
            return missing
        return f"{missing or 'false'} or t.{self.dialect.naming.quote(field.name)} = 'NaN'"

    def to_schema(self, batch: pa.RecordBatch, stream: Stream) -> pa.RecordBatch:
        """Refuse values that only PostgreSQL can hold, then cast."""
        for place, field in enumerate(stream.schema):
            _refuse_special(batch.column(place), field, stream)
        try:
            return cast_batch(batch, stream.schema, stream.name)
        except FatalConnectorError:
            _refuse_nan(batch, stream)
            raise

    def skips_late(self, stream: Stream) -> str:
        """Return why bookmarks, tables or servers have no horizon."""
        if stream.query:
            return LATE
        if not can_settle(stream):
            return "the begin of a transaction limits only times and numbers"
        return STANDBY if self._is_standby else _LATE.get(str(stream.locator.get("kind", "")), "")

    def horizon(self, lease: SessionLease, stream: Stream, bookmark: Bookmark | None) -> Horizon | None:
        """Find the values that running transactions may still commit, then take the snapshot."""
        if stream.query:
            return None
        return unaltered(self, lease, stream, lambda: settle(self, lease, stream, bookmark, self._settings.settle_s))

    def is_indexed(self, lease: SessionLease, stream: Stream) -> bool:
        """Read the catalog."""
        if stream.query:
            return False
        return catalog.is_indexed(lease.session, self.table(stream), stream.read.bookmark_properties[0])

    def blocks(self, lease: SessionLease, stream: Stream, wire: str) -> Iterator[Block] | None:
        """Return COPY's binary format."""
        return self._copied(lease, stream) if wire == "pgcopy" else None

    def _copied(self, lease: SessionLease, stream: Stream) -> Iterator[Block]:
        session: AsyncpgSession = lease.session  # type: ignore[assignment]  # `sessions` lends no others
        columns = self.dialect.naming.names(stream.schema.names)
        for block in session.copy_out(f"select {columns} from {self.whole(stream)}"):
            lease.check()
            yield block

    def plan_ranges(self, stream: Stream, readers: int) -> tuple[int | None, str]:
        """Split by the pages of the table, counted by the last ANALYZE."""
        return (1, WHOLE) if stream.query else ranges.plan(stream, readers, self._settings.range_bytes)

    def open_ranges(self, stream: Stream, readers: int, wire: str) -> AbstractContextManager[ranges.PageRanges]:
        """Export a snapshot, and split the table by its pages."""
        return ranges.opened(self, stream, readers, wire, self._settings.range_bytes)


def _type_name(field: pa.Field) -> str:
    """Return the name of a column's type for a statement; empty: unknown."""
    facts = facts_of(field)
    return facts.type_name or facts.native_type


def _is_plain_text(field: pa.Field) -> bool:
    native = facts_of(field).native_type
    name = Name.parse(native)
    return name.is_native and not name.is_array and name.base in ("text", "character varying")


def is_raw(stream: Stream) -> bool:
    """Return whether every column is a built-in type, whose binary form means the same on every server."""
    for field in stream.schema:
        facts = facts_of(field)
        if facts.native_system != "postgres" or facts.read_as:
            return False
        # A changed type differs from the catalog's earlier one.
        if not Name.parse(facts.native_type).is_native or arrow_of(facts.native_type)[0] != field.type:
            return False
    return True


def _refuse_special(array: pa.Array, field: pa.Field, stream: Stream) -> None:
    """Raise for infinite dates and times, which the driver wraps around, and for the time 24:00."""
    kind = array.type
    what = ""
    if pa.types.is_timestamp(kind):
        what = "an infinite time, or a year past 294,000" if _below(array, pa.int64(), _FIRST_MICROSECOND) else ""
    elif pa.types.is_date32(kind):
        what = "an infinite date" if _below(array, pa.int32(), _FIRST_DAY) else ""
    elif pa.types.is_time64(kind):
        high = pc.max(array.view(pa.int64())).as_py()
        what = "the time 24:00:00" if high is not None and high >= _LAST_TIME else ""
    if what:
        _refuse(field, what, stream)


def _refuse_nan(batch: pa.RecordBatch, stream: Stream) -> None:
    """Raise for a text of a numeric that no decimal can hold."""
    for place, field in enumerate(stream.schema):
        array = batch.column(place)
        if not (pa.types.is_decimal(field.type) and pa.types.is_string(array.type)):
            continue
        if pc.any(pc.match_substring_regex(array, "[a-zA-Z]")).as_py():
            _refuse(field, "NaN or an infinity", stream)


def _refuse(field: pa.Field, what: str, stream: Stream) -> NoReturn:
    text = f"column {field.name!r} contains {what}, which does not fit {type_text(field.type)}"
    remedies = f". {value_remedies(stream, field.name)}" if is_logged(stream) else f": {_MEND}"
    raise FatalConnectorError(f"{text}{remedies}", connector="postgres", stream=stream.name)


def _below(array: pa.Array, kind: pa.DataType, limit: int) -> bool:
    low = pc.min(array.view(kind)).as_py()
    return low is not None and low < limit


__all__ = ["PostgresSource", "is_raw"]
