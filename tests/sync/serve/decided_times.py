"""What became of the times of schedules: each is a tick or in one stretch of skipped times, once."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from tests.sync.store.store_helpers import query

_ROWS = """SELECT pipeline, due_at, skipped_to, skipped_count FROM _syncblocks_tick WHERE kind = 'schedule'"""


def wrong_times(url: str, times: Mapping[str, Sequence[datetime]]) -> list[str]:
    """Return what is wrong with the rows of a run store.

    Args:
        url: Of the store.
        times: Pipeline -> all of its times that must be decided, ascending, and no others are.
    """
    rows = defaultdict(list)
    for name, due_at, skipped_to, count in query(url, _ROWS):
        rows[name].append((read_time(due_at), read_time(skipped_to or due_at), count or 1))
    found = [f"{name}: decided, but has no times" for name in rows.keys() - times.keys()]
    for name, expected in times.items():
        told = [0] * len(expected)
        for first, last, count in rows[name]:
            start, end = bisect_left(expected, first), bisect_right(expected, last)
            if end - start != count:
                found.append(f"{name}: {first} to {last} are {end - start} times, not {count}")
            for place in range(start, end):
                told[place] += 1
        wrong = [(str(at), number) for at, number in zip(expected, told, strict=True) if number != 1]
        found += [f"{name}: {len(wrong)} times were not decided once: {wrong[:3]}"] if wrong else []
    return found


def read_time(value: str | datetime) -> datetime:
    """Return a time of a row as an aware one, also from SQLite's text."""
    at = datetime.fromisoformat(value) if isinstance(value, str) else value
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
