"""What a history must lead to, in plain Python: the table's records, exit codes, what callbacks are told and given.

It knows the documentation, not the engine.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.faults.histories import Options, Row, Source, Turn, disposition, is_refused

#: A record's key, None without keys; and the values by which it is recognised.
Version = tuple[Any, tuple[Any, ...]]


@dataclass(frozen=True)
class Event:
    """What one callback is told: `rows` and below of a success only; None: it may be anything."""

    parent: str
    status: str
    rows: int | None = None
    rejected: int | None = None
    frame_rows: int | None = None
    frame_columns: frozenset[str] | None = None
    #: Its last batch may not have been handed over yet when a later block failed.
    may_be_cancelled: bool = False


@dataclass(frozen=True)
class Outcome:
    """How a run must end."""

    exit_code: int
    events: tuple[Event, ...] = ()


class _Failure(Exception):
    """The stream fails in this block; what the source has sent by then, if it is another one."""

    def __init__(self, block: str, sent: Sequence[Row] = (), read: Sequence[str] = ()) -> None:
        super().__init__(block)
        self.block, self.sent, self.read = block, sent, read


@dataclass
class Boundary:
    """The records at the bookmark that were committed."""

    columns: tuple[str, ...] = ()
    versions: Counter[Version] = field(default_factory=Counter)


class Oracle:
    """The destination, as it must be after each run."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.disposition = disposition(options)
        self.has_key = options["keys"] != "none"
        self.marks = ("at", "n") if options["clock"] == "day and n" else ("at",)
        #: None: there is none.
        self.table: list[Row] | None = None
        self.columns: set[str] = set()
        #: Those of them that it may not have yet.
        self.unsure: set[str] = set()
        self.bookmark: tuple[Any, ...] | None = None
        self.boundary = Boundary()
        #: Columns of the source that a run has read or the file has left out; None: nothing was synced yet.
        self.known: set[str] | None = None
        #: Lines that are no records, by their number of columns, which makes their text.
        self.set_aside: set[int] = set()

    @property
    def is_incremental(self) -> bool:
        return bool(self.options["method"] == "INCREMENTAL")

    # ------------------------------------------------------------------------- a run
    def run(self, turn: Turn) -> Outcome:
        """Take in what one run does."""
        if is_refused(self.options):
            return Outcome(2)
        if self.disposition == "replace_range" and self.table is not None and _range_column(turn) not in self.columns:
            return Outcome(1)  # a recorded run: the table's records would have no value for it
        blocks = ["load", "export"] if turn.rename is None else ["load", "shape", "export"]
        try:
            read = self._read_columns(turn)
            sent, bookmark, boundary = self._sent(turn.source, read)
            if turn.fails and sent:  # it is not called without records
                raise _Failure("shape", sent, read)
            arriving = [_changed(row, read, turn) for row in sent]
            rejected = self._without_key(arriving)
            if rejected and not self.options["on_rejected"]:
                raise _Failure("export", sent, read)
        except _Failure as failure:
            # A line that is no record may be told of behind the records.
            return Outcome(1, tuple(_failed(blocks, failure, None if turn.source.is_malformed else 0)))
        written = [row for row in arriving if row not in rejected]
        if self.disposition == "replace_range":
            self._delete(arriving, written, _range_column(turn))
        self._write(written, _arriving(read, turn))
        self.bookmark, self.boundary = bookmark, boundary
        left_out = {name for name in turn.source.columns if not _reads(turn, name)}
        self.known = {*read, *left_out}
        found, stored = int(turn.source.is_malformed), self._stored(turn.source)
        shape = frozenset(_arriving(read, turn))
        frame = len(written)
        ends = [
            Event("load", "success", len(sent), found, len(sent), frozenset(read)),
            Event("export", "success", len(written), stored + len(rejected), frame, shape),
            Event("stream", "success", len(written), stored + len(rejected), frame, shape),
        ]
        return Outcome(0, tuple(ends))

    def _stored(self, source: Source) -> int:
        """Return how many lines are set aside; INCREMENTAL, which reads files whole, sets one aside once."""
        if not source.is_malformed or (self.is_incremental and len(source.columns) in self.set_aside):
            return 0
        self.set_aside.add(len(source.columns))
        return 1

    def _read_columns(self, turn: Turn) -> list[str]:
        """Return the columns that are read; those that are new at the source are a failure, or left out."""
        wanted = [name for name in turn.source.columns if _reads(turn, name)]
        new = [name for name in wanted if self.known is not None and name not in self.known]
        if new and self.options["on_schema_change"] == "freeze":
            raise _Failure("load")
        if self.options["on_schema_change"] == "ignore" and self.table is not None:
            return [name for name in wanted if name not in new or name in self.columns]
        return wanted

    def _sent(self, source: Source, read: Sequence[str]) -> tuple[list[Row], tuple[Any, ...] | None, Boundary]:
        if source.is_malformed and not self.options["on_rejected"]:
            raise _Failure("load")
        if not self.is_incremental:
            return list(source.rows), None, Boundary()
        without = [row for row in source.rows if row["at"] is None]
        policy = self.options["null_bookmarks"]
        if without and policy is None:
            raise _Failure("load")
        is_from_scratch = self.bookmark is None
        takes = policy == "always" or (policy == "once" and is_from_scratch)
        marked = [row for row in source.rows if row["at"] is not None]
        found = [row for row in marked if self.bookmark is None or self.mark(row) >= self.bookmark]
        elsewhere = {self.key(row) for row in without if policy == "always"} if self.has_key else set()
        sent, boundary, bookmark = self._unlike_committed(found, read, elsewhere)
        return [*(without if takes else ()), *sent], bookmark, boundary

    def _unlike_committed(
        self, found: Sequence[Row], read: Sequence[str], elsewhere: set[Any]
    ) -> tuple[list[Row], Boundary, tuple[Any, ...] | None]:
        """Return the records that are sent, and what the bookmark is then."""
        known = self._recognisable(read)
        columns = known.columns if known.versions else tuple(read)
        left, replaced, sent, at_start = known.versions.copy(), set(elsewhere), [], []
        for row in found:
            version = (self.key(row), _values(row, columns))
            if self.mark(row) == self.bookmark:
                at_start.append(version)
                is_known = left[version] > 0 and not (self.disposition == "merge" and version[0] in replaced)
                if is_known:
                    left[version] -= 1
                    continue
                if self.has_key:
                    replaced.add(version[0])
            sent.append(row)
        highest = max((self.mark(row) for row in found), default=self.bookmark)
        if highest == self.bookmark:
            kept = Counter(at_start) + Counter({one: n for one, n in left.items() if one[0] not in replaced})
        else:
            columns = tuple(read)
            kept = Counter((self.key(row), _values(row, columns)) for row in found if self.mark(row) == highest)
        kept = Counter({one: n for one, n in kept.items() if one[0] not in elsewhere or one[0] is None})
        return sent, Boundary(columns, kept), highest

    def _recognisable(self, read: Sequence[str]) -> Boundary:
        """Return the committed records at the bookmark by what can be compared: a column may not be read any more.

        A merge sends them again where a column is read that was not, so that they get its values.
        """
        if self.disposition == "merge" and not set(read) <= set(self.boundary.columns):
            return Boundary()
        if set(self.boundary.columns) <= set(read):
            return self.boundary
        if self.disposition == "merge" or not self.has_key:
            return Boundary()
        return Boundary(("id",), Counter((key, (key,)) for key, _ in self.boundary.versions.elements()))

    def _without_key(self, rows: Iterable[Row]) -> list[Row]:
        if self.disposition == "append" or not self.has_key:
            return []
        return [row for row in rows if row["id"] is None]

    def _delete(self, read: Sequence[Row], written: Sequence[Row], column: str) -> None:
        """Delete the records of the values that were read, and those whose keys arrive."""
        values = {row[column] for row in read}
        keys = {row["id"] for row in written} if self.has_key else set()
        kept = (row for row in self.table or () if row.get(column) not in values and row["id"] not in keys)
        self.table = None if self.table is None else list(kept)

    def _write(self, rows: Sequence[Row], columns: set[str]) -> None:
        if self.disposition == "replace" or self.table is None:
            self.table, self.columns, self.unsure = [], set(columns), set()
        # Without records a new column is added or not, as the destination likes.
        self.unsure = self.unsure - columns if rows else self.unsure | (columns - self.columns)
        self.columns |= columns
        if self.disposition != "merge":
            self.table += rows
            return
        merged = {row["id"]: row for row in self.table}
        for row in rows:
            if not (self.options["conflict"] == "IGNORE" and row["id"] in merged):
                merged[row["id"]] = row
        self.table = list(merged.values())

    # ----------------------------------------------------------------- verify and repair
    def verdict(self, turn: Turn) -> str | None:
        """Return what `verify` says after a run that was a success; None: the documentation does not say."""
        if self.table is None:
            return "differs"
        if turn.rename is not None:
            return "counted"
        if self.unsure or any(row["id"] is None for row in (*turn.source.rows, *self.table)):
            return None
        here, there = self._sides(turn)
        columns = self._compared(turn)
        if Counter(_values(row, columns) for row in here) == Counter(_values(row, columns) for row in there):
            return "equal"
        if self.disposition == "replace_range" and self._holds_more(here, there, columns):
            return "counted"
        return "counted" if self.disposition == "append" and len(there) >= len(here) else "differs"

    def _holds_more(self, here: Sequence[Row], there: Sequence[Row], columns: Sequence[str]) -> bool:
        """Return whether the table has the source's records and others; without a key, whether it has more."""
        if not self.has_key:
            return len(there) > len(here)
        return Counter(_values(row, columns) for row in here) <= Counter(_values(row, columns) for row in there)

    def _compared(self, turn: Turn) -> tuple[str, ...]:
        if self.options["conflict"] == "IGNORE" and self.disposition == "merge":
            return ("id",)
        return tuple(sorted(_arriving(self._read_columns(turn), turn) & self.columns))

    def _sides(self, turn: Turn) -> tuple[list[Row], list[Row]]:
        """Return the records of both sides that are compared."""
        assert self.table is not None
        here, there = [_changed(row, self._read_columns(turn), turn) for row in turn.source.rows], self.table
        if not self.is_incremental:
            return here, there
        policy = self.options["null_bookmarks"]
        is_left_out = policy in ("never", "once")
        read = [
            row for row in here if (not is_left_out if row["at"] is None else self.mark(row) <= (self.bookmark or ()))
        ]
        unread = {row["id"] for row in here if row not in read} if self.has_key else set()
        if policy == "once":
            there = [row for row in there if row["at"] is not None]
        return read, [row for row in there if row["id"] not in unread or (policy == "never" and row["at"] is None)]

    def damage(self) -> tuple[Any, Any] | None:
        """Delete a record of the table and change another; return their ids."""
        known = sorted({row["id"] for row in self.table or () if row["id"] is not None})
        if len(known) < 2 or "n" not in self.columns:
            return None
        gone, changed = known[0], known[-1]
        self.table = [
            {**row, "n": 9999} if row["id"] == changed else row for row in self.table or () if row["id"] != gone
        ]
        return gone, changed

    def repair(self, turn: Turn) -> bool:
        """Take in a repair; return whether the table is known then."""
        here, there = self._sides(turn)
        by_key = {row["id"]: row for row in here}
        compared = {row["id"] for row in there}
        if self.options["conflict"] == "IGNORE" and self.disposition == "merge":
            self.table = [*(self.table or ()), *(row for key, row in by_key.items() if key not in compared)]
        else:
            self.table = [*here, *(row for row in self.table or () if row not in there and row["id"] not in by_key)]
        self.boundary = Boundary()
        return not self.columns - _arriving(self._read_columns(turn), turn)

    # -------------------------------------------------------------------------- records
    def key(self, row: Row) -> Any:
        return row["id"] if self.has_key else None

    def mark(self, row: Row) -> tuple[Any, ...]:
        return tuple(row[name] for name in self.marks)


def _range_column(turn: Turn) -> str:
    return str((turn.rename or {}).get("n", "n"))


def _reads(turn: Turn, name: str) -> bool:
    return (turn.include is None or name in turn.include) and name not in (turn.exclude or ())


def _arriving(read: Iterable[str], turn: Turn) -> set[str]:
    names = turn.rename or {}
    return {names.get(name, name) for name in read} | ({"twice"} if turn.adds else set())


def _changed(row: Row, read: Iterable[str], turn: Turn) -> Row:
    names = turn.rename or {}
    changed = {names.get(name, name): row[name] for name in read}
    return changed | ({"twice": 2 * row["n"]} if turn.adds else {})


def _values(row: Row, columns: Iterable[str]) -> tuple[Any, ...]:
    return tuple(row.get(name) for name in columns)


def _failed(blocks: Sequence[str], failure: _Failure, rejected: int | None) -> Iterable[Event]:
    """Yield the ends of a stream that fails in one block; those before it have handed over everything."""
    place = blocks.index(failure.block)
    for number, block in enumerate(blocks):
        if number < place and block == "load":
            sent = len(failure.sent)
            yield Event(block, "success", sent, rejected, sent, frozenset(failure.read), may_be_cancelled=True)
        elif block != "shape":
            yield Event(block, "failure" if number == place else "cancelled")
    yield Event("stream", "failure")
