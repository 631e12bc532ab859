"""HISTORY for files: what becomes of each record, decided over numbers alone (keys, times, digests), without a loop.

The rules are those of `connectors/sql/load/history_statements.py`, in NumPy instead of SQL.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from msgspec import Struct

#: An array of NumPy: times are microseconds since 1970, digests two numbers a record.
Numbers = Any

#: End of a version that is the current one, and a time that is not known.
NEVER = np.iinfo(np.int64).max
_BEFORE_ALL = np.iinfo(np.int64).min


class MatchedVersions(Struct):
    """Versions of the table whose keys arrive, in the order of the table."""

    #: Place in the table, and number of the key.
    place: Numbers
    key: Numbers
    begun: Numbers
    ended: Numbers
    #: Digests of the columns in which a difference makes a new version, and of those that are kept up to date.
    compared: Numbers
    renewed: Numbers
    #: The bookmark, if versions have ends; the version begins later than that, if its key had come back meanwhile.
    said: Numbers

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.key)


class Arrived(Struct):
    """Records that arrived, in their order."""

    key: Numbers
    begun: Numbers
    compared: Numbers
    renewed: Numbers
    #: Those that count.
    is_wanted: Numbers
    said: Numbers


class VersionDecisions:
    """Decides; afterwards the attributes say what to write."""

    def __init__(self, held: MatchedVersions, arrived: Arrived, keys: int, *, has_ends: bool) -> None:
        self._held, self._arrived, self._has_ends = held, arrived, has_ends
        count, total = len(arrived.key), len(held)
        #: When the versions of the table end now.
        self.ended = held.ended.copy()
        #: For each version of the table, the number of the arriving record that replaces it; -1: it stays.
        self.replaced_by = np.full(total, -1)
        #: The arriving records that become versions, and when these begin and end.
        self.is_written = np.zeros(count, bool)
        self.begun, self.ends = arrived.begun.copy(), np.full(count, NEVER)
        #: For each of them, the version whose values it keeps: a place in `held`, behind these in `arrived`; -1: none.
        self.kept_from = np.full(count, -1)
        #: Whether it also takes from there the columns that did not arrive.
        self.is_update = np.zeros(count, bool)
        self._current = np.full(keys, -1)
        is_current = np.flatnonzero(held.ended == NEVER)
        self._current[held.key[is_current]] = is_current
        self._last_end = np.full(keys, _BEFORE_ALL)
        np.maximum.at(self._last_end, held.key, held.ended)
        #: `ended` once versions are open again whose keys are back.
        self._opened = self.ended
        self._is_gone = (self._last_end != _BEFORE_ALL) & (self._last_end != NEVER)

    # ------------------------------------------------------------------ of one time each run
    def of_run(self, is_below: Callable[[Numbers], Numbers]) -> None:
        """Decide for records that all have the run's time; of a key the last one counts.

        Args:
            is_below: tells which arrived records are older than the current versions of their keys, whose places in
                `held` it gets (-1: there is none).
        """
        arrived, held = self._arrived, self._held
        self._reopen(arrived.key[arrived.is_wanted], arrived.begun[arrived.is_wanted])
        wanted = np.flatnonzero(arrived.is_wanted & ~is_below(self._current[arrived.key]))
        last = np.full(len(self._current), -1)
        last[arrived.key[wanted]] = wanted  # NumPy keeps the last assignment
        new = last[last >= 0]
        current = self._current[arrived.key[new]]
        is_known = current >= 0
        follows = ~is_known
        old, by = current[is_known], new[is_known]
        follows[is_known] = _differ(held.compared[old], arrived.compared[by]) & (held.begun[old] < arrived.begun[by])
        self._write(new[follows], arrived.begun[new[follows]], current[follows])
        closed = follows & is_known
        self.ended[current[closed]] = arrived.begun[new[closed]]
        self._update(current[~follows], new[~follows])
        self._settle()

    # --------------------------------------------------------------- of a time each record
    def of_records(self) -> None:
        """Decide for records that each have a time of their own; every one is a version."""
        arrived, held = self._arrived, self._held
        some = np.flatnonzero(arrived.is_wanted)
        key, said = arrived.key[some], arrived.begun[some]
        begun = self._raised(key, said, arrived.said[some]) if self._has_ends else said
        # Of those that begin together the newest counts, of equal ones the last.
        order = np.lexsort((said, begun, key))
        some, key, begun = some[order], key[order], begun[order]
        is_last = np.ones(len(some), bool)
        is_last[:-1] = (key[1:] != key[:-1]) | (begun[1:] != begun[:-1])
        some, key, begun = some[is_last], key[is_last], begun[is_last]
        self._reopen(key, begun)
        times = np.unique(np.concatenate((held.begun, begun)))
        rank = key * len(times) + np.searchsorted(times, begun)
        ranks = held.key * len(times) + np.searchsorted(times, held.begun)
        by_rank = np.argsort(ranks, kind="stable")
        place = np.searchsorted(ranks[by_rank], rank)
        is_held = np.append(ranks[by_rank], -1)[place] == rank
        self._update(by_rank[place[is_held]], some[is_held])
        rest = ~is_held
        some, key, begun, place = some[rest], key[rest], begun[rest], place[rest]
        current = self._current[key]
        is_late = current >= 0
        is_late[is_late] = begun[is_late] < held.begun[current[is_late]]
        late, chain = np.flatnonzero(is_late), np.flatnonzero(~is_late)
        first, last = self._chained(some[chain], key[chain], current[chain])
        heads = np.concatenate((chain[first], late))
        records = np.concatenate((some[chain[last]], some[late]))
        kept = current[heads]
        is_other = (kept < 0) & (records != some[heads])
        kept[is_other] = len(held) + some[heads][is_other]
        self._write(records, begun[heads], kept)
        self._end(records, heads, key, begun, by_rank, place)
        self._settle()

    def _raised(self, key: Numbers, said: Numbers, time: Numbers) -> Numbers:
        """Return when records begin: not before their key came back, nor before a version that they replace."""
        held = self._held
        begun = np.where(self._is_gone[key], np.maximum(said, self._last_end[key]), said)
        later = np.flatnonzero(held.said != held.begun)
        later = later[np.argsort(held.key[later], kind="stable")]
        low, high = (np.searchsorted(held.key[later], key, side) for side in ("left", "right"))
        sizes = np.where(self._is_gone[key], 0, high - low)
        one = np.repeat(np.arange(len(key)), sizes)
        steps = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        other = later[np.repeat(low, sizes) + steps] if len(one) else later[:0]
        is_its = (held.begun[other] > said[one]) & (held.said[other] <= time[one])
        np.maximum.at(begun, one[is_its], held.begun[other[is_its]])
        return begun

    def _chained(self, some: Numbers, key: Numbers, current: Numbers) -> tuple[Numbers, Numbers]:
        """Find the records that differ from the one before; update the current versions that go on.

        Returns:
            Places of those that begin a version, and of the last ones that are like them.
        """
        arrived, held = self._arrived, self._held
        if not len(some):
            return some, some
        starts = np.ones(len(some), bool)
        starts[1:] = key[1:] != key[:-1]
        differs = np.ones(len(some), bool)
        differs[1:] = _differ(arrived.compared[some[1:]], arrived.compared[some[:-1]])
        goes_on = np.flatnonzero(starts & (current >= 0))
        differs[starts] = True
        differs[goes_on] = _differ(held.compared[current[goes_on]], arrived.compared[some[goes_on]])
        begins = np.flatnonzero(starts | differs)
        last = np.append(begins[1:], len(some)) - 1
        is_head = differs[begins]
        self._update(current[begins[~is_head]], some[last[~is_head]])
        return begins[is_head], last[is_head]

    def _end(
        self, records: Numbers, heads: Numbers, key: Numbers, begun: Numbers, by_rank: Numbers, place: Numbers
    ) -> None:
        """End new versions where the next one begins, or where the one ended that they divide; and end that one."""
        held = self._held
        heads, records = (each[np.argsort(heads)] for each in (heads, records))
        key, begun, place = key[heads], begun[heads], place[heads]
        ends, one = np.full(len(heads), NEVER), np.arange(len(heads))
        is_followed = one[:-1][key[1:] == key[:-1]]
        ends[is_followed] = begun[is_followed + 1]
        for step in (0, -1):  # the version of the table behind a new one, and the one before it
            is_there = (place + step >= 0) & (place + step < len(by_rank))
            beside = by_rank[(place + step)[is_there]]
            own = held.key[beside] == key[is_there]
            beside, mine = beside[own], one[is_there][own]
            bound = held.begun[beside] if step == 0 else self._opened[beside]
            bound = np.where(bound > begun[mine], bound, NEVER)
            ends[mine] = np.minimum(ends[mine], bound)
            if step:
                is_divided = self._opened[beside] > begun[mine]
                np.minimum.at(self.ended, beside[is_divided], begun[mine[is_divided]])
        self.ends[records] = ends

    # ---------------------------------------------------------------------------- parts
    def _reopen(self, key: Numbers, begun: Numbers) -> None:
        """Open again what ended as it began, for keys that are back by then."""
        held = self._held
        if self._has_ends:
            lowest = np.full(len(self._current), NEVER)
            np.minimum.at(lowest, key, begun)
            is_back = (self._is_gone & (lowest <= self._last_end))[held.key]
            last = self._last_end[held.key]
            opened = np.flatnonzero(is_back & (held.begun == last) & (held.ended == last))
            self.ended[opened] = NEVER
            self._current[held.key[opened]] = opened
        self._opened = self.ended.copy()

    def _write(self, records: Numbers, begun: Numbers, kept_from: Numbers) -> None:
        self.is_written[records], self.begun[records], self.kept_from[records] = True, begun, kept_from

    def _update(self, places: Numbers, records: Numbers) -> None:
        """Let records take the places of versions, if anything of them differs."""
        held, arrived = self._held, self._arrived
        differs = _differ(held.compared[places], arrived.compared[records])
        differs |= _differ(held.renewed[places], arrived.renewed[records])
        places, records = places[differs], records[differs]
        before = self.replaced_by[places]
        self.is_written[before[before >= 0]] = False
        self.replaced_by[places] = records
        held.compared[places], held.renewed[places] = arrived.compared[records], arrived.renewed[records]
        self._write(records, held.begun[places], places)
        self.is_update[records] = True

    def _settle(self) -> None:
        replaced = np.flatnonzero(self.replaced_by >= 0)
        self.ends[self.replaced_by[replaced]] = self.ended[replaced]


def _differ(one: Numbers, other: Numbers) -> Numbers:
    return (one != other).any(axis=1)


__all__ = ["NEVER", "Arrived", "MatchedVersions", "Numbers", "VersionDecisions"]
