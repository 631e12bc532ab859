"""The horizon of an INCREMENTAL read: the highest bookmark value below which no running transaction can still write.

A transaction takes its bookmark values while it runs (`now()` at its begin, `nextval` later); they become visible when
it commits. So a read works in four steps. It looks up the newest value; it notes which transactions run; it waits a
little for their end; it takes the snapshot to read. Only a transaction that was running at the lookup can still commit
a value at or below the newest one. Once all of these transactions have ended, no lower value can appear any more: the
newest value is settled. A transaction that still runs keeps the bookmark below its values. Records past the bookmark
are still read; the next run reads them again, and recognises them by their hash or merges them.

Looking up the newest value may read the whole table, and mostly no other session writes. So a read first tries a
cheaper way. It notes the end of the log, checks that no transaction runs, takes the snapshot, and checks that the log
has not grown. If so, every record of the snapshot was committed before the first look at the log. So was every lower
value, since its transaction would have been running.

A transaction is recognised by the lock on its virtual id, which every role may see. For numbers, only transactions
count that have written to the table, or taken a number from any sequence. For times, all transactions count, as `now()`
is older than the first write. None can write a time before its own begin, which only pg_read_all_stats may see.

Not covered (use `lookback`): values taken before their transaction (by the client's clock, by another transaction's
`nextval`, by a sequence with CACHE). Reads from a standby are not covered either: it does not know its primary's
transactions.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import pyarrow as pa

from ..errors import FatalConnectorError
from ..incremental.bookmarks import to_json
from ..incremental.checkpoints import Horizon
from ..sql.identifiers import literal
from ..sql.read.horizon import (
    MANY_RUNNING,
    MAY_SKIP,
    Question,
    Values,
    ask,
    begin_of_oldest,
    can_settle,
    is_time,
    later,
    wait,
)
from ..sql.session import SessionLease
from ..stream import Bookmark, Stream
from . import catalog

if TYPE_CHECKING:
    from ..sql.read.source import SqlSource

T = TypeVar("T")

log = logging.getLogger("syncblocks")

#: Reason why a standby has no horizon.
STANDBY = "a standby does not know its primary's running transactions"

#: Shared advisory lock held by every transaction of a source, on any machine: such a transaction only reads.
_READER = (1937337955, 1886545261)

#: Begins a read-only transaction. Names are searched only in the server's own schema: a function or an
#: operator of another user could match the values' types better than ours, and would run with our privileges.
_MARKED = (
    "begin transaction isolation level {} read only; set local search_path = ''; "
    f"select pg_catalog.pg_advisory_xact_lock_shared({_READER[0]}, {_READER[1]})"
)

#: In it all statements see the same snapshot.
BEGIN = _MARKED.format("repeatable read")

#: In it each statement sees all earlier commits. A table that is rewritten while a read waits
#: for its lock looks empty in any earlier snapshot: so the lock comes first, then the statement that reads.
BEGIN_LOCKED = _MARKED.format("read committed")

#: A server stamps a statement just before it shows that its transaction has begun.
_STAMP_S = 0.02

#: Seconds between two looks at running transactions, first and last.
_LOOKS_S = (0.001, 0.05)

_RUNNING = f"""select l.virtualtransaction::text from pg_catalog.pg_locks l
join pg_catalog.pg_stat_activity a on a.pid = l.pid
where l.locktype = 'virtualxid' and l.mode = 'ExclusiveLock' and a.datname = current_database()
  and a.usesysid is not null and l.pid <> pg_catalog.pg_backend_pid()
  and not exists (select 1 from pg_catalog.pg_locks r where r.locktype = 'advisory'
    and r.virtualtransaction = l.virtualtransaction
    and r.classid::bigint = {_READER[0]} and r.objid::bigint = {_READER[1]})"""

_WRITING = """with recursive family(oid) as (
  select {table} union select h.inhrelid from pg_catalog.pg_inherits h join family f on f.oid = h.inhparent)
select distinct l.virtualtransaction::text from pg_catalog.pg_locks l
where l.locktype = 'relation' and l.mode = 'RowExclusiveLock' and l.pid is not null
  and l.database = (select d.oid from pg_catalog.pg_database d where d.datname = current_database())
  and (l.relation in (select oid from family)
    or l.relation in (select c.oid from pg_catalog.pg_class c where c.relkind = 'S'))"""

_IS_PREPARED = "prepared/"
_PREPARED = f"""select '{_IS_PREPARED}' || p.transaction::text from pg_catalog.pg_prepared_xacts p
where p.database = pg_catalog.current_database()"""

#: Begin of the oldest of some transactions, in UTC and in the database's own zone; NULL: not visible for this role.
_OLDEST = """select s.t at time zone 'UTC', s.t at time zone (
  select reset_val from pg_catalog.pg_settings where name = 'TimeZone')
from (select case when pg_catalog.bool_and(a.xact_start is not null) then pg_catalog.min(a.xact_start) end as t
  from pg_catalog.pg_stat_activity a join pg_catalog.pg_locks l on l.pid = a.pid
  where l.locktype = 'virtualxid' and l.virtualtransaction in ({running})) as s"""


def settle(
    source: SqlSource,
    lease: SessionLease,
    stream: Stream,
    bookmark: Bookmark | None,
    wait_s: float,
    sleep: Callable[[float], None] = time.sleep,
) -> Horizon | None:
    """Return the horizon of the lease's next reads; None: every value is settled, or no horizon is known.

    Args:
        source: writes the SQL.
        lease: has an open transaction, before and after the call.
        stream: an INCREMENTAL stream.
        bookmark: where the read starts.
        wait_s: seconds to wait for running transactions.
        sleep: seconds.
    """
    if not can_settle(stream):
        return None
    kind = stream.schema.field(stream.read.bookmark_properties[0]).type
    ((is_standby, relkind),) = lease.session.query(
        "select pg_catalog.pg_is_in_recovery(), "
        f"(select c.relkind::text from pg_catalog.pg_class c where c.oid = {_oid(source, stream)})"
    )
    if is_standby:
        if stream.read.lookback is None:
            log.warning("%s: %s (%s); `lookback` reads again from below the bookmark", stream.name, MAY_SKIP, STANDBY)
        return None
    look = _RUNNING if is_time(kind) or relkind not in ("r", "p") else _WRITING.format(table=_oid(source, stream))
    look = f"{look} union all {_PREPARED}"
    pause_s = _STAMP_S if is_time(kind) else 0.0
    if _is_quiet(lease, look, pause_s, sleep):
        return None
    question = ask(source, lease, stream, bookmark)
    if question is None:
        found = Horizon(settled=None)
    else:
        _pause(pause_s, sleep)
        found = _waited_for(lease, look, question, kind, wait_s, sleep)
    _begin_again(lease)
    return found


def unaltered(source: SqlSource, lease: SessionLease, stream: Stream, take: Callable[[], T]) -> T:
    """Return the result of `take`, with the table locked and a snapshot younger than any change of the table.

    If the table was altered while the lock was waited for, its columns differ from the snapshot's. If it was rewritten,
    the snapshot sees no records.

    Args:
        source: names the table.
        lease: has a transaction with one snapshot, before and after; `take` may begin a new one.
        stream: the stream of the table.
        take: called again if the snapshot was too old.
    """
    seen = ""
    while True:
        taken = take()
        found = catalog.changes_since_snapshot(lease.session, source.table(stream))
        # A change that is named twice was rolled back: the second snapshot would contain it.
        if not found or found == seen:
            return taken
        seen = found
        _begin_again(lease)


def _is_quiet(lease: SessionLease, look: str, pause_s: float, sleep: Callable[[float], None]) -> bool:
    """Return whether no value below the newest can appear after the transaction that is then open."""
    written = _written(lease)
    if written is None:
        return False
    _pause(pause_s, sleep)
    if lease.session.query(look):
        return False
    _begin_again(lease)
    return _written(lease) == written


def _written(lease: SessionLease) -> str | None:
    """Return the end of the server's log; None: a server that only speaks PostgreSQL's protocol may have none."""
    try:
        ((place,),) = lease.session.query("select pg_catalog.pg_current_wal_insert_lsn()::text")
    except FatalConnectorError:
        _begin_again(lease)
        return None
    return str(place)


def _begin_again(lease: SessionLease) -> None:
    lease.session.rollback()
    lease.begin()


def _pause(pause_s: float, sleep: Callable[[float], None]) -> None:
    if pause_s:
        sleep(pause_s)


def _waited_for(
    lease: SessionLease, look: str, question: Question, kind: pa.DataType, wait_s: float, sleep: Callable[[float], None]
) -> Horizon:
    """Wait for running transactions, and return the horizon that the remaining ones allow."""
    newest, held = question.newest, question.held
    ((xmax,),) = lease.session.query("select pg_catalog.txid_snapshot_xmax(pg_catalog.txid_current_snapshot())")
    before, left = wait(lease, lambda: _running(lease, look, xmax), _still, wait_s, sleep, _LOOKS_S)
    if not left:
        return Horizon(settled=newest)
    pending = {"high": [to_json(value) for value in newest], "running": sorted(left), "xmax": xmax}
    settled = _known_from_before(held, before)
    if is_time(kind):
        settled = later(settled, _before_oldest(lease, left, kind, newest))
    return Horizon(settled=settled, pending=pending if len(left) <= MANY_RUNNING else None)


def _running(lease: SessionLease, look: str, xmax: int) -> set[str]:
    """Return the running transactions, and prepared ones that had written when `xmax` was the next id."""
    found = {str(name) for (name,) in lease.session.query(look)}
    return {name for name in found if not _is_prepared(name) or _is_before(name, xmax)}


def _still(left: set[str], now: set[str]) -> set[str]:
    """Return those that still run; a prepared transaction has another name."""
    return (left & now) | set(filter(_is_prepared, now))


def _is_prepared(name: str) -> bool:
    return name.startswith(_IS_PREPARED)


def _is_before(name: str, xmax: int) -> bool:
    age: int = (xmax - int(name.removeprefix(_IS_PREPARED))) % 2**32
    return 0 < age < 2**31


def _known_from_before(held: Mapping[str, Any] | None, running: set[str]) -> Values | None:
    """Return the last run's newest values if all transactions of that time have ended."""
    if held is None or set(held["running"]) & running:
        return None
    if any(_is_prepared(name) and _is_before(name, held["xmax"]) for name in running):
        return None
    high: Values = held["high"]
    return high


def _before_oldest(lease: SessionLease, left: set[str], kind: pa.DataType, newest: Values) -> Values | None:
    """Return the begin of the oldest transaction in the column's type, or the newest values if they are older."""
    if any(map(_is_prepared, left)):
        return None
    ((in_utc, in_zone),) = lease.session.query(_OLDEST.format(running=", ".join(map(literal, sorted(left)))))
    if in_utc is None:
        return None
    moment = in_utc
    if not (pa.types.is_timestamp(kind) and kind.tz is not None):
        moment = min(in_utc, in_zone)  # its writers may use either of the two
    return begin_of_oldest(moment, kind, newest)


def _oid(source: SqlSource, stream: Stream) -> str:
    return f"pg_catalog.to_regclass({literal(source.dialect.naming.table(source.table(stream)))})::oid"


__all__ = ["BEGIN", "BEGIN_LOCKED", "STANDBY", "settle", "unaltered"]
