"""One read of a slot: tables that have to be copied first, then every change up to where the log ended."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any, Protocol, Self

import pyarrow as pa

from ...errors import ConnectorError, FatalConnectorError
from ...failpoints import failpoint
from ...log_based import LOG_POSITION, SNAPSHOT, LogLag, plain_stream, position_of
from ...read_spec import ReplicationMethod
from ...sql.read.planned_columns import refuse_altered
from ...stream import Bookmark, Checkpoint, Ended, Event, LedgerRow, Rejected, Stream
from ...struct_helpers import replace
from . import slot as slots
from .columns import Columns, TableFacts, noted_columns
from .connection import LogConnection
from .decoder import Changes, Decoder
from .messages import BEGIN, COMMIT, lsn_text, parse_lsn
from .records import LoggedTable
from .timelines import refuse_left_timeline

if TYPE_CHECKING:
    from ..settings import PostgresAddress, PostgresSettings

#: Byte of a message's kind, behind the header of the copy-both stream.
_KIND = 25


class TableSource(Protocol):
    """The ordinary reader, as far as it is needed here."""

    @property
    def address(self) -> PostgresAddress:
        """Where the server is."""
        ...

    def read(
        self, group: Sequence[Stream], bookmarks: Mapping[str, Bookmark | None], wire: str = "arrow", /
    ) -> Iterator[tuple[str, Any]]:
        """Read whole tables, in the transaction of `snapshot` in a stream's locator."""
        ...

    def to_schema(self, batch: pa.RecordBatch, stream: Stream, /) -> pa.RecordBatch:
        """Bring a batch to the stream's schema."""
        ...

    def is_alike(self, field: pa.Field, native: str, wire: str) -> bool:
        """Return whether values of a type are read as those of the planned column."""
        ...


class PostgresLog:
    """An opened read. Nothing is made at the source before `read`, and before the ledger has its name."""

    def __init__(
        self,
        source: TableSource,
        settings: PostgresSettings,
        name: str,
        streams: Sequence[Stream],
        rows: Sequence[LedgerRow],
        note: Callable[[str, Mapping[str, Any]], None],
        held: Callable[[], Sequence[Bookmark]],
        ended: Sequence[Bookmark],
        reader: str,
    ) -> None:
        self._held_by, self._reader = held, reader
        #: Where other streams of the run have ended already.
        self._ended = [parse_lsn(str(each[LOG_POSITION])) for each in ended]
        #: From where in the log on the tables go on that this read copies.
        self._copied: list[int] = []
        self._source, self._streams, self._rows, self._note = source, streams, rows, note
        self._settings, self._name = settings, name
        self._stack = ExitStack()
        self._stopped: set[str] = set()
        #: Names of streams that have failed while others of the read go on.
        self._failed: set[str] = set()
        self._connection: LogConnection | None = None
        #: Up to where the log is read.
        self._end = 0
        self._admin: slots.Admin | None = None
        self._lags = Lags(0, 0.0, {})
        #: What the ledger is told of each stream once its changes are committed: the columns that its table has now.
        self._noted_at_end: dict[str, Mapping[str, Any]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def interrupt(self, stream: str) -> None:
        """End the read soon, once that was said for all of its streams."""
        self._stopped.add(stream)

    def _is_stopped(self) -> bool:
        return self._stopped.issuperset(stream.name for stream in self._streams)

    # -- the read --------------------------------------------------------------------------------------------------

    def read(
        self, group: Sequence[Stream], bookmarks: Mapping[str, Bookmark | None], wire: str = "arrow"
    ) -> Iterator[tuple[str, Event]]:
        """See `OpenLog`."""
        source, address = self._source, self._source.address
        admin = self._admin = slots.Admin(address)
        self._stack.callback(admin.close)
        names = slots.names_of(self._name, self._rows, self._settings)
        copied = [stream for stream in group if not (bookmarks.get(stream.name) or {}).get(LOG_POSITION)]
        anew = {stream.name for stream in copied}
        known = [replace(row, bookmark=None) if row.key.stream in anew else row for row in self._rows]
        if missing := slots.look(admin, names, group, known).missing:
            raise FatalConnectorError("; ".join(missing), connector="postgres", has_no_values=True)
        connection = self._connection = LogConnection(address, is_stopped=self._is_stopped, reader=self._reader)
        self._stack.callback(connection.close)
        (system,) = connection.command("IDENTIFY_SYSTEM")
        self._end, _ = slots.log_end(admin, names)
        refuse_left_timeline(connection, int(str(system["timeline"])), self._rows)
        # Later than the end of what is read: the columns of no change are newer.
        facts = slots.tables_of(admin, group)
        of_stream = {stream.name: facts[slots.oid_of(stream)] for stream in group}
        logs = {}
        for row in self._rows:  # the columns stay those of the position
            logs[row.key.stream] = {**row.log, "timeline": int(str(system["timeline"]))}
        for stream in group:
            try:
                self._demand_unaltered(stream, of_stream[stream.name], {} if stream in copied else logs[stream.name])
            except FatalConnectorError as error:
                yield self._failed_stream(stream.name, error)
        group, copied = self._going_on(group), self._going_on(copied)
        if not group:
            return
        for stream in group:
            # Before anything is made: whoever finds it after a crash has to know whose it is.
            if stream in copied:
                logs[stream.name] = slots.noted(names, system, of_stream[stream.name])
            self._note(stream.name, logs[stream.name])
        failpoint("log.noted")
        held = [of_stream[stream.name] for stream in group if stream not in copied]
        held += self._left_out(admin)
        slots.make(admin, connection, names, held, [of_stream[stream.name] for stream in copied])
        failpoint("log.made")
        entries = slots.entries(admin, names)
        for stream in group:
            table, log = of_stream[stream.name], logs[stream.name]
            entry = {"entry": entries[table.oid][1]}
            if stream.name in anew:
                self._note(stream.name, {**log, **entry})
            self._noted_at_end[stream.name] = {**log, **noted_columns(table, log), **entry}
        tables = {
            slots.oid_of(stream): LoggedTable(
                stream,
                Columns(stream, logs[stream.name], of_stream[stream.name], admin.type_text),
                source.to_schema,
            )
            for stream in group
        }
        positions = {
            stream.name: parse_lsn(str((bookmarks.get(stream.name) or {})[LOG_POSITION]))
            for stream in group
            if stream not in copied
        }
        self._lags = Lags(self._end, slots.clock(admin), positions)
        if copied:
            yield from self._copy(
                admin, names, {slots.oid_of(each): tables[slots.oid_of(each)] for each in copied}, positions
            )
        tables = {oid: table for oid, table in tables.items() if table.stream.name not in self._failed}
        if all(table.is_copied_only for table in tables.values()):
            return  # their changes since then are read by the next run
        # All tables of the run stand at one moment: where others have ended, or have been copied.
        until = max(
            [*self._ended, *(positions[each.stream.name] for each in tables.values() if each.is_copied_only)], default=0
        )
        tables = {oid: table for oid, table in tables.items() if not table.is_copied_only}
        positions = {table.stream.name: positions[table.stream.name] for table in tables.values()}
        is_exact = until >= max(positions.values())
        self._end = until if is_exact else max(self._end, *positions.values())
        lowest = min([*positions.values(), *map(parse_lsn, filter(None, map(position_of, self._rows)))])
        connection.start(names.slot, names.publication, lowest, self._held)
        yield from self._changes(connection, tables, positions, is_exact=is_exact)

    def _demand_unaltered(self, stream: Stream, table: TableFacts, log: Mapping[str, Any]) -> None:
        """Raise if a table was altered since the plan. `log` is the ledger's note of it, empty for a copy."""
        assert self._admin is not None
        slots.demand_planned(stream, table)
        now = {name: self._admin.type_text(*kind) for name, (_, *kind) in table.columns.items()}
        refuse_altered(
            plain_stream(stream), now, lambda field, native: self._source.is_alike(field, native, "arrow"), "postgres"
        )
        if log:
            slots.demand_reported(stream, log, table)

    def _failed_stream(self, name: str, error: FatalConnectorError) -> tuple[str, Ended]:
        """Return the last event of a stream that fails. The others go on, and the stream holds the log."""
        self._failed.add(name)
        error.stream = error.stream or name
        return name, Ended(error=error)

    def _going_on(self, streams: Sequence[Stream]) -> list[Stream]:
        return [stream for stream in streams if stream.name not in self._failed]

    def _held(self) -> int:
        """Return what the server may forget while the read goes on: of a copy nothing is committed at first."""
        return min([_lowest(self._held_by()), *self._copied])

    def _others(self) -> list[LedgerRow]:
        """Return the rows of streams that this read leaves out, or that have failed."""
        names = {stream.name for stream in self._going_on(self._streams)}
        return [row for row in self._rows if row.key.stream not in names]

    def _left_out(self, admin: slots.Admin) -> list[slots.TableFacts]:
        """Return the tables of streams that this read leaves out, and that hold the log."""
        oids = [int(row.log["table"]) for row in self._others() if position_of(row)]
        return list(slots.tables_numbered(admin, oids).values())

    def _copy(
        self, admin: slots.Admin, names: slots.Names, tables: Mapping[int, LoggedTable], positions: dict[str, int]
    ) -> Iterator[tuple[str, Event]]:
        """Read tables as they are at one moment, and note from where in the log on they go on."""
        streams = [table.stream for table in tables.values()]
        with slots.moment(admin, self._source.address, names, streams, self._is_stopped) as (lsn, snapshot):
            self._copied.append(lsn)
            failpoint("log.exported")
            for table in tables.values():
                name, number = table.stream.name, 0
                whole = replace(
                    table.plain,
                    read=replace(table.plain.read, method=ReplicationMethod.FULL_TABLE),
                    locator={**table.plain.locator, SNAPSHOT: snapshot},
                )
                try:
                    for _, event in self._source.read([whole], {}):
                        if isinstance(event, pa.RecordBatch):
                            yield name, table.copied(event, lsn, number)
                            number += event.num_rows
                        elif isinstance(event, Rejected):
                            yield name, event
                except FatalConnectorError as error:
                    yield self._failed_stream(name, error)
                    continue
                yield name, Checkpoint(bookmark={LOG_POSITION: lsn_text(lsn)})
                positions[name] = self._lags.ends[name] = lsn

    def _changes(
        self,
        connection: LogConnection,
        tables: Mapping[int, LoggedTable],
        positions: Mapping[str, int],
        *,
        is_exact: bool,
    ) -> Iterator[tuple[str, Event]]:
        """Yield changes, none that was committed past the end; `is_exact`: the end is where other tables stand."""
        live = dict(tables)
        decoder = Decoder(lambda relation: relation.oid in live)
        pace = _Pace(self._settings.checkpoint_records, self._settings.checkpoint_s)
        position = max(min(positions.values()), 1)
        while True:
            received = connection.receive()
            wanted = _before(received.messages, self._end)
            for messages in _parts(wanted):
                for changes in decoder.decode(messages):
                    table = live.get(changes.relation.oid)
                    if table is None:
                        continue  # it has just failed
                    name = table.stream.name
                    first = int((changes.commit_lsns < positions[name]).sum())
                    if first < len(changes.operations):
                        self._lags.note(name, changes.committed_at[first])
                        try:
                            yield from self._records(table, changes, first, pace)
                        except FatalConnectorError as error:
                            del live[changes.relation.oid]
                            yield self._failed_stream(name, error)
                if not live:
                    return
                if not decoder.is_within:
                    position = max(position, decoder.position)
                    for name in pace.due():
                        if name not in self._failed and position >= positions[name]:
                            yield name, Checkpoint(bookmark={LOG_POSITION: lsn_text(position)})
            if len(wanted) < len(received.messages):
                # The log's end may lie within a transaction: no position that anybody may go on from.
                position = self._end if is_exact else max(position, decoder.position, *positions.values())
                break
            # The server has sent all transactions that were committed before this place.
            if received.sent and not decoder.is_within:
                position = max(position, received.sent)
            if position >= self._end and not decoder.is_within:
                break
        position = self._end if is_exact else position
        for table in live.values():
            self._lags.ends[table.stream.name] = position
            yield table.stream.name, Checkpoint(bookmark={LOG_POSITION: lsn_text(position)})

    @staticmethod
    def _records(table: LoggedTable, changes: Changes, first: int, pace: _Pace) -> Iterator[tuple[str, Event]]:
        name = table.stream.name
        for batch in table.batches(changes, first):
            if isinstance(batch, pa.RecordBatch):
                pace.note(name, batch.num_rows)
            yield name, batch

    def confirm(self, streams: Collection[str]) -> None:
        """See `OpenLog`."""
        for stream, log in self._noted_at_end.items():
            if stream in streams:
                self._note(stream, log)
        if any(stream.name not in streams for stream in self._streams):
            return  # the reader may still be at it
        if self._connection is not None:
            failpoint("log.confirm")
            self._connection.confirm(_lowest(self._held_by()))
        if self._admin is None:
            return
        with suppress(ConnectorError):  # all is committed, and nothing needs these figures
            names = slots.names_of(self._name, self._rows, self._settings)
            self._lags.end, self._lags.retained = slots.log_end(self._admin, names)

    def lag(self, stream: str) -> LogLag:
        """See `OpenLog`."""
        return self._lags.of(stream)


class Lags:
    """Where the log and its streams stand before and after a read."""

    def __init__(self, begun: int, now: float, positions: Mapping[str, int]) -> None:
        """Take the log's end, the server's time in seconds, and the streams' places."""
        self._begun, self._now, self._before = begun, now, dict(positions)
        self._oldest: dict[str, int] = {}
        self.ends: dict[str, int] = {}
        #: Afterwards the log's end, and how much of it the slot keeps.
        self.end, self.retained = 0, 0

    def note(self, name: str, committed_at: int) -> None:
        """Note a change of a stream, in microseconds; the first one counts."""
        self._oldest.setdefault(name, int(committed_at))

    def of(self, name: str) -> LogLag:
        """Return the lag of a stream."""
        before, after, oldest = self._before.get(name), self.ends.get(name), self._oldest.get(name)
        age = None if oldest is None or before is None else round(self._now - oldest / 1e6, 3)
        return LogLag(
            bytes_before=None if before is None else max(self._begun - before, 0),
            seconds_before=age if age is not None and age > 0 else None,
            bytes_after=max(self.end - after, 0) if self.end and after is not None else None,
            retained_bytes=self.retained if self.end else None,
        )


def _lowest(bookmarks: Sequence[Bookmark]) -> int:
    return min((parse_lsn(str(each[LOG_POSITION])) for each in bookmarks), default=0)


class _Pace:
    """Which streams are to be committed: those with many new records, and after a while all that have any."""

    def __init__(self, records: int, seconds: float) -> None:
        self._records, self._seconds = records, seconds
        self._waiting: dict[str, int] = {}
        self._since = time.monotonic()

    def note(self, name: str, records: int) -> None:
        """Note records of a stream."""
        self._waiting[name] = self._waiting.get(name, 0) + records

    def due(self) -> list[str]:
        """Return the streams that are due, and begin to count anew."""
        is_late = time.monotonic() - self._since > self._seconds
        found = [name for name, records in self._waiting.items() if is_late or records >= self._records]
        for name in found:
            del self._waiting[name]
        if is_late:
            self._since = time.monotonic()
        return found


def _before(messages: list[memoryview], end: int) -> list[memoryview]:
    """Cut a block before its first transaction that was committed at a position or later."""
    cut = len(messages)
    for number in range(len(messages) - 1, -1, -1):
        message = messages[number]
        if message[_KIND] == BEGIN:
            if int.from_bytes(message[_KIND + 1 : _KIND + 9]) < end:
                break
            cut = number
    return messages[:cut]


def _parts(messages: list[memoryview]) -> list[list[memoryview]]:
    """Split a block behind its last commit: what comes later is of a transaction that goes on."""
    for number in range(len(messages), 0, -1):
        if len(messages[number - 1]) > _KIND and messages[number - 1][_KIND] == COMMIT:
            return [part for part in (messages[:number], messages[number:]) if part]
    return [messages] if messages else []


__all__ = ["PostgresLog"]
