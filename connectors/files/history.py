"""HISTORY for files: write the table anew; versions are closed and updated on the way, and the new ones come behind.

Memory holds no record: the keys that arrived since the last commit, and for each record of these keys, the table's
included, two times and two digests (about 60 bytes). Values that a new version takes over from an old one
(`WriteSpec.kept`, columns that no longer arrive) are held, too.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..arrow.merge import Latest, all_keys, keys_of
from ..stream import ADDED, ENDS, VALID_FROM, VALID_TO, Load
from .history_versions import NEVER, Arrived, MatchedVersions, Numbers, VersionDecisions
from .record_digests import Digests

Batches = Callable[[], Iterable[pa.RecordBatch]]
Arriving = Callable[[Sequence[str] | None], Iterable[pa.RecordBatch]]

#: Types of bookmarks that every system orders as their source does.
_ORDERED = (pa.types.is_integer, pa.types.is_decimal, pa.types.is_timestamp, pa.types.is_date)


class HistoryWrite:
    """The history of one load."""

    def __init__(self, load: Load) -> None:
        assert load.history is not None, "the engine says what a history needs"
        self._load, self._history = load, load.history
        self._keys = load.stream.key_properties[:-1]
        self._has_ends = bool(self._history.known.get(ENDS))
        #: Columns of the table that came since the stream was last completed: nothing is a new version for them.
        self._added = set(map(str, self._history.known.get(ADDED, ())))
        self._digests = Digests()
        #: Records of this commit that are rejected; None: none are.
        self._unlike: Numbers | None = None
        #: The next commit drops the history that is there.
        self.starts_over = self._history.starts_over

    def kept(self, *, is_final: bool) -> Mapping[str, Any]:
        """Return what the ledger keeps: what is known, and until the stream is completed the columns added."""
        known = {name: value for name, value in self._history.known.items() if name != ADDED}
        return known | ({ADDED: sorted(self._added)} if self._added and not is_final else {})

    def committed(self) -> None:
        """Begin the records of another commit."""
        self._unlike, self.starts_over = None, False

    def unlike(self, arrived: Arriving, names: Collection[str]) -> tuple[Numbers | None, str]:
        """Find records of a key that differ from the first one of that key, in one reading of the whole source.

        They are left out from now on. Returns which ones (None: nowhere is one), and what is wrong with them.
        """
        if not self._history.is_whole or self._load.write.latest_by:
            return None, ""
        codes = all_keys(arrived(self._keys), self._keys).dictionary_encode()
        if len(codes.dictionary) == len(codes):
            return None, ""
        places = codes.indices.to_numpy()
        first = np.empty(len(codes.dictionary), np.int64)
        first[places[::-1]] = np.arange(len(codes))[::-1]
        digests = self._digested(arrived, self._compared(names))
        unlike = (digests != digests[first[places]]).any(axis=1)
        self._unlike = unlike if unlike.any() else None
        reason = f"another record of this run has the same key ({', '.join(self._keys)}) and other values"
        return self._unlike, reason

    def records(
        self, old: Batches, arrived: Arriving, names: Collection[str], schema: pa.Schema, before: pa.Schema | None
    ) -> Iterator[pa.RecordBatch]:
        """Yield the batches of the table after the commit.

        Args:
            old: batches of the table.
            arrived: batches since the last commit, with some or all columns of the table's schema.
            names: columns that have arrived.
            schema: of the table.
            before: as it was before the commit; None: there is none.
        """
        if before is not None:
            self._added |= {*schema.names} - {*before.names}
        keys = all_keys(arrived(self._keys), self._keys)
        if not len(keys):
            yield from old()
            return
        compared = self._compared(names)
        renewed = [n for n in names if n not in {*compared, *self._edges, *self._load.write.kept}]
        codes = keys.dictionary_encode()
        known = KeyPlaces(codes.dictionary)
        marks = self._bookmark(schema)
        held, held_marks = self._held(old, known, compared, renewed, marks)
        new = Arrived(
            key=codes.indices.to_numpy().astype(np.int64),
            begun=_joined([times_of(batch.column(VALID_FROM)) for batch in arrived([VALID_FROM])]),
            compared=self._digested(arrived, compared),
            renewed=self._digested(arrived, renewed),
            is_wanted=self._wanted(old, keys, arrived),
            said=_joined([times_of(batch.column(0)) for batch in arrived([self._time or VALID_FROM])]),
        )
        versions = VersionDecisions(held, new, len(codes.dictionary), has_ends=self._has_ends)
        if self._history.has_versions:
            versions.of_records()
        else:
            versions.of_run(lambda current: _is_below(held_marks, arrived, marks, current))
        kept = [name for name in self._load.write.kept if name in names and name in schema.names]
        lost = [name for name in schema.names if name not in {*names, VALID_FROM, VALID_TO}]
        carried = _Carried(versions, len(held), kept, lost)
        yield from _rewritten(old(), held, versions, carried)
        carried.note_arrived(arrived)
        yield from _written(arrived(None), versions, carried)

    @property
    def _edges(self) -> set[str]:
        return {*self._keys, VALID_FROM, VALID_TO}

    @property
    def _time(self) -> str:
        """Return the column from which each record takes its time; empty: it is not needed."""
        return self._history.time if self._has_ends else ""

    def _compared(self, names: Collection[str]) -> list[str]:
        """Return the columns in which a difference makes a new version."""
        others = {*self._edges, *self._history.in_place, *self._added, *self._load.stream.read.bookmark_properties}
        return [name for name in names if name not in others]

    def _bookmark(self, schema: pa.Schema) -> list[str]:
        """Return the columns by which older records are left out; none where versions have times of their own."""
        names = self._load.stream.read.bookmark_properties
        if self._history.has_versions or any(name not in schema.names for name in names):
            return []
        kinds = [schema.field(name).type for name in names]
        return list(names) if all(any(is_kind(kind) for is_kind in _ORDERED) for kind in kinds) else []

    def _digested(self, arrived: Arriving, names: Sequence[str]) -> Numbers:
        # The key gives the count where there is no other column.
        return _joined([self._digests.of(batch, names) for batch in arrived(names or self._keys)])

    def _wanted(self, old: Batches, keys: pa.Array, arrived: Arriving) -> Numbers:
        """Return a mask of the records that count, the latest of each key, without rejected ones."""
        name = self._load.write.latest_by
        if not name:
            return np.ones(len(keys), bool) if self._unlike is None else ~self._unlike
        latest, known = Latest(keys, arrived([name]), self._load.write), KeyPlaces(keys.unique())
        for batch in old():
            current = batch.filter(pc.is_null(batch.column(VALID_TO)))
            own = keys_of(current, self._keys)
            latest.without_newer(own, current.column(name), pa.array(known.of(own) >= 0))
        return latest.is_wanted.to_numpy(zero_copy_only=False)

    def _held(
        self, old: Batches, known: KeyPlaces, compared: Sequence[str], renewed: Sequence[str], marks: Sequence[str]
    ) -> tuple[MatchedVersions, pa.Table | None]:
        """Return the versions of keys that arrive, and their bookmarks, which are wanted where there are `marks`."""
        parts: list[tuple[Numbers, ...]] = []
        tables, done = [], 0
        time = self._time
        needs_all = self._history.has_versions or self._has_ends
        for batch in old():
            key = known.of(keys_of(batch, self._keys))
            is_wanted = key >= 0
            if not needs_all:
                is_wanted &= pc.is_null(batch.column(VALID_TO)).to_numpy(zero_copy_only=False)
            place = np.flatnonzero(is_wanted)
            some = batch.take(pa.array(place))
            begun = times_of(some.column(VALID_FROM))
            parts.append(
                (
                    place + done,
                    key[place],
                    begun,
                    times_of(some.column(VALID_TO)),
                    self._digests.of(some, compared),
                    self._digests.of(some, renewed),
                    times_of(some.column(time)) if time else begun,
                )
            )
            if marks:
                tables.append(some.select(marks))
            done += batch.num_rows
        if not parts:
            none, digests = np.zeros(0, np.int64), np.zeros((0, 2), np.uint64)
            parts = [(none, none, none, none, digests, digests, none)]
        place, key, begun, ends, same, rest, said = (np.concatenate(each) for each in zip(*parts, strict=True))
        held = MatchedVersions(place=place, key=key, begun=begun, ended=ends, compared=same, renewed=rest, said=said)
        return held, pa.Table.from_batches(tables) if tables else None


class KeyPlaces:
    """Numbers keys. Arrow's `index_in` would build its hash table for each batch."""

    def __init__(self, keys: pa.Array) -> None:
        self._sorted: Any = None
        if pa.types.is_integer(keys.type):
            numbers = keys.to_numpy()
            self._order = np.argsort(numbers, kind="stable")
            self._sorted = numbers[self._order]
        else:
            self._known = {key: place for place, key in enumerate(keys.to_pylist())}

    def of(self, keys: pa.Array) -> Numbers:
        """Return the number of each key; -1: it is not known."""
        if self._sorted is None:
            return np.array([self._known.get(key, -1) for key in keys.to_pylist()], np.int64)
        wanted = keys.to_numpy()
        if not len(self._sorted):
            return np.full(len(wanted), -1)
        places = np.minimum(np.searchsorted(self._sorted, wanted), len(self._sorted) - 1)
        return np.where(self._sorted[places] == wanted, self._order[places], -1)


class _Carried:
    """Values that versions take over from others."""

    def __init__(self, versions: VersionDecisions, held: int, kept: Sequence[str], lost: Sequence[str]) -> None:
        self._versions, self._held, self._kept = versions, held, kept
        self._names = [*kept, *lost]
        wanted = np.flatnonzero(versions.is_written & (versions.kept_from >= 0)) if self._names else ()
        #: What is wanted, in order: places among the versions held, then records that arrived.
        self._wanted = np.unique(versions.kept_from[wanted]) if len(wanted) else np.zeros(0, np.int64)
        self._values: list[pa.RecordBatch] = []

    def note(self, batch: pa.RecordBatch, places: Numbers, numbers: Numbers) -> None:
        """Note what is wanted of a batch, whose records at some places have these numbers."""
        is_wanted = np.isin(numbers, self._wanted, assume_unique=True) if len(self._wanted) else np.zeros(0, bool)
        if is_wanted.any():
            have = [name for name in self._names if name in batch.schema.names]
            self._values.append(batch.select(have).take(pa.array(places[is_wanted])))

    def note_arrived(self, arrived: Arriving) -> None:
        """Note values of arrived records that other ones take over."""
        if not len(self._wanted) or self._wanted[-1] < self._held:
            return
        done = 0
        for batch in arrived(self._names):
            places = np.arange(batch.num_rows)
            self.note(batch, places, places + done + self._held)
            done += batch.num_rows

    def given(self, batch: pa.RecordBatch, records: Numbers) -> pa.RecordBatch:
        """Return arrived records with the values that they take over."""
        if not self._values:
            return batch
        source = self._versions.kept_from[records]
        places = np.minimum(np.searchsorted(self._wanted, source), len(self._wanted) - 1)
        columns, own, table = list(batch.columns), np.arange(len(records)), pa.Table.from_batches(self._values)
        for name in self._names:
            takes = source >= 0 if name in self._kept else (source >= 0) & self._versions.is_update[records]
            at = batch.schema.get_field_index(name)
            both = pa.concat_arrays([columns[at], table.column(name).combine_chunks()])
            columns[at] = both.take(pa.array(np.where(takes, places + len(records), own)))
        return pa.RecordBatch.from_arrays(columns, schema=batch.schema)


def _rewritten(
    old: Iterable[pa.RecordBatch], held: MatchedVersions, versions: VersionDecisions, carried: _Carried
) -> Iterator[pa.RecordBatch]:
    """Yield the old batches with the ends of their versions, without those that arrived records replace."""
    done = 0
    for batch in old:
        low, high = np.searchsorted(held.place, (done, done + batch.num_rows))
        places, numbers = held.place[low:high] - done, np.arange(low, high)
        done += batch.num_rows
        carried.note(batch, places, numbers)
        is_other = versions.ended[low:high] != held.ended[low:high]
        if is_other.any():
            batch = with_times(batch, VALID_TO, places[is_other], versions.ended[low:high][is_other])
        is_gone = versions.replaced_by[low:high] >= 0
        if is_gone.any():
            stays = np.ones(batch.num_rows, bool)
            stays[places[is_gone]] = False
            batch = batch.filter(pa.array(stays))
        yield batch


def _written(
    arrived: Iterable[pa.RecordBatch], versions: VersionDecisions, carried: _Carried
) -> Iterator[pa.RecordBatch]:
    done = 0
    for batch in arrived:
        places = np.flatnonzero(versions.is_written[done : done + batch.num_rows])
        records = places + done
        done += batch.num_rows
        if len(places):
            batch, every = batch.take(pa.array(places)), np.arange(len(places))
            batch = with_times(batch, VALID_FROM, every, versions.begun[records])
            batch = with_times(batch, VALID_TO, every, versions.ends[records])
            yield carried.given(batch, records)


def with_times(batch: pa.RecordBatch, name: str, places: Numbers, times: Numbers) -> pa.RecordBatch:
    """Return a batch with other times at some places of a column."""
    at = batch.schema.get_field_index(name)
    numbers = times_of(batch.column(at))
    numbers[places] = times
    column = pa.array(numbers, pa.int64(), mask=numbers == NEVER).cast(pa.timestamp("us", "UTC"))
    columns = list(batch.columns)
    columns[at] = column.cast(batch.schema.field(at).type)
    return pa.RecordBatch.from_arrays(columns, schema=batch.schema)


def times_of(column: pa.Array) -> Numbers:
    """Return times as microseconds since 1970; NULL is `NEVER`. A time without a zone is in UTC."""
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.timestamp("us", column.type.tz), safe=False)
    return np.array(pc.fill_null(column.cast(pa.int64()), NEVER))


def _is_below(held: pa.Table | None, arrived: Arriving, marks: Sequence[str], current: Numbers) -> Numbers:
    """Tell which records have a bookmark below that of the current version, whose place `current` has."""
    if held is None or not held.num_rows:
        return np.zeros(len(current), bool)
    places = pa.array(current, mask=current < 0)
    new = pa.Table.from_batches(arrived(marks))
    is_below: Any = pa.scalar(False)
    for name in reversed(marks):
        one, other = new.column(name).combine_chunks(), held.column(name).combine_chunks().take(places)
        is_below = pc.or_kleene(pc.less(one, other), pc.and_kleene(pc.equal(one, other), is_below))
    return pc.fill_null(is_below, False).to_numpy(zero_copy_only=False)


def _joined(parts: Sequence[Numbers]) -> Numbers:
    return np.concatenate(parts)


__all__ = ["HistoryWrite", "KeyPlaces", "times_of", "with_times"]
