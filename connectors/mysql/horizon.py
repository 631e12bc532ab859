"""The horizon of an INCREMENTAL read: the highest bookmark value that no running transaction can still write below.

As in `postgres.horizon`, by asking who writes. `now()` is the time at which a statement began, and a statement takes
AUTO_INCREMENT numbers when it writes them. So a connection can hold an uncommitted value only while it runs a
statement, or has a transaction open that has changed records. The process list shows the first, InnoDB's list of
transactions the second; a statement of a transaction that only reads does not count. The process list is asked first:
a statement that ends between the two questions has either ended its transaction, or left it in the second list.

InnoDB answers from a copy, which it renews only after nobody has asked for a tenth of a second. A mark in our question
tells whether the copy is younger than the question: the copy then shows our own transaction with the mark.

A time is never older than the begin of its statement or transaction. Some hours are subtracted: InnoDB counts from the
first record that a transaction reads, for which a statement may have waited, and by the server's own clock. For naive
times the hours of all zones are subtracted, too.

Neither list says which tables a transaction writes, so transactions of all databases of the server count.

Without an index, the lookup of the newest value reads the whole table, and mostly nobody writes. So a read first tries
this: note the number that InnoDB gives its next transaction; see that nobody writes; take the snapshot; see that the
number is still the same. Each transaction that changes records takes one number for itself, and one when it commits. So
every record of the snapshot was committed before the number was noted, and so was every lower value: a connection that
held one would have been seen to write.

Not covered (use `lookback`): values that were taken before their statement (by the client's clock, SET TIMESTAMP,
another statement's `nextval`), rounded up, or chosen by the user; naive times of several zones; a transaction that has
waited for its first table for hours; servers to which others write (replicas, and clusters with several writers).
Without the privilege PROCESS nothing is known.
"""

from __future__ import annotations

import logging
import re
import secrets
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pyarrow as pa

from ..errors import FatalConnectorError
from ..incremental.bookmarks import to_json
from ..incremental.checkpoints import Horizon
from ..sql.read.horizon import MANY_RUNNING, MAY_SKIP, ask, begin_of_oldest, can_settle, is_time, later, wait
from ..sql.session import Session, SessionLease
from ..stream import Bookmark, Stream

if TYPE_CHECKING:
    from ..sql.read.source import SqlSource

log = logging.getLogger("syncblocks")

#: Between two looks: InnoDB's copy is as old as that.
_LOOK_S = 0.11

#: Lock of the server that is held by the one of our readers, on any machine, that asks; and seconds to wait for it.
_TURN, _TURN_S = "syncblocks_look", 10

#: So often is a copy that is too old asked for again; it stays too old only if others ask for it all the time.
_TRIES = 10

#: The clock's own pace: a statement's time may be that of its last tick.
_STAMP_S = 0.02

_TOO_OLD = "other sessions read information_schema.innodb_trx all the time, so it is never updated"

_PREPARED = "xa/"

_STATEMENTS = """select id, user, command, coalesce(time, 0) from information_schema.processlist
where id <> connection_id() and command not in ('Sleep', 'Binlog Dump', 'Binlog Dump GTID')"""

_TRANSACTIONS = """select locate('{mark}', coalesce(trx_query, '')) > 0 and trx_mysql_thread_id = connection_id(),
trx_mysql_thread_id, trx_id, trx_is_read_only, trx_rows_modified,
timestampdiff(second, trx_started, convert_tz(utc_timestamp(), '+00:00', 'SYSTEM'))
from information_schema.innodb_trx"""

#: What the begin of a statement, or of a transaction, is taken to be earlier than told.
_SLACK_S = 7200

#: How far naive times may be behind UTC.
_ZONES_S = 12 * 3600

_CLUSTER = """show global variables where
(variable_name = 'wsrep_provider' and value not in ('', 'none'))
or (variable_name = 'group_replication_group_name' and value <> '')"""


#: Transactions of other engines take none of InnoDB's numbers; nor is it said of which engine a view's tables are. One
#: that only reads may share its files with another server (Aurora), whose transactions take the numbers.
_NUMBERED = """select 1 from information_schema.tables
where table_schema = $1 and table_name = $2 and engine = 'InnoDB' and not @@global.innodb_read_only"""

_NEXT_NUMBER = re.compile(r"^Trx id counter (\S+)", re.MULTILINE)

#: Users and commands of the server's own that write nothing.
_IDLE = {("system user", "Daemon"), ("event_scheduler", "Daemon")}


class _Unknown(Exception):
    """The server does not show who writes."""


class _Stale(Exception):
    """InnoDB's list is too old each time."""


def may_look(session: Session) -> bool:
    """Tell whether this user may see the statements and transactions of others."""
    grants = [str(grant) for (grant,) in session.query("show grants")]
    return any("ON *.*" in grant and ("PROCESS" in grant or "ALL PRIVILEGES" in grant) for grant in grants)


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
        wait_s: how long those that write are waited for.
        sleep: seconds.
    """
    if not can_settle(stream):
        return None
    if not source.is_indexed(lease, stream) and _is_quiet(source, lease, stream, sleep):
        return None
    found = _settled(source, lease, stream, bookmark, wait_s, sleep)
    lease.session.rollback()
    lease.begin()
    return found


def _is_quiet(source: SqlSource, lease: SessionLease, stream: Stream, sleep: Callable[[float], None]) -> bool:
    """Tell whether no value below the newest can appear after the transaction that is then open."""
    session, name = lease.session, source.table(stream)
    if not session.query(_NUMBERED, (name.schema, name.name)):
        return False
    try:
        if not may_look(session) or session.query(_CLUSTER):
            return False
        number = _next_number(session)
        if is_time(stream.schema.field(stream.read.bookmark_properties[0]).type):
            sleep(_STAMP_S)
        if number is None or _writing(lease, sleep):
            return False
    except (_Unknown, _Stale):
        return False
    session.rollback()
    lease.begin()
    return _next_number(session) == number


def _next_number(session: Session) -> str | None:
    """Return the number that InnoDB gives the next transaction that changes something; None: it does not say."""
    try:
        ((*_, text),) = session.query("show engine innodb status")
    except FatalConnectorError:
        return None
    found = _NEXT_NUMBER.search(str(text))
    return found[1] if found else None


def _settled(
    source: SqlSource,
    lease: SessionLease,
    stream: Stream,
    bookmark: Bookmark | None,
    wait_s: float,
    sleep: Callable[[float], None],
) -> Horizon | None:
    question = ask(source, lease, stream, bookmark)
    if question is None:
        return Horizon(settled=None)
    kind = stream.schema.field(stream.read.bookmark_properties[0]).type
    if is_time(kind):
        sleep(_STAMP_S)
    try:
        if not may_look(lease.session):
            raise _Unknown("this user does not have the privilege PROCESS")
        if lease.session.query(_CLUSTER):
            raise _Unknown("other servers of its cluster may also write")
        ages: dict[str, int] = {}

        def look() -> set[str]:
            found = _writing(lease, sleep)
            for name, age_s in found.items():
                thread = name.partition(":")[0]
                ages[thread] = max(ages.get(thread, 0), age_s)  # its COMMIT is younger than what it commits
            return set(found)

        _, left = wait(lease, look, _still, wait_s, sleep, (_LOOK_S, _LOOK_S))
    except _Unknown as why:
        if stream.read.lookback is None:
            log.warning("%s: %s (%s); `lookback` reads again from below the bookmark", stream.name, MAY_SKIP, why)
        return None
    except _Stale:
        log.warning("%s: the bookmark does not move: %s", stream.name, _TOO_OLD)
        return Horizon(settled=None)
    if not left:
        return Horizon(settled=question.newest)
    held = question.held
    settled = None if held is None or _still(set(held["running"]), left) else held["high"]
    if is_time(kind) and not any(name.startswith(_PREPARED) for name in left):
        oldest_s = max(ages[name.partition(":")[0]] for name in left)
        settled = later(settled, begin_of_oldest(_begin(lease.session, oldest_s, kind), kind, question.newest))
    pending = {"high": [to_json(value) for value in question.newest], "running": sorted(left)}
    return Horizon(settled=settled, pending=pending if len(left) <= MANY_RUNNING else None)


def _begin(session: Session, age_s: int, kind: pa.DataType) -> datetime:
    """Return the earliest time that somebody who began so many seconds ago may have taken."""
    ((now,),) = session.query("select utc_timestamp(6)")
    is_naive = not (pa.types.is_timestamp(kind) and kind.tz is not None)
    begin: datetime = now - timedelta(seconds=age_s + _SLACK_S + (_ZONES_S if is_naive else 0))
    return begin if is_naive else begin.replace(tzinfo=UTC)


def _writing(lease: SessionLease, sleep: Callable[[float], None]) -> dict[str, int]:
    """Return who may hold an uncommitted value, and for how many seconds each has run.

    Their names are `<connection>:<transaction>`, the latter empty where it has none yet.
    """
    session = lease.session
    # Each question keeps InnoDB's copy as it is: two readers without turns would do so for each other, for good. A
    # turn lasts until its answer is there.
    session.query(f"select get_lock('{_TURN}', {_TURN_S})")
    try:
        for _ in range(_TRIES):
            lease.check()
            found = _look(session)
            if found is not None:
                return found
            sleep(_LOOK_S)
    finally:
        session.query(f"select release_lock('{_TURN}')")
    raise _Stale


def _look(session: Session) -> dict[str, int] | None:
    """Look once; None: InnoDB's answer is older than the question."""
    try:
        statements = session.query(_STATEMENTS)
        transactions = session.query(_TRANSACTIONS.format(mark=secrets.token_hex(8)))
    except FatalConnectorError as error:
        raise _Unknown(str(error)) from error
    ours = {thread for is_marked, thread, *_ in transactions if is_marked}
    if not ours:
        return None
    if any(user == "system user" and command != "Daemon" for _, user, command, _ in statements):
        raise _Unknown("it is a replica and does not know its primary's transactions")
    reading = {thread for _, thread, _, is_read_only, *_ in transactions if is_read_only}
    names, ages = dict[int, str](), dict[str, int]()
    for _, thread, number, _, changed, age_s in transactions:
        if int(changed) and not thread:
            ages[f"{_PREPARED}{number}"] = int(age_s)
        elif int(changed) and thread not in ours:
            names[thread] = f"{thread}:{number}"
            ages[names[thread]] = int(age_s)
    for thread, user, command, age_s in statements:
        if thread not in reading and (user, command) not in _IDLE:
            name = names.get(thread, f"{thread}:")
            ages[name] = max(ages.get(name, 0), int(age_s))
    return ages


def _still(left: set[str], now: set[str]) -> set[str]:
    """Return who of them may be among those now; one that has a transaction by now is known by it from here on."""
    by_thread = {name.partition(":")[0]: name for name in now if not name.startswith(_PREPARED)}
    result = {name for name in now if name.startswith(_PREPARED)}  # whoever prepared it has left its connection
    for name in left:
        thread, _, number = name.partition(":")
        found = by_thread.get(thread)
        # A statement without a transaction may be the COMMIT of the one before.
        if found is not None and (not number or found in (name, f"{thread}:")):
            result.add(name if number else found)
    return result


__all__ = ["may_look", "settle"]
