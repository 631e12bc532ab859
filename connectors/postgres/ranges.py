"""Splits a table by its pages: ranges for several readers, all in one exported snapshot.

Pages are better than keys: every table has them, and all ranges have one size. Each record of the snapshot is in
exactly one range, and a range is read in the order of the disk.

An interrupted load is resumed exactly. A snapshot ends with its transaction, but each record says which transaction
wrote it. Records of a range that are older than all transactions that ran at that snapshot were in it. If the range has
no younger record, and as many as were read then, it holds the same records. This is true while the table has the same
pages and columns (`_FACTS`), and transaction ids have not wrapped around. The snapshot lists the running transactions,
but not which of them could have written here: so they are queried before it is taken.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from ..errors import ConnectorError, FatalConnectorError
from ..ranges import Range, SnapshotLost, how_many
from ..sql.identifiers import literal
from ..sql.session import SessionLease
from ..stream import Block, Event, Stream
from .horizon import BEGIN, unaltered

#: The statement that begins a reading transaction, and the one that marks it as ours.
_BEGIN, _, _MARK = BEGIN.partition("; ")

if TYPE_CHECKING:
    from ..sql.read.source import SqlSource

#: Bytes of a page, unless the server was built with another size; only used by the plan.
_PAGE_BYTES = 8192

#: Tables, partitioned tables, materialized views: relations with pages.
_KINDS = ("r", "p", "m")

#: The largest of a table and its parts (partitions, children), in pages and bytes; whether all of them have pages.
_PARTS = """with recursive parts as (
  select to_regclass({table})::oid as oid
  union select i.inhrelid from pg_catalog.pg_inherits i join parts p on i.inhparent = p.oid)"""
_SIZE = f"""{_PARTS}
select coalesce(max(pg_relation_size(p.oid)) / current_setting('block_size')::bigint, 0)::bigint,
  coalesce(sum(pg_relation_size(p.oid)), 0)::bigint,
  bool_and(c.relkind = 'p' or c.relkind in ('r', 'm') and coalesce(m.amname = 'heap', false))
from parts p join pg_catalog.pg_class c on c.oid = p.oid left join pg_catalog.pg_am m on m.oid = c.relam"""

#: State on which the records of a table depend besides its pages: the server and its history, the table's files, its
#: columns, and all details of types that can change. With row security each role sees different records: NULL.
_FACTS = f"""{_PARTS}
select case when bool_or(c.relrowsecurity) then null else md5(concat_ws(' ',
  (select system_identifier from pg_catalog.pg_control_system()),
  left(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 8),
  (select d.oid from pg_catalog.pg_database d where d.datname = current_database()),
  string_agg(concat_ws(':', c.oid, pg_catalog.pg_relation_filenode(c.oid)), ' ' order by c.oid),
  (select md5(string_agg(a::text, ' ' order by a.attrelid, a.attnum)) from pg_catalog.pg_attribute a
    where a.attrelid in (select oid from parts union select oid from pg_catalog.pg_class where relkind = 'c')),
  (select md5(string_agg(d::text, ' ' order by d.oid)) from pg_catalog.pg_attrdef d
    where d.adrelid in (select oid from parts)),
  (select md5(string_agg(e::text, ' ' order by e.oid)) from pg_catalog.pg_enum e)))
end from parts p join pg_catalog.pg_class c on c.oid = p.oid"""

#: Running transactions of other databases. Read before `_OLDEST`: a transaction that ends in between would be in the
#: snapshot but not in this list, and would count for this database.
_ELSEWHERE = """select coalesce(string_agg(l.transactionid::text, ','), '')
from pg_catalog.pg_locks l join pg_catalog.pg_stat_activity a on a.pid = l.pid
where l.locktype = 'transactionid' and l.mode = 'ExclusiveLock' and a.datname <> current_database()"""

#: Oldest other running transaction, or else the next id: when a later snapshot is taken, no older transaction can
#: still write here.
_OLDEST = """with s as materialized (select pg_catalog.pg_current_snapshot() as s)
select least(pg_catalog.pg_snapshot_xmax(s)::text::bigint, (
  select min(x::text::bigint) from pg_catalog.pg_snapshot_xip(s) x
  where x::xid::text <> all (string_to_array({elsewhere}, ','))))
from s"""

#: Counts the records of a range, and those written by the transaction `then` or a later one. Transaction ids
#: below 3 mark records that are older than all others.
_YOUNGER = """select count(*), count(*) filter (where t.xmin::text::bigint > 2
  and mod(mod({now} - t.xmin::text::bigint, 4294967296) + 4294967296, 4294967296) <= {now} - {then})
from {table} as t where {where}"""

#: Transaction ids wrap around: two ids further apart than this cannot be compared.
_CIRCLE = 1 << 31


class PageRanges(Struct):
    """The open ranges of one table."""

    source: SqlSource
    stream: Stream
    wire: str
    ranges: Sequence[Range]
    #: Settings of the transaction that holds the snapshot.
    holder: SessionLease
    #: The exported snapshot.
    snapshot: str = ""
    #: The result of `_FACTS`; empty: a later snapshot cannot be compared with this one.
    facts: str = ""
    #: The result of `_OLDEST` before the snapshot was taken, and the first id that had not begun.
    oldest: int = 0
    end: int = 0

    @property
    def moment(self) -> Mapping[str, Any] | None:
        """Return the facts that a later snapshot is compared with."""
        ranges = [[part.label, *part.locator["pages"]] for part in self.ranges]
        found = {
            "facts": self.facts,
            "oldest": self.oldest,
            "ranges": ranges,
            "filter": self.source.filter(self.stream),
        }
        return found if self.facts and self.oldest else None

    def resume(self, moment: Mapping[str, Any], loaded: Mapping[int, int]) -> bool:
        """Take the ranges of an earlier snapshot, if this one sees the same records in the loaded ranges."""
        then, now = int(moment["oldest"]), self.end
        condition = self.source.filter(self.stream)
        if moment["facts"] != self.facts or moment.get("filter", "") != condition or now - then >= _CIRCLE:
            return False
        table = self.source.dialect.naming.table(self.source.table(self.stream))
        for place, records in loaded.items():
            within = _within(moment["ranges"][place][1:])
            where = " and ".join(f"({each})" for each in (within, condition) if each)
            sql = _YOUNGER.format(now=now, then=then, table=table, where=where)
            if self.holder.session.query(sql) != [(records, 0)]:
                return False
        self.ranges = [_range(place, label, first, end) for place, (label, first, end) in enumerate(moment["ranges"])]
        return True

    def read(self, part: Range) -> Generator[Event | Block, None, None]:
        """Yield one range, over a separate connection that uses the snapshot."""
        source, stream = self.source, self.stream
        try:
            with source.sessions(self.wire).lease(stream.name) as lease:
                lease.begin()
                _adopt(lease, stream, self.snapshot)
                yield from source.read_leased(lease, source.ranged(stream, _within(part.locator["pages"])), self.wire)
        except ConnectorError as error:
            error.connector = error.connector or source.connector
            error.stream = error.stream or stream.name
            raise


def _adopt(lease: SessionLease, stream: Stream, snapshot: str) -> None:
    try:
        # Begin again: a snapshot can be set only before the transaction takes its own.
        lease.session.execute(f"rollback; {_BEGIN}; set transaction snapshot {literal(snapshot)}; {_MARK}")
    except FatalConnectorError as error:
        raise SnapshotLost(f"the snapshot of stream {stream.name!r} is gone: {error}") from error


def plan(stream: Stream, readers: int, range_bytes: int) -> tuple[int | None, str]:
    """Return the number of ranges into which a table would be split, by the catalog."""
    kind, pages = str(stream.locator.get("kind", "")), int(stream.locator.get("pages", 0))
    if kind not in _KINDS:
        return 1, "a view or foreign table has no pages for a split"
    if pages <= 0:
        return None, "by pages, counted at the read: the catalog has no statistics yet"
    count = how_many(pages * _PAGE_BYTES, readers, range_bytes)
    if count == 1:
        return 1, f"{pages:,} pages are too few to split"
    return count, f"by pages, about {pages:,} in all"


@contextmanager
def opened(source: SqlSource, stream: Stream, readers: int, wire: str, range_bytes: int) -> Iterator[PageRanges]:
    """Export a snapshot and keep it until the context ends."""
    failed: BaseException | None = None
    with source.sessions(wire).lease(stream.name) as lease:
        oldest = _oldest(lease)
        lease.begin()
        table = source.dialect.naming.table(source.table(stream))
        # Holds the lock that prevents a rewrite of the table: its pages and columns stay.
        unaltered(source, lease, stream, lambda: None)
        source.agree(lease, stream, wire)
        if int(lease.session.query("select current_setting('server_version_num')::int")[0][0]) < 140000:
            ranges = []  # it would read the whole table for every range
        else:
            ranges = _split(lease, table, readers, range_bytes)
        found = PageRanges(source, stream, wire, ranges, lease)
        if len(ranges) > 1:
            found.facts, found.end = _facts(source, lease, table)
            found.oldest = oldest
            found.snapshot = str(lease.session.query("select pg_export_snapshot()")[0][0])
        try:
            yield found
        except BaseException as error:
            # Not through the lease: an interrupted lease would raise a different error.
            failed = error
    if failed is not None:
        raise failed


def _split(lease: SessionLease, table: str, readers: int, range_bytes: int) -> list[Range]:
    pages, size_bytes, has_pages = lease.session.query(_SIZE.format(table=literal(table)))[0]
    count = min(how_many(int(size_bytes), readers, range_bytes), int(pages)) if has_pages else 1
    if count < 2:
        return []
    bounds = [int(pages) * place // count for place in range(count)]
    ranges = []
    for place, first in enumerate(bounds):
        # The last range has no end: new pages have no records that this snapshot sees, or records of the snapshot.
        end = bounds[place + 1] if place + 1 < count else None
        label = f"pages {first:,} to {end - 1:,}" if end is not None else f"pages from {first:,}"
        ranges.append(_range(place, label, first, end))
    return ranges


def _range(place: int, label: str, first: int, end: int | None) -> Range:
    return Range(place=place, label=label, locator={"pages": (first, end)})


def _within(pages: Sequence[Any]) -> str:
    """Return the condition of a range. The pages may come from a table: only numbers get into the statement."""
    first, end = pages
    within = f"t.ctid >= '({int(first)},0)'::tid"
    return within if end is None else f"{within} and t.ctid < '({int(end)},0)'::tid"


def _oldest(lease: SessionLease) -> int:
    """Read it before a snapshot is taken; 0: the server does not report it."""
    try:
        elsewhere = str(_alone(lease, _ELSEWHERE))
        return int(_alone(lease, _OLDEST.format(elsewhere=literal(elsewhere))))
    except FatalConnectorError:
        return 0


def _alone(lease: SessionLease, sql: str) -> Any:
    """Return a query's answer from a separate transaction, with its own snapshot."""
    lease.begin()
    try:
        return lease.session.query(sql)[0][0]
    finally:
        lease.session.rollback()


def _facts(source: SqlSource, lease: SessionLease, table: str) -> tuple[str, int]:
    """Return the facts by which a load can be resumed; empty if the server does not show them."""
    source.dialect.writes.savepoint(lease.session)
    try:
        ((facts,),) = lease.session.query(_FACTS.format(table=literal(table)))
        ((end,),) = lease.session.query("select pg_snapshot_xmax(pg_catalog.pg_current_snapshot())::text::bigint")
    except FatalConnectorError:
        source.dialect.writes.rollback(lease.session)
        return "", 0
    source.dialect.writes.release(lease.session)
    return facts or "", int(end)


__all__ = ["PageRanges", "opened", "plan"]
