"""A table, split by its pages: the ranges of a load by several readers, all in one exported snapshot.

By pages and not by key: every table has them, they are of one size however the keys are spread, each record that the
snapshot sees lies in exactly one of them, and a range of pages is read in the order of the disk, where a range of keys
would jump about.

A load that was cut short is resumed exactly. A snapshot ends with its transaction, but each record says which
transaction wrote it. What a range holds now and was written before all that ran at that snapshot was in it then; if it
holds nothing younger, and as many records as were read then, it holds the same records. That is so while the table has
the same pages and columns (`_FACTS`), and transaction numbers have not come around. The snapshot itself tells which
transactions ran, but not which of them could have written here: so the question is put before it is taken.
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

#: What begins a transaction that reads, and what then marks it as ours.
_BEGIN, _, _MARK = BEGIN.partition("; ")

if TYPE_CHECKING:
    from ..sql.read.source import SqlSource

#: Bytes of a page, unless the server was built otherwise; for the plan only.
_PAGE_BYTES = 8192

#: Tables, partitioned tables, materialized views: what has pages.
_KINDS = ("r", "p", "m")

#: The largest of a table and all that is part of it (partitions, children), in pages and bytes; whether all have pages.
_PARTS = """with recursive parts as (
  select to_regclass({table})::oid as oid
  union select i.inhrelid from pg_catalog.pg_inherits i join parts p on i.inhparent = p.oid)"""
_SIZE = f"""{_PARTS}
select coalesce(max(pg_relation_size(p.oid)) / current_setting('block_size')::bigint, 0)::bigint,
  coalesce(sum(pg_relation_size(p.oid)), 0)::bigint,
  bool_and(c.relkind = 'p' or c.relkind in ('r', 'm') and coalesce(m.amname = 'heap', false))
from parts p join pg_catalog.pg_class c on c.oid = p.oid left join pg_catalog.pg_am m on m.oid = c.relam"""

#: What the records of a table depend on beside its pages: the server and its history, the table's files, its columns;
#: of types that can change by themselves, everything. With row security each role sees other records: NULL.
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

#: Running transactions of other databases. Asked before `_OLDEST`: a transaction that ends in between would be in the
#: snapshot but no longer in this list, and count for this database.
_ELSEWHERE = """select coalesce(string_agg(l.transactionid::text, ','), '')
from pg_catalog.pg_locks l join pg_catalog.pg_stat_activity a on a.pid = l.pid
where l.locktype = 'transactionid' and l.mode = 'ExclusiveLock' and a.datname <> current_database()"""

#: Oldest other running transaction, or else the next one to begin: no older transaction can write here when a later
#: snapshot is taken.
_OLDEST = """with s as materialized (select pg_catalog.pg_current_snapshot() as s)
select least(pg_catalog.pg_snapshot_xmax(s)::text::bigint, (
  select min(x::text::bigint) from pg_catalog.pg_snapshot_xip(s) x
  where x::xid::text <> all (string_to_array({elsewhere}, ','))))
from s"""

#: Counts the records of a range, and those that were written by the transaction `then` or a later one. Transaction ids
#: below 3 mark records that are older than all of them.
_YOUNGER = """select count(*), count(*) filter (where t.xmin::text::bigint > 2
  and mod(mod({now} - t.xmin::text::bigint, 4294967296) + 4294967296, 4294967296) <= {now} - {then})
from {table} as t where {where}"""

#: Transaction ids wrap around: two that are further apart than this cannot be compared.
_CIRCLE = 1 << 31


class PageRanges(Struct):
    """The open ranges of one table."""

    source: SqlSource
    stream: Stream
    wire: str
    ranges: Sequence[Range]
    #: Of the transaction that holds the snapshot.
    holder: SessionLease
    #: The exported snapshot.
    snapshot: str = ""
    #: The answer to `_FACTS`; empty: a later snapshot cannot be compared with this one.
    facts: str = ""
    #: The answer to `_OLDEST` before the snapshot was taken, and the first transaction that had not begun.
    oldest: int = 0
    end: int = 0

    @property
    def moment(self) -> Mapping[str, Any] | None:
        """Return what a later snapshot is compared with."""
        ranges = [[part.label, *part.locator["pages"]] for part in self.ranges]
        found = {
            "facts": self.facts,
            "oldest": self.oldest,
            "ranges": ranges,
            "filter": self.source.filter(self.stream),
        }
        return found if self.facts and self.oldest else None

    def resume(self, moment: Mapping[str, Any], loaded: Mapping[int, int]) -> bool:
        """Take the ranges of an earlier snapshot, if this one sees the same records in the loaded ones."""
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
        """Yield one range, over a connection of its own that sees the snapshot."""
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
        # Begun anew: a snapshot can be set only before the transaction takes its own.
        lease.session.execute(f"rollback; {_BEGIN}; set transaction snapshot {literal(snapshot)}; {_MARK}")
    except FatalConnectorError as error:
        raise SnapshotLost(f"the snapshot of stream {stream.name!r} is gone: {error}") from error


def plan(stream: Stream, readers: int, range_bytes: int) -> tuple[int | None, str]:
    """Say into how many ranges a table would be split, by what the catalog knows of it."""
    kind, pages = str(stream.locator.get("kind", "")), int(stream.locator.get("pages", 0))
    if kind not in _KINDS:
        return 1, "a view or foreign table has no pages to split it by"
    if pages <= 0:
        return None, "by pages, counted when it is read: the catalog has no statistics yet"
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
        # Holds the lock that keeps the table from being rewritten: its pages stay what they are, and so do its columns.
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
            # Not through the lease: an interrupted lease would raise its own error instead.
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
        # The last range has no end: added pages hold records of this snapshot, or none that it sees.
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
    """Ask before a snapshot is taken; 0: the server does not say."""
    try:
        elsewhere = str(_alone(lease, _ELSEWHERE))
        return int(_alone(lease, _OLDEST.format(elsewhere=literal(elsewhere))))
    except FatalConnectorError:
        return 0


def _alone(lease: SessionLease, sql: str) -> Any:
    """Return a query's answer from a transaction, and so a snapshot, of its own."""
    lease.begin()
    try:
        return lease.session.query(sql)[0][0]
    finally:
        lease.session.rollback()


def _facts(source: SqlSource, lease: SessionLease, table: str) -> tuple[str, int]:
    """Return what a load can be resumed by; nothing where the server has no such facts, or does not show them."""
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
