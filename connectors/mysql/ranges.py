"""A table, split by its integer primary key: readers that begin their snapshots while nobody can write the table.

MySQL cannot export a snapshot. So the table is locked against writers while every reader begins its own snapshot: no
transaction that has written to the table is open then, and all readers see the same records.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, ClassVar

from msgspec import Struct

from ..errors import ConnectorError
from ..ranges import Range, RangesRefused, SnapshotLost, how_many
from ..sql.session import SessionLease
from ..stream import Block, Event, Stream

if TYPE_CHECKING:
    from ..sql.read.source import SqlSource

#: Seconds to wait for transactions that have written the table; new writers wait for our lock meanwhile.
_LOCK_S = 5


class KeyRanges(Struct, frozen=True):
    """The open ranges of one table, and the connections that see it as it was."""

    source: SqlSource
    stream: Stream
    ranges: Sequence[Range]
    idle: SimpleQueue[SessionLease]
    #: No record says when it was written.
    moment: ClassVar[None] = None

    def resume(self, moment: Mapping[str, Any], loaded: Mapping[int, int]) -> bool:
        """Never: nothing shows that a range is unchanged."""
        return False

    def read(self, part: Range) -> Generator[Event | Block, None, None]:
        """Yield one range over a connection that has the snapshot; one that fails is not used again."""
        try:
            lease = self.idle.get_nowait()
        except Empty:
            raise SnapshotLost(
                f"no connection with the snapshot of stream {self.stream.name!r} is left",
                connector=self.source.connector,
                stream=self.stream.name,
            ) from None
        stream = self.source.ranged(self.stream, str(part.locator["where"]))
        try:
            yield from self.source.read_leased(lease, stream, "arrow")
        except ConnectorError as error:
            error.connector = error.connector or self.source.connector
            error.stream = error.stream or self.stream.name
            raise
        self.idle.put(lease)


def plan(stream: Stream, readers: int, range_bytes: int) -> tuple[int | None, str]:
    """Say into how many ranges a table would be split, by what the catalog knows of it."""
    key, size_bytes = stream.locator.get("split"), int(stream.locator.get("bytes", 0))
    if not key:
        return 1, "no integer primary key for the split, or not InnoDB"
    count = how_many(size_bytes, readers, range_bytes)
    if count == 1:
        return 1, f"{size_bytes:,} bytes are too few to split"
    return count, f"by the key {key}, about {size_bytes:,} bytes in all"


@contextmanager
def opened(source: SqlSource, stream: Stream, readers: int, range_bytes: int) -> Iterator[KeyRanges]:
    """Begin one snapshot a reader, all of the same moment, and keep them until the context ends."""
    failed: BaseException | None = None
    idle: SimpleQueue[SessionLease] = SimpleQueue()
    count = how_many(int(stream.locator.get("bytes", 0)), readers, range_bytes)
    with ExitStack() as stack:
        ranges: list[Range] = []
        if stream.locator.get("split") and count > 1:
            leases = [stack.enter_context(source.sessions("arrow").lease(stream.name)) for _ in range(readers)]
            _begin_together(source, stream, leases)
            ranges = _split(source, stream, leases[0], count)
            for lease in leases:
                idle.put(lease)
        try:
            yield KeyRanges(source, stream, ranges, idle)
        except BaseException as error:
            # Not through the leases: an interrupted lease would raise its own error instead.
            failed = error
    if failed is not None:
        raise failed


def _begin_together(source: SqlSource, stream: Stream, leases: Sequence[SessionLease]) -> None:
    table = source.dialect.naming.table(source.table(stream))
    with source.sessions("arrow").lease(stream.name) as holder:
        holder.begin()
        session = holder.session
        ((before,),) = session.query("select @@lock_wait_timeout")
        try:
            session.execute(f"set session lock_wait_timeout = {_LOCK_S}")
            session.execute(f"lock tables {table} read")
        except ConnectorError as error:
            raise RangesRefused(f"{table} cannot be locked while its readers begin: {error}") from error
        try:
            for lease in leases:
                lease.begin()
                # Keeps the columns as they are, for as long as the snapshot is read.
                lease.session.query(f"select 1 from {table} where 1 = 0")
            source.agree(leases[0], stream, "arrow")
        finally:
            session.execute("unlock tables")
            session.execute(f"set session lock_wait_timeout = {int(before)}")


def _split(source: SqlSource, stream: Stream, lease: SessionLease, count: int) -> list[Range]:
    name = str(stream.locator["split"])
    key, table = f"t.{source.dialect.naming.quote(name)}", source.dialect.naming.table(source.table(stream))
    ((low, high),) = lease.session.query(f"select min({key}), max({key}) from {table} as t")
    if low is None:
        return []
    first, last = int(low), int(high)
    bounds = sorted({first + (last - first + 1) * place // count for place in range(1, count)} - {first})
    ranges = []
    # The first and last range are open: each key is in one range, whatever its value.
    for place, (start, end) in enumerate(zip([None, *bounds], [*bounds, None], strict=True)):
        sides = [f"{key} >= {start}"] if start is not None else []
        sides += [f"{key} < {end}"] if end is not None else []
        label = f"{name} from {first if start is None else start} to {last if end is None else end - 1}"
        ranges.append(Range(place=place, label=label, locator={"where": " and ".join(sides)}))
    return ranges if bounds else []


__all__ = ["KeyRanges", "opened", "plan"]
