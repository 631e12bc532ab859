"""Compare two copies of a table by checksums over ranges of keys: split ranges that differ, then compare records.

Checksums only say where to look; the values decide whether two records differ.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice, pairwise, takewhile
from typing import TypeVar

from syncblocks.connectors.checksums import EVERYTHING, Checksums, ComparedColumn, Digest, KeyRange, Row
from syncblocks.connectors.checksums.sql import is_same
from syncblocks.connectors.compared_values import Key
from syncblocks.connectors.struct_helpers import replace

from .latest_records import Ages

#: Ranges with at most this many records are not split; their records are compared.
LEAF_RECORDS = 1000

#: The same where only keys are compared: to read more keys costs less than another pass over the table.
LEAF_KEYS = 64

#: A range of keys is split only if that leaves at most one in so many to read: a split passes over the range twice.
PAYING_KEYS = 4

#: Parts of ranges in one step where only keys are compared: a statement names all of them.
PARTS_AT_ONCE = 4096

#: Most pieces of a split range; two levels lead from four million records to a thousand.
PIECES = 64

#: Ranges of the first digests of a large table, and keys drawn at random for each: differences are then looked for in
#: few of them, and all other records are hashed once.
FIRST_RANGES, DRAWN = 128, 16

#: The same where only keys are compared: a missing key leads to a small range, without another pass over the table.
FIRST_KEY_RANGES, DRAWN_KEYS = 2048, 8

#: Most records that are named one by one; beyond it, ranges are named.
MAX_RECORDS = 1000

#: Pieces whose records are read in one step, and pieces that are split in one step. Files are read from their beginning
#: for each step.
PIECES_AT_ONCE = 64
SPLIT_AT_ONCE = 32

#: Most bytes of records of one side that are compared in one step, unless told otherwise.
MOST_BYTES = 64_000_000

#: If the pieces that differ hold at most one in so many of all records, all of their records are read at once.
FEW = 10

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RecordDifference:
    """One record that differs."""

    key: Key
    #: `missing` in the destination, `extra` there, or `different`.
    kind: str
    #: Columns that differ, as the source calls them.
    columns: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RangeDifference:
    """A range of keys whose records differ."""

    keys: KeyRange
    source_records: int
    destination_records: int


@dataclass(slots=True)
class Comparison:
    """Result of a comparison."""

    source: Digest
    destination: Digest
    #: In ascending order of keys; one range of everything if there is no key.
    ranges: list[RangeDifference] = field(default_factory=list)
    #: The first records that differ.
    records: list[RecordDifference] = field(default_factory=list)
    #: Whether `records` has all records that differ.
    is_complete: bool = True
    #: Records read and not compared, since they changed in the source after the last run. Records that the checksums
    #: leave out are not counted.
    changed_since: int = 0
    #: Records read and not compared, since the destination has a newer one of their key.
    outdated: int = 0
    #: Whether a record that differs is past the bookmark in the destination only.
    is_past_there: bool = False

    @property
    def is_equal(self) -> bool:
        """Whether no difference was found."""
        return not self.ranges


def compare(
    source: Checksums,
    destination: Checksums,
    key: Sequence[ComparedColumn],
    columns: Sequence[ComparedColumn],
    *,
    is_bounded: bool,
    unread: frozenset[str] = frozenset(),
    ages: Ages | None = None,
    most_bytes: int = MOST_BYTES,
    interrupt: Callable[[], None],
) -> Comparison:
    """Compare two sides.

    Args:
        source: opened checksums of the source.
        destination: opened checksums of the destination.
        key: the key's columns, by the source's names; empty: no range can be split.
        columns: the compared columns, by the source's names.
        is_bounded: records past a bookmark are left out; the destination may have older versions of them.
        unread: columns, by the source's names, without which a record is never read.
        ages: say which record of a key counts.
        most_bytes: most bytes of records of one side that are compared in one step.
        interrupt: interrupts both sides, called when this thread is stopped or one side fails.
    """
    with ThreadPoolExecutor(2) as pool:
        try:
            comparer = _Comparer(
                pool,
                source,
                destination,
                key,
                columns,
                is_bounded=is_bounded,
                unread=unread,
                ages=ages,
                most_bytes=most_bytes,
            )
            return comparer.run()
        except BaseException:
            interrupt()
            raise


def differing_ranges(
    source: Checksums, destination: Checksums, key: Sequence[ComparedColumn], *, interrupt: Callable[[], None]
) -> tuple[Digest, Digest, list[RangeDifference]]:
    """Find the ranges of keys in which two sides differ, as small as pays; return both totals, and them ascending.

    Args:
        source: opened checksums of the source; over the key's columns, if only the keys are of interest.
        destination: the same of the destination.
        key: the key's columns, by the source's names.
        interrupt: as for `compare`.
    """
    with ThreadPoolExecutor(2) as pool:
        try:
            comparer = _Comparer(pool, source, destination, key, (), is_bounded=False, leaf_records=LEAF_KEYS)
            return comparer.differing()
        except BaseException:
            interrupt()
            raise


@dataclass(frozen=True, slots=True)
class _Piece:
    keys: KeyRange
    source: Digest
    destination: Digest
    #: Whether it cannot be split further.
    is_whole: bool = False
    #: Of the side that has more; None: not measured yet.
    size_bytes: int | None = None

    @property
    def has_more_in_source(self) -> bool:
        return self.source.records >= self.destination.records

    @property
    def differs(self) -> bool:
        return self.source != self.destination

    @property
    def size(self) -> int:
        return max(self.source.records, self.destination.records)


class _Comparer:
    def __init__(
        self,
        pool: ThreadPoolExecutor,
        source: Checksums,
        destination: Checksums,
        key: Sequence[ComparedColumn],
        columns: Sequence[ComparedColumn],
        *,
        is_bounded: bool,
        unread: frozenset[str] = frozenset(),
        leaf_records: int = LEAF_RECORDS,
        ages: Ages | None = None,
        most_bytes: int = MOST_BYTES,
    ) -> None:
        self._pool = pool
        self._most_bytes = most_bytes
        self._leaf_records = leaf_records
        self._sides = (source, destination)
        self._key = key
        self._columns = columns
        self._is_bounded = is_bounded
        self._ages = ages
        self._unread = [place for place, column in enumerate(columns) if column.name in unread]

    def run(self) -> Comparison:
        pieces = self._pieces(self._first_ranges(FIRST_RANGES, DRAWN) if self._key else [EVERYTHING])
        result = Comparison(_total(piece.source for piece in pieces), _total(piece.destination for piece in pieces))
        differing = [piece for piece in pieces if piece.differs]
        if self._key:
            self._look_into(differing, result)
        elif differing:
            result.ranges.append(RangeDifference(EVERYTHING, result.source.records, result.destination.records))
            result.is_complete = False
        return result

    def differing(self) -> tuple[Digest, Digest, list[RangeDifference]]:
        """Return both totals, and the ranges that differ, split down to small ones; compare no records."""
        pieces = self._pieces(self._first_ranges(FIRST_KEY_RANGES, DRAWN_KEYS))
        found = [piece for piece in pieces if piece.differs]
        while not all(map(self._is_small, found)):
            large = [piece for piece in found if not self._is_small(piece)]
            parts: dict[KeyRange, list[_Piece]] = {}
            for batch in self._steps(large):
                parts |= dict(zip((piece.keys for piece in batch), self._split_each(batch), strict=True))
            found = [part for piece in found for part in parts.get(piece.keys, [piece])]
        ranges = [RangeDifference(piece.keys, piece.source.records, piece.destination.records) for piece in found]
        return _total(piece.source for piece in pieces), _total(piece.destination for piece in pieces), ranges

    def _is_small(self, piece: _Piece) -> bool:
        """Tell whether to split a piece no further: most of its parts would differ, as far as the numbers tell."""
        missing = abs(piece.source.records - piece.destination.records)
        to_read = max(1, missing) * self._leaf_records
        return piece.is_whole or to_read * (PAYING_KEYS if missing else 1) >= piece.size

    def _steps(self, pieces: Sequence[_Piece]) -> Iterator[list[_Piece]]:
        """Yield so many pieces at once as have about `PARTS_AT_ONCE` parts."""
        step: list[_Piece] = []
        parts = 0
        for piece in pieces:
            step.append(piece)
            parts += -(-piece.size // self._step(piece))
            if parts >= PARTS_AT_ONCE:
                yield step
                step, parts = [], 0
        if step:
            yield step

    def _first_ranges(self, number: int, drawn: int) -> list[KeyRange]:
        """Return ranges of about as many records each, by keys of the side that has many; `drawn` keys for each."""
        keys = max(self._both(lambda side: side.sample(number * drawn)), key=len)
        return _cut(EVERYTHING, list(dict.fromkeys(keys[drawn::drawn])))

    def _both(self, ask: Callable[[Checksums], T]) -> tuple[T, T]:
        left, right = (self._pool.submit(ask, side) for side in self._sides)
        return left.result(), right.result()

    def _pieces(self, ranges: Sequence[KeyRange]) -> list[_Piece]:
        left, right = self._both(lambda side: side.digests(ranges))
        return [_Piece(*parts) for parts in zip(ranges, left, right, strict=True)]

    def _look_into(self, pending: list[_Piece], result: Comparison) -> None:
        """Split pieces that differ, the lowest keys first, until they are small enough to compare records."""
        at_once = 1
        while pending and len(result.records) < MAX_RECORDS:
            kind = self._next(pending[0])
            if kind == "rows":  # few at first: if everything differs, these are enough
                is_small = FEW * sum(piece.size for piece in pending) <= result.source.records
                at_once = PIECES_AT_ONCE if is_small else min(2 * at_once, PIECES_AT_ONCE)
                pending[:at_once] = self._measured(pending[:at_once])
                kind = self._next(pending[0])
            limit = at_once if kind == "rows" else SPLIT_AT_ONCE
            batch: list[_Piece] = []
            for piece in pending[:limit]:
                if self._next(piece) != kind or (kind == "rows" and batch and not self._fits([*batch, piece])):
                    break
                batch.append(piece)
            pending = pending[len(batch) :]
            if kind == "rows":
                for piece, records in zip(batch, self._records(batch, result), strict=True):
                    if records:
                        result.records += records
                        _note(piece, result)
            elif kind == "split":
                pending = self._split(batch) + pending
            else:
                result.is_complete = False
                for piece in batch:
                    _note(piece, result)
        if pending:
            result.is_complete = False
        for piece in pending:
            _note(piece, result)

    def _next(self, piece: _Piece) -> str:
        """Say what to do with a piece: compare its rows, split it, or name it since one side has no record of it."""
        if piece.is_whole or (piece.size <= LEAF_RECORDS and self._fits([piece])):
            return "rows"
        if piece.size <= LEAF_RECORDS:
            return "split"
        is_one_sided = not piece.source.records or not piece.destination.records
        return "name" if is_one_sided and not self._is_bounded else "split"

    def _fits(self, pieces: Sequence[_Piece]) -> bool:
        """Tell whether the records of some pieces, as far as they are measured, can be compared in one step."""
        return sum(piece.size_bytes or 0 for piece in pieces) <= self._most_bytes

    def _measured(self, pieces: Sequence[_Piece]) -> list[_Piece]:
        """Return pieces with their sizes, up to the first one whose records are not compared next."""
        small = list(takewhile(lambda piece: self._next(piece) == "rows", pieces))
        ranges = [piece.keys for piece in small if piece.size_bytes is None]
        found = self._both(lambda side: side.sizes(ranges)) if ranges else ((), ())
        sizes = map(max, *found)
        measured = [replace(each, size_bytes=next(sizes)) if each.size_bytes is None else each for each in small]
        return [*measured, *pieces[len(small) :]]

    def _split(self, pieces: Sequence[_Piece]) -> list[_Piece]:
        """Split pieces at keys of the side with more records; return the parts that differ."""
        return [part for parts in self._split_each(pieces) for part in parts]

    def _split_each(self, pieces: Sequence[_Piece]) -> list[list[_Piece]]:
        boundaries: dict[int, list[Key]] = {}
        for side in (0, 1):
            wanted = [n for n, piece in enumerate(pieces) if piece.has_more_in_source == (side == 0)]
            if wanted:
                asked = [(pieces[n].keys, self._step(pieces[n])) for n in wanted]
                boundaries |= dict(zip(wanted, self._sides[side].boundaries(asked), strict=True))
        cut = [_cut(piece.keys, boundaries[n]) for n, piece in enumerate(pieces)]
        parts = iter(self._pieces([keys for each in cut for keys in each]))
        return [
            [replace(part, is_whole=len(each) == 1) for part in islice(parts, len(each)) if part.differs]
            for each in cut
        ]

    def _step(self, piece: _Piece) -> int:
        """Return the records of a part; of a small piece of wide records each part is far below `most_bytes`."""
        parts = PIECES if piece.size_bytes is not None else min(PIECES, -(-piece.size // self._leaf_records))
        return -(-piece.size // parts)

    # -- records -------------------------------------------------------------------------------------------------

    def _records(self, pieces: Sequence[_Piece], result: Comparison) -> list[list[RecordDifference]]:
        """Return the records that differ, for each of some small pieces."""
        ranges = [piece.keys for piece in pieces]
        left, right = self._both(lambda side: _by_key(side.rows(ranges)))
        differences: list[list[RecordDifference]] = [[] for _ in pieces]
        for key in sorted(left.keys() | right.keys(), key=_readable):
            found, there = left.get(key, []), right.get(key, [])
            if any(row.is_past for row in found):
                if not any(map(self._was_never_read, there)):
                    result.changed_since += 1
                    continue
                found = []
            if self._ages is not None and self._ages.decide:
                if self._ages.is_newer(there, found):
                    result.outdated += 1
                    continue
                found = self._counting(found, there)
            difference = self._difference(key, found, there)
            if difference is not None:
                differences[(found or there)[0].place].append(difference)
                result.is_past_there |= bool(found) and any(row.is_past for row in there)
        return differences

    def _counting(self, found: list[Row], there: list[Row]) -> list[Row]:
        """Return the source's record of a key that counts; of several of equal age nobody knows which one came last."""
        assert self._ages is not None
        newest = self._ages.newest(found)
        alike = [row for row in newest if self._difference(row.key, [row], there) is None]
        return (alike or newest)[-1:]

    def _was_never_read(self, row: Row) -> bool:
        """Tell whether a record of the destination lacks a bookmark without which records are never read."""
        return any(row.values[place] in (None, "NaN", "nan") for place in self._unread)

    def _difference(self, key: Key, left: list[Row], right: list[Row]) -> RecordDifference | None:
        if len(left) > len(right):
            return RecordDifference(key, "missing")
        if len(right) > len(left):
            return RecordDifference(key, "extra")
        names: set[str] = set()
        for mine, other in zip(sorted(left, key=_sortable), sorted(right, key=_sortable), strict=True):
            for column, value, there in zip(self._columns, mine.values, other.values, strict=True):
                if not is_same(value, there, column):
                    names.add(column.name)
        if not names:
            return None
        return RecordDifference(key, "different", tuple(c.name for c in self._columns if c.name in names))


def _note(piece: _Piece, result: Comparison) -> None:
    result.ranges.append(RangeDifference(piece.keys, piece.source.records, piece.destination.records))


def _total(digests: Iterable[Digest]) -> Digest:
    """Return the digest of all records of some ranges."""
    found = list(digests)
    return Digest(sum(digest.records for digest in found), sum(digest.checksum for digest in found))


def _cut(keys: KeyRange, boundaries: Sequence[Key]) -> list[KeyRange]:
    inner = [key for key in boundaries if key != keys.start]
    return [KeyRange(start, end) for start, end in pairwise([keys.start, *inner, keys.end])]


def _by_key(rows: Sequence[Row]) -> dict[Key, list[Row]]:
    result: dict[Key, list[Row]] = {}
    for row in rows:
        result.setdefault(row.key, []).append(row)
    return result


def _readable(key: Key) -> list[tuple[int, str]]:
    """Sort key: non-negative numbers in their order, texts in some order."""
    return [(len(text or ""), text or "") for text in key]


def _sortable(row: Row) -> list[tuple[bool, str]]:
    return [(value is None, value or "") for value in row.values]
