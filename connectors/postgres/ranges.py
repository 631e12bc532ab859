"""A table, split by its pages: the ranges of a load by several readers, all in one exported snapshot.

By pages and not by key: every table has them, they are of one size however the keys are spread, each record that the
snapshot sees lies in exactly one of them, and a range of pages is read in the order of the disk, where a range of keys
would jump about.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import ConnectorError, FatalConnectorError
from ..protocols import Block
from ..ranges import Range, SnapshotLost, how_many
from ..sql.identifiers import literal
from ..sql.session import Lease
from ..stream import Event, Stream
from .horizon import BEGIN

#: What begins a transaction that reads, and what then marks it as ours.
_BEGIN, _, _MARK = BEGIN.partition("; ")

if TYPE_CHECKING:
    from .source import PostgresSource

#: Bytes of a page, unless the server was built otherwise; for the plan only.
_PAGE_BYTES = 8192

#: Tables, partitioned tables, materialized views: what has pages.
_KINDS = ("r", "p", "m")

#: The largest of a table and all that is part of it (partitions, children), in pages and bytes; whether all have pages.
_SIZE = """with recursive parts as (
  select to_regclass({table})::oid as oid
  union select i.inhrelid from pg_catalog.pg_inherits i join parts p on i.inhparent = p.oid)
select coalesce(max(pg_relation_size(p.oid)) / current_setting('block_size')::bigint, 0)::bigint,
  coalesce(sum(pg_relation_size(p.oid)), 0)::bigint,
  bool_and(c.relkind = 'p' or c.relkind in ('r', 'm') and coalesce(m.amname = 'heap', false))
from parts p join pg_catalog.pg_class c on c.oid = p.oid left join pg_catalog.pg_am m on m.oid = c.relam"""


@dataclass(frozen=True, slots=True)
class PageRanges:
    """The open ranges of one table."""

    source: PostgresSource
    stream: Stream
    wire: str
    ranges: Sequence[Range]
    snapshot: str = ""

    def read(self, part: Range) -> Generator[Event | Block, None, None]:
        """Yield one range, over a connection of its own that sees the snapshot."""
        try:
            with self.source.sessions(self.wire).lease(self.stream.name) as lease:
                lease.begin()
                self._adopt(lease)
                stream = self.source.ranged(self.stream, str(part.locator["where"]))
                yield from self.source.read_leased(lease, stream, self.wire)
        except ConnectorError as error:
            error.connector = error.connector or self.source.connector
            error.stream = error.stream or self.stream.name
            raise

    def _adopt(self, lease: Lease) -> None:
        try:
            # Anew: a snapshot can be set only before the transaction has taken one of its own.
            lease.session.execute(f"rollback; {_BEGIN}; set transaction snapshot {literal(self.snapshot)}; {_MARK}")
        except FatalConnectorError as error:
            raise SnapshotLost(f"the snapshot of stream {self.stream.name!r} is gone: {error}") from error


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
def opened(source: PostgresSource, stream: Stream, readers: int, wire: str, range_bytes: int) -> Iterator[PageRanges]:
    """Export a snapshot and keep it until the block is left."""
    failed: BaseException | None = None
    with source.sessions(wire).lease(stream.name) as lease:
        lease.begin()
        table = source.dialect.table(source.table(stream))
        # Holds the lock that keeps the table from being rewritten: its pages stay what they are.
        columns = source.dialect.names(stream.schema.names[:1])
        lease.session.query(f"select {columns} from {table} where false")
        if int(lease.session.query("select current_setting('server_version_num')::int")[0][0]) < 140000:
            ranges = []  # it would read the whole table for every range
        else:
            ranges = _split(lease, table, readers, range_bytes)
        snapshot = str(lease.session.query("select pg_export_snapshot()")[0][0]) if len(ranges) > 1 else ""
        try:
            yield PageRanges(source, stream, wire, ranges, snapshot)
        except BaseException as error:
            # Not through the lease: it is interrupted with the readers, and would say that instead.
            failed = error
    if failed is not None:
        raise failed


def _split(lease: Lease, table: str, readers: int, range_bytes: int) -> list[Range]:
    pages, size_bytes, has_pages = lease.session.query(_SIZE.format(table=literal(table)))[0]
    count = min(how_many(int(size_bytes), readers, range_bytes), int(pages)) if has_pages else 1
    if count < 2:
        return []
    bounds = [int(pages) * place // count for place in range(count)]
    ranges = []
    for place, first in enumerate(bounds):
        # The last one has no end: pages that were added meanwhile hold nothing the snapshot sees, or its own.
        end = bounds[place + 1] if place + 1 < count else None
        where = f"t.ctid >= '({first},0)'::tid" + ("" if end is None else f" and t.ctid < '({end},0)'::tid")
        label = f"pages {first:,} to {end - 1:,}" if end is not None else f"pages from {first:,}"
        ranges.append(Range(place=place, label=label, locator={"where": where}))
    return ranges


__all__ = ["PageRanges", "opened", "plan"]
