"""The horizon of an INCREMENTAL read: the highest bookmark value that no running transaction can still write below.

A transaction takes a bookmark's value while it runs (`now()` at its begin, `nextval` in it); the value becomes visible
when it commits. So a read works in this order: look up the newest value; note which transactions run; wait a little for
them to end; take the snapshot that is read. Only a transaction that was running at the lookup can still commit a value
at or below the newest one. Once all of these transactions have ended, no lower value can appear any more: the newest
value is settled. A transaction that still runs keeps the bookmark below its values. Records past the bookmark are read
nevertheless; the next run reads them again, and recognises them by their hash or merges them.

The lookup of the newest value may read the whole table, and mostly nobody writes. So a read first tries this: note the
end of the log; see that no transaction runs; take the snapshot; see that the log has not grown. Then every record of
the snapshot was committed before the log was looked at, and so was every lower value: a transaction that held one
would have been seen to run.

A transaction is known by the lock on its own virtual id, which every role may see. For numbers only those count that
have written to the table, or taken a number from any sequence. For times all count, as `now()` is older than the first
write; none can write a time before its own begin, which only pg_read_all_stats shows.

Not covered (use `lookback`): values that were taken before their transaction (by the client's clock, by another
transaction's `nextval`, by a sequence with CACHE), and reads from a standby, which does not know the transactions of
its primary.
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

#: Why nothing can be known on a standby.
STANDBY = "a standby does not know which transactions of its primary still run"

#: Shared advisory lock that every transaction of a source holds, on any machine: it only reads.
_READER = (1937337955, 1886545261)

#: Begins a transaction that changes nothing. Names are looked for in no schema but the server's own: a function or an
#: operator that somebody else made could fit a record's values better than the one we mean, and would run as us.
_MARKED = (
    "begin transaction isolation level {} read only; set local search_path = ''; "
    f"select pg_catalog.pg_advisory_xact_lock_shared({_READER[0]}, {_READER[1]})"
)

#: In it each statement sees the same moment.
BEGIN = _MARKED.format("repeatable read")

#: In it each statement sees what was committed before it. A table that is rewritten while a read waits
#: for its lock is empty in any snapshot from before: so the lock comes first, and then the statement that reads.
BEGIN_LOCKED = _MARKED.format("read committed")

#: A server stamps a statement just before it shows that a transaction has begun.
_STAMP_S = 0.02

#: Between two looks at what still runs, first and at last.
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

#: Begin of the oldest of some transactions in UTC and in the database's own zone; NULL: not for this role to see.
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
    """Return the horizon of the lease's next reads; None: everything is settled, or nothing can be known.

    Args:
        source: writes the SQL.
        lease: in a transaction, before and after.
        stream: INCREMENTAL.
        bookmark: where the read starts.
        wait_s: how long running transactions are waited for.
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
    """Return what `take` does, by a snapshot younger than whatever altered the table, and with the table locked.

    A table that was altered while the lock was waited for has other columns than the snapshot knows of, and where it
    was rewritten no records.

    Args:
        source: says which table.
        lease: in a transaction that sees one moment, before and after; `take` may begin it anew.
        stream: whose table it is.
        take: done again where the snapshot was too old.
    """
    seen = ""
    while True:
        taken = take()
        found = catalog.changes_since_snapshot(lease.session, source.table(stream))
        # A change that is named again was rolled back: the second snapshot would have it.
        if not found or found == seen:
            return taken
        seen = found
        _begin_again(lease)


def _is_quiet(lease: SessionLease, look: str, pause_s: float, sleep: Callable[[float], None]) -> bool:
    """Tell whether no value below the newest can appear after the transaction that is then open."""
    written = _written(lease)
    if written is None:
        return False
    _pause(pause_s, sleep)
    if lease.session.query(look):
        return False
    _begin_again(lease)
    return _written(lease) == written


def _written(lease: SessionLease) -> str | None:
    """Return the end of the server's log; None: a server that only speaks PostgreSQL's protocol may not have one."""
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
    """Wait for running transactions, and return the horizon that those left allow."""
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
    """Return the running transactions; of prepared ones, those that had written when `xmax` was the next id."""
    found = {str(name) for (name,) in lease.session.query(look)}
    return {name for name in found if not _is_prepared(name) or _is_before(name, xmax)}


def _still(left: set[str], now: set[str]) -> set[str]:
    """Return those that still run; a prepared transaction runs under another name."""
    return (left & now) | set(filter(_is_prepared, now))


def _is_prepared(name: str) -> bool:
    return name.startswith(_IS_PREPARED)


def _is_before(name: str, xmax: int) -> bool:
    age: int = (xmax - int(name.removeprefix(_IS_PREPARED))) % 2**32
    return 0 < age < 2**31


def _known_from_before(held: Mapping[str, Any] | None, running: set[str]) -> Values | None:
    """Return the last run's newest values if all that ran then have ended."""
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
        moment = min(in_utc, in_zone)  # whichever of the two its writers go by
    return begin_of_oldest(moment, kind, newest)


def _oid(source: SqlSource, stream: Stream) -> str:
    return f"pg_catalog.to_regclass({literal(source.dialect.naming.table(source.table(stream)))})::oid"


__all__ = ["BEGIN", "BEGIN_LOCKED", "STANDBY", "settle", "unaltered"]
